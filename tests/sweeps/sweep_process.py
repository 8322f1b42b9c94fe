"""A sweep in a process of its own, to be killed: ``python sweep_process.py NOTEBOOK DIRECTORY RUNS``."""

from __future__ import annotations

import sys

import workbench as wb

FAILING = 5


def make_sweep(notebook, directory, runs):
    """As many runs as asked for, of which one fails by itself."""
    fails = [seed == FAILING for seed in range(runs)]
    return wb.Sweep(notebook, zip={"seed": range(runs), "fails": fails}, fixed={"pause": 0.2}, directory=directory)


def main(notebook, directory, runs):
    sweep = make_sweep(notebook, directory, int(runs)).run(workers=2)
    return 0 if sweep.finished else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
