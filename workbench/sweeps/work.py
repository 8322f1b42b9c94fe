"""A sweep under way: the thread that does it, and where its progress is seen."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.sweeps import provenance
from workbench.sweeps.plan import Run
from workbench.sweeps.progress import Progress

if TYPE_CHECKING:
    from distributed import Client

    from workbench.sweeps.batch import Batch
    from workbench.sweeps.engine import Engine
    from workbench.sweeps.job import Job

POLL = 0.2  # seconds between two looks of a waiting cell, at which an interrupt is heard


def make_job(batch: Batch) -> Callable[[Run], Job]:
    """How a run of a sweep is told to a worker."""
    from workbench.sweeps.job import Job

    notebook = batch.notebook
    kernel = notebook.content["metadata"].get("kernelspec", {}).get("name", "python3")
    git = provenance.git_state(notebook.path.parent)

    def job(run: Run) -> Job:
        return Job(
            directory=str(batch.directory),
            name=run.name,
            parameters=dict(run.parameters),
            notebook=notebook.source,
            notebook_name=notebook.name,
            notebook_digest=notebook.digest,
            notebook_folder=str(notebook.path.parent),
            kernel=kernel,
            threads=batch.threads,
            git=git,
        )

    return job


class Work:
    """A sweep being worked on: the thread that does it, and what it has said last."""

    def __init__(self, batch: Batch, workers: int, client: Client | None, scheduler: str | None) -> None:
        self._batch = batch
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

        batch = self._batch
        workers, given, scheduler = self._where
        try:
            if batch._nothing_left():
                self._show(batch.progress)
                return
            with cluster(workers, given, scheduler) as client:
                check_workers(client, batch.directory)
                engine = Engine(
                    client,
                    batch.directory,
                    make_job(batch),
                    batch.label,
                    on_outcome=lambda run, outcome: batch._ended(engine, run, outcome),
                    on_tick=lambda progress: self._tick(engine, progress),
                )
                batch._begin(engine)
                with self._lock:
                    self._engine = engine
                for what in self._asked:
                    self.ask(what)
                engine.work()
        except BaseException as error:
            self._error = error

    def _tick(self, engine: Engine, progress: Progress) -> None:
        self.progress = progress
        self._batch._look(engine)
        self._show(progress)

    def _show(self, progress: Progress) -> None:
        with contextlib.suppress(Exception):  # a view that fails does not stop a sweep
            self.shown(progress)


def show(batch: Batch) -> Callable[[Progress], None]:
    """Where the progress is seen: in the notebook, or on the terminal."""
    if "ipykernel" in sys.modules:
        from workbench.jupyter.sweep_progress import SweepProgress

        return SweepProgress(batch).show
    from workbench.sweeps.terminal import TerminalProgress

    return TerminalProgress().show
