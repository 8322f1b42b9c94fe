"""What the views draw of a run, as plain columns: read from a trainer, or from anything with the same attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from workbench.jupyter.figures.plots import Floats

if TYPE_CHECKING:
    import pandas as pd

    from workbench.learning.events import Intervention
    from workbench.running.run_view import Run

Column = npt.NDArray[np.generic]
Columns = Mapping[str, Column]

STANDARDIZED = "std of A"


@dataclass(frozen=True)
class RunColumns:
    """One run, as far as it has come.

    name         what the legend calls it
    agents       the agents' names, in the environment's order (their colours go by it)
    order        the units of the newest iteration in update order; () before the first
    iterations   the columns of ``trainer.history``
    updates      {unit: its columns of ``trainer.agent_history``}, in the environment's order; none before the first
    evaluations  the columns of ``trainer.evaluations``
    m_factors    {agent: (n_steps, n_envs)} in update order
    max_kl       δ of an agent, where the method has one
    unit         of advantages, and so of M
    upto         the iteration that positions are shown of; None for the newest
    changes      ((iteration, words), …): what was changed by hand, and still holds for what is shown
    """

    name: str
    agents: tuple[str, ...]
    order: tuple[str, ...] = ()
    iterations: Columns = field(default_factory=dict)
    updates: Mapping[str, Columns] = field(default_factory=dict)
    evaluations: Columns = field(default_factory=dict)
    m_factors: Mapping[str, Column] = field(default_factory=dict)
    max_kl: float | None = None
    unit: str = STANDARDIZED
    upto: int | None = None
    changes: tuple[tuple[int, str], ...] = ()

    def column(self, table: str, name: str) -> Floats:
        """A column of "iterations" or "evaluations" as floats; NaN where the run lacks it."""
        return floats(getattr(self, table), name)

    def updates_of(self, unit: str, name: str) -> Floats:
        """A column of a unit's updates as floats; NaN where the run lacks it."""
        return floats(self.updates[unit], name)


def floats(columns: Columns, name: str) -> Floats:
    """A column as floats; NaN where there is none of that name."""
    if name in columns:
        return np.asarray(columns[name], dtype=np.float64)
    return np.full(len(next(iter(columns.values()), ())), np.nan)


# What a view may be given: one trainer, or several.
One: TypeAlias = "Run | RunColumns"
Several: TypeAlias = "One | Sequence[One] | Mapping[str, Run]"


def is_run(value: object) -> TypeGuard[Run]:
    """Whether something is a trainer, or looks like one."""
    return hasattr(value, "agent_history")


def read(trainer: One, name: str | None = None, m_factors: bool = False) -> RunColumns:
    """The columns of one trainer, if they were not read already; the M-factors, which are large, only if asked for."""
    if isinstance(trainer, RunColumns):
        return trainer
    if not is_run(trainer):
        raise TypeError(f"trainer is {trainer!r}; expected a trainer, such as wb.happo(env) makes.")
    rows = columns_of(trainer.agent_history)
    units = rows.pop("agent").astype(str)
    updates = {unit: {name: column[units == unit] for name, column in rows.items()} for unit in trainer.units}
    known = run_columns(trainer, name or _method(trainer), columns_of(trainer.history), updates)
    return replace(known, m_factors=trainer.m_factors) if m_factors else known


def run_columns(trainer: Run, name: str, iterations: Columns, updates: Mapping[str, Columns]) -> RunColumns:
    """A run of which the large tables were read already; without M-factors."""
    max_kl_of = getattr(trainer.settings, "max_kl_of", None)
    return RunColumns(
        name=name,
        agents=tuple(trainer.env.agents),
        order=tuple(trainer.iteration_order),
        iterations=iterations,
        updates=updates,
        evaluations=columns_of(trainer.evaluations),
        max_kl=None if max_kl_of is None else float(max_kl_of(len(trainer.env.agents))),
        unit=STANDARDIZED if getattr(trainer.settings, "standardize_advantages", True) else "return",
        changes=changes_of(getattr(trainer, "interventions", ())),
    )


def changes_of(interventions: Sequence[Intervention]) -> tuple[tuple[int, str], ...]:
    """What was changed by hand and when, but for what a rewind left behind."""
    changes: list[tuple[int, str]] = []
    for each in interventions:
        if each.name == "rewind":
            changes = [change for change in changes if change[0] <= each.new]
        else:
            old, new = (" → ".join(map(str, x)) if isinstance(x, tuple) else str(x) for x in (each.old, each.new))
            words = f"{each.name} was {old}, is {new}" if each.old is not None else f"{each.name} {new}"
            changes.append((each.iteration, escape(words)))
    return tuple(changes)


def read_all(trainers: Several, m_factors: bool = False) -> list[RunColumns]:
    """The runs of one trainer, of {name: trainer}, or of a sequence of trainers (named by method and number).

    ``m_factors``: with those of the first run. Columns that were read already are taken as they are.
    """
    if isinstance(trainers, list) and trainers and all(isinstance(run, RunColumns) for run in trainers):
        return trainers
    return [read(trainer, name, m_factors and i == 0) for i, (name, trainer) in enumerate(named(trainers).items())]


def named(trainers: Several) -> dict[str, Run]:
    """{name: trainer} of what a view is given."""
    if isinstance(trainers, Mapping) and trainers:
        return {str(name): trainer for name, trainer in trainers.items()}
    if is_run(trainers):
        return {_method(trainers): trainers}
    several = list(trainers) if isinstance(trainers, Iterable) and not isinstance(trainers, str) else []
    runs = [trainer for trainer in several if is_run(trainer)]
    if runs and len(runs) == len(several):
        return {f"{_method(trainer)} {i}": trainer for i, trainer in enumerate(runs, 1)}
    raise TypeError(
        f"got {trainers!r}; expected a trainer, a sequence of trainers, or a mapping such as "
        '{"ε = 0.2": trainer, "ε = 0.05": fork}.'
    )


def _method(trainer: Run) -> str:
    return str(getattr(trainer, "method", "run"))


def columns_of(table: pd.DataFrame) -> dict[str, Column]:
    """The columns of a table of a trainer."""
    return {str(name): table[name].to_numpy() for name in table.columns}


def unit_label(agents: Sequence[str], unit: str) -> str:
    """How a unit is called on an axis: an agent by its name, agents with one policy together.

    >>> unit_label(("a", "b", "c"), "b"), unit_label(("a", "b", "c"), "a+c"), unit_label(("a", "b", "c"), "a+b+c")
    ('b', 'a + c', 'all 3 agents')
    """
    members = unit.split("+") if unit not in agents else [unit]
    return f"all {len(agents)} agents" if len(members) == len(agents) > 1 else " + ".join(members)


def members(agents: Sequence[str], units: Iterable[str]) -> list[str]:
    """The agents of some units, one after another."""
    return [agent for unit in units for agent in ([unit] if unit in agents else unit.split("+"))]
