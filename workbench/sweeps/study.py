"""``Study``: sweeps whose finished runs are kept with the repository, so that they are done once, in pieces, anywhere.

    study = wb.Study("data/results")                  # reads data/results/spec.yaml
    study                                             # which runs are there, and how long the others will take
    study.run(workers=2, hours=3)                     # does what is missing; begins nothing new after three hours
    study.table("agents")                             # the runs that are kept
    study.pick(method="happo", scenario="Ant")        # a part of it
    study.complaints()                                # what in the files does not agree with the spec; [] if all does

A study is a directory::

    spec.yaml     notebook, fixed, threads, kernel, and sweeps: {name: {grid, zip, seeds, fixed}}, as in ``wb.Sweep``
    runs/         a file for each finished run (``kept.py``), written when it has finished, never again
    policies/     policies of the best seed of each method and task, for the runs that ``policies`` of the spec names

A run that is under way lives in ``../scratch``, with the checkpoints from which it goes on after a kill.
"""

from __future__ import annotations

import copy
import functools
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workbench.envs.workers import usable_cpus
from workbench.errors import path_of, unknown_name
from workbench.sweeps import kept, layout, results
from workbench.sweeps.batch import Batch
from workbench.sweeps.files import Json, file_name
from workbench.sweeps.job import RunOutcome
from workbench.sweeps.kept import KeptRun
from workbench.sweeps.notebook import SEED
from workbench.sweeps.plan import Plan, PlannedRun, expand
from workbench.sweeps.progress import duration, estimated
from workbench.sweeps.results import RunResult
from workbench.sweeps.spec import check_keys, parse
from workbench.sweeps.values import IDENTIFYING, Parameters, canonical, size_of

if TYPE_CHECKING:
    import pandas as pd

    from workbench.running.export import Policies
    from workbench.sweeps.dispatcher import RunDispatcher

SPEC, RUNS, POLICIES, SCRATCH = "spec.yaml", "runs", "policies", "scratch"
KEYS = ("notebook", "fixed", "threads", "kernel", "policies", "sweeps")
OF_A_SWEEP = ("grid", "zip", "seeds", "fixed")


class Study(Batch):
    """Several sweeps of one notebook, described in ``directory/spec.yaml``, and what has been finished of them.

    Runs are named and found by all their parameters: one that was kept is never run again, wherever it was done.
    Shorter runs come first, then every combination with the first seed, with the next, and so on.

    again   do the runs once more, in a place of their own, and compare each with the one that is kept (``repeated``)
    """

    def __init__(self, directory: str | Path, *, again: bool = False) -> None:
        self.home = path_of("directory", directory).absolute()
        if not (self.home / SPEC).is_file():
            raise FileNotFoundError(f"{str(directory)!r} is no study: it has no {SPEC}.")
        spec = parse(self.home / SPEC)
        check_keys(f"key of {SPEC}", spec, KEYS)
        if not isinstance(spec.get("notebook"), str) or not isinstance(spec.get("sweeps"), dict):
            raise ValueError(f"{SPEC} needs notebook, a path relative to it, and sweeps, a mapping of names to sweeps.")
        scratch = self.home.parent / SCRATCH / (self.home.name + ("-again" if again else ""))
        super().__init__(self.home / spec["notebook"], scratch, spec.get("threads", 1), spec.get("kernel"))
        self.again = again
        self.repeated: dict[str, str] = {}
        self._policies: Parameters | None = spec.get("policies")
        self._until = float("inf")
        self.plan = self._planned(spec)
        self._defaults = canonical(self.notebook.resolve({}))

    def _planned(self, spec: Json) -> Plan:
        runs: dict[str, PlannedRun] = {}
        seeds: dict[int, None] = {}
        for name, sweep in spec["sweeps"].items():
            check_keys(f"key of the sweep {name} in {SPEC}", sweep, OF_A_SWEEP)
            plan = expand(self.notebook, **{**sweep, "fixed": {**spec.get("fixed", {}), **sweep.get("fixed", {})}})
            runs |= {run.name: run for run in plan.runs}
            seeds |= dict.fromkeys(plan.seeds)
        order = list(seeds)

        def when(run: PlannedRun) -> tuple[float, int]:
            return run.parameters.get("env_steps", 0), order.index(run.parameters[SEED]) if order else 0

        return Plan(tuple(sorted(runs.values(), key=when)), _swept(runs.values()), tuple(order))

    def pick(self, **only: object) -> Self:
        """The study of those runs alone whose parameters have these values, or one of these: ``seed=[0, 1]``."""
        check_keys(f"parameter of {self.notebook.path.name}", only, self.notebook.swept_names)
        runs = [run for run in self.plan.runs if _has(run, only)]
        if not runs:
            raise ValueError(f"no run of the study has {only}.")
        part = copy.copy(self)
        seeds = tuple(seed for seed in self.plan.seeds if any(run.parameters.get(SEED) == seed for run in runs))
        part.plan, part.repeated, part._work = Plan(tuple(runs), self.plan.swept, seeds), {}, None
        return part

    # --- what is there --------------------------------------------------------------------------------------------

    @property
    def runs(self) -> list[RunResult]:
        """Each run of the plan as far as it has come; those that are kept as their files have them."""
        found = self._files(self.plan.runs)
        return [
            kept.read(found[run.name], run.name, run.parameters, self.plan.swept)
            if run.name in found
            else results.read_run(self._place(run), run.parameters, self.plan.swept)
            for run in self.plan.runs
        ]

    @property
    def kept(self) -> list[KeptRun]:
        """The runs of the plan that are kept."""
        return [run for run in self.runs if isinstance(run, KeptRun)]

    @property
    def missing(self) -> list[PlannedRun]:
        """The runs of the plan that are not kept."""
        found = self._files(self.plan.runs)
        return [run for run in self.plan.runs if run.name not in found]

    def table(self, kind: str | None = None) -> pd.DataFrame:
        """As ``Sweep.table``, of the runs that are kept, and so the same wherever it is read."""
        return results.tabulate(self.kept, kind)

    @property
    def shipped(self) -> tuple[str, ...]:
        """The names of the cells, a method on a task each, whose best seed's policies ship; ``policies(name)``."""
        planned = dict.fromkeys(_cell_name(run.parameters) for run in self.plan.runs)
        return tuple(cell for cell in planned if (self.home / POLICIES / cell).is_dir())

    def policies(self, name: str) -> Policies:
        """The policies of a cell's best seed: ``wb.replay(study.policies("Ant-4x2_happo_1e6"))``."""
        from workbench.running.export import load_policies

        if name not in self.shipped:
            raise unknown_name("cell with policies", name, self.shipped)
        return load_policies(self.home / POLICIES / name)

    def complaints(self) -> list[str]:
        """What in the files of kept runs does not agree with the spec, or with themselves; [] if all does."""
        told = []
        for path in self._paths():
            try:
                _stored(path, path.stat().st_mtime_ns)
            except ValueError as error:
                told.append(str(error))
        if told:
            return told
        strangers = set(self._paths()) - set(self._files(self._whole().plan.runs).values())
        told = [f"{path.name}: the spec has no such run" for path in sorted(strangers)]
        for run in self.kept:
            told += [f"{run.path.name}: {problem}" for problem in _problems(run)]
        return told

    # --- doing it -------------------------------------------------------------------------------------------------

    def run(self, workers: int | None = None, *, hours: float | None = None, **where: Any) -> Self:
        """Do what is missing, and keep each run when it has finished; ``Batch.run`` has the options.

        hours   after which no further run is begun; those under way come to their ends
        """
        self._until = float("inf") if hours is None else time.monotonic() + 3600 * hours
        return super().run(workers, **where)

    def _status(self, run: PlannedRun) -> str:
        done = self.label(run) in self.repeated if self.again else bool(self._files([run]))
        status = results.status_of(self._place(run))
        # One that has finished in its own place counts when it is kept, or compared.
        return "finished" if done else "waiting" if status == "finished" else status

    def _begin(self, dispatcher: RunDispatcher) -> None:
        (self.home / RUNS).mkdir(exist_ok=True)
        dispatcher.add(self.plan.runs if self.again else self.missing)

    def _ended(self, dispatcher: RunDispatcher, run: PlannedRun, outcome: RunOutcome) -> None:
        if outcome.kind == "finished":
            self._take(run)

    def _look(self, dispatcher: RunDispatcher) -> None:
        if time.monotonic() > self._until:
            dispatcher.pause()
            if dispatcher.idle:
                dispatcher.cancel()

    def _take(self, run: PlannedRun) -> None:
        """Keep a run that has finished, or compare it with the one that is kept."""
        table = kept.table_of(self._place(run))
        record = kept.record_of(self._place(run), table)
        found = self._files([run])
        if self.again:
            self.repeated[self.label(run)] = _compared(record, found.get(run.name))
            shutil.rmtree(self._place(run))  # the next repetition is one, too
        elif not found:
            kept.write(self.home / RUNS / kept.file_name(run.name, run.parameters), table, record)
            self._keep_policies(run, record)

    def _keep_policies(self, run: PlannedRun, record: Json) -> None:
        """Export the policies of a run that is the best of its cell so far, where the spec asks for them."""
        if self._policies is None or not _has(run, self._policies):
            return
        cell = _cell_name(run.parameters)
        rivals = [other for other in self._whole().kept if _cell_name(other.parameters) == cell]
        if record["summary"]["return"] >= max(other.summary["return"] for other in rivals):
            from workbench.running.export import export_policies
            from workbench.running.methods import load

            export_policies(load(self._place(run) / layout.CHECKPOINTS), self.home / POLICIES / cell)

    # --- the files of kept runs -----------------------------------------------------------------------------------

    def _whole(self) -> Study:
        return Study(self.home)

    def _paths(self) -> list[Path]:
        return sorted((self.home / RUNS).glob("[!.]*.parquet"))

    def _files(self, runs: Iterable[PlannedRun]) -> dict[str, Path]:
        """{name of the run: its file}, for those of ``runs`` that are kept.

        A file that was written before the notebook had some parameter is of the run in which that has its default.
        """
        held = [(path, {**self._defaults, **_stored(path, path.stat().st_mtime_ns)}) for path in self._paths()]
        planned = {run.name: canonical(run.parameters) for run in runs}
        return {name: path for name, asked in planned.items() for path, stored in held if stored == asked}

    # --- the plan and its cost ------------------------------------------------------------------------------------

    def estimate(self, workers: int | None = None) -> float | None:
        """Seconds that what is missing takes on so many workers, by the measured pace of the runs that are kept.

        A run's pace is the median of runs of its method on its task, else of its task, else of all; None if none is
        known.
        """
        known = [(run.parameters, run.record["wall_seconds"]) for run in self._whole().kept]
        return estimated(self.missing, known, workers)

    def told(self, workers: int | None = None) -> str:
        """The study in words: what is there, and what is still to come on so many workers."""
        n_workers = workers or usable_cpus()
        seconds, missing = self.estimate(n_workers), self.missing
        cost = "nothing" if not missing else "not known before a run is finished"
        if seconds:
            cost = f"about {duration(seconds)} with {n_workers} workers, by the measured pace of the runs that are kept"
        steps = sum(size_of(run.parameters) for run in missing)
        lines = {
            "spec": os.path.relpath(self.home / SPEC),
            "kept": f"{len(self.plan.runs) - len(missing)} of {len(self.plan.runs)} runs",
            "missing": f"{len(missing)} runs, {steps:,.0f} env steps",
            "will take": cost,
        }
        return "\n".join(f"{name:<12}{text}" for name, text in lines.items())

    def __repr__(self) -> str:
        return self.told()


@functools.cache
def _stored(path: Path, changed_at: int) -> Json:
    """The parameters in the file of a kept run; read once, as long as it is the same file."""
    return canonical(kept.read_record(path)["parameters"])


def _problems(run: KeptRun) -> list[str]:
    """What is wrong with a kept run, in words."""
    try:
        table = kept.read_table(run.path)
    except ValueError as error:
        return [str(error).replace(run.path.name, "it", 1)]
    problems = []
    evaluations = kept.rows_of(table, kept.EVALUATIONS)
    stored = kept.read_record(run.path)
    if kept.SEAL in stored:
        told = stored[kept.SEAL] == kept.seal(stored)
    else:
        told = not evaluations or run.summary.get("return") == evaluations[-1]["return"]
    if not told:
        problems.append("its record is not the one that was written")
    if kept.digest(table) != run.record["digest"]:
        problems.append("its rows are not those that were written")
    settings, parameters = run.record["settings"], run.parameters
    asked = {name: parameters[name] for name in settings if parameters.get(name) is not None}
    asked |= parameters.get("settings", {})
    for name, value in canonical(asked).items():
        if name in settings and settings[name] != value:
            problems.append(f"it was trained with {name}={settings[name]!r}, the spec has {value!r}")
    if run.summary.get("steered"):
        problems.append("it was changed by hand")
    reached = [row["env_steps"] for row in evaluations]
    if evaluations and (reached[0] != 0 or reached[-1] < parameters["env_steps"]):
        problems.append(f"it was evaluated from {reached[0]} to {reached[-1]} env steps")
    if any(row["return"] is None for row in evaluations):
        problems.append("an evaluation is not a number")
    return problems


def _compared(record: Json, path: Path | None) -> str:
    """A repetition against the run that is kept, in words."""
    if path is None:
        return "is not kept yet"
    before = kept.read_record(path)
    if record["digest"] == before["digest"] and record["summary"] == before["summary"]:
        return "the same, bit for bit"
    others = [
        f"{name} {before['versions'].get(name)} → {version}"
        for name, version in record["versions"].items()
        if before["versions"].get(name) != version
    ]
    if record["git"] != before["git"]:
        others.append("another revision")
    ends = f"{before['summary'].get('return')} → {record['summary'].get('return')}"
    return f"DIFFERS: return {ends}; {', '.join(others) or 'same versions and revision'}"


def _swept(runs: Iterable[PlannedRun]) -> tuple[str, ...]:
    """The parameters that differ between runs of one method on one task, the seed aside."""
    seen: dict[tuple[object, ...], Parameters] = {}
    found: dict[str, None] = {}
    for run in runs:
        first = seen.setdefault(tuple(run.parameters.get(name) for name in IDENTIFYING), run.parameters)
        found |= dict.fromkeys(
            name for name, value in run.parameters.items() if name != SEED and first.get(name) != value
        )
    return tuple(found)


def _has(run: PlannedRun, wanted: Parameters) -> bool:
    """Whether its parameters have these values, or one of these."""
    return all(
        run.parameters[name] in (among if isinstance(among, list | tuple | range | set) else [among])
        for name, among in wanted.items()
    )


def _cell_name(parameters: Parameters) -> str:
    """A method on a task, with as many env steps, as a directory is called."""
    steps = f"{size_of(parameters):.0e}".replace("e+0", "e") if "env_steps" in parameters else "0e0"
    words = (kept.task_name(parameters), parameters.get("method", ""), steps)
    return "_".join(file_name(word) for word in words if word)
