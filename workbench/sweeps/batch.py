"""Runs of one notebook in one directory: doing them, watching them, reading what they left."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from workbench.envs.arguments import positive_integer
from workbench.envs.workers import usable_cpus
from workbench.errors import path_of, unknown_name
from workbench.sweeps import layout, provenance, results
from workbench.sweeps.dispatcher import RunDispatcher
from workbench.sweeps.files import append_lines, read_json, write_json
from workbench.sweeps.job import Job, RunOutcome
from workbench.sweeps.main_guard import refuse_without_guard
from workbench.sweeps.notebook import SEED, Notebook, check_kernel, read_notebook
from workbench.sweeps.plan import Plan, PlannedRun
from workbench.sweeps.progress import Progress, TerminalProgress
from workbench.sweeps.results import RunResult

if TYPE_CHECKING:
    from distributed import Client

    from workbench.statistics import Comparison
    from workbench.statistics.runs import Names


class Batch:
    """What a ``Sweep``, whose runs are known beforehand, and a ``Search``, which chooses them on the way, share.

    notebook   the notebook that is run
    plan       its runs, as far as they are known
    directory  where each has a directory of its own
    """

    plan: Plan

    def __init__(self, notebook: str | Path, directory: str | Path, threads: int, kernel: str | None = None) -> None:
        self.notebook: Notebook = read_notebook(notebook)
        self.directory = path_of("directory", directory).absolute()
        self.threads = positive_integer("threads", threads)
        self.kernel = kernel or self.notebook.kernel
        self._work: RunDispatcher | None = None

    # --- running --------------------------------------------------------------------------------------------------

    def run(
        self,
        workers: int | None = None,
        *,
        client: Client | None = None,
        scheduler: str | None = None,
        retry_failed: bool = False,
        progress: bool = True,
    ) -> Self:
        """Do what is not finished yet, and return when all is done; returns itself.

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
    ) -> Self:
        """The same in the background: returns at once; ``pause()``, ``resume()``, ``cancel()``, ``wait()``."""
        if self.running:
            raise RuntimeError("this sweep is running; sweep.wait() waits for it, sweep.cancel() stops it.")
        if sum(way is not None for way in (workers, client, scheduler)) > 1:
            raise ValueError("give one of workers=, client= and scheduler=; they say where the runs are done.")
        n_workers = usable_cpus() if workers is None else positive_integer("workers", workers)
        if client is not None and not hasattr(client, "scheduler_info"):
            raise TypeError(f"client is {client!r}; expected a dask.distributed.Client.")
        if scheduler is not None and not isinstance(scheduler, str):
            raise TypeError(f"scheduler is {scheduler!r}; expected an address, such as 'tcp://host:8786'.")
        check_kernel(self.notebook, self.kernel)
        if client is None and scheduler is None:
            refuse_without_guard()
        if others := self._made_by_other_code():
            warnings.warn(self._told_of_other_code(others), stacklevel=3)
        self._write_down(retry_failed)
        show = _shown(self) if progress else lambda _: None
        if self._nothing_left():
            self._work = None
            show(self.progress)
        else:
            self._work = RunDispatcher(self, n_workers, client, scheduler, show)
        return self

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it is done; raises what stopped it, ``TimeoutError`` after ``timeout`` seconds (it goes on)."""
        if self._work is not None:
            self._work.wait(timeout)
        return self

    def pause(self) -> None:
        """Begin no further run; those under way go on to their ends."""
        if self._work is not None:
            self._work.pause()

    def resume(self) -> None:
        """Begin runs again after ``pause``."""
        if self._work is not None:
            self._work.resume()

    def cancel(self) -> None:
        """Stop: those under way write a checkpoint and end. ``run()`` goes on from there."""
        if self._work is not None:
            self._work.cancel()

    @property
    def running(self) -> bool:
        """Whether it is being worked on from this object."""
        return self._work is not None and self._work.alive

    @property
    def progress(self) -> Progress:
        """How far it has come, the work of other processes included."""
        if self._work is not None and self._work.latest is not None and self.running:
            return self._work.latest
        statuses = [self._status(run) for run in self.plan.runs]
        count = statuses.count
        return Progress(
            total=len(statuses),
            finished=count("finished"),
            failed=count("failed"),
            pruned=count("pruned"),
            waiting=count("waiting") + count("interrupted"),
            elsewhere=count("running"),
            failures=self.failures,
            state="done" if results.ENDS.issuperset(statuses) else "not running",
        )

    # --- results --------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> list[RunResult]:
        """Each run of the plan, as far as it has come."""
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

        kinds: dict[str, Callable[..., object]] = {
            "curves": views.learning_curves,
            "intervals": views.intervals,
            "profiles": views.performance_profiles,
            "improvement": views.probability_of_improvement,
            "paired": views.paired_differences,
        }
        if kind not in kinds:
            raise unknown_name("kind of figure", kind, kinds)
        return kinds[kind](self.table(), metric=metric, by=self._groups(by), **options)

    def _groups(self, by: Names | None) -> Names:
        """The columns that make the groups; the field's word for the method is understood too."""
        if by is None:
            return list(self.plan.swept) or "method"
        return "method" if by == "algorithm" and by not in self.plan.swept else by

    @property
    def failures(self) -> dict[str, str]:
        """{run: why it failed}, for those that failed by themselves."""
        ends = [(run, results.end_of(self._place(run))) for run in self.plan.runs]
        return {self.label(run) or run.name: end.message for run, end in ends if end and end.kind == "failed"}

    @property
    def finished(self) -> bool:
        """Whether every run is."""
        return all(self._status(run) == "finished" for run in self.plan.runs)

    def label(self, run: PlannedRun) -> str:
        """A run in the words of what is swept."""
        several = self.plan.seeds or len({each.parameters.get(SEED) for each in self.plan.runs}) > 1
        return run.label([*self.plan.swept, *([SEED] if several else [])])

    # --- what the dispatcher asks of it ---------------------------------------------------------------------------

    def _nothing_left(self) -> bool:
        """Whether every run is at its end, so that no cluster is needed."""
        return all(self._status(run) in results.ENDS for run in self.plan.runs)

    def _job(self) -> Callable[[PlannedRun], Job]:
        """How a run is told to a worker."""
        git = provenance.git_state(self.notebook.path.parent)
        return lambda run: Job(str(self.directory), run, self.notebook, self.kernel, self.threads, git)

    def _begin(self, dispatcher: RunDispatcher) -> None:
        """Give it the first runs."""
        dispatcher.add(self.plan.runs)

    def _ended(self, dispatcher: RunDispatcher, run: PlannedRun, outcome: RunOutcome) -> None:
        """A run has come to its end."""

    def _look(self, dispatcher: RunDispatcher) -> None:
        """Some time has passed."""

    # --- within ---------------------------------------------------------------------------------------------------

    def _place(self, run: PlannedRun) -> Path:
        return layout.run_directory(self.directory, run.name)

    def _status(self, run: PlannedRun) -> str:
        """How far a run has come: one of ``results.STATUSES``."""
        return results.status_of(self._place(run))

    def _made_by_other_code(self) -> int:
        """How many of its runs were made when the notebook, or a module beside it, was another."""
        records = [read_json(self._place(run) / layout.RUN) for run in self.plan.runs]
        return sum(record is not None and record.get("notebook_digest") != self.notebook.digest for record in records)

    def _told_of_other_code(self, others: int) -> str:
        return (
            f"{others} of {len(self.plan.runs)} runs were made by other code: the notebook, or a module beside it, has "
            "changed since. They stay as they are; delete them, or name another directory, to make them anew."
        )

    def _write_down(self, retry_failed: bool) -> None:
        """Add what this sweep asks for to what was asked for before; clear failures that are to be tried again."""
        try:
            (self.directory / layout.RUNS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(error.errno, f"no sweep can be kept in {str(self.directory)!r}: {error.strerror}.") from None
        with layout.locked(self.directory):
            asked = read_json(self.directory / layout.SWEEP) or {"swept": [], "runs": {}}
            write_json(
                self.directory / layout.SWEEP,
                {
                    "notebook": str(self.notebook.path),
                    "notebook_digest": self.notebook.digest,
                    "swept": list(dict.fromkeys([*asked["swept"], *self.plan.swept])),
                    "runs": {**asked["runs"], **{run.name: run.parameters for run in self.plan.runs}},
                },
            )
        for place in map(self._place, self.plan.runs if retry_failed else ()):
            if (place / layout.FAILED).exists() and (claim := layout.Claim.take(place)) is not None:
                with claim:
                    (place / layout.FAILED).unlink(missing_ok=True)
                    append_lines(place / layout.ATTEMPTS, [{"retried": provenance.now()}])


def _shown(batch: Batch) -> Callable[[Progress], None]:
    """Where the progress is seen: in the notebook, or on the terminal."""
    if "ipykernel" in sys.modules:
        from workbench.jupyter.sweep_progress import SweepProgress

        return SweepProgress(batch).show
    return TerminalProgress().show
