"""A run's tables, appended to event by event, so that no frame of a live view reads them all again."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.figures.run_columns import Columns, RunColumns, by_unit, settings_shown
from workbench.learning.events import AgentUpdated, Collected, CriticUpdated, Estimated, Event

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer


class Table:
    """Rows of numbers, appended one by one and read as columns.

    Columns that were handed out stay as they were: rows are only written behind their end.

    >>> table = Table()
    >>> table.append({"x": 1.0}); table.append({"x": 2.0, "y": 3.0})
    >>> {name: column.tolist() for name, column in table.columns().items()}
    {'x': [1.0, 2.0], 'y': [nan, 3.0]}
    """

    def __init__(self, columns: Columns | None = None) -> None:
        given = {name: np.asarray(column, dtype=np.float64) for name, column in (columns or {}).items()}
        self._length = len(next(iter(given.values()), ()))
        self._columns: dict[str, Floats] = given

    def append(self, row: Mapping[str, float]) -> None:
        n = self._length
        for name in {*self._columns, *row}:
            column = self._columns.get(name, np.array([]))
            if n >= len(column):
                larger = np.full(max(64, 2 * n), np.nan)
                larger[: len(column)] = column
                self._columns[name] = column = larger
            column[n] = row.get(name, np.nan)
        self._length = n + 1

    def columns(self) -> dict[str, Floats]:
        n = self._length
        return {name: column[:n] for name, column in self._columns.items()}

    def last(self, name: str) -> float:
        """The newest value of a column; −1 before the first row."""
        return float(self._columns[name][self._length - 1]) if self._length else -1.0


class HistoryBuffer:
    """Follows one trainer and gives its ``RunColumns`` at any time.

    After a rewind, or where it missed something, it reads the trainer's own tables once.
    """

    def __init__(self, trainer: Trainer, name: str) -> None:
        self.trainer = trainer
        self.name = name
        self._lock = threading.RLock()
        self._rebuild()
        hear = weakref.WeakMethod(self._hear)  # a trainer keeps no unused buffer alive
        self.close = weakref.finalize(self, trainer.subscribe(lambda event: (method := hear()) and method(event)))

    def _rebuild(self) -> None:
        trainer = self.trainer
        self._interventions = len(trainer.interventions)
        history = trainer.history
        numeric = {name: history[name].to_numpy() for name in history.columns if name != "order"}
        self._iterations = Table(numeric)
        rows = trainer.agent_history
        split = by_unit(trainer.units, {str(name): rows[name].to_numpy() for name in rows.columns})
        self._updates = {unit: Table(columns) for unit, columns in split.items()}
        self._row: dict[str, float] = {}
        self._complete: tuple[int, tuple[str, ...], dict[str, Any]] | None = None
        self._read_evaluations()
        self._missed = False

    def _read_evaluations(self) -> None:
        table = self.trainer.evaluations
        self._evaluations = {str(name): table[name].to_numpy() for name in table.columns}

    def _hear(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Collected):
                self._missed |= event.iteration != self._iterations.last("iteration") + 1
                self._row = {
                    "return": event.mean_return,
                    "episode_length": event.mean_length,
                    "episodes": event.episodes,
                    "reward": event.mean_reward,
                }
            elif isinstance(event, Estimated):
                self._row["explained_variance"] = event.explained_variance
            elif isinstance(event, AgentUpdated):
                self._hear_update(event)
            elif isinstance(event, CriticUpdated):
                self._hear_end(event)

    def _hear_update(self, event: AgentUpdated) -> None:
        table = self._updates[event.agent]
        if event.iteration > table.last("iteration"):  # a rebuild may have read this row already
            where = {"iteration": event.iteration, "env_steps": event.env_steps, "position": event.position}
            table.append({**where, **event.diagnostics})

    def _hear_end(self, event: CriticUpdated) -> None:
        self._missed |= "return" not in self._row  # the iteration began before this buffer, or before a rewind
        if event.iteration > self._iterations.last("iteration"):
            where = {"iteration": event.iteration, "env_steps": event.env_steps, "value_loss": event.value_loss}
            self._iterations.append({**where, **self._row})
        self._row = {}
        self._complete = (event.iteration, tuple(self.trainer.iteration_order), self.trainer.m_factors)

    def latest(self, column: str) -> float:
        """The newest value of a column of ``history``."""
        with self._lock:
            return self._iterations.last(column)

    def run(self, settled: bool = False, beside: bool = False) -> RunColumns:
        """The run as far as it has come.

        ``settled``: M-factors and positions of the last complete iteration, for frames of a fast run, which would
        otherwise flicker between half-finished iterations. ``beside``: without M-factors, for a run that is only shown
        beside another.
        """
        with self._lock:
            if self._missed or len(self.trainer.interventions) != self._interventions:
                self._rebuild()
            self._read_evaluations()
            complete = self._complete if settled else None
            shared = {
                "name": self.name,
                "agents": tuple(self.trainer.env.agents),
                "iterations": self._iterations.columns(),
                "updates": {unit: table.columns() for unit, table in self._updates.items()},
                "evaluations": self._evaluations,
                **settings_shown(self.trainer),
            }
        if beside:
            return RunColumns(**shared)
        if complete is not None:
            return RunColumns(**shared, upto=complete[0], order=complete[1], m_factors=complete[2])
        return RunColumns(**shared, order=tuple(self.trainer.iteration_order), m_factors=self.trainer.m_factors)
