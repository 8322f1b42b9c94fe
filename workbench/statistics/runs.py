"""Whatever holds runs, as one tidy table: tables, sweeps and studies, trainers, and groups of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, Union

import pandas as pd

if TYPE_CHECKING:
    from workbench.running.run_view import Run

# A table, what has one, a trainer, several of these, or {group: any of these}.
Runs: TypeAlias = Union["pd.DataFrame", "HasTable", "Run", Sequence["Runs"], Mapping[str, "Runs"]]
Names = str | Sequence[str]


class HasTable(Protocol):
    """What a sweep, a search or a study offers."""

    def table(self) -> pd.DataFrame:
        """One row for each run and point."""


TASK_COLUMNS = ("environment", "env", "task", "scenario", "agent_conf", "partition")
OF_TRAINING, OF_EVALUATION = "explained_variance", "return_std"  # columns that only the one or the other has


def tidy(runs: object, metric: str, by: Names) -> pd.DataFrame:
    """One row for each run and point: ``seed``, what makes groups (``by``) and tasks, ``env_steps``, the metric.

    A trainer gives its evaluations where each of the trainers has some with that metric, else its history. The names
    of a mapping become the column ``by``. Raises ``TypeError`` for what holds no runs, ``ValueError`` where some give
    evaluations and others training episodes, which are not alike.
    """
    trainers = _trainers(runs)
    evaluated = bool(trainers) and all(len(each.evaluations) and metric in each.evaluations for each in trainers)
    parts = _parts(runs, [by] if isinstance(by, str) else list(by), evaluated)
    if len(parts) == 1:
        return parts[0]
    kinds = {OF_EVALUATION in part for part in parts if OF_EVALUATION in part or OF_TRAINING in part}
    if len(kinds) > 1:
        raise ValueError(
            f"some of these runs give {metric!r} of evaluations and others of training episodes, which explore; "
            "evaluate all alike: run(evaluate_every=…), or give sweep.table('iterations')."
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _is_trainer(value: object) -> bool:
    return hasattr(value, "agent_history")


def _several(runs: object) -> list[object] | None:
    """What a sequence or mapping holds; None for what is neither."""
    if isinstance(runs, Mapping):
        return list(runs.values())
    return list(runs) if isinstance(runs, Sequence) and not isinstance(runs, str) else None


def _trainers(runs: object) -> list[Run]:
    """All trainers in there."""
    if _is_trainer(runs):
        return [runs]  # type: ignore[list-item]  # it looks like one
    return [trainer for each in _several(runs) or () for trainer in _trainers(each)]


def _parts(runs: object, by: list[str], evaluated: bool) -> list[pd.DataFrame]:
    """The tables of all that is in there."""
    if isinstance(runs, pd.DataFrame):
        return [runs]
    if isinstance(runs, Mapping):
        groups = {str(name): _parts(held, by, evaluated) for name, held in runs.items()}
        return [part.assign(**{by[0]: name}) for name, parts in groups.items() for part in parts]
    if _is_trainer(runs):
        return [_of_trainer(runs, by, evaluated)]  # type: ignore[arg-type]  # it looks like one
    if callable(table := getattr(runs, "table", None)):
        return [table()]
    several = _several(runs)
    if several is None:
        raise TypeError(
            f"the table of runs is a {type(runs).__name__}; expected a pandas DataFrame, such as sweep.table() or what "
            "wb.statistics.read_results('results.csv') gives, a sweep, trainers, or groups of them: "
            '{"hatrpo": [t0, t1], "mappo": [t2, t3]}.'
        )
    return [part for each in several for part in _parts(each, by, evaluated)]


def _of_trainer(trainer: Run, by: list[str], evaluated: bool) -> pd.DataFrame:
    """A trainer's rows, with what a sweep's table says of a run."""
    rows = trainer.evaluations.drop(columns="returns") if evaluated else trainer.history.drop(columns="order")
    description = trainer.env.description or {}
    about = {name: description[name] for name in TASK_COLUMNS if name in description}
    about |= {"method": trainer.method.lower(), "seed": trainer.seed, "steered": trainer.steered}
    settings = trainer.settings
    about |= {name: getattr(settings, name) for name in by if name in settings.names() and name not in about}
    about["run"] = f"{id(trainer)}"
    return pd.DataFrame({**{name: [value] * len(rows) for name, value in about.items()}, **rows})
