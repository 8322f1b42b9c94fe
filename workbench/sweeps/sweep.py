"""``Sweep``: many runs of one notebook, planned and checked first, then done on a cluster, readable all the while."""

from __future__ import annotations

import contextlib
import fcntl
import os
import statistics
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.errors import unknown_name
from workbench.sweeps import layout, provenance, results, values
from workbench.sweeps.notebook import SEED, Notebook, read_notebook
from workbench.sweeps.plan import Plan, Run, expand
from workbench.sweeps.progress import Progress, duration
from workbench.sweeps.results import RunResult

if TYPE_CHECKING:
    from distributed import Client

    from workbench.statistics import Comparison
    from workbench.statistics.selection import Names
    from workbench.sweeps.engine import Engine
    from workbench.sweeps.job import Job

SHOWN = 12  # runs in a plan's table
POLL = 0.2  # seconds between two looks of a waiting cell, at which an interrupt is heard


class Sweep:
    """All combinations of some parameters of a notebook, each a run with a directory of its own.

        sweep = wb.Sweep("notebooks/experiment.ipynb", grid={"order": ["random", "fixed"]}, seeds=range(5),
                         directory="data/sweeps/orders")
        sweep                       # the plan and what it will cost
        sweep.run(workers=2)        # on this machine; or client=, or scheduler="tcp://…"
        sweep.table()               # one row an evaluation; at any time, from any process

    Nothing runs before everything is checked: names, types and the ranges that the notebook's comments state. What is
    finished is never run again, so the same lines go on after a kill, and do only what is new when seeds or values were
    added.

    notebook       a notebook with a cell tagged ``parameters``, among them ``directory``
    grid           {name: values}: every combination
    zip            {name: values}: the first of each together, then the second …
    random         {name: choices or {"uniform": [low, high]}, "log_uniform", "integers"}: ``samples`` draws of all
    samples, sampling_seed   how many, and which; more samples keep those that there are
    seeds          every combination with each of them
    fixed          {name: value} in all runs
    directory      where it all goes
    threads        that each run may use
    """

    def __init__(
        self,
        notebook: str | Path,
        *,
        grid: Mapping[str, Any] | None = None,
        zip: Mapping[str, Any] | None = None,
        random: Mapping[str, Any] | None = None,
        samples: int = 10,
        sampling_seed: int = 0,
        seeds: Iterable[int] | None = None,
        fixed: Mapping[str, Any] | None = None,
        directory: str | Path,
        threads: int = 1,
    ) -> None:
        self.notebook: Notebook = read_notebook(notebook)
        self.plan: Plan = expand(
            self.notebook,
            grid=grid,
            zip=zip,
            random=random,
            samples=samples,
            sampling_seed=sampling_seed,
            seeds=seeds,
            fixed=fixed,
        )
        self.directory = Path(directory).absolute()
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads is {threads!r}; expected an integer ≥ 1.")
        self.threads = threads
        self._work: _Work | None = None

    # --- running --------------------------------------------------------------------------------------------------

    def run(
        self,
        workers: int | None = None,
        *,
        client: Client | None = None,
        scheduler: str | None = None,
        retry_failed: bool = False,
        progress: bool = True,
    ) -> Sweep:
        """Do what is not finished yet, and return when all is done; returns the sweep.

        On ``workers`` processes of this machine (by default one a core), on any Dask ``client``, or on the cluster
        whose ``scheduler`` is at an address. A run that fails by itself is reported in ``failures`` and not tried again
        unless ``retry_failed``; one whose process dies goes on from its last checkpoint. An interrupt (Ctrl-C, the
        notebook's stop button) stops the runs where they can be taken up again, and raises ``KeyboardInterrupt``.
        """
        self.start(workers, client=client, scheduler=scheduler, retry_failed=retry_failed, progress=progress)
        return self.wait()

    def start(
        self,
        workers: int | None = None,
        *,
        client: Client | None = None,
        scheduler: str | None = None,
        retry_failed: bool = False,
        progress: bool = True,
    ) -> Sweep:
        """The same in the background: returns at once; ``pause()``, ``resume()``, ``cancel()``, ``wait()``."""
        if self.running:
            raise RuntimeError("this sweep is running; sweep.wait() waits for it, sweep.cancel() stops it.")
        if sum(way is not None for way in (workers, client, scheduler)) > 1:
            raise ValueError("give one of workers=, client= and scheduler=; they say where the runs are done.")
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise ValueError(f"workers is {workers!r}; expected an integer ≥ 1, such as workers=2.")
        self._write_down(retry_failed)
        self._work = _Work(self, workers or cores(), client, scheduler)
        if progress:
            self._work.shown = _show(self)
        self._work.begin()
        return self

    def wait(self, timeout: float | None = None) -> Sweep:
        """Wait until it is done; raises what stopped it, ``TimeoutError`` after ``timeout`` seconds (it goes on)."""
        work = self._work
        if work is None:
            return self
        work.wait(timeout)
        return self

    def pause(self) -> None:
        """Begin no further run; those under way go on to their ends."""
        if self._work is not None:
            self._work.ask("pause")

    def resume(self) -> None:
        """Begin runs again after ``pause``."""
        if self._work is not None:
            self._work.ask("resume")

    def cancel(self) -> None:
        """Stop: those under way write a checkpoint and end. ``run()`` goes on from there."""
        if self._work is not None:
            self._work.ask("cancel")

    @property
    def running(self) -> bool:
        """Whether it is being worked on from this object."""
        return self._work is not None and self._work.alive

    @property
    def progress(self) -> Progress:
        """How far it has come, whoever works on it."""
        if self._work is not None and self._work.progress is not None and self.running:
            return self._work.progress
        statuses = [results.status_of(self._place(run)) for run in self.plan.runs]
        count = statuses.count
        return Progress(
            total=len(statuses),
            finished=count("finished"),
            failed=count("failed"),
            pruned=count("pruned"),
            waiting=count("waiting") + count("interrupted"),
            elsewhere=count("running"),
            failures=self.failures,
            state="done" if count("finished") + count("failed") + count("pruned") == len(statuses) else "not running",
        )

    # --- results --------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> list[RunResult]:
        """What each run of the plan has come to."""
        return [results.read_run(self._place(run), run.parameters, self.plan.swept) for run in self.plan.runs]

    def table(self, kind: str | None = None) -> pd.DataFrame:
        """One row for each evaluation (or "iterations", "agents", "runs") with the run's parameters as columns.

        ``run``, every swept parameter, ``seed``, ``status``, ``steered``, then the metrics, as ``results.table`` says.
        Whatever has been written so far is there, from any process.
        """
        return results.tabulate(self.runs, kind)

    def compare(self, metric: str = "return", by: Names | None = None, **options: Any) -> Comparison:
        """The finished runs compared by what is swept, or by the columns ``by``: ``wb.statistics.compare``.

        ``steered=True`` keeps runs that were changed by hand, ``unfinished=True`` those under way.
        """
        from workbench.statistics import compare

        return compare(self.table(), metric, self._groups(by), **options)

    def figure(self, metric: str = "return", by: Names | None = None, *, kind: str = "curves", **options: Any) -> Any:
        """A record of a metric of the groups that ``by`` makes (by default, of all that is swept), over seeds.

        kind     "curves": the interquartile mean along the runs, "intervals": at their end, "profiles": of performance,
                 "improvement": the probability of it, "paired": differences to a ``baseline``, seed by seed
        options  as ``wb.statistics.compare`` takes them: ``at``, ``steered``, ``unfinished``, ``normalise``, …
        """
        from workbench.jupyter import views

        kinds = {
            "curves": views.learning_curves,
            "intervals": views.intervals,
            "profiles": views.performance_profiles,
            "improvement": views.probability_of_improvement,
            "paired": views.paired_differences,
        }
        if kind not in kinds:
            raise unknown_name("kind of figure", kind, kinds)
        draw: Any = kinds[kind]
        return draw(self.table(), metric=metric, by=self._groups(by), **options)

    def _groups(self, by: Names | None) -> Names:
        """The columns that make the groups; the field's word for the method is understood too."""
        if by is None:
            return list(self.plan.swept) or "method"
        if by == "algorithm" and by not in self.plan.swept:
            return "method"
        return by

    @property
    def failures(self) -> dict[str, str]:
        """{run: why it failed}, for those that failed by themselves."""
        told = {}
        for run in self.plan.runs:
            failure = layout.read_json(self._place(run) / layout.FAILED)
            if failure is not None and failure.get("kind") != "pruned":
                told[self.label(run) or run.name] = str(failure.get("message", ""))
        return told

    @property
    def finished(self) -> bool:
        """Whether every run is."""
        return all((self._place(run) / layout.FINISHED).exists() for run in self.plan.runs)

    def label(self, run: Run) -> str:
        """A run in the words of what is swept."""
        return run.label([*self.plan.swept, *([SEED] if self.plan.seeds else [])])

    # --- the plan and its cost ------------------------------------------------------------------------------------

    def estimate(self, workers: int | None = None) -> float | None:
        """Seconds that what is left will take on so many workers, by the pace of runs that are known; None if none is.

        Known are the finished runs of this directory and, if there is none yet, those of the same notebook in the
        directories beside it. A run's pace is taken per env step where the notebook has ``env_steps``.
        """
        left = [run for run in self.plan.runs if results.status_of(self._place(run)) not in ("finished", "failed")]
        paces = self._paces([self.directory]) or self._paces(
            sorted(path for path in self.directory.parent.glob("*") if path != self.directory)
        )
        if not paces or not left:
            return None if left else 0.0
        total = statistics.median(paces) * sum(_size(run.parameters) for run in left)
        return total / min(workers or cores(), len(left))

    def _paces(self, directories: Iterable[Path]) -> list[float]:
        """Seconds for each unit of size of the finished runs there."""
        found = []
        for directory in directories:
            for place in (directory / layout.RUNS).glob("*"):
                record = (layout.read_json(place / layout.RUN) if (place / layout.FINISHED).exists() else None) or {}
                if record.get("notebook_digest") == self.notebook.digest and record.get("wall_seconds"):
                    found.append(record["wall_seconds"] / _size(record["parameters"]))
        return found

    def _lines(self) -> dict[str, str]:
        """The plan in words."""
        done = self.progress
        defaults = {
            name: values.short(value)
            for name, value in self.plan.runs[0].parameters.items()
            if name not in self.plan.swept and name != SEED
        }
        seconds = self.estimate()
        cost = (
            f"about {duration(seconds)} on {cores()} workers, by the pace of finished runs"
            if seconds is not None
            else "not known before a run is finished"
        )
        if sizes := [run.parameters["env_steps"] for run in self.plan.runs if "env_steps" in run.parameters]:
            cost = f"{sum(sizes):,} env steps in all; {cost}"
        lines = {
            "notebook": str(self.notebook.path.name),
            "plan": self.plan.count(),
            "done": f"{done.finished} finished, {done.failed} failed, {done.elsewhere} running, {done.waiting} to do",
            "cost": cost,
            "the same in all": ", ".join(f"{name}={value}" for name, value in defaults.items()),
            "directory": str(self.directory),
        }
        if others := self._made_by_another_notebook():
            lines["note"] = (
                f"{others} runs were made when the notebook's code was another; delete them to make them anew"
            )
        return lines

    def _made_by_another_notebook(self) -> int:
        records = [layout.read_json(self._place(run) / layout.RUN) for run in self.plan.runs]
        made_by = [record.get("notebook_digest") for record in records if record is not None]
        return sum(each != self.notebook.digest for each in made_by)

    def __repr__(self) -> str:
        return "\n".join(f"{name:<16}{text}" for name, text in {"Sweep": "", **self._lines()}.items()).rstrip()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._lines().items()
        )
        names = [*self.plan.swept, *([SEED] if self.plan.seeds else [])]
        head = "".join(f"<th>{escape(name)}</th>" for name in (*names, "status"))
        body = "".join(
            "<tr>"
            + "".join(f"<td>{escape(values.short(run.parameters[name]))}</td>" for name in names)
            + f"<td>{results.status_of(self._place(run))}</td></tr>"
            for run in self.plan.runs[:SHOWN]
        )
        more = f"<p>and {len(self.plan.runs) - SHOWN} more</p>" if len(self.plan.runs) > SHOWN else ""
        return (
            f"<b>Sweep</b><table>{rows}</table><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
        )

    # --- within ---------------------------------------------------------------------------------------------------

    def _place(self, run: Run) -> Path:
        return layout.run_directory(self.directory, run.name)

    def _write_down(self, retry_failed: bool) -> None:
        """Add what this sweep asks for to what was asked for before; clear failures that are to be tried again."""
        try:
            (self.directory / layout.RUNS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(error.errno, f"no sweep can be kept in {str(self.directory)!r}: {error.strerror}.") from None
        with _locked(self.directory):
            asked = layout.read_json(self.directory / layout.SWEEP) or {"swept": [], "runs": {}}
            layout.write_json(
                self.directory / layout.SWEEP,
                {
                    "notebook": str(self.notebook.path),
                    "notebook_digest": self.notebook.digest,
                    "swept": list(dict.fromkeys([*asked["swept"], *self.plan.swept])),
                    "runs": {**asked["runs"], **{run.name: dict(run.parameters) for run in self.plan.runs}},
                },
            )
        if retry_failed:
            for run in self.plan.runs:
                self._forget_failure(run)

    def _forget_failure(self, run: Run) -> None:
        if (self._place(run) / layout.FAILED).exists() and (claim := layout.Claim.take(self._place(run))) is not None:
            with claim:
                (self._place(run) / layout.FAILED).unlink(missing_ok=True)
                layout.append_lines(self._place(run) / layout.ATTEMPTS, [{"retried": provenance.now()}])


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(parameters: Mapping[str, Any]) -> float:
    steps = parameters.get("env_steps")
    return float(steps) if isinstance(steps, int | float) and steps > 0 else 1.0


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One writer of ``sweep.json`` at a time."""
    with open(directory / ".lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_job(sweep: Sweep) -> Callable[[Run], Job]:
    """How a run of a sweep is told to a worker."""
    from workbench.sweeps.job import Job
    from workbench.sweeps.kernels import modules_to_import

    notebook = sweep.notebook
    kernel = notebook.content["metadata"].get("kernelspec", {}).get("name", "python3")
    modules = modules_to_import(notebook.imports)
    git = provenance.git_state(notebook.path.parent)

    def job(run: Run) -> Job:
        return Job(
            directory=str(sweep.directory),
            name=run.name,
            parameters=dict(run.parameters),
            notebook=notebook.source,
            notebook_name=notebook.name,
            notebook_digest=notebook.digest,
            notebook_folder=str(notebook.path.parent),
            kernel=kernel,
            modules=modules,
            threads=sweep.threads,
            git=git,
        )

    return job


class _Work:
    """A sweep being worked on: the thread that does it, and what it has said last."""

    def __init__(self, sweep: Sweep, workers: int, client: Client | None, scheduler: str | None) -> None:
        self._sweep = sweep
        self._where: tuple[int, Client | None, str | None] = (workers, client, scheduler)
        self._engine: Engine | None = None
        self._error: BaseException | None = None
        self._asked: list[str] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._do, name="sweep", daemon=True)
        self.progress: Progress | None = None
        self.shown: Callable[[Progress], None] = lambda _: None

    def begin(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def ask(self, what: str) -> None:
        """ "pause", "resume" or "cancel"; before there is a cluster it is remembered."""
        with self._lock:
            if self._engine is None:
                self._asked.append(what)
            else:
                getattr(self._engine, what)()

    def wait(self, timeout: float | None) -> None:
        """Until it is over; an interrupt cancels it, a second one leaves it."""
        left = float("inf") if timeout is None else timeout
        try:
            while self._thread.is_alive() and left > 0:
                self._thread.join(min(POLL, left))
                left -= POLL
        except KeyboardInterrupt:
            print("\nStopping the runs where they can be taken up again …", file=sys.stderr)
            self.ask("cancel")
            self._thread.join()
            raise
        if self._thread.is_alive():
            raise TimeoutError(f"still running after {timeout} s; sweep.cancel() stops it.")
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _do(self) -> None:
        from workbench.sweeps.engine import Engine, check_workers, cluster

        sweep = self._sweep
        workers, given, scheduler = self._where
        try:
            with cluster(workers, given, scheduler) as client:
                check_workers(client, sweep.directory)
                engine = Engine(client, sweep.directory, make_job(sweep), sweep.label, on_tick=self._tick)
                engine.add(sweep.plan.runs)
                with self._lock:
                    self._engine = engine
                for what in self._asked:
                    self.ask(what)
                engine.work()
        except BaseException as error:
            self._error = error

    def _tick(self, progress: Progress) -> None:
        self.progress = progress
        with contextlib.suppress(Exception):  # a view that fails does not stop a sweep
            self.shown(progress)


def _show(sweep: Sweep) -> Callable[[Progress], None]:
    """Where the progress is seen: in the notebook, or on the terminal."""
    if "ipykernel" in sys.modules:
        from workbench.jupyter.sweep_progress import SweepProgress

        return SweepProgress(sweep).show
    from workbench.sweeps.terminal import TerminalProgress

    return TerminalProgress().show
