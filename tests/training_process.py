"""A training run in a process of its own, for tests that kill it: ``python training_process.py DIRECTORY N``."""

from __future__ import annotations

import sys

import torch
from point_team import PointTeam

import workbench as wb


def train(directory, iterations):
    torch.set_num_threads(1)
    trainer = wb.happo(PointTeam(), seed=0, n_steps=8, hidden_sizes=(16,))
    return trainer.run(iterations=iterations, directory=directory, save_every=1, progress=False)


if __name__ == "__main__":
    print("started", flush=True)
    print(train(sys.argv[1], int(sys.argv[2])).fingerprint(), flush=True)
