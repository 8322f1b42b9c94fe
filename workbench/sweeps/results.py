"""Reading a sweep's directory, from this process or another, while it runs or long after.

    results.table("data/sweeps/orders")                   # one row an evaluation
    results.table("data/sweeps/orders", "iterations")     # or "agents", or "runs"

Needs neither Dask nor papermill, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench.errors import path_of, unknown_name
from workbench.sweeps import layout, values
from workbench.sweeps.files import Json, read_json, read_lines
from workbench.sweeps.job import RunOutcome
from workbench.sweeps.values import IDENTIFYING, Parameters

KINDS = {"evaluations": layout.EVALUATIONS, "iterations": layout.METRICS, "agents": layout.AGENTS, "runs": ""}
STATUSES = ("finished", "running", "waiting", "interrupted", "pruned", "failed")
ENDS = frozenset({"finished", "pruned", "failed"})
# What differs between two machines, or two runs on one: all other columns are the same to the last bit.
TIMED = ("seconds", "env_steps_per_second", "train_seconds", "wall_seconds", "attempts", "host", "started", "ended")
ABSOLUTE = "absolute_"  # of a summary's values: what the best policy reached
CORE = ("iteration", "env_steps", "return")  # metrics that keep their names whatever is swept


@dataclass(frozen=True)
class RunResult:
    """One run as its directory tells it.

    name        its hash
    parameters  all of them
    swept       names of those that differ within the sweep, the seed aside
    status      one of ``STATUSES``
    record      ``run.json``
    summary     what the notebook said at its end
    failure     what went wrong, for a failed run
    """

    name: str
    directory: Path
    parameters: Parameters
    swept: tuple[str, ...]
    status: str
    record: Json
    summary: Json
    failure: Json

    @property
    def evaluated(self) -> bool:
        """Whether there are evaluations."""
        file = self.directory / layout.EVALUATIONS
        return file.exists() and file.stat().st_size > 0  # a run that evaluates nothing leaves an empty one

    def rows(self, kind: str) -> list[Json]:
        """The lines of one of its files."""
        return read_lines(self.directory / KINDS[kind])


def end_of(directory: Path) -> RunOutcome | None:
    """How a run ended, or None while it has not: it is under way, can go on, or waits."""
    name, finished = directory.name, read_json(directory / layout.FINISHED)
    if finished is not None:
        return RunOutcome(name, "finished", seconds=float(finished.get("wall_seconds") or 0.0))
    failure = read_json(directory / layout.FAILED)
    if failure is None:
        return None
    kind = "pruned" if failure.get("kind") == "pruned" else "failed"
    return RunOutcome(name, kind, str(failure.get("message", "")), detail=failure)


def status_of(directory: Path) -> str:
    """How far a run has come."""
    if (end := end_of(directory)) is not None:
        return end.kind
    if layout.is_claimed(directory):
        # It may have come to its end between the two looks.
        return "finished" if (directory / layout.FINISHED).exists() else "running"
    return "interrupted" if (directory / layout.ATTEMPTS).exists() else "waiting"


def read_run(directory: Path, parameters: Parameters, swept: Iterable[str]) -> RunResult:
    """What a run's directory holds, as far as it has come."""
    return RunResult(
        name=directory.name,
        directory=directory,
        parameters=parameters,
        swept=tuple(swept),
        status=status_of(directory),
        record=read_json(directory / layout.RUN) or {},
        summary=read_json(directory / layout.SUMMARY) or {},
        failure=read_json(directory / layout.FAILED) or {},
    )


def read_sweep(directory: str | Path) -> list[RunResult]:
    """All runs that were ever asked for in a sweep's directory."""
    directory = path_of("directory", directory)
    asked = read_json(directory / layout.SWEEP)
    if asked is None:
        raise FileNotFoundError(f"{str(directory)!r} holds no sweep: {layout.SWEEP} is missing.")
    return [
        read_run(layout.run_directory(directory, name), parameters, asked["swept"])
        for name, parameters in asked["runs"].items()
    ]


def table(directory: str | Path, kind: str | None = None) -> pd.DataFrame:
    """One row for each evaluation, iteration, (iteration, agent) or run of a sweep, with its parameters.

    kind  "evaluations", "iterations", "agents" or "runs". None: evaluations, or iterations where nothing was evaluated

    Columns: ``run`` (its hash), method and task, every swept parameter, ``seed``, ``status``, ``steered``, the absolute
    metric of runs that have it, and the metrics: what ``wb.statistics.compare`` takes. Where a
    swept parameter is called like a metric, the metric is named ``metric_NAME``; but ``env_steps``, ``iteration`` and
    ``return`` are always the metrics, and the parameter is then ``parameter_NAME``. Rows of runs that are under way are
    there as far as they have come.
    """
    return tabulate(read_sweep(directory), kind)


def tabulate(runs: Iterable[RunResult], kind: str | None = None) -> pd.DataFrame:
    """The rows of some runs as one table: ``table`` says which."""
    runs = list(runs)
    if kind is None:
        kind = "evaluations" if any(run.evaluated for run in runs) else "iterations"
    if kind not in KINDS:
        raise unknown_name("kind of table", kind, KINDS)
    rows = []
    for run in runs:
        about = describe(run)
        metrics = [about_run(run, about)] if kind == "runs" else run.rows(kind)
        rows += [{**about, **_renamed(metric, about)} for metric in metrics]
    columns = ["run", *(rows[0] if rows else ()), "status", "steered"]
    found = pd.DataFrame(rows, columns=None if rows else list(dict.fromkeys(columns)))
    for name in found.columns:
        if found[name].dtype == object and found[name].isna().all():
            found[name] = found[name].astype("float64")  # a metric of which nothing but NaN is known yet
    return found


def describe(run: RunResult) -> Json:
    """The columns that all rows of a run share."""
    columns = dict.fromkeys([*(name for name in IDENTIFYING if name in run.parameters), *run.swept])
    shown = {f"parameter_{name}" if name in CORE else name: cell(run.parameters.get(name)) for name in columns}
    best = {name: value for name, value in run.summary.items() if name.startswith(ABSOLUTE)}
    seed = {"seed": run.parameters["seed"]} if "seed" in run.parameters else {}
    steered = bool(run.summary.get("steered", False))
    return {"run": run.name, **shown, **seed, "status": run.status, "steered": steered, **best}


def about_run(run: RunResult, about: Json) -> Json:
    """What one row for a whole run has beside ``about``: its other parameters, its summary, its cost."""
    others = {name: cell(value) for name, value in run.parameters.items() if name not in about and name not in CORE}
    cost = {name: run.record.get(name) for name in ("wall_seconds", "attempts", "started", "ended")}
    summary = {name: cell(value) for name, value in run.summary.items() if name not in about}
    error = {"error": run.failure.get("message")} if run.status == "failed" else {}
    code = {"code": run.record.get("notebook_digest")}  # equal where the notebook and the modules beside it were
    return {**others, **summary, **code, **cost, "host": run.record.get("machine", {}).get("host"), **error}


def cell(value: object) -> object:
    """A value as a table holds it: what cannot be grouped by becomes text."""
    if isinstance(value, list | tuple):
        return values.short(tuple(value))
    return str(value) if isinstance(value, dict) else value


def _renamed(metric: Json, about: Json) -> Json:
    return {f"metric_{name}" if name in about else name: value for name, value in metric.items()}
