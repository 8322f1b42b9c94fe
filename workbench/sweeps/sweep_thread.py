"""A sweep under way: the thread that does it, and where its progress is seen."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.sweeps.progress import Progress, TerminalProgress

if TYPE_CHECKING:
    from distributed import Client

    from workbench.sweeps.batch import Batch
    from workbench.sweeps.dispatcher import RunDispatcher

POLL = 0.2  # seconds between two looks of a waiting cell, at which an interrupt is heard
Show = Callable[[Progress], None]


class SweepThread:
    """Does a sweep; knows what was asked of it, and what it has said last."""

    def __init__(self, batch: Batch, workers: int, client: Client | None, scheduler: str | None, show: Show) -> None:
        self._batch = batch
        self._where: tuple[int, Client | None, str | None] = (workers, client, scheduler)
        self._dispatcher: RunDispatcher | None = None
        self._error: BaseException | None = None
        self._asked: list[str] = []
        self._lock = threading.Lock()
        self._show = show
        self.progress: Progress | None = None
        self._thread = threading.Thread(target=self._do, name="sweep", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def ask(self, what: str) -> None:
        """ "pause", "resume" or "cancel"; before there is a cluster it is remembered."""
        with self._lock:
            if self._dispatcher is None:
                self._asked.append(what)
            else:
                getattr(self._dispatcher, what)()

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
        batch = self._batch
        try:
            if batch._nothing_left():
                self._tell(batch.progress)
            else:
                self._dispatch(batch)
        except BaseException as error:
            self._error = error

    def _dispatch(self, batch: Batch) -> None:
        from workbench.sweeps.cluster import check_workers, cluster
        from workbench.sweeps.dispatcher import RunDispatcher

        workers, given, scheduler = self._where
        with cluster(workers, given, scheduler) as client:
            check_workers(client, batch.directory, batch.kernel)
            dispatcher = RunDispatcher(
                client,
                batch.directory,
                batch._job(),
                batch.label,
                on_outcome=lambda run, outcome: batch._ended(dispatcher, run, outcome),
                on_tick=lambda progress: self._tick(dispatcher, progress),
            )
            batch._begin(dispatcher)
            with self._lock:
                self._dispatcher = dispatcher
            for what in self._asked:
                self.ask(what)
            dispatcher.work()

    def _tick(self, dispatcher: RunDispatcher, progress: Progress) -> None:
        self.progress = progress
        self._batch._look(dispatcher)
        self._tell(progress)

    def _tell(self, progress: Progress) -> None:
        with contextlib.suppress(Exception):  # a view that fails does not stop a sweep
            self._show(progress)


def shown(batch: Batch) -> Show:
    """Where the progress is seen: in the notebook, or on the terminal."""
    if "ipykernel" in sys.modules:
        from workbench.jupyter.sweep_progress import SweepProgress

        return SweepProgress(batch).show
    return TerminalProgress().show
