"""How far a sweep has come, as plain values and as words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.sweeps import layout
from workbench.sweeps.plan import Run

ENOUGH = 0.02  # the share of a run that must be done before its pace says when it will end


@dataclass(frozen=True)
class Under:
    """A run that is under way.

    label        in the words of what is swept
    share        of its env steps done, where it says how many it does
    latest       its newest return, evaluated where possible
    seconds      since it was begun or taken up
    """

    name: str
    label: str
    share: float | None = None
    latest: float | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        share = f" {self.share:.0%}" if self.share is not None else ""
        latest = f" · return {self.latest:.4g}" if self.latest is not None else ""
        return f"{self.label or self.name}{share}{latest}"


@dataclass(frozen=True)
class Progress:
    """A sweep at one moment.

    total, finished, failed, pruned, waiting   numbers of runs
    elsewhere   runs that somebody else works on
    running     those under way here
    failures    {label: message} of the failed
    seconds     since this was begun
    eta         seconds to go, as far as can be told
    state       "running", "paused", "cancelling", "done" or "cancelled"
    workers     how many runs go on at a time
    """

    total: int = 0
    finished: int = 0
    failed: int = 0
    pruned: int = 0
    waiting: int = 0
    elsewhere: int = 0
    running: tuple[Under, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    eta: float | None = None
    state: str = "running"
    workers: int = 0

    def counts(self) -> str:
        """In one line, such as "7 of 12 finished · 2 running · 1 failed · ETA 3 min"."""
        parts = [f"{self.finished} of {self.total} finished"]
        for number, word in (
            (len(self.running), "running"),
            (self.waiting, "waiting"),
            (self.elsewhere, "elsewhere"),
            (self.pruned, "pruned"),
            (self.failed, "failed"),
        ):
            if number:
                parts.append(f"{number} {word}")
        if self.state == "running":
            parts.append(f"ETA {duration(self.eta)}" if self.eta is not None else "ETA not known yet")
        else:
            parts.append(self.state)
        return " · ".join(parts)

    def __str__(self) -> str:
        lines = [self.counts(), *(f"  {run}" for run in self.running)]
        lines += [f"  failed: {label}: {message}" for label, message in self.failures.items()]
        return "\n".join(lines)


def duration(seconds: float | None) -> str:
    """A time in words.

    >>> [duration(s) for s in (None, 8.2, 200, 4000, 200000)]
    ['unknown', '8 s', '3 min', '1 h 7 min', '2 d 7 h']
    """
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def look(directory: Path, run: Run, label: str, seconds: float) -> Under:
    """A run under way, as its files tell it."""
    place = layout.run_directory(directory, run.name)
    newest = layout.last_line(place / layout.METRICS) or {}
    evaluated = layout.last_line(place / layout.EVALUATIONS) or {}
    goal, done = run.parameters.get("env_steps"), newest.get("env_steps")
    share = None
    if isinstance(goal, int | float) and isinstance(done, int | float) and goal > 0:
        share = min(1.0, done / goal)
    latest = evaluated.get("return", newest.get("return"))
    return Under(run.name, label, share, float(latest) if isinstance(latest, int | float) else None, seconds)


def time_to_go(finished: Sequence[float], running: Sequence[Under], waiting: int, workers: int) -> float | None:
    """Seconds until all are done: what is left of those under way, and the others at the pace of those known."""
    paces = [
        run.seconds / run.share for run in running if run.share is not None and run.share > ENOUGH and run.seconds > 0
    ]
    known = list(finished) or paces
    if not known:
        return None
    each = statistics.mean(known)
    left = [
        run.seconds * (1 / run.share - 1)
        if run.share is not None and run.share > ENOUGH
        else max(0.0, each - run.seconds)
        for run in running
    ]
    return max([*left, (sum(left) + waiting * each) / max(1, workers)])
