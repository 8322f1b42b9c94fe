"""Fixed constants that make the scores of different tasks comparable: (x − low) / (high − low).

The constants are given, or published ones; they are never taken from the data at hand, since then every method that is
added would move all the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from workbench.errors import unknown_name

Constants = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Normalisation:
    """score = (x − low)/(high − low), with constants for each task.

    constants  {task: (low, high)}; a task that has none of its own takes its first word's, so that "Ant" holds for
               every partition of the robot ("Ant 4x2")
    source     where they are from, in words
    """

    constants: Constants
    source: str

    def of(self, task: str) -> tuple[float, float]:
        """Low and high of a task. Raises ``ValueError`` where there are none."""
        for name in (task, task.partition(" ")[0]):
            if name in self.constants:
                return self.constants[name]
        remedy = f"Give them: normalise={{{task!r}: (low, high)}}; from other runs or a source, never from these runs."
        raise unknown_name("task with constants", task, self.constants, remedy)


def published(name: str) -> Normalisation:
    """Published constants by name.

    >>> published("d4rl").of("HalfCheetah 2x3")
    (-280.178953, 12135.0)
    """
    held = _published()
    if name not in held:
        raise unknown_name("set of published constants", name, held)
    return held[name]


def normalisation(given: str | Mapping[str, Sequence[float]] | Normalisation) -> Normalisation:
    """What ``normalise=`` may be: the name of published constants, or {task: (low, high)}."""
    if isinstance(given, Normalisation):
        return given
    if not isinstance(given, str | Mapping):
        raise TypeError(f"normalise is {given!r}; expected {{task: (low, high)}}, or a name, such as 'd4rl'.")
    return published(given) if isinstance(given, str) else _normalisation(given, "constants given by the caller")


@cache
def _published() -> dict[str, Normalisation]:
    text = files("workbench.statistics").joinpath("published.json").read_text(encoding="utf-8")
    return {name: _normalisation(told["scores"], told["source"]) for name, told in json.loads(text).items()}


def _normalisation(scores: Mapping[str, Sequence[float]], source: str) -> Normalisation:
    constants = {}
    for task, ends in scores.items():
        low, high = (float(end) for end in ends) if len(ends) == 2 else (math.nan, math.nan)
        if not (math.isfinite(low) and math.isfinite(high) and low != high):
            raise ValueError(f"the constants of {task!r} are {ends!r}; expected two different numbers: (low, high).")
        constants[task] = (low, high)
    return Normalisation(constants, source)
