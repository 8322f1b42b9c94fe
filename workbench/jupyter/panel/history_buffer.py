"""A run's tables, of which each frame of a live view reads only the rows that are new."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ParamSpec

import numpy as np

from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.figures.run_columns import Column, RunColumns, run_columns
from workbench.learning.events import CriticUpdated, Event

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer

P = ParamSpec("P")


def follow(
    subscribe: Callable[[Callable[P, None]], Callable[[], None]], hear: Callable[P, None]
) -> Callable[[], object]:
    """Subscribe the method ``hear``, without keeping its object alive; returns what ends that."""
    method = weakref.WeakMethod(hear)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        alive = method()
        if alive is not None:
            alive(*args, **kwargs)

    return weakref.finalize(hear.__self__, subscribe(call))  # type: ignore[attr-defined]


class Table:
    """The numbers of a growing sequence of rows, as columns; only what is new is read.

    Columns that were handed out stay as they were: rows are only written behind their end.

    >>> table, rows = Table(), [{"x": 1.0, "name": "a"}]
    >>> first = table.read(rows)
    >>> {name: column.tolist() for name, column in table.read([*rows, {"x": 2.0, "y": 3.0}]).items()}
    {'x': [1.0, 2.0], 'y': [nan, 3.0]}
    """

    def __init__(self) -> None:
        self._columns: dict[str, Floats] = {}
        self._read: list[Mapping[str, object]] = []

    def read(self, rows: Iterable[Mapping[str, object]]) -> dict[str, Floats]:
        """The columns of ``rows``, which go on from those read last, or, after a rewind, part from them."""
        rows = list(rows)
        known = len(self._read)
        if self._read and (len(rows) < known or rows[known - 1] is not self._read[-1]):
            self._columns, known = {}, 0
        for n, row in enumerate(rows[known:], known):
            for name, value in row.items():
                if isinstance(value, int | float):
                    self._column(name, n)[n] = value
        self._read = rows
        return {name: self._column(name, len(rows) - 1)[: len(rows)] for name in self._columns}

    def _column(self, name: str, n: int) -> Floats:
        """A column with room for row ``n``."""
        column = self._columns.get(name, np.array([]))
        if n >= len(column):
            column = np.concatenate([column, np.full(max(64, 2 * n) - len(column), np.nan)])
            self._columns[name] = column
        return column


class HistoryBuffer:
    """Follows one trainer and gives its ``RunColumns`` at any time."""

    def __init__(self, trainer: Trainer, name: str) -> None:
        self.trainer = trainer
        self.name = name
        self._lock = threading.Lock()
        self._iterations = Table()
        self._updates = {unit: Table() for unit in trainer.units}
        self._complete: tuple[int | None, tuple[str, ...], Mapping[str, Column]] | None = None
        self.close = follow(trainer.subscribe, self._hear)

    def _hear(self, event: Event) -> None:
        if isinstance(event, CriticUpdated):
            self._complete = event.iteration, self.trainer.iteration_order, self.trainer.m_factors

    def run(self, settled: bool = False, beside: bool = False) -> RunColumns:
        """The run as far as it has come.

        ``settled``: M-factors and positions of the last complete iteration, for frames of a fast run, which would
        otherwise flicker between half-finished iterations. ``beside``: without M-factors, which are large, for a run
        that is only shown beside another.
        """
        trainer, complete = self.trainer, self._complete
        state = trainer._state
        rows: dict[str, list[Mapping[str, object]]] = {unit: [] for unit in self._updates}
        for row in state.agent_history:
            rows[row["agent"]].append(row)
        newest = state.history[-1]["iteration"] if len(state.history) else None
        with self._lock:
            updates = {unit: table.read(rows[unit]) for unit, table in self._updates.items()}
            run = run_columns(trainer, self.name, self._iterations.read(state.history), updates)
        if beside:
            return run
        if settled and complete is not None and complete[0] == newest:  # and nothing was rewound since
            upto, order, factors = complete
            return replace(run, upto=upto, order=order, m_factors=factors)
        return replace(run, order=state.order, m_factors=trainer.m_factors)
