"""How far a sweep has come: as plain values, in words, and on a terminal."""

from __future__ import annotations

import math
import shutil
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from workbench.envs.workers import usable_cpus
from workbench.sweeps import layout
from workbench.sweeps.files import last_line
from workbench.sweeps.plan import PlannedRun
from workbench.sweeps.values import IDENTIFYING, Parameters, size_of

if TYPE_CHECKING:
    pass

ENOUGH = 0.02  # the share of a run that must be done before its pace says when it will end


@dataclass(frozen=True)
class RunProgress:
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
    elsewhere   runs that another process works on
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
    running: tuple[RunProgress, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    eta: float | None = None
    state: str = "running"
    workers: int = 0

    def counts(self) -> str:
        """In one line, such as "7 of 12 finished · 2 running · 1 failed · ETA 3 min"."""
        numbers = {"running": len(self.running)}
        numbers |= {word: getattr(self, word) for word in ("waiting", "elsewhere", "pruned", "failed")}
        parts = [f"{self.finished} of {self.total} finished"]
        parts += [f"{number} {word}" for word, number in numbers.items() if number]
        eta = "ETA not known yet" if self.eta is None else f"ETA {duration(self.eta)}"
        return " · ".join([*parts, eta if self.state == "running" else self.state])

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
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    days, rest = divmod(hours, 24)
    return f"{hours} h {minutes} min" if hours < 48 else f"{days} d {rest} h"


def run_progress(place: Path, run: PlannedRun, label: str, seconds: float) -> RunProgress:
    """A run under way, as the files in its directory tell it."""
    newest, evaluated = last_line(place / layout.METRICS), last_line(place / layout.EVALUATIONS)
    goal, done, share = run.parameters.get("env_steps"), newest.get("env_steps"), None
    if isinstance(goal, int | float) and isinstance(done, int | float) and goal > 0:
        share = min(1.0, done / goal)
    latest = evaluated.get("return", newest.get("return"))
    return RunProgress(
        name=run.name,
        label=label,
        share=share,
        latest=float(latest) if isinstance(latest, int | float) else None,
        seconds=seconds,
    )


def time_to_go(finished: Sequence[float], running: Sequence[RunProgress], waiting: int, workers: int) -> float | None:
    """Seconds until all are done: what is left of those under way, and the others at the pace of those known."""
    whole = {run.name: run.seconds / run.share for run in running if run.share is not None and run.share > ENOUGH}
    known = [seconds for seconds in (*finished, *([] if finished else whole.values())) if seconds > 0]
    if not known:
        return None
    each = statistics.mean(known)
    left = [max(0.0, whole.get(run.name, each) - run.seconds) for run in running]
    return max([*left, (sum(left) + waiting * each) / max(1, workers)])


def estimated(
    left: Sequence[PlannedRun], known: Iterable[tuple[Parameters, float | None]], workers: int | None
) -> float | None:
    """Seconds that planned runs take on so many workers, by the wall times of known ones; None where none is known.

    A run's pace, per env step, is the median of known runs of its method on its task, else of its task, else of all.
    """
    paces = [(given, seconds / size_of(given)) for given, seconds in known if seconds]
    if not left or not paces:
        return None if left else 0.0
    total = 0.0
    for run in left:
        alike: list[float] = []
        for names in (IDENTIFYING, IDENTIFYING[1:], ()):  # no names match all
            same = [pace for given, pace in paces if all(given.get(n) == run.parameters.get(n) for n in names)]
            alike = alike or same
        total += statistics.median(alike) * size_of(run.parameters)
    return total / min(workers or usable_cpus(), len(left))


class TerminalProgress:
    """Progress as a block on a terminal, kept up to date; in a log, a line for each run that ends."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._drawn = 0  # lines of the block that stands on the screen
        self._last: Progress | None = None

    def show(self, progress: Progress) -> None:
        """Bring what is shown up to date."""
        ends = ("finished", "failed", "pruned", "state")
        last, self._last = self._last, progress
        moved = last is None or any(getattr(progress, name) != getattr(last, name) for name in ends)
        if self._stream.isatty():
            self._redraw(progress)
        elif moved:
            print(progress.counts(), file=self._stream, flush=True)
            for label in sorted(progress.failures.keys() - (last.failures.keys() if last else set())):
                print(f"failed: {label}: {progress.failures[label]}", file=self._stream, flush=True)
        if progress.state in ("done", "cancelled"):
            self._drawn = 0

    def _redraw(self, progress: Progress) -> None:
        width = shutil.get_terminal_size().columns
        lines = [line[: width - 1] for line in str(progress).splitlines()]
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self._stream.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)
