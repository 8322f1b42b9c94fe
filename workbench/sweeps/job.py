"""What goes from a sweep to a worker, and what comes back: plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from workbench.sweeps.notebook import Notebook
from workbench.sweeps.plan import PlannedRun


@dataclass(frozen=True)
class Job:
    """What a worker is told of a run.

    directory  the sweep's, absolute
    kernel     the name of its kernel
    threads    that numerical libraries may use
    git        revision of the notebook's repository
    """

    directory: str
    run: PlannedRun
    notebook: Notebook
    kernel: str
    threads: int = 1
    git: Mapping[str, object] | None = None


@dataclass(frozen=True)
class RunOutcome:
    """How an attempt at a run ended.

    kind     "finished", "failed", "stopped" (as it was asked to; it can go on), "died" (its kernel did; it can go on),
             "elsewhere" (another process works on it), or "held" (it was not begun)
    message  why, in a sentence
    seconds  of wall time that the run has taken, all attempts together
    """

    name: str
    kind: str
    message: str = ""
    seconds: float = 0.0
    detail: Mapping[str, object] = field(default_factory=dict)
