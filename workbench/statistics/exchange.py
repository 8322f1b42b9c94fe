"""Results for others, and others' results: marl-eval's JSON, CSV, parquet.

marl-eval's layout (Gorsane et al., NeurIPS 2022; github.com/instadeepai/marl-eval) is what the plotting tools of
cooperative multi-agent learning read:

    {environment: {task: {algorithm: {run: {"step_0": {"step_count": 4000, "return": [12.5]}, …,
                                            "absolute_metrics": {"return": [14.0]}}}}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import path_of, unknown_name
from workbench.running.atomic import write_atomically
from workbench.statistics.runs import Names, Runs, tidy
from workbench.statistics.selection import ABSOLUTE, Selection, label, select

Layout = dict[str, Any]  # marl-eval's: dictionaries within dictionaries
Metrics = dict[str, list[float]]
KINDS = {".csv": "csv", ".parquet": "parquet", ".json": "marl-eval"}
ENVIRONMENT = "workbench"


def export_results(
    table: Runs,
    path: str | Path,
    *,
    metrics: Sequence[str] = ("return",),
    by: Names = "method",
    task: Names | None = None,
    environment: str = ENVIRONMENT,
    absolute: str = "best",
    steered: bool = False,
    unfinished: bool = False,
) -> Path:
    """Write a table of runs as what the name of the file says: ``.csv``, ``.parquet``, or marl-eval's ``.json``.

    CSV and parquet hold the table whole, values such as an order as text. The other words are for marl-eval's layout:
    algorithms are the groups of ``by``, runs are named by seed, and what ``wb.statistics.compare`` leaves out is left
    out here too. ``environment`` is the name that all tasks stand under. Its readers take the last entry of a run for
    the absolute metric, that of the best policy over many episodes: ``absolute="end"`` puts the last evaluation in its
    place. Raises ``ValueError`` where a run has none.
    """
    table = tidy(table, metrics[0], by)
    path = path_of("path", path)
    kind = _kind(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial:
        if kind == "marl-eval":
            chosen = {
                metric: select(table, metric, by, task=task, steered=steered, unfinished=unfinished)
                for metric in metrics
            }
            layout = {environment: _layout(chosen, absolute)}
            partial.write_text(json.dumps(layout, indent=1, allow_nan=False), encoding="utf-8")
        else:
            plain = table.copy()
            for name in plain.columns[[not pd.api.types.is_numeric_dtype(each) for each in plain.dtypes]]:
                plain[name] = [value if _is_plain(value) else label(name, value) for value in plain[name]]
            plain.to_csv(partial, index=False) if kind == "csv" else plain.to_parquet(partial, index=False)
    return path


def read_results(path: str | Path) -> pd.DataFrame:
    """The table in a file, one's own or another's: ``.csv``, ``.parquet``, or marl-eval's ``.json``.

    Of marl-eval's the columns are environment, task, method, seed (the run's name), env_steps and the metrics, a metric
    being the mean of the episodes listed, and ``absolute_…`` for those of the best policy.
    """
    path = path_of("path", path)
    kind = _kind(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no results {str(path)!r}; wb.statistics.export_results writes such files.")
    if kind != "marl-eval":
        return pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    try:
        rows = list(_rows(json.loads(path.read_text(encoding="utf-8"))))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as marl-eval's layout ({error!r}).") from None
    return pd.DataFrame(rows)


def _kind(path: Path) -> str:
    if path.suffix not in KINDS:
        raise unknown_name("kind of file", path.suffix or path.name, KINDS)
    return KINDS[path.suffix]


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def _layout(chosen: Mapping[str, Selection], absolute: str) -> Layout:
    """{task: {algorithm: {run: …}}} of one selection for each metric."""
    if absolute not in ("best", "end"):
        raise unknown_name("absolute metric", absolute, ("best", "end"))
    found: dict[tuple[str, str, str], tuple[dict[int, Metrics], Metrics]] = {}
    for metric, selection in chosen.items():
        for (group, task), runs in selection.runs.items():
            for series in runs:
                last = float(series.values[-1]) if absolute == "end" else series.absolute
                if np.isnan(last):
                    raise ValueError(
                        f"{group} on {task}, seed {series.seed}, has no {ABSOLUTE + metric}. Take it as runs end, by "
                        "wb.statistics.absolute_metric; or let the last evaluation stand in: absolute='end'."
                    )
                points, best = found.setdefault((task, group, f"seed_{series.seed}"), ({}, {}))
                best[metric] = [last]
                for steps, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
                    points.setdefault(int(steps), {})[metric] = [value]
    layout: Layout = {}
    for (task, group, run), (points, best) in found.items():
        entries: Layout = {
            f"step_{k}": {"step_count": steps, **points[steps]} for k, steps in enumerate(sorted(points))
        }
        entries["absolute_metrics"] = best  # last, where its readers look for it
        layout.setdefault(task, {}).setdefault(group, {})[run] = entries
    return layout


def _rows(layout: Layout) -> Iterator[dict[str, object]]:
    for environment, tasks in layout.items():
        for task, algorithms in tasks.items():
            for algorithm, runs in algorithms.items():
                for name, run in runs.items():
                    about = {"environment": environment, "task": task, "method": algorithm, "seed": name}
                    best = {
                        ABSOLUTE + metric: fmean(values) for metric, values in run.get("absolute_metrics", {}).items()
                    }
                    for step in (entry for key, entry in run.items() if key != "absolute_metrics"):
                        metrics = {key: fmean(value) for key, value in step.items() if isinstance(value, list)}
                        yield {**about, "env_steps": step["step_count"], **metrics, **best}
