"""What goes from a sweep to a worker, and what comes back: plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """What a worker is told of a run.

    directory    the sweep's, absolute
    name         the run's hash
    parameters   all of them
    notebook     as JSON without outputs
    notebook_name, notebook_digest, notebook_folder   what it is called, what it does, where its kernel starts
    kernel       name of its kernel
    threads      that numerical libraries may use
    git          revision of the notebook's repository
    """

    directory: str
    name: str
    parameters: Mapping[str, Any]
    notebook: str
    notebook_name: str
    notebook_digest: str
    notebook_folder: str
    kernel: str = "python3"
    threads: int = 1
    git: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    kind     "finished", "failed", "stopped" (as it was asked to; it can go on), "died" (its kernel did; it can go on),
             "elsewhere" (somebody else works on it), or "held" (it was not begun)
    message  why, in a sentence
    seconds  of wall time that the run has taken, all attempts together
    """

    name: str
    kind: str
    message: str = ""
    seconds: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)
