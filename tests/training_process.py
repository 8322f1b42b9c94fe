"""A training run in a process of its own, for tests that kill it: ``training_process.py DIRECTORY ITERATIONS RUN``."""

from __future__ import annotations

import sys

import torch
from point_team import PointTeam

import workbench as wb

SMALL = {"n_steps": 8, "hidden_sizes": (16,)}
RUNS = {
    "points": lambda: wb.happo(PointTeam(), seed=0, **SMALL),
    "game": lambda: wb.hatrpo(wb.envs.tabular(wb.theory.random_game(3, 4), n_envs=4), seed=0, **SMALL),
    "ant": lambda: wb.happo(
        wb.envs.mujoco("Ant", "4x2", n_envs=2, n_threads=1), seed=0, recurrent=True, sequence_length=4, **SMALL
    ),
}


def train(directory, iterations, run="points"):
    torch.set_num_threads(1)
    return RUNS[run]().run(iterations=iterations, directory=directory, save_every=1, progress=False, evaluate_every=50)


if __name__ == "__main__":
    print("started", flush=True)
    print(train(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]).fingerprint(), flush=True)
