"""The directory of a sweep: what each file in it is called, and who may work on a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:
    raise ImportError(
        "sweeps and records lock their runs by fcntl, which this system does not have. On Windows use them in the "
        "Windows Subsystem for Linux; trainers and the panel need no locks."
    ) from None

SWEEP = "sweep.json"  # what was asked for
RUNS = "runs"  # a directory for each, named by its parameters; in it:

RUN = "run.json"  # parameters, versions, git revision, machine, wall time
METRICS = "metrics.jsonl"  # one line an iteration, appended while it runs
AGENTS = "agents.jsonl"  # one line for each (iteration, agent)
EVALUATIONS = "evaluations.jsonl"  # one line an evaluation
SUMMARY = "summary.json"  # what the notebook said at its end
CURVES = "curves.parquet"  # the metrics, once it is finished
REPORT, PAGE = "report.ipynb", "report.html"  # the executed notebook
CHECKPOINTS = "checkpoints"  # where it goes on after a kill, and the run as it was at its best evaluation
ATTEMPTS = "attempts.jsonl"  # when it was begun, where, and how that ended
OUTPUT = "output.log"  # what the kernel's process said outside of the notebook
CLAIM = "claim"  # locked by the process that works on it
FINISHED = "finished.json"  # written last: the run counts from here on
FAILED = "failed.json"  # it failed by itself, or was stopped for good


def run_directory(sweep: Path, name: str) -> Path:
    """Where a run lives."""
    return sweep / RUNS / name


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One writer of ``sweep.json`` at a time."""
    with open(directory / ".lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Claim:
    """The right to work on a run, held by every process that has its file open and locked.

    The lock belongs to the open file: a kernel that inherited it holds it too, and the system lets go of it when the
    last of its holders has ended, in whatever way. So a run whose kernel is still alive is never taken up.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, directory: Path) -> Claim | None:
        """The claim on a run, or None if another process has it."""
        descriptor = os.open(directory / CLAIM, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise OSError(
                error.errno,
                f"{str(directory)!r} is on a file system without locks ({error.strerror}), on which two workers could "
                "take the same run. Choose another directory.",
            ) from None
        return cls(descriptor)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


def is_claimed(directory: Path) -> bool:
    """Whether a process works on a run at this moment."""
    try:
        descriptor = os.open(directory / CLAIM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
