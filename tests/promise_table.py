"""What the sequential update promises and what it keeps.

    python tests/promise_table.py DIRECTORY                          all of it; goes on where it was interrupted
    python tests/promise_table.py DIRECTORY --methods HAPPO --seeds 0 --iterations 10

Four methods on tabular games, exactly, and on Walker2d 3x2, by fresh episodes: every tenth iteration is taken apart by
``wb.improvement``. ``DIRECTORY/promise.csv`` has its tables, one below the other.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import pandas as pd

import workbench as wb

METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "HAPPO": (wb.happo, {}),
    "HATRPO": (wb.hatrpo, {}),
    "MAPPO": (wb.mappo, {}),
    "simultaneous HATRPO": (wb.hatrpo, {"preceding_correction": None}),
}
SEEDS, ITERATIONS = (0, 1, 2), 50
WALKER, GAME = "Walker2d 3x2", "random game"
N_ENVS, N_STEPS = 16, 64
EVERY, EPISODES = 10, 32  # how often an iteration is taken apart; of Walker2d, by how many episodes a policy
KEYS = ["task", "method", "seed"]


def made(task: str, method: str, seed: int) -> tuple[Any, int, int]:
    """A trainer, how often it is looked at, and by how many episodes."""
    recipe, settings = METHODS[method]
    if task == WALKER:
        env = wb.envs.mujoco("Walker2d", "3x2", n_envs=N_ENVS, n_threads=1)
        return recipe(env, seed=seed, n_steps=N_STEPS, threads=1, **settings), EVERY, EPISODES
    game = wb.theory.random_game(n_agents=3, n_states=4, n_actions=3, discount=0.5, seed=seed)
    env = wb.envs.tabular(game, n_envs=16, max_episode_steps=20)
    shape = {"n_steps": 32, "hidden_sizes": (16,), "gamma": game.discount, "lr_decay_steps": None}
    return recipe(env, seed=seed, threads=1, **shape, **settings), EVERY, 2  # J is exact: episodes tell nothing more


def run(task: str, method: str, seed: int, iterations: int) -> pd.DataFrame:
    """The improvements of one run, one below the other."""
    trainer, every, episodes = made(task, method, seed)
    found: list[pd.DataFrame] = []

    def measure(trainer: Any) -> None:
        if trainer.iteration % every == 0:
            found.append(wb.improvement(trainer, episodes).table)

    trainer.run(iterations, progress=False, after_iteration=measure)
    table = pd.concat(found, ignore_index=True)
    table = table.assign(task=task, method=method, seed=seed)
    if task == GAME:  # two episodes a policy are no measurement
        table = table.drop(columns=[name for name in table if name.startswith(("J", "gain"))])
    return table[[*KEYS, *(name for name in table if name not in KEYS)]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--tasks", nargs="+", default=[GAME, WALKER], choices=[GAME, WALKER])
    arguments.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    arguments.add_argument("--iterations", type=int, default=ITERATIONS)
    asked = arguments.parse_args()
    path = asked.directory / "promise.csv"
    asked.directory.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=KEYS)
    for task, seed, method in itertools.product(asked.tasks, asked.seeds, asked.methods):
        if not rows[(rows["task"] == task) & (rows["method"] == method) & (rows["seed"] == seed)].empty:
            continue
        fresh = run(task, method, seed, asked.iterations)
        rows = fresh if rows.empty else pd.concat([rows, fresh], ignore_index=True)
        rows.to_csv(path, index=False, float_format="%.6g")
        print(f"{task} · {method} · seed {seed}", flush=True)


if __name__ == "__main__":
    main()
