"""From a tidy table of runs to one series for each seed, and what was left out on the way.

The table has one row for each run and evaluation point: the columns that tell runs apart (``seed``, and settings such
as the method), ``env_steps``, metrics such as ``return``, and where a sweep knows them ``run``, ``status`` and
``steered``.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from workbench.errors import unknown_name
from workbench.statistics.estimates import Floats
from workbench.statistics.normalisation import Normalisation, normalisation
from workbench.statistics.report import counted
from workbench.statistics.runs import OF_EVALUATION, OF_TRAINING, TASK_COLUMNS, Names, Runs, tidy

FINISHED = "finished"
ABSOLUTE = "absolute_"  # before a metric: its value for the run's best policy, over many episodes
NO_TASK = "all runs"


@dataclass(frozen=True)
class Series:
    """One seed's values of a metric along its run.

    steps              (n,) environment steps, ascending, of the points that have a value; 0 where the table has none
    values             (n,)
    reached            the environment steps that the run got to
    episodes           numbers of episodes that a value is the mean of; () where the table does not say
    absolute           the metric of its best policy over many episodes; NaN where that was not taken
    absolute_episodes  how many those are
    """

    seed: Hashable
    steps: Floats
    values: Floats
    reached: float
    episodes: tuple[int, ...] = ()
    absolute: float = np.nan
    absolute_episodes: int = 0

    def at(self, steps: Floats) -> Floats:
        """Linear between the points, the last one held; NaN before the first."""
        return np.asarray(np.interp(steps, self.steps, self.values, left=np.nan))


@dataclass(frozen=True)
class Selection:
    """The runs that a comparison is about.

    metric    what is compared
    by        the columns whose values make the groups, in words
    groups    the groups in the table's order, those without any run left too
    tasks     the tasks in the table's order
    runs      {(group, task): one series for each seed, by seed}; none of them empty
    left_out  what was left out, in words
    notes     what else was done to the values, in words
    trained   whether the values are of training episodes, in which agents explore, instead of evaluations
    scale     the constants by which values were normalised
    """

    metric: str
    by: str
    groups: tuple[str, ...]
    tasks: tuple[str, ...]
    runs: Mapping[tuple[str, str], tuple[Series, ...]]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trained: bool = False
    scale: Normalisation | None = None


def select(
    table: Runs,
    metric: str = "return",
    by: Names = "method",
    *,
    task: Names | None = None,
    steered: bool = False,
    unfinished: bool = False,
    normalise: str | Mapping[str, Sequence[float]] | Normalisation | None = None,
) -> Selection:
    """The runs of a table, by group and task, one series for each seed.

    table       the table, what has one, trainers, or groups of these, as ``compare`` takes them
    by          the column or columns whose values make the groups
    task        those that make the tasks; by default what the table has of ``TASK_COLUMNS``
    steered     keep runs that were changed by hand
    unfinished  keep runs whose ``status`` is not "finished"
    normalise   {task: (low, high)}, or the name of published constants ("d4rl")

    Runs of one group, task and seed that differ in something else (which needs a column ``run`` to be seen) are
    averaged: the seed stays the unit. Raises ``ValueError`` for a table without the columns, or without any run left.
    """
    table = tidy(table, metric, by)
    if not len(table):
        raise ValueError("there is no run to compare: the table is empty. A sweep's fills while it runs.")
    groups = _columns(table, by, metric, "seed")
    usual = [name for name in TASK_COLUMNS if name in table and name not in groups]
    tasks = usual if task is None else _columns(table, task)
    frame, group_names, task_names = _frame(table, metric, groups, tasks)
    frame, left_out = _without(frame, steered, unfinished)
    found = _series_by_seed(frame)
    empty = sum(not len(series.steps) for several in found.values() for series in several)
    if empty:
        left_out.append(f"{counted(empty, 'run')} without any {metric}")
    scale = None if normalise is None else normalisation(normalise)
    runs: dict[tuple[str, str], list[Series]] = {}
    most = 1
    for (group, name, _), several in found.items():
        held = [series for series in several if len(series.steps)]
        if held:
            runs.setdefault((group, name), []).append(_scaled(_mean_of(held), name, scale))
        most = max(most, len(held))
    if not runs:
        raise ValueError(f"there is no run to compare; left out: {', '.join(left_out) or 'nothing'}.")
    return Selection(
        metric=metric,
        by=", ".join(groups),
        groups=group_names,
        tasks=tuple(name for name in task_names if any(key[1] == name for key in runs)),
        runs={key: tuple(held) for key, held in runs.items()},
        left_out=tuple(left_out),
        notes=(f"a seed's value is the mean of up to {most} runs that differ in something else",) * (most > 1),
        trained=OF_TRAINING in table and OF_EVALUATION not in table,
        scale=scale,
    )


def _columns(table: pd.DataFrame, names: Names, *others: str) -> list[str]:
    """The columns named; all, and the others, must be there."""
    columns = [names] if isinstance(names, str) else list(names)
    for name in (*columns, *others):
        if name not in table:
            raise unknown_name("column", name, table.columns)
    return columns


def _frame(
    table: pd.DataFrame, metric: str, groups: list[str], tasks: list[str]
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """What is needed of the table under fixed names, run by run and each by its steps; all groups and tasks."""
    if table["seed"].isna().any():
        raise ValueError("the table has rows without a seed, which is the unit of every interval.")
    frame = pd.DataFrame({"seed": table["seed"].to_numpy()})
    frame["group"], group_names = _labels(table, groups, ", ")
    frame["task"], task_names = _labels(table, tasks, " ")
    for name, column, default in (
        ("value", metric, np.nan),
        ("steps", "env_steps", 0.0),
        ("episodes", "episodes", np.nan),
        ("absolute", ABSOLUTE + metric, np.nan),
        ("absolute_episodes", "absolute_episodes", np.nan),
    ):
        try:
            frame[name] = table[column].to_numpy(np.float64, na_value=np.nan) if column in table else default
        except (TypeError, ValueError) as error:
            raise ValueError(f"the column {column!r} holds what is no number: {error}.") from None
    frame["status"] = table["status"].to_numpy() if "status" in table else FINISHED
    frame["steered"] = table["steered"].eq(True).to_numpy() if "steered" in table else False
    identity = ["group", "task", "seed"]
    if "run" in table:
        frame["name"] = table["run"].to_numpy()
        identity.append("name")
    frame["run"] = frame.groupby(identity, sort=False).ngroup()
    return frame.sort_values(["run", "steps"], kind="stable"), group_names, task_names


def _labels(table: pd.DataFrame, columns: list[str], between: str) -> tuple[str | list[str], tuple[str, ...]]:
    """Each row's name by its values in some columns, and all names in the order of their first rows."""
    if not columns:
        return NO_TASK, (NO_TASK,)
    values = (
        [tuple(value) if isinstance(value, list | np.ndarray) else value for value in table[name]] for name in columns
    )
    rows = list(zip(*values, strict=True))
    names = {row: between.join(map(label, columns, row)) for row in dict.fromkeys(rows)}
    return [names[row] for row in rows], tuple(dict.fromkeys(names.values()))


def label(column: str, value: object) -> str:
    """A group's name: the value where it is a word, else with the column's name.

    >>> label("method", "happo"), label("clip_epsilon", 0.2), label("order", (2, 0, 1))
    ('happo', 'clip_epsilon = 0.2', '2 → 0 → 1')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return " → ".join(map(str, value))
    return f"{column} = {value:g}" if isinstance(value, float) else f"{column} = {value}"


def _without(frame: pd.DataFrame, steered: bool, unfinished: bool) -> tuple[pd.DataFrame, list[str]]:
    """The frame without steered and unfinished runs, and how many those are."""
    left_out = []
    if not unfinished:
        apart = frame["status"] != FINISHED
        for status, rows in frame[apart].groupby("status", sort=False):
            left_out.append(f"{counted(rows['run'].nunique(), 'run')} {status}")
        frame = frame[~apart]
    if not steered and frame["steered"].any():
        left_out.append(f"{counted(frame.loc[frame['steered'], 'run'].nunique(), 'run')} steered by hand")
        frame = frame[~frame["steered"]]
    return frame, left_out


def _series_by_seed(frame: pd.DataFrame) -> dict[tuple[str, str, Hashable], list[Series]]:
    """{(group, task, seed): the series of its runs}, in the order of seeds within each group and task."""
    columns = {name: frame[name].to_numpy() for name in frame}
    edges = np.flatnonzero(np.diff(columns["run"], prepend=-1, append=-1))
    found: dict[tuple[str, str, Hashable], list[Series]] = {}
    for start, end in itertools.pairwise(edges):
        rows = {name: column[start:end] for name, column in columns.items()}
        seed = rows["seed"][0]
        key = (str(rows["group"][0]), str(rows["task"][0]), seed.item() if isinstance(seed, np.generic) else seed)
        found.setdefault(key, []).append(_one_series(rows, key))
    return dict(sorted(found.items(), key=lambda item: _by_seed(item[0][2])))


def _by_seed(seed: Hashable) -> tuple[bool, float, str]:
    """Numbers in their order, then names in theirs: the order of the table's rows must not matter."""
    return (False, float(seed), "") if isinstance(seed, int | float) else (True, 0.0, str(seed))


def _one_series(rows: Mapping[str, npt.NDArray[np.generic]], key: tuple[str, str, Hashable]) -> Series:
    """The series of one run, from its rows in the order of steps."""
    valued = np.isfinite(rows["value"])
    steps, episodes = rows["steps"][valued], rows["episodes"][valued]
    double = steps[1:][np.diff(steps) == 0]
    if len(double):
        raise ValueError(
            f"{key[0]}, {key[1]}, seed {key[2]} has several rows at {double[0]:,.0f} env steps; expected one for each "
            "run and point. Tell runs apart by a column 'run', or drop the doubles."
        )
    absolute, on = (rows[name][np.isfinite(rows[name])] for name in ("absolute", "absolute_episodes"))
    return Series(
        seed=key[2],
        steps=steps,
        values=rows["value"][valued],
        reached=float(rows["steps"][-1]),
        episodes=tuple(sorted({int(n) for n in episodes[np.isfinite(episodes)]})),
        absolute=float(absolute[-1]) if len(absolute) else np.nan,
        absolute_episodes=int(on[-1]) if len(on) else 0,
    )


def shared_steps(runs: Sequence[Series]) -> tuple[float, float, Floats]:
    """Where the last of some runs begins, where the first ends, and all steps of any run in between."""
    first, reached = max(series.steps[0] for series in runs), min(series.reached for series in runs)
    steps = np.unique(np.concatenate([series.steps for series in runs]))
    return first, reached, steps[(steps >= first) & (steps <= reached)]


def _mean_of(several: list[Series]) -> Series:
    """The mean of several runs of one seed, on all their steps that lie within the reach of each."""
    if len(several) == 1:
        return several[0]
    first, reached, steps = shared_steps(several)
    if reached < first:
        raise ValueError(f"the runs of seed {several[0].seed} have no env steps in common, and so no mean.")
    return Series(
        seed=several[0].seed,
        steps=steps,
        values=np.mean([series.at(steps) for series in several], axis=0),
        reached=reached,
        episodes=tuple(sorted({n for series in several for n in series.episodes})),
        absolute=float(np.mean([series.absolute for series in several])),
        absolute_episodes=min(series.absolute_episodes for series in several),
    )


def _scaled(series: Series, task: str, scale: Normalisation | None) -> Series:
    if scale is None:
        return series
    low, high = scale.of(task)
    width = high - low
    return replace(series, values=(series.values - low) / width, absolute=(series.absolute - low) / width)
