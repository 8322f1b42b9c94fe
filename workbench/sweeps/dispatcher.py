"""Keeps a Dask cluster busy with runs until all are done, whatever dies meanwhile.

How far a run has come is decided by its directory alone, so that a client that is killed and started again, or two of
them at once, agree. Dask hands out the work and notices dead workers; how often a run may die is counted in the run's
own directory, across all of them.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.sweeps import layout
from workbench.sweeps.files import write_json
from workbench.sweeps.job import RunOutcome
from workbench.sweeps.main_guard import SweepError
from workbench.sweeps.plan import PlannedRun
from workbench.sweeps.progress import Progress, RunProgress, run_progress, time_to_go
from workbench.sweeps.results import end_of

if TYPE_CHECKING:
    from distributed import Client, Event, Future

    from workbench.sweeps.batch import Batch

TICK = 0.25  # seconds between two looks at what is under way, and at what was asked meanwhile
LOOK_ELSEWHERE = 2.0  # seconds between two looks at runs that another process works on
PAUSE_AFTER_DEATH = 0.5  # before a run whose kernel died is tried again


@dataclass(eq=False)
class _Work:
    """A run, and how far it has come as this sweep sees it.

    state       "waiting", "submitted", "elsewhere", or how it ended
    not_before  when it may be looked at again
    begun       when it was first seen at work
    key         of its future on the cluster
    end         as it was reported; None as long as it can go on
    given_up    why it is to be stopped for good
    """

    run: PlannedRun
    place: Path
    label: str
    state: str = "waiting"
    not_before: float = 0.0
    begun: float | None = None
    key: str = ""
    future: Future[RunOutcome] | None = None
    end: RunOutcome | None = None
    given_up: str = ""


class RunDispatcher:
    """Does the runs of a batch, in a thread of its own: hands them to a cluster, and takes back how they ended.

    The batch adds runs when it is asked to ``_begin``, and whenever it is told that one has ``_ended`` or asked to
    ``_look``; the work is over when none is left. ``show`` gets the progress; all of these are called in the thread.
    """

    client: Client

    def __init__(
        self,
        batch: Batch,
        workers: int,
        client: Client | None,
        scheduler: str | None,
        show: Callable[[Progress], object],
    ) -> None:
        self.id = uuid.uuid4().hex
        self.latest: Progress | None = None
        self._batch, self._show = batch, show
        self._where = workers, client, scheduler
        self._works: dict[str, _Work] = {}
        self._returned: queue.Queue[_Work] = queue.Queue()
        self._mode = self._followed = "running"
        self._started = time.monotonic()
        self._error: BaseException | None = None
        # Waited for instead of the thread, which Python 3.11 takes for ended when an interrupt breaks off a join.
        self._over = threading.Event()
        threading.Thread(target=self._do, name="sweep", daemon=True).start()

    # --- from outside ---------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return not self._over.is_set()

    def pause(self) -> None:
        """Begin no further run; those under way go on."""
        if self._mode == "running":
            self._mode = "paused"

    def resume(self) -> None:
        """Begin runs again."""
        if self._mode == "paused":
            self._mode = "running"

    def cancel(self) -> None:
        """Begin no further run, and stop those under way as soon as they can be taken up again."""
        if self._mode not in ("cancelled", "done"):
            self._mode = "cancelling"

    def wait(self, timeout: float | None) -> None:
        """Until it is over; an interrupt cancels it, a second one leaves it."""
        try:
            self._over.wait(timeout)
        except KeyboardInterrupt:
            print("\nStopping the runs where they can be taken up again …", file=sys.stderr)
            self.cancel()
            self._over.wait()
            raise
        if self.alive:
            raise TimeoutError(f"still running after {timeout} s; sweep.cancel() stops it.")
        error, self._error = self._error, None
        if error is not None:
            raise error

    # --- from the batch -------------------------------------------------------------------------------------------

    def add(self, runs: Iterable[PlannedRun]) -> None:
        """Runs to do; what is finished or has failed already counts as it is."""
        going_on = {name for name, work in self._works.items() if work.state in ("waiting", "submitted", "elsewhere")}
        new = {run.name: run for run in runs if run.name not in going_on}
        works = [_Work(run, self._batch._place(run), self._batch.label(run) or name) for name, run in new.items()]
        self._works |= {work.run.name: work for work in works}
        for work in works:
            self._settle_from_directory(work)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way()

    def prune(self, name: str, message: str) -> None:
        """Stop one run for good, because others are better."""
        self._works[name].given_up = message
        self._stop(name).set()

    # --- the work -------------------------------------------------------------------------------------------------

    def _do(self) -> None:
        from distributed import Event

        from workbench.sweeps.cluster import check_workers, cluster

        try:
            with cluster(*self._where) as self.client:
                check_workers(self.client, self._batch.directory, self._batch.kernel)
                self._hold = Event(f"hold-{self.id}", client=self.client)
                self._make_job = self._batch._job()
                self._batch._begin(self)
                self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()

    def _work(self) -> None:
        """Until every run is done, or those under way have stopped after ``cancel``."""
        ticked, over = 0.0, False
        while not over:
            self._follow()
            self._submit()
            self._take_returned()
            over = self.idle and (
                self._mode == "cancelling" or all(work.end is not None for work in self._works.values())
            )
            if over or time.monotonic() - ticked >= TICK:
                ticked = time.monotonic()
                if over:
                    self._mode = "cancelled" if self._mode == "cancelling" else "done"
                self.latest = self.progress()
                self._batch._look(self)
                with contextlib.suppress(Exception):  # a view that fails does not stop a sweep
                    self._show(self.latest)

    def _follow(self) -> None:
        """Tell the workers what was asked of it since."""
        if self._mode == self._followed:
            return
        self._followed = self._mode
        if self._mode == "running":
            self._hold.clear()
        else:
            self._hold.set()
        for work in self._under_way() if self._mode == "cancelling" else ():
            self._stop(work.run.name).set()

    def _submit(self) -> None:
        """Hand out what waits; of what another process works on, see whether it has finished or dropped it."""
        from workbench.sweeps.cluster import do_run

        now = time.monotonic()
        for work in list(self._works.values()):
            if work.state not in ("waiting", "elsewhere") or now < work.not_before:
                continue
            if work.state == "elsewhere" and (self._settle_from_directory(work) or layout.is_claimed(work.place)):
                work.not_before = now + LOOK_ELSEWHERE
            elif self._mode == "running":
                work.state, name = "submitted", work.run.name
                job, events = self._make_job(work.run), (self._hold.name, self._stop(name).name)
                work.key = f"run-{name}-{uuid.uuid4().hex[:8]}"
                work.future = self.client.submit(do_run, job, *events, key=work.key, pure=False, retries=0)
                work.future.add_done_callback(lambda _, work=work: self._returned.put(work))

    def _take_returned(self) -> None:
        """Take back what has ended, waiting a moment for the first."""
        wait = TICK
        with contextlib.suppress(queue.Empty):
            while True:
                work = self._returned.get(timeout=wait) if wait else self._returned.get_nowait()
                wait = 0.0
                outcome = self._outcome(work)
                work.future = work.begun = None
                self._take(work, outcome)

    def _outcome(self, work: _Work) -> RunOutcome:
        future, name = work.future, work.run.name
        assert future is not None
        if future.status == "finished":
            outcome: RunOutcome = future.result()
            return outcome
        if future.status == "error":
            error = future.exception()
            dead = type(error).__name__ == "KilledWorker"
            return RunOutcome(name, "died" if dead else "failed", f"{type(error).__name__}: {error}")
        if self.client.status == "running":
            return RunOutcome(name, "died", "the cluster lost it")
        raise SweepError("the connection to the cluster was lost; sweep.run() goes on with what is left.")

    def _take(self, work: _Work, outcome: RunOutcome) -> None:
        now = time.monotonic()
        if outcome.kind in ("held", "died"):
            work.state, work.not_before = "waiting", now + PAUSE_AFTER_DEATH * (outcome.kind == "died")
        elif outcome.kind == "elsewhere":
            work.state, work.not_before = "elsewhere", now + LOOK_ELSEWHERE
        elif outcome.kind == "stopped" and work.given_up:
            write_json(work.place / layout.FAILED, {"kind": "pruned", "message": work.given_up})
            self._settle_from_directory(work)
        else:
            self._settle(work, outcome)

    def _settle(self, work: _Work, outcome: RunOutcome) -> None:
        if (
            outcome.kind in ("finished", "failed") and end_of(work.place) is None
        ):  # its directory is gone, or cannot be written to: what counts is written there
            message = outcome.message or "its directory vanished"
            outcome = RunOutcome(work.run.name, "failed", f"no end of it could be written down: {message}")
            with contextlib.suppress(OSError):
                work.place.mkdir(parents=True, exist_ok=True)
                write_json(work.place / layout.FAILED, {"kind": "lost", "message": outcome.message})
        work.state, work.end = outcome.kind, outcome
        self._batch._ended(self, work.run, outcome)

    def _settle_from_directory(self, work: _Work) -> bool:
        """Take a run as its directory has it, if it is at its end."""
        end = end_of(work.place)
        if end is not None:
            self._settle(work, end)
        return end is not None

    def _stop(self, name: str) -> Event:
        from distributed import Event

        return Event(f"stop-{self.id}-{name}", client=self.client)

    # --- looking --------------------------------------------------------------------------------------------------

    def _under_way(self) -> list[_Work]:
        return [work for work in self._works.values() if work.future is not None]

    def progress(self) -> Progress:
        """Where all stand at this moment."""
        from workbench.sweeps.cluster import n_workers

        running = self._running()
        workers = 1 if self.idle else n_workers(self.client)
        works = list(self._works.values())
        count = [work.state for work in works].count
        waiting = count("waiting") + count("submitted") - len(running)
        ends = [(work.label, work.end) for work in works if work.end is not None]
        durations = [end.seconds for _, end in ends if end.kind == "finished" and end.seconds]
        return Progress(
            total=len(works),
            finished=count("finished"),
            failed=count("failed"),
            pruned=count("pruned"),
            waiting=waiting + count("stopped"),
            elsewhere=count("elsewhere"),
            running=running,
            failures={label: end.message for label, end in ends if end.kind == "failed"},
            seconds=time.monotonic() - self._started,
            eta=time_to_go(durations, running, waiting, workers),
            state=self._mode,
            workers=workers,
        )

    def _running(self) -> tuple[RunProgress, ...]:
        now, under_way = time.monotonic(), self._under_way()
        with contextlib.suppress(Exception):  # asking the scheduler is not worth failing for
            processing = {key for keys in self.client.processing().values() for key in keys} if under_way else ()
            for work in under_way:
                if work.begun is None and work.key in processing and layout.is_claimed(work.place):
                    work.begun = now
        begun = [(work, work.begun) for work in under_way if work.begun is not None]
        return tuple(run_progress(work.place, work.run, work.label, now - since) for work, since in begun)
