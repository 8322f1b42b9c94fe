"""The standardised protocol for cooperative multi-agent learning, and how far a comparison meets it.

Source: Gorsane, Mahjoub, de Kock, Dubb, Singh and Pretorius, *Towards a Standardised Performance Evaluation Protocol
for Cooperative MARL*, NeurIPS 2022 (arXiv 2209.10485).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.envs.base import TeamEnv
from workbench.errors import path_of
from workbench.running.methods import load
from workbench.running.resume import BEST
from workbench.statistics.report import Report, counted, span
from workbench.statistics.selection import ABSOLUTE, Selection


@dataclass(frozen=True)
class Protocol:
    """How runs must be made and evaluated to be comparable.

    runs               independent runs of each method on each task
    episodes           of each evaluation; evaluations come at a fixed interval of environment steps
    absolute_episodes  on which the run's best policy is evaluated in the end: the absolute metric
    """

    name: str
    runs: int
    episodes: int
    absolute_episodes: int


COOPERATIVE = Protocol("standard protocol (arXiv 2209.10485)", runs=10, episodes=32, absolute_episodes=320)


@dataclass(frozen=True)
class Requirement:
    """One demand, what was found, and whether that is enough."""

    demand: str
    found: str
    met: bool


def requirements(selection: Selection, protocol: Protocol, keys: Sequence[tuple[str, str]]) -> tuple[Requirement, ...]:
    """How some groups and tasks of a selection, taken together, meet each demand of a protocol."""
    runs = [series for key in keys for series in selection.runs[key]]
    seeds = [len(selection.runs[key]) for key in keys]
    episodes = [n for series in runs for n in series.episodes or (0,)]
    absolute = [series.absolute_episodes for series in runs]
    intervals = {float(interval) for series in runs for interval in np.diff(series.steps)}
    without = sum(np.isnan(series.absolute) for series in runs)
    if without:
        best = f"no absolute metric in {'any' if without == len(runs) else without} of {counted(len(runs), 'run')}"
    else:
        best = f"absolute metric on {_of(absolute, protocol.absolute_episodes)} episodes"
    if selection.trained:
        found = "training episodes instead of evaluations"
    else:
        found = f"{_of(episodes, protocol.episodes)} episodes" if max(episodes) else "number of episodes unknown"
    enough = min(episodes) >= protocol.episodes and not selection.trained
    return (
        Requirement("runs", f"{_of(seeds, protocol.runs)} runs", min(seeds) >= protocol.runs),
        Requirement("interval", _interval_in_words(intervals), len(intervals) == 1),
        Requirement("episodes", found, enough),
        Requirement("absolute metric", best, not without and min(absolute) >= protocol.absolute_episodes),
    )


def in_short(selection: Selection, protocol: Protocol = COOPERATIVE) -> str:
    """One line: met, or what is wanting."""
    wanting = [each.found for each in requirements(selection, protocol, list(selection.runs)) if not each.met]
    return f"{protocol.name}: {'not met: ' + '; '.join(wanting) if wanting else 'met'}"


def protocol_report(selection: Selection, protocol: Protocol = COOPERATIVE) -> Report:
    """A row for each task and group: whether all is met, and for each demand what was found, ✓ if that is enough."""
    rows = []
    for task in selection.tasks:
        for group in selection.groups:
            if (group, task) in selection.runs:
                found = requirements(selection, protocol, [(group, task)])
                marks = {each.demand: f"{'✓' if each.met else '✗'} {each.found}" for each in found}
                met = all(each.met for each in found)
                rows.append({"task": task, selection.by: group, "met": met, **marks})
    return Report(pd.DataFrame(rows), (in_short(selection, protocol),))


def absolute_metric(
    directory: str | Path,
    env: TeamEnv | None = None,
    *,
    episodes: int = COOPERATIVE.absolute_episodes,
    seed: int = 1,
    order: object = None,
) -> dict[str, float]:
    """The absolute metric of a run: the return of its best policy, over many fresh episodes.

    ``directory`` is one that ``trainer.run(evaluate_every=…, directory=…)`` kept: the best policy there is the one with
    the highest mean return among the run's evaluations. Chosen for that return, which is therefore too high, it is
    evaluated anew, with another ``seed`` than evaluations have (0). ``env`` and ``order`` are as for ``wb.load``.
    Returns the columns that a table of runs takes up:
    ``absolute_return``, ``absolute_episodes``, and ``absolute_env_steps`` for when the policy was met.
    """
    path = path_of("directory", directory) / BEST
    if not path.exists():
        raise FileNotFoundError(
            f"{str(directory)!r} holds no best policy ({BEST}); it is kept where a run evaluates: "
            "trainer.run(env_steps=…, evaluate_every=5, evaluate_episodes=32, directory=…)."
        )
    best = load(path, env=env, order=order)
    returns = best.evaluate(episodes, seed=seed)
    return {
        ABSOLUTE + "return": float(returns.mean()),
        "absolute_episodes": episodes,
        "absolute_env_steps": best.env_steps,
    }


def _of(found: Sequence[int], expected: int) -> str:
    """How many there are of how many there must be.

    >>> _of([10, 3], 10), _of([12, 20], 10)
    ('3 to 10 of 10', '12 to 20')
    """
    return span(found) + (f" of {expected}" if min(found) < expected else "")


def _interval_in_words(intervals: Collection[float]) -> str:
    """The different distances in env steps between evaluations that follow one another."""
    if not intervals:
        return "one evaluation a run"
    ends = f"{min(intervals):,.0f}", f"{max(intervals):,.0f}"
    return f"evaluated every {ends[0] if len(intervals) == 1 else ' to '.join(ends)} env steps"
