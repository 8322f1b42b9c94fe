"""The states that ``rewind`` can go back to, bounded in number and in memory.

A snapshot costs what changed: states share everything that did not, so that one phase adds an agent's new parameters,
or a rollout, and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from workbench.envs.arguments import positive_integer
from workbench.learning.rollout import Rollout
from workbench.learning.settings import Settings
from workbench.learning.state import State

Held = dict[int, int]  # {address of a block of memory: its bytes}

ITERATIONS = 10
MEGABYTES = 512.0


class Past:
    """The last states of a run, the oldest first.

    iterations   how many iterations back it reaches, as far as ``megabytes`` allows
    megabytes    the most memory (2²⁰ bytes) that the arrays of the states kept here may hold; the C library may keep
                 about a quarter more of the machine's, once old arrays have made room for new ones
    """

    def __init__(self, n_units: int, iterations: int = ITERATIONS, megabytes: float = MEGABYTES) -> None:
        self.n_units, self.iterations, self.megabytes = n_units, iterations, megabytes
        self._states: deque[State] = deque()
        self._blocks: deque[dict[str, tuple[Any, Held]]] = deque()  # {field: (its value, what it holds)} of each state
        self._added: deque[Held] = deque()  # what each state holds that no earlier one here does
        self._held: Held = {}  # all of that together

    def append(self, state: State) -> None:
        """Keep one more; the oldest go when a bound is passed."""
        blocks = _memory_by_field(state, self._blocks[-1] if self._blocks else {})
        added = {block: size for _, held in blocks.values() for block, size in held.items() if block not in self._held}
        self._states.append(state)
        self._blocks.append(blocks)
        self._added.append(added)
        self._held |= added
        self._keep_within_bounds()

    def _keep_within_bounds(self) -> None:
        most = self.iterations * (self.n_units + 3)
        while self._states and (len(self) > most or self.bytes > self.megabytes * 2**20):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._states.popleft()
        self._blocks.popleft()
        orphans = self._added.popleft()
        used = [held for _, held in self._blocks[0].values()] if self._blocks else []
        for block, size in orphans.items():
            if any(block in held for held in used):  # it is charged to the next one from now on
                self._added[0][block] = size
            else:
                del self._held[block]

    def _drop_newest(self) -> State:
        self._blocks.pop()
        for block in self._added.pop():
            del self._held[block]
        return self._states.pop()

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
        while self._drop_newest() is not state:
            pass

    def clear(self) -> None:
        """Forget everything."""
        self._states.clear()
        self._blocks.clear()
        self._added.clear()
        self._held.clear()

    def limit(self, iterations: int = ITERATIONS, megabytes: float = MEGABYTES) -> None:
        """Change the bounds; what lies beyond them is forgotten at once."""
        for name, value, kind in (("iterations", iterations, int), ("megabytes", megabytes, int | float)):
            if isinstance(value, bool) or not isinstance(value, kind | np.number) or not value >= 0:
                raise ValueError(f"{name} is {value!r}; expected a{'n integer' * (kind is int) or ' number'} ≥ 0.")
        self.iterations, self.megabytes = int(iterations), float(megabytes)
        self._keep_within_bounds()

    def copy(self) -> Past:
        """The same states, for a fork."""
        past = Past(self.n_units, self.iterations, self.megabytes)
        past._states, past._blocks = self._states.copy(), self._blocks.copy()
        past._added = deque(map(dict, self._added))
        past._held = self._held.copy()
        return past

    @property
    def bytes(self) -> int:
        """Memory that the kept states hold together, shared arrays counted once."""
        return sum(self._held.values())

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


def recorded_moments(past: Past, which: object, now: State) -> list[State]:
    """Moments of training before ``now``, each at the beginning of an iteration, the earliest first.

    which   None: none; True: all iterations that ``past`` reaches; k: k of them at most, evenly spread; a
            ``Snapshots``: all that it kept
    """
    if which is None or which is False:
        return []
    kept = which if isinstance(which, Snapshots) else past
    first_phases = {state.iteration: state for state in kept if state.phase == "collect"}
    moments = [state for state in first_phases.values() if state.env_steps < now.env_steps]
    if which is True or isinstance(which, Snapshots):
        return moments
    if not isinstance(which, int | np.integer) or which < 1:
        raise ValueError(f"past is {which!r}; expected True, a number of moments ≥ 1, or Snapshots of the run.")
    chosen = np.unique(np.linspace(0, len(moments) - 1, min(int(which), len(moments))).round().astype(int))
    return [moments[i] for i in chosen]


def rollout_of(states: Sequence[State], iteration: int | None = None) -> tuple[State, Rollout]:
    """The state before the ``collect`` of an iteration, by default of the last, and the rollout that it took."""
    found = {
        before.iteration: (before, after.rollout)
        for before, after in itertools.pairwise(states)
        if before.phase == "collect" and after.phase == "estimate" and after.rollout is not None
    }
    if not found:
        raise ValueError("no rollout is kept whose beginning is known: step() through a collect first.")
    if iteration is not None and iteration not in found:
        raise ValueError(f"iteration is {iteration!r}; the rollouts of {', '.join(map(str, found))} are kept.")
    return found[max(found) if iteration is None else iteration]


class Snapshots:
    """Moments of a run for a replay's second scrubber, kept while it trains: its policies every k iterations.

        snapshots = wb.Snapshots(trainer, every=10)
        trainer.run(iterations=200)
        trainer.replay(past=snapshots)

    The first is kept at once, where the run is at the beginning of an iteration. ``close()`` stops keeping more.
    """

    def __init__(self, trainer: Any, every: int = 10) -> None:
        self.every = positive_integer("every", every)
        if not hasattr(trainer, "subscribe"):
            raise TypeError(f"trainer is {trainer!r}; expected a trainer, such as wb.happo(env) makes.")
        self._trainer = trainer
        self._states: list[State] = []
        self.close = trainer.subscribe(lambda event: self._keep())
        self._keep()

    def _keep(self) -> None:
        state: State = self._trainer._state
        if state.phase == "collect" and state.iteration % self.every == 0:
            # Without the last rollout, which nobody replays from here and which is larger than all else.
            lean = dataclasses.replace(state, rollout=None, estimate=None, preceding_ratio=None, m_factors={})
            self._states.append(lean)

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[State]:
        return iter(tuple(self._states))

    def __repr__(self) -> str:
        return f"Snapshots: {len(self)} moments, every {self.every} iterations"


def _memory_by_field(state: State, before: Mapping[str, tuple[Any, Held]]) -> dict[str, tuple[Any, Held]]:
    """What each field of a state holds; not counted anew where it is the very object of the state ``before``."""
    found = {}
    for field in dataclasses.fields(state):
        value, known = getattr(state, field.name), before.get(field.name)
        found[field.name] = known if known is not None and known[0] is value else (value, _memory(value))
    return found


def _memory(value: Any) -> Held:
    """The blocks of memory that the arrays reachable from a state hold, its records and settings aside.

    A view holds all of what it is a view of, however little of it shows.
    """
    held: Held = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind: Any = type(item)
        if issubclass(kind, Tensor):
            block = item.untyped_storage()
            held[block.data_ptr()] = block.nbytes()
        elif issubclass(kind, np.ndarray):
            while isinstance(item.base, np.ndarray):
                item = item.base
            held[item.__array_interface__["data"][0]] = item.nbytes
        elif issubclass(kind, Mapping):
            waiting.extend(item.values())
        elif issubclass(kind, tuple):
            waiting.extend(item)
        else:
            waiting.extend(getattr(item, name) for name in _fields(kind))
    return held


@functools.cache
def _fields(kind: type) -> tuple[str, ...]:
    """Where a record may hold arrays; nowhere, for what is none."""
    if not dataclasses.is_dataclass(kind) or issubclass(kind, Settings):
        return ()
    return tuple(f.name for f in dataclasses.fields(kind))
