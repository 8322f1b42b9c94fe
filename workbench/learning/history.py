"""Append-only records whose older versions stay valid, and their tables."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

import pandas as pd

T = TypeVar("T")

_APPENDING = threading.Lock()


class Log(Generic[T]):
    """An immutable sequence with a cheap ``append``: versions share one list, and a branch copies it.

    So a snapshot keeps its history for nothing, a rewind forgets what came after it, and a fork goes its own way.

    >>> log = Log[int]().append(1)
    >>> list(log.append(2)), list(log.append(3)), list(log)
    ([1, 2], [1, 3], [1])
    """

    __slots__ = ("_length", "_rows")

    def __init__(self, rows: list[T] | None = None, length: int | None = None) -> None:
        self._rows: list[T] = [] if rows is None else rows
        self._length = len(self._rows) if length is None else length

    def append(self, *rows: T) -> Log[T]:
        """This log with rows added; this log itself stays as it is."""
        with _APPENDING:  # two forks of one trainer may append from two threads
            mine = self._rows if len(self._rows) == self._length else self._rows[: self._length]
            mine.extend(rows)
            return Log(mine, self._length + len(rows))

    def __iter__(self) -> Iterator[T]:
        return iter(self._rows[: self._length])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> T:
        return self._rows[range(self._length)[index]]


ITERATION_COLUMNS = (
    "iteration",
    "env_steps",
    "return",
    "episode_length",
    "episodes",
    "reward",
    "order",
    "kl",
    "value_loss",
    "explained_variance",
    "seconds",
    "env_steps_per_second",
)
AGENT_COLUMNS = (
    "iteration",
    "env_steps",
    "agent",
    "position",
    "kl",
    "entropy",
    "std",
    "clipped_fraction",
    "surrogate_gain",
    "grad_norm",
    "preceding_ratio_bias",
    "preceding_log_ratio_variance",
    "effective_sample_size",
    "max_weight_share",
    "m_variance",
)
EVALUATION_COLUMNS = (
    "iteration",
    "env_steps",
    "return",
    "return_std",
    "episode_length",
    "episodes",
    "deterministic",
    "returns",
)


def table(rows: Log[dict[str, object]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Rows as a fresh DataFrame: ``columns`` first, then what else the rows have; changing it changes no trainer."""
    return pd.DataFrame(list(rows), columns=list(dict.fromkeys([*columns, *(rows[-1] if len(rows) else ())])))
