"""Final returns of every method on three tasks, three seeds each: the table, and the data behind it.

    python tests/returns_table.py DIRECTORY                      all of it: hours on two cores, resumed if interrupted
    python tests/returns_table.py DIRECTORY --methods happo ippo --tasks "HalfCheetah 2x3" --env-steps 300000

Each run starts from the settings that HAPPO's or HATRPO's authors tuned for the task; the other methods take HAPPO's,
as far as they have them. A return is the mean of 32 whole episodes with the likeliest actions, after the last
iteration. The unit of an interval is the seed: mean ± t·s/√n at 95 %. ``DIRECTORY/returns.csv`` has one row for each
run.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

import workbench as wb
from workbench.envs.base import TeamEnv
from workbench.recipes import METHODS, make_trainer

EPISODES = 32
SPREAD = {"n_steps": 100, "hidden_sizes": (64, 64), "gamma": 0.95}


@dataclass(frozen=True)
class Task:
    """An environment, its budget, and HAPPO's and HATRPO's settings for it."""

    make: Callable[[], TeamEnv]
    env_steps: int
    happo: dict[str, Any]
    hatrpo: dict[str, Any]


def _spread() -> Any:
    from mpe2 import simple_spread_v3

    return simple_spread_v3.parallel_env(N=3, max_cycles=25, local_ratio=0.0)


def _robot(name: str) -> Task:
    scenario, agent_conf = name.split()
    return Task(
        make=lambda: wb.envs.mujoco(scenario, agent_conf, n_envs=20),
        env_steps=1_000_000,
        happo=wb.reference_settings("happo", name),
        hatrpo=wb.reference_settings("hatrpo", name),
    )


TASKS = {
    "simple_spread": Task(
        make=lambda: wb.envs.pettingzoo(_spread, n_envs=20),
        env_steps=400_000,
        happo={**SPREAD, "lr": 7e-4, "critic_lr": 7e-4, "epochs": 10, "entropy_coef": 0.01},
        hatrpo={**SPREAD, "max_kl": 0.01},
    ),
    "HalfCheetah 2x3": _robot("HalfCheetah 2x3"),
    "Walker2d 2x3": _robot("Walker2d 2x3"),
}


def settings_for(method: str, task: Task) -> dict[str, Any]:
    """HATRPO's settings, or as many of HAPPO's as the method has."""
    chosen = task.hatrpo if method == "hatrpo" else task.happo
    return {name: value for name, value in chosen.items() if name in METHODS[method].settings.names()}


def run(method: str, name: str, seed: int, directory: Path, env_steps: int | None) -> dict[str, Any]:
    """One seed, from wherever it was left: its return untrained and at the end."""
    task = TASKS[name]
    trainer = make_trainer(method, task.make(), seed, settings_for(method, task))
    untrained = trainer.evaluate(EPISODES).mean()
    place = directory / name.replace(" ", "_") / method / f"seed-{seed}"
    trainer.run(env_steps=env_steps or task.env_steps, directory=place, progress=False)
    row = {
        "task": name,
        "method": method,
        "seed": seed,
        "env_steps": trainer.env_steps,
        "untrained": float(untrained),
        "return": float(trainer.evaluate(EPISODES).mean()),
    }
    trainer.history.to_csv(place / "history.csv", index=False)
    trainer.env.close()
    return row


def interval(values: pd.Series) -> str:
    """Mean ± half of the 95 % interval of the mean over seeds."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std() / math.sqrt(n) if n > 1 else math.nan
    return f"{values.mean():.1f} ± {half:.1f}"


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Methods × tasks, and the untrained policies' returns as the first row."""
    shown = rows.pivot_table(index="method", columns="task", values="return", aggfunc=interval, sort=False)
    untrained = rows.pivot_table(columns="task", values="untrained", aggfunc=interval, sort=False)
    untrained.index = pd.Index(["untrained"])
    return pd.concat([untrained, shown])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Final returns of every method, with intervals over seeds.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--env-steps", type=int, help="of each seed, in place of the task's own budget")
    chosen = parser.parse_args(arguments)
    chosen.directory.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in chosen.tasks:
        for method in chosen.methods:
            for seed in chosen.seeds:
                rows.append(run(method, name, seed, chosen.directory, chosen.env_steps))
                print("{task:<16} {method:<11} seed {seed}: {return:10.2f}".format(**rows[-1]), flush=True)
                pd.DataFrame(rows).to_csv(chosen.directory / "returns.csv", index=False)
    print("\n" + table(pd.DataFrame(rows)).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())
