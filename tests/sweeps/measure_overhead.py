"""What a sweep costs beyond its runs: twelve runs that train for ten seconds each, on two workers.

    python tests/sweeps/measure_overhead.py [--runs 12] [--seconds 10] [--workers 2]

Every run imports torch and the workbench, then trains a HalfCheetah until its seconds are over; the ideal is runs ×
seconds / workers. Measured from the call of ``run()`` to its return: the cluster's start and end, the kernels', reports
and all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tiny_notebook import write_notebook

import workbench as wb

PARAMETERS = "seed: int = 0\nseconds: float = 10.0\ndirectory: str | None = None\n"
TRAINS = """\
import json, pathlib, time
import torch
import workbench as wb

begun = time.monotonic()
trainer = wb.happo(wb.envs.mujoco("HalfCheetah", "2x3", n_envs=4), seed=seed, n_steps=50, hidden_sizes=(32, 32))
while time.monotonic() - begun < seconds:
    trainer.step()
(pathlib.Path(directory) / "summary.json").write_text(json.dumps({"trained": time.monotonic() - begun}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Overhead of a sweep.")
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        notebook = write_notebook(Path(place) / "trains.ipynb", TRAINS, parameters=PARAMETERS)
        sweep = wb.Sweep(
            notebook, seeds=range(chosen.runs), fixed={"seconds": chosen.seconds}, directory=Path(place) / "sweep"
        )
        begun = time.perf_counter()
        sweep.run(workers=chosen.workers, progress=False)
        took = time.perf_counter() - begun
        assert sweep.finished, sweep.failures
        walls = [run.record["wall_seconds"] for run in sweep.runs]
    ideal = chosen.runs * chosen.seconds / chosen.workers
    print(f"{chosen.runs} runs of {chosen.seconds:g} s on {chosen.workers} workers: {took:.1f} s, ideal {ideal:.1f} s")
    print(f"{took / ideal:.3f} × the ideal; a run took {min(walls):.1f} to {max(walls):.1f} s")


if __name__ == "__main__":
    main()
