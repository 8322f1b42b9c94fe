"""Final returns of every method on three tasks, three seeds each: the tables, and the data behind them.

    python tests/returns_table.py DIRECTORY --jobs 2             all of it: hours on two cores; resumed if interrupted
    python tests/returns_table.py DIRECTORY --methods happo ippo --tasks "HalfCheetah 2x3" --env-steps 300000
    python tests/returns_table.py DIRECTORY --only-tables        from what has been run so far

HAPPO, HATRPO, MAPPO and HAA2C have the settings that their authors tuned for the task; IPPO and shared-policy PPO have
MAPPO's, which are HAPPO's, and on simple_spread all but HATRPO have HAPPO's as far as they have them. A return is the
mean of 32 whole episodes with the likeliest actions, after the last iteration. The unit of an interval is the seed:
mean ± t·s/√n at 95 %, and Welch's for differences of methods.

``DIRECTORY/returns.csv`` has one row for each run, ``DIRECTORY/returns.md`` the tables and the command.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import math
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats

import workbench as wb
from workbench.envs.base import TeamEnv
from workbench.running.methods import METHODS, make_trainer

EPISODES = 32
LAST = 10  # iterations whose return in training is told
N_ENVS = 20
SPREAD = {"n_steps": 100, "hidden_sizes": (64, 64), "gamma": 0.95}
KEYS = ["task", "method", "seed"]


@dataclass(frozen=True)
class Task:
    """An environment, its budget, and settings for it: HAPPO's, and those of methods that have their own."""

    make: Callable[[], TeamEnv]
    env_steps: int
    happo: dict[str, Any]
    own: dict[str, dict[str, Any]]


def _spread() -> Any:
    from mpe2 import simple_spread_v3

    return simple_spread_v3.parallel_env(N=3, max_cycles=25, local_ratio=0.0)


def _robot(name: str) -> Task:
    scenario, agent_conf = name.split()
    return Task(
        make=lambda: wb.envs.mujoco(scenario, agent_conf, n_envs=N_ENVS, n_threads=torch.get_num_threads()),
        env_steps=600_000,
        happo=wb.reference_settings("happo", name),
        own={method: wb.reference_settings(method, name) for method in ("hatrpo", "haa2c")},
    )


TASKS = {
    "simple_spread": Task(
        make=lambda: wb.envs.pettingzoo(_spread, n_envs=N_ENVS),
        env_steps=300_000,
        happo={**SPREAD, "lr": 7e-4, "critic_lr": 7e-4, "epochs": 10, "entropy_coef": 0.01},
        own={"hatrpo": {**SPREAD, "max_kl": 0.01}},
    ),
    "HalfCheetah 2x3": _robot("HalfCheetah 2x3"),
    "Walker2d 2x3": _robot("Walker2d 2x3"),
}


def settings_for(method: str, task: Task) -> dict[str, Any]:
    """The method's own settings, or as many of HAPPO's as it has."""
    chosen = task.own.get(method, task.happo)
    return {name: value for name, value in chosen.items() if name in METHODS[method].settings.names()}


def budget(name: str, env_steps: int | None) -> int:
    """Env steps of a run: whole iterations, as ``trainer.run`` does them."""
    per_iteration = N_ENVS * TASKS[name].happo["n_steps"]
    return math.ceil((env_steps or TASKS[name].env_steps) / per_iteration) * per_iteration


def run(method: str, name: str, seed: int, directory: Path, env_steps: int) -> dict[str, Any]:
    """One seed, from wherever it was left: its return untrained and at the end."""
    task = TASKS[name]
    trainer = make_trainer(method, task.make(), seed, settings_for(method, task))
    untrained = trainer.evaluate(EPISODES).mean()
    place = directory / name.replace(" ", "_") / method / f"seed-{seed}"
    trainer.run(env_steps=env_steps, directory=place, progress=False)
    row = {
        "task": name,
        "method": method,
        "seed": seed,
        "env_steps": trainer.env_steps,
        "untrained": float(untrained),
        "return": float(trainer.evaluate(EPISODES).mean()),
        "training": float(trainer.history["return"].dropna().tail(LAST).mean()),
        "effective": effective(trainer.agent_history),
    }
    trainer.history.to_csv(place / "history.csv", index=False)
    trainer.env.close()
    return row


def effective(agent_history: pd.DataFrame) -> float:
    """Mean effective sample size of the preceding ratio, over all updates but each iteration's first."""
    return float(agent_history.query("position > 0")["effective_sample_size"].mean())


def _threads(n: int) -> None:
    torch.set_num_threads(n)


def run_all(todo: list[tuple[str, str, int, Path, int]], jobs: int, done: Callable[[dict[str, Any]], None]) -> int:
    """Every run that is left, ``jobs`` at a time with their share of the cores; how many of them failed.

    ``done`` hears of each as it ends. A failure, such as a loss that is no number any more, is told and ends no other.
    """
    failed = 0
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context, _threads, (share,)) as pool:
        asked = {pool.submit(run, *each): each for each in todo}
        for finished in concurrent.futures.as_completed(asked):
            try:
                done(finished.result())
            except Exception as error:
                failed += 1
                method, name, seed, *_ = asked[finished]
                print(f"FAILED {name} {method} seed {seed}: {error!r}", flush=True)
    return failed


def longest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each (task, method, seed) the row of most env steps; tasks and methods in their own order."""
    best = rows.sort_values("env_steps").drop_duplicates(KEYS, keep="last")
    ranks = {name: place for place, name in enumerate([*TASKS, *METHODS])}
    return best.sort_values(KEYS, key=lambda column: column if column.name == "seed" else column.map(ranks))


def interval(values: pd.Series) -> str:
    """Mean ± half of the 95 % interval of the mean over seeds."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std() / math.sqrt(n) if n > 1 else math.nan
    return f"{values.mean():.1f} ± {half:.1f}"


def percent(values: pd.Series) -> str:
    """Mean in percent; nothing where there is no such thing."""
    return "" if values.isna().all() else f"{100 * values.mean():.1f} %"


def difference(one: pd.Series, other: pd.Series) -> str:
    """Mean of ``one`` minus mean of ``other``, with Welch's 95 % interval: seeds of two methods are no pairs."""
    if min(len(one), len(other)) < 2:
        return f"{one.mean() - other.mean():.1f} ± nan"
    found = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    return f"{one.mean() - other.mean():.1f} ± {(found.high - found.low) / 2:.1f}"


def by_method(rows: pd.DataFrame, column: str, tell: Callable[[pd.Series], str] = interval) -> pd.DataFrame:
    """Methods × tasks."""
    return rows.pivot_table(index="method", columns="task", values=column, aggfunc=tell, sort=False)


def returns(rows: pd.DataFrame) -> pd.DataFrame:
    """Methods × tasks, and the untrained policies' returns as the first row."""
    # The methods' untrained policies are much the same ones, seed by seed: a seed counts once.
    beginnings = rows.groupby(["task", "seed"], sort=False, as_index=False)["untrained"].mean()
    untrained = beginnings.pivot_table(columns="task", values="untrained", aggfunc=interval, sort=False)
    untrained.index = pd.Index(["untrained"])
    return pd.concat([untrained, by_method(rows, "return")])


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """What HAPPO and HATRPO end above untrained policies, and above IPPO, task by task."""
    table: dict[str, dict[str, str]] = {}
    for task, here in rows.groupby("task", sort=False):
        by = {method: each["return"] for method, each in here.groupby("method")}
        untrained = {method: each["untrained"] for method, each in here.groupby("method")}
        for method in [method for method in ("happo", "hatrpo") if method in by]:
            table.setdefault(f"{method} − untrained", {})[str(task)] = difference(by[method], untrained[method])
            if "ippo" in by:
                table.setdefault(f"{method} − ippo", {})[str(task)] = difference(by[method], by["ippo"])
    return pd.DataFrame.from_dict(table, orient="index")


def markdown(table: pd.DataFrame, corner: str) -> str:
    """A table as Markdown has it."""
    head = [corner, *map(str, table.columns)]
    lines = [head, ["---", *["---:"] * len(table.columns)]]
    lines += [[str(name), *("" if pd.isna(cell) else str(cell) for cell in row)] for name, *row in table.itertuples()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(rows: pd.DataFrame, command: str) -> str:
    """Both tables, how they were made, and by which command."""
    seeds = sorted(set(rows.groupby(["task", "method"])["seed"].nunique()))
    budgets = ", ".join(
        f"{task} {'/'.join(f'{n:,}' for n in sorted(set(steps)))}" for task, steps in rows.groupby("task")["env_steps"]
    )
    return "\n\n".join(
        (
            f"Return after training, mean ± half of the 95 % interval over {' to '.join(map(str, seeds))} seeds; a "
            f"seed's return is the mean of {EPISODES} episodes with the likeliest actions. Env steps: {budgets}.",
            markdown(returns(rows), "method"),
            markdown(differences(rows), "difference"),
            f"In training, where actions are sampled, over the last {LAST} iterations:",
            markdown(by_method(rows, "training"), "method"),
            "Effective sample size of the preceding ratio, of agents that are not first, mean over training and seeds:",
            markdown(by_method(rows, "effective", percent), "method"),
            f"```sh\n{command}\n```",
        )
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Final returns of every method, with intervals over seeds.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--env-steps", type=int, help="of each seed, in place of the task's own budget")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each with its share of the cores")
    parser.add_argument("--only-tables", action="store_true", help="train nothing; tell what has been run so far")
    chosen = parser.parse_args(arguments)
    chosen.directory.mkdir(parents=True, exist_ok=True)
    table = chosen.directory / "returns.csv"
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    asked = [
        (method, name, seed, chosen.directory, budget(name, chosen.env_steps))
        for seed in chosen.seeds  # seed by seed, so that an interrupted table has all methods
        for name in chosen.tasks
        for method in chosen.methods
    ]

    def reached(method: str, name: str, seed: int) -> int:
        return max((row["env_steps"] for row in rows if [row[key] for key in KEYS] == [name, method, seed]), default=0)

    def done(row: dict[str, Any]) -> None:
        rows.append(row)
        print("{task:<16} {method:<11} seed {seed}: {return:10.2f}".format(**row), flush=True)
        pd.DataFrame(rows).to_csv(table, index=False)

    failed = 0
    if not chosen.only_tables:
        failed = run_all([each for each in asked if reached(*each[:3]) < each[4]], chosen.jobs, done)
    if not rows:
        parser.error(f"nothing has been run yet in {str(chosen.directory)!r}; leave out --only-tables.")
    given = [part for part in (arguments or sys.argv[1:])[1:] if part != "--only-tables"]
    words = " ".join(f'"{part}"' if " " in part else part for part in given)
    text = report(longest(pd.DataFrame(rows)), f"python tests/returns_table.py DIRECTORY {words}".rstrip())
    (chosen.directory / "returns.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
