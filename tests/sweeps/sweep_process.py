"""A sweep in a process of its own, to be killed: ``python sweep_process.py NOTEBOOK DIRECTORY [SCHEDULER]``."""

from __future__ import annotations

import sys

import workbench as wb

SEEDS, FAILING = range(12), 5


def make_sweep(notebook, directory):
    fails = [seed == FAILING for seed in SEEDS]
    fixed = {"pause": 0.05}
    return wb.Sweep(notebook, zip={"seed": list(SEEDS), "fails": fails}, fixed=fixed, directory=directory)


def main(notebook, directory, scheduler=None):
    sweep = make_sweep(notebook, directory)
    where = {"workers": 2} if scheduler is None else {"scheduler": scheduler}
    sweep.run(**where)
    return 0 if sweep.finished else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
