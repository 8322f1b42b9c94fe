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
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.sweeps import layout
from workbench.sweeps.files import read_json, write_json
from workbench.sweeps.job import RunOutcome
from workbench.sweeps.main_guard import SweepError
from workbench.sweeps.plan import PlannedRun
from workbench.sweeps.progress import Progress, RunProgress, run_progress, time_to_go

if TYPE_CHECKING:
    from distributed import Client, Event, Future

    from workbench.sweeps.batch import Batch

TICK = 0.25  # seconds between two looks at what is under way, and at what was asked meanwhile
LOOK_ELSEWHERE = 2.0  # seconds between two looks at runs that another process works on
PAUSE_AFTER_DEATH = 0.5  # before a run whose kernel died is tried again


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
        self._runs: dict[str, PlannedRun] = {}
        self._state: dict[str, str] = {}
        self._not_before: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._futures: dict[str, Future[RunOutcome]] = {}
        self._ended: queue.Queue[str] = queue.Queue()
        self._durations: list[float] = []
        self._failures: dict[str, str] = {}
        self._pruned: dict[str, str] = {}
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
        for run in runs:
            if self._state.get(run.name) not in ("waiting", "submitted", "elsewhere"):
                self._runs[run.name] = run
                self._state[run.name] = "waiting"
                self._settle_from_directory(run.name)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._futures

    def prune(self, name: str, message: str) -> None:
        """Stop one run for good, because others are better."""
        self._pruned[name] = message
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
            self._take_ended()
            self._look_elsewhere()
            over = not self._futures and (
                self._mode == "cancelling" or not {"waiting", "elsewhere"} & set(self._state.values())
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
        for name in self._futures if self._mode == "cancelling" else ():
            self._stop(name).set()

    def _submit(self) -> None:
        from workbench.sweeps.cluster import do_run

        if self._mode != "running":
            return
        now = time.monotonic()
        for name, state in self._state.items():
            if state == "waiting" and now >= self._not_before.get(name, 0.0):
                self._state[name] = "submitted"
                job, key = self._make_job(self._runs[name]), f"run-{name}-{uuid.uuid4().hex[:8]}"
                stop = self._stop(name).name
                future = self.client.submit(do_run, job, self._hold.name, stop, key=key, pure=False, retries=0)
                self._futures[name] = future
                future.add_done_callback(lambda _, name=name: self._ended.put(name))

    def _take_ended(self) -> None:
        """Take back what has ended, waiting a moment for the first."""
        wait = TICK
        with contextlib.suppress(queue.Empty):
            while True:
                name = self._ended.get(timeout=wait) if wait else self._ended.get_nowait()
                wait = 0.0
                self._take(name, self._futures.pop(name))

    def _take(self, name: str, future: Future[RunOutcome]) -> None:
        if future.status == "finished":
            outcome = future.result()
        elif future.status == "error":
            error = future.exception()
            dead = type(error).__name__ == "KilledWorker"
            outcome = RunOutcome(name, "died" if dead else "failed", f"{type(error).__name__}: {error}")
        elif self.client.status == "running":
            outcome = RunOutcome(name, "died", "the cluster lost it")
        else:
            raise SweepError("the connection to the cluster was lost; sweep.run() goes on with what is left.")
        self._begun.pop(name, None)
        if outcome.kind in ("held", "died"):
            self._state[name] = "waiting"
            self._not_before[name] = time.monotonic() + PAUSE_AFTER_DEATH * (outcome.kind == "died")
        elif outcome.kind == "elsewhere":
            self._state[name] = "elsewhere"
            self._not_before[name] = time.monotonic() + LOOK_ELSEWHERE
        elif outcome.kind == "stopped" and name in self._pruned:
            failure = {"kind": "pruned", "message": self._pruned[name]}
            write_json(self._place(name) / layout.FAILED, failure)
            self._settle(name, RunOutcome(name, "pruned", self._pruned[name]))
        else:
            self._settle(name, outcome)

    def _settle(self, name: str, outcome: RunOutcome) -> None:
        self._state[name] = outcome.kind
        if outcome.kind == "finished" and outcome.seconds:
            self._durations.append(outcome.seconds)
        if outcome.kind == "failed":
            self._failures[self._batch.label(self._runs[name]) or name] = outcome.message
        self._batch._ended(self, self._runs[name], outcome)

    def _settle_from_directory(self, name: str) -> bool:
        """Take a run as its directory has it, if it is at its end."""
        if (finished := read_json(self._place(name) / layout.FINISHED)) is not None:
            self._settle(name, RunOutcome(name, "finished", seconds=float(finished.get("wall_seconds") or 0.0)))
        elif (failure := read_json(self._place(name) / layout.FAILED)) is not None:
            kind = "pruned" if failure.get("kind") == "pruned" else "failed"
            self._settle(name, RunOutcome(name, kind, failure.get("message", ""), detail=failure))
        return self._state[name] not in ("waiting", "elsewhere")

    def _look_elsewhere(self) -> None:
        """Take note of runs that another process has finished, and take up those that it has dropped."""
        now = time.monotonic()
        for name in [name for name, state in self._state.items() if state == "elsewhere"]:
            if now >= self._not_before[name]:
                self._not_before[name] = now + LOOK_ELSEWHERE
                if not self._settle_from_directory(name) and not layout.is_claimed(self._place(name)):
                    self._state[name] = "waiting"

    def _stop(self, name: str) -> Event:
        from distributed import Event

        return Event(f"stop-{self.id}-{name}", client=self.client)

    def _place(self, name: str) -> Path:
        return self._batch._place(self._runs[name])

    # --- looking --------------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Where all stand at this moment."""
        from workbench.sweeps.cluster import n_workers

        running = self._under_way()
        workers = n_workers(self.client) if self._futures else 1
        count = list(self._state.values()).count
        waiting = count("waiting") + count("submitted") - len(running)
        return Progress(
            total=len(self._runs),
            finished=count("finished"),
            failed=count("failed"),
            pruned=count("pruned"),
            waiting=waiting + count("stopped"),
            elsewhere=count("elsewhere"),
            running=running,
            failures=dict(self._failures),
            seconds=time.monotonic() - self._started,
            eta=time_to_go(self._durations, running, waiting, workers),
            state=self._mode,
            workers=workers,
        )

    def _under_way(self) -> tuple[RunProgress, ...]:
        if not self._futures:
            return ()
        with contextlib.suppress(Exception):  # asking the scheduler is not worth failing for
            processing = {key for keys in self.client.processing().values() for key in keys}
            for name, future in tuple(self._futures.items()):
                if future.key in processing and name not in self._begun and layout.is_claimed(self._place(name)):
                    self._begun[name] = time.monotonic()
        now = time.monotonic()
        return tuple(
            run_progress(self._place(name), self._runs[name], self._batch.label(self._runs[name]), now - begun)
            for name, begun in self._begun.items()
        )
