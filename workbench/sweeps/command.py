"""``python -m workbench sweep``: a sweep without a notebook; the exit status tells whether all finished."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from workbench.errors import WorkbenchError
from workbench.sweeps.spec import read_spec

FINISHED, UNFINISHED, INTERRUPTED = 0, 1, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("spec", help="a .yaml or .toml file: notebook, directory, grid, seeds, … as wb.Sweep has them")
    parser.add_argument("--plan", action="store_true", help="only say what would be run, and what it would cost")
    parser.add_argument("--workers", type=int, help="runs at a time on this machine (default: one a core)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, such as tcp://host:8786")
    parser.add_argument("--retry-failed", action="store_true", help="try again what has failed by itself")


def sweep(options: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    planned, where = read_spec(options.spec)
    if options.workers is not None or options.scheduler is not None:
        where = {"workers": options.workers, "scheduler": options.scheduler}
    print(planned)
    if options.plan:
        return FINISHED
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        planned.run(**where, retry_failed=options.retry_failed)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNFINISHED
    finally:
        signal.signal(signal.SIGTERM, before)
    print(planned.progress.counts())
    for label, message in planned.failures.items():
        print(f"failed: {label}: {message}")
    return FINISHED if planned.finished else UNFINISHED


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
