"""A recorded run in a process of its own, for tests that kill it: ``python recording_process.py DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the team of points, as pytest would

from point_team import PointTeam

import workbench as wb

STEPS, EVERY = 960, 100


def record_points(directory, **changes):
    torch.set_num_threads(1)
    trainer = wb.happo(PointTeam(), seed=0, n_steps=8, hidden_sizes=(16,))
    given = {"evaluate_every": EVERY, "evaluate_episodes": 8, "absolute_episodes": 20, **changes}
    return wb.record(trainer, directory, env_steps=STEPS, save_every=1, progress=False, **given)


if __name__ == "__main__":
    print("started", flush=True)
    record_points(sys.argv[1])
