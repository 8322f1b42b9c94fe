"""The states that ``rewind`` can go back to, bounded in number and in memory.

A snapshot costs what changed: states share everything that did not, so that one phase adds an agent's new parameters,
or a rollout, and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from workbench.history import Log
from workbench.state import State

ITERATIONS = 10
MEGABYTES = 512.0


class Past:
    """The last states of a run, the oldest first.

    iterations   how many iterations back it reaches, as far as ``megabytes`` allows
    megabytes    the most memory (2²⁰ bytes) that states kept here, and not in use by the run itself, may hold
    """

    def __init__(self, n_units: int, iterations: int = ITERATIONS, megabytes: float = MEGABYTES) -> None:
        self.n_units, self.iterations, self.megabytes = n_units, iterations, megabytes
        self._states: deque[State] = deque()
        self._added: deque[dict[int, int]] = deque()  # {id: bytes} of the arrays that no earlier state here has

    def append(self, state: State) -> None:
        """Keep one more; the oldest go when a bound is passed."""
        arrays = _arrays(state)
        known = set().union(*self._added) if self._added else set[int]()
        self._states.append(state)
        self._added.append({key: size for key, size in arrays.items() if key not in known})
        self._keep_within_bounds()

    def _keep_within_bounds(self) -> None:
        most = self.iterations * (self.n_units + 3)
        while self._states and (len(self) > most or self.bytes > self.megabytes * 2**20):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._states.popleft()
        orphans = self._added.popleft()
        if self._states:  # what the next one still uses is charged to it from now on
            used = _arrays(self._states[0])
            self._added[0] |= {key: size for key, size in orphans.items() if key in used}

    def back(self, phases: int) -> State:
        """The state so many phases ago."""
        if phases < 1:
            raise ValueError(f"phases is {phases!r}; expected an integer ≥ 1.")
        if phases > len(self):
            raise ValueError(f"cannot go back {phases} phases: {len(self)} are kept (past.limit(…) keeps more).")
        return self._states[-phases]

    def beginning_of(self, iteration: int, current: State) -> State:
        """The state before an iteration's first phase, which may be the current one."""
        for state in (current, *reversed(self._states)):
            if state.iteration == iteration and state.phase == "collect":
                return state
        starts = sorted({state.iteration for state in self._states if state.phase == "collect"})
        kept = f"iterations {starts[0]} to {starts[-1]} are kept" if starts else "nothing is kept yet"
        raise ValueError(
            f"cannot go back to the beginning of iteration {iteration}: {kept} (past.limit(…) keeps more)."
        )

    def go_back_to(self, state: State) -> None:
        """Forget ``state`` and what came after it."""
        while self._states.pop() is not state:
            self._added.pop()
        self._added.pop()

    def clear(self) -> None:
        """Forget everything."""
        self._states.clear()
        self._added.clear()

    def limit(self, iterations: int = ITERATIONS, megabytes: float = MEGABYTES) -> None:
        """Change the bounds; what lies beyond them is forgotten at once."""
        if iterations < 0 or megabytes < 0:
            raise ValueError(f"iterations={iterations!r}, megabytes={megabytes!r}; expected both ≥ 0.")
        self.iterations, self.megabytes = iterations, megabytes
        self._keep_within_bounds()

    def copy(self) -> Past:
        """The same states, for a fork."""
        past = Past(self.n_units, self.iterations, self.megabytes)
        past._states, past._added = self._states.copy(), deque(map(dict, self._added))
        return past

    @property
    def bytes(self) -> int:
        """Memory that the kept states hold together, shared arrays counted once."""
        return sum(sum(added.values()) for added in self._added)

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[State]:
        return iter(tuple(self._states))

    def __getitem__(self, index: int) -> State:
        return self._states[index]

    def __repr__(self) -> str:
        reach = f"back to iteration {self._states[0].iteration}" if self._states else "nothing yet"
        return (
            f"{len(self)} states, {reach}, {self.bytes / 2**20:.1f} MB "
            f"(at most {self.iterations} iterations, {self.megabytes:g} MB)"
        )


def _arrays(value: Any) -> dict[int, int]:
    """{id: bytes} of all arrays and tensors reachable from a state, its records aside."""
    found: dict[int, int] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor | np.ndarray):
            found[id(item)] = item.nbytes
        elif isinstance(item, Mapping):
            waiting.extend(item.values())
        elif dataclasses.is_dataclass(item):
            waiting.extend(getattr(item, f.name) for f in dataclasses.fields(item))
        elif isinstance(item, tuple) and not isinstance(item, Log):
            waiting.extend(item)
    return found
