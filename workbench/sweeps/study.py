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
import os
import shutil
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workbench.errors import path_of, unknown_name
from workbench.sweeps import kept, layout, results
from workbench.sweeps.batch import Batch
from workbench.sweeps.files import Json, file_name
from workbench.sweeps.job import RunOutcome
from workbench.sweeps.kept import KeptRun
from workbench.sweeps.notebook import SEED
from workbench.sweeps.plan import Plan, PlannedRun, expand
from workbench.sweeps.progress import duration
from workbench.sweeps.provenance import available_cpus
from workbench.sweeps.results import IDENTIFYING, RunResult
from workbench.sweeps.spec import check_keys, parse
from workbench.sweeps.values import Parameters, canonical, size_of

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
        defaults = {name: parameter.default for name, parameter in self.notebook.parameters.items()}
        self._files = _Files(self.home / RUNS, canonical(defaults))

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

    def pick(self, **only: Any) -> Self:
        """The study of those runs alone whose parameters have these values, or one of these: ``seed=[0, 1]``."""
        for name in only:
            if name not in self.notebook.swept_names:
                raise unknown_name(f"parameter of {self.notebook.path.name}", name, self.notebook.swept_names)
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
        found = self._files.of(self.plan.runs)
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
        found = self._files.of(self.plan.runs)
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
        if unreadable := self._files.unreadable():
            return unreadable
        strangers = set(self._files.paths()) - set(self._files.of(self._whole().plan.runs).values())
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
        done = self.label(run) in self.repeated if self.again else bool(self._files.of([run]))
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
        found = self._files.of([run])
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

    def _whole(self) -> Study:
        return Study(self.home)

    # --- the plan and its cost ------------------------------------------------------------------------------------

    def estimate(self, workers: int | None = None) -> float | None:
        """Seconds that what is missing takes on so many workers, by the measured pace of the runs that are kept.

        A run's pace is the median of runs of its method on its task, else of its task, else of all; None if none is
        known.
        """
        known = [(run.parameters, run.record["wall_seconds"]) for run in self._whole().kept]
        paces = [(given, seconds / size_of(given)) for given, seconds in known if seconds]
        missing = self.missing
        if not paces:
            return None if missing else 0.0
        seconds = sum(size_of(run.parameters) * _pace(run.parameters, paces) for run in missing)
        return seconds / max(1, min(workers or available_cpus(), len(missing)))

    def _lines(self, workers: int | None = None) -> dict[str, str]:
        n_workers = workers or available_cpus()
        seconds = self.estimate(n_workers)
        left = len(self.missing)
        cost = "nothing" if not left else "not known before a run is finished"
        if seconds:
            cost = f"about {duration(seconds)} with {n_workers} workers, by the measured pace of the runs that are kept"
        steps = sum(size_of(run.parameters) for run in self.missing)
        return {
            "spec": os.path.relpath(self.home / SPEC),
            "kept": f"{len(self.plan.runs) - left} of {len(self.plan.runs)} runs",
            "missing": f"{left} runs, {steps:,.0f} env steps",
            "will take": cost,
        }

    def told(self, workers: int | None = None) -> str:
        """The study in words: what is there, and what is still to come on so many workers."""
        return "\n".join(f"{name:<12}{text}" for name, text in self._lines(workers).items())

    def __repr__(self) -> str:
        return self.told()


class _Files:
    """The files of kept runs, and which run each is of; what was read once is remembered while the file is the same.

    A file that was written before the notebook had some parameter is of the run in which that has its default.
    """

    def __init__(self, directory: Path, defaults: Json) -> None:
        self.directory, self._defaults = directory, defaults
        self._known: dict[tuple[Path, int], Json] = {}

    def paths(self) -> list[Path]:
        return sorted(self.directory.glob("[!.]*.parquet"))

    def unreadable(self) -> list[str]:
        """What is wrong with the files that are no kept runs at all."""
        told = []
        for path in self.paths():
            try:
                self._parameters(path)
            except ValueError as error:
                told.append(str(error))
        return told

    def of(self, runs: Iterable[PlannedRun]) -> dict[str, Path]:
        """{name of the run: its file}, for those of ``runs`` that are there."""
        held = [(path, self._parameters(path)) for path in self.paths()]
        found = {}
        for run in runs:
            planned = canonical(run.parameters)
            for path, stored in held:
                if planned == {**{name: self._defaults[name] for name in planned}, **stored}:
                    found[run.name] = path
        return found

    def _parameters(self, path: Path) -> Json:
        key = path, path.stat().st_mtime_ns
        if key not in self._known:
            self._known[key] = canonical(kept.read_record(path)["parameters"])
        return self._known[key]


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


def _pace(parameters: Parameters, paces: Sequence[tuple[Parameters, float]]) -> float:
    alike: list[float] = []
    for names in (IDENTIFYING, IDENTIFYING[1:], ()):  # no names match all
        alike = alike or [pace for given, pace in paces if all(given.get(n) == parameters.get(n) for n in names)]
    return statistics.median(alike)
