"""``python -m workbench sweep`` and ``study``: without a notebook; the exit status tells whether all finished.

A sweep is written down in a file, whose keys are the arguments of ``wb.Sweep``, and of its ``run``: ``workers`` or
``scheduler``. Paths are relative to the file. ``docs/sweeps.md`` has an example.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from workbench.errors import WorkbenchError, path_of
from workbench.sweeps.batch import Batch
from workbench.sweeps.files import Json
from workbench.sweeps.spec import check_keys, parse
from workbench.sweeps.study import Study
from workbench.sweeps.sweep import Sweep

FINISHED, UNFINISHED, INTERRUPTED = 0, 1, 130
WHERE = ("workers", "scheduler")
NEEDED = ("notebook", "directory")


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
    return _run(planned, lambda: planned.run(**where, retry_failed=options.retry_failed))


def read_spec(path: str | Path) -> tuple[Sweep, Json]:
    """The sweep that a file describes, and where it is to run: {"workers": …} or {"scheduler": …}.

    Raises ``FileNotFoundError``, or ``ValueError`` for what it does not understand.
    """
    path = path_of("spec", path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} to read a sweep from.")
    given = parse(path)
    known = [name for name in inspect.signature(Sweep).parameters if name != "self"]
    check_keys(f"key of {path.name}", given, [*known, *WHERE])
    for name in NEEDED:
        if not isinstance(given.get(name), str):
            raise ValueError(f"{path.name} has no {name}, or not as text; expected a path relative to the file.")
    where = {name: given.pop(name) for name in WHERE if name in given}
    paths = {name: path.parent / given.pop(name) for name in NEEDED}
    return Sweep(paths["notebook"], directory=paths["directory"], **given), where


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``study`` takes."""
    parser.add_argument("directory", help="with a spec.yaml; runs that have finished are kept in it: data/results")
    parser.add_argument("--only", action="append", default=[], metavar="NAME=VALUE[,VALUE]", help="a part; repeatable")
    parser.add_argument("--plan", action="store_true", help="only say what is missing, and how long it will take")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each (default: 2)")
    parser.add_argument("--hours", type=float, help="begin no further run after so many")
    parser.add_argument("--again", action="store_true", help="do runs that are kept once more, and compare")
    parser.add_argument("--retry-failed", action="store_true", help="try again what has failed by itself")


def study(options: argparse.Namespace) -> int:
    """Do what a study lacks, or do it again; returns the exit status."""
    planned = Study(options.directory, again=options.again)
    if only := dict(map(_choice, options.only)):
        planned = planned.pick(**only)
    complaints = planned.complaints()
    for complaint in complaints:
        print(f"error: {complaint}", file=sys.stderr)
    print(planned.told(options.workers), flush=True)
    if complaints:
        return UNFINISHED
    if options.plan:
        return FINISHED
    status = _run(planned, lambda: planned.run(options.workers, hours=options.hours, retry_failed=options.retry_failed))
    for label, told in planned.repeated.items():
        print(f"{label}: {told}")
    if not options.again:
        print(planned.told(options.workers))
    return status


def _choice(text: str) -> tuple[str, list[object]]:
    """``NAME=VALUE[,VALUE]``, the values as YAML has them."""
    name, equals, several = text.partition("=")
    if not equals:
        raise ValueError(f"--only {text!r}: expected NAME=VALUE, such as --only method=happo,hatrpo --only seed=0")
    return name, [yaml.safe_load(value) for value in several.split(",")]


def _run(batch: Batch, work: Callable[[], object]) -> int:
    """Do the work of a batch; returns the exit status."""
    try:
        with _terminable():
            work()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNFINISHED
    print(batch.progress.counts())
    for label, message in batch.failures.items():
        print(f"failed: {label}: {message}")
    return FINISHED if batch.finished else UNFINISHED


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """A termination signal is an interrupt here."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
