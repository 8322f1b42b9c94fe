"""The files of a sweep: what each is called, how it is written so that a kill leaves it whole, and who may write.

::

    DIRECTORY/
      sweep.json            what was asked for
      runs/HASH/            one run, named by its parameters
        run.json            parameters, versions, git revision, machine, wall time
        metrics.jsonl       one line an iteration, appended while it runs
        agents.jsonl        one line for each (iteration, agent)
        evaluations.jsonl   one line an evaluation
        summary.json        what the notebook said at its end
        curves.parquet      the metrics, once it is finished
        report.html, .ipynb the executed notebook
        checkpoints/        where it goes on after a kill, and the run as it was at its best evaluation
        attempts.jsonl      when it was begun, where, and how that ended
        claim               locked by whoever works on it
        finished.json       written last: the run counts from here on; failed.json: it failed by itself
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import socket
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RUNS = "runs"
SWEEP = "sweep.json"
RUN = "run.json"
METRICS = "metrics.jsonl"
AGENTS = "agents.jsonl"
EVALUATIONS = "evaluations.jsonl"
SUMMARY = "summary.json"
CURVES = "curves.parquet"
REPORT = "report.ipynb"
PAGE = "report.html"
CHECKPOINTS = "checkpoints"
ATTEMPTS = "attempts.jsonl"
CLAIM = "claim"
FINISHED = "finished.json"
FAILED = "failed.json"
OUTPUT = "output.log"  # what the kernel's process said outside of the notebook


def run_directory(sweep: Path, name: str) -> Path:
    """Where a run lives."""
    return sweep / RUNS / name


def strict(value: Any) -> Any:
    """A value as strict JSON has it: NaN and infinities as null, tuples as lists, NumPy's numbers as Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return value


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, and a kill leaves one of them."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """One object as JSON, whole or not at all."""
    write_whole(path, (json.dumps(strict(value), indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none, or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, one JSON object a line, in one write."""
    text = "".join(json.dumps(strict(row), ensure_ascii=False) + "\n" for row in rows)
    with open(path, "ab") as file:
        file.write(text.encode())


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file by rows, whole or not at all."""
    write_whole(path, "".join(json.dumps(strict(row), ensure_ascii=False) + "\n" for row in rows).encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that may be growing: a last line without its newline is still being written."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    rows = []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def last_line(path: Path, reach: int = 1 << 14) -> dict[str, Any] | None:
    """The newest row of a file, without reading all of it."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - reach))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                return row
    return None


class Claim:
    """The right to work on a run, held by whoever has its file open and locked.

    The lock belongs to the open file: a kernel that inherited it holds it too, and the system lets go of it when the
    last of its holders is gone, however that came about. So nobody takes up a run whose kernel is still alive.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, directory: Path) -> Claim | None:
        """The claim on a run, or None if somebody else has it."""
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
        holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let go of it. Safe to call twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_claimed(directory: Path) -> bool:
    """Whether somebody works on a run at this moment."""
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
