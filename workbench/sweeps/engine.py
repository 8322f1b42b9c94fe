"""Keeps a Dask cluster busy with runs until all are done, whatever dies meanwhile.

What a run has come to is decided by its directory alone, so that a client that is killed and started again, or two of
them at once, agree. Dask hands out the work and notices dead workers; how often a run may die is counted in the run's
own directory, across all of them.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.process
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Event, LocalCluster, get_client

from workbench.errors import WorkbenchError
from workbench.sweeps import layout
from workbench.sweeps.job import Job, Outcome
from workbench.sweeps.plan import Run
from workbench.sweeps.progress import Progress, Under, look, time_to_go

TICK = 0.25  # seconds between two looks at what is under way
LOOK_ELSEWHERE = 2.0  # seconds between two looks at what somebody else works on
PAUSE_AFTER_DEATH = 0.5  # before a run whose kernel died is tried again
LONG_POLL = "5s"
PATIENCE = "10s"  # with a scheduler that does not answer

# One run at a time for each worker, none in advance; a run is given up by its own count of deaths, not by Dask's.
CONFIG = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 100}


class SweepError(WorkbenchError):
    """The cluster cannot do this sweep: it cannot be reached, or its workers lack what they need."""


def do_run(job: Job, hold: str, stop: str) -> Outcome:
    """On a worker: do a run unless the sweep is on hold, and stop it when asked to."""
    from workbench.sweeps.run_one import run_one  # with papermill, which no client needs

    client = get_client()
    if Event(hold, client=client).is_set():
        return Outcome(job.name, "held")
    asked = threading.Event()
    over = threading.Event()
    signal = Event(stop, client=client)

    def wait() -> None:
        with contextlib.suppress(Exception):  # the scheduler is gone, and this process will be with it
            while not over.is_set():
                if signal.wait(timeout=LONG_POLL):
                    asked.set()
                    return

    threading.Thread(target=wait, name=f"wait {job.name}", daemon=True).start()
    try:
        return run_one(job, asked.is_set)
    finally:
        over.set()


def worker_state(token: str) -> dict[str, Any]:
    """On a worker: whether it is fit for a sweep."""
    from workbench import __version__

    return {"version": __version__, "sees": Path(token).exists()}


@contextlib.contextmanager
def cluster(workers: int | None = None, client: Client | None = None, scheduler: str | None = None) -> Iterator[Client]:
    """A client of the cluster that was asked for: one given, one at an address, or one made here and now."""
    if client is not None:
        yield client
        return
    if scheduler is not None:
        try:
            with dask.config.set(CONFIG):
                connected = Client(scheduler, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise SweepError(f"no Dask scheduler answers at {scheduler!r} ({error}).") from None
        with connected:
            yield connected
        return
    refuse_to_start_anew()
    with dask.config.set(CONFIG):
        local = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # the runs live in processes of their own
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # left out, it would listen on all addresses
            worker_dashboard_address="127.0.0.1:0",
            preload="workbench.sweeps.preload",
            silence_logs=logging.CRITICAL,
        )
    with local, Client(local, set_as_default=False) as connected:
        yield connected


def refuse_to_start_anew() -> None:
    """A worker process imports the main script; one that starts a sweep on import would start sweeps without end."""
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        raise SweepError(
            "this script starts its sweep when it is imported, and its worker processes import it. Put what it does "
            "under `if __name__ == '__main__':`."
        )


def check_workers(client: Client, directory: Path) -> None:
    """Refuse a cluster whose workers have another workbench or do not see the directory."""
    from workbench import __version__

    token = directory / f".token-{uuid.uuid4().hex}"
    token.touch()
    try:
        states = client.run(worker_state, str(token), on_error="return")
    finally:
        token.unlink(missing_ok=True)
    for address, state in states.items():
        if isinstance(state, BaseException):
            raise SweepError(
                f"the worker at {address} cannot do runs ({state!r}); install this version of workbench there."
            )
        if state["version"] != __version__:
            raise SweepError(f"the worker at {address} has workbench {state['version']}, this is {__version__}.")
        if not state["sees"]:
            raise SweepError(
                f"the worker at {address} does not see {str(directory)!r}. Choose a directory that all machines share."
            )


def n_workers(client: Client) -> int:
    """How many runs go on at a time; at least one, that will be done when a worker comes."""
    return max(1, sum(int(threads) for threads in client.nthreads().values()))


class Engine:
    """Hands runs to a cluster and takes back what came of them.

    ``add`` runs at any time; ``work`` returns when none is left to do. ``on_outcome`` is called with each run's end,
    ``on_tick`` with the progress, both in the thread that works.
    """

    def __init__(
        self,
        client: Client,
        directory: Path,
        make_job: Callable[[Run], Job],
        labels: Callable[[Run], str],
        *,
        on_outcome: Callable[[Run, Outcome], object] = lambda *_: None,
        on_tick: Callable[[Progress], object] = lambda _: None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.client, self._directory = client, directory
        self._make_job, self._label = make_job, labels
        self._on_outcome, self._on_tick = on_outcome, on_tick
        self._runs: dict[str, Run] = {}
        self._state: dict[str, str] = {}
        self._not_before: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._futures: dict[str, Any] = {}
        self._ended: queue.Queue[str] = queue.Queue()
        self._durations: list[float] = []
        self._failures: dict[str, str] = {}
        self._pruned: dict[str, str] = {}
        self._hold = Event(f"hold-{self.id}", client=client)
        self._mode = "running"
        self._started = time.monotonic()

    # --- from outside ---------------------------------------------------------------------------------------------

    def add(self, runs: Iterable[Run]) -> None:
        """Runs to do; what is finished or has failed already counts as it is."""
        for run in runs:
            if self._state.get(run.name) not in ("waiting", "submitted", "elsewhere"):
                self._runs[run.name] = run
                self._state[run.name] = "waiting"
                self._settle_from_directory(run.name)

    def pause(self) -> None:
        """Begin no further run; those under way go on."""
        if self._mode == "running":
            self._mode = "paused"
            self._hold.set()

    def resume(self) -> None:
        """Begin runs again."""
        if self._mode == "paused":
            self._hold.clear()
            self._mode = "running"

    def cancel(self) -> None:
        """Begin no further run, and stop those under way as soon as they can be taken up again."""
        if self._mode not in ("cancelling", "cancelled", "done"):
            self._mode = "cancelling"
            self._hold.set()
            for name in tuple(self._futures):
                self._stop(name)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._futures

    def prune(self, name: str, message: str) -> None:
        """Stop one run for good, because others are better."""
        self._pruned[name] = message
        self._stop(name)

    def _stop(self, name: str) -> None:
        Event(self._stop_name(name), client=self.client).set()

    # --- the work -------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Until every run is done, or those under way have stopped after ``cancel``."""
        ticked = 0.0
        while True:
            self._submit()
            self._take_ended()
            self._look_elsewhere()
            over = self._over()
            if over or time.monotonic() - ticked >= TICK:
                ticked = time.monotonic()
                if over:
                    self._mode = "cancelled" if self._mode == "cancelling" else "done"
                self._on_tick(self.progress())
            if over:
                return

    def _over(self) -> bool:
        if self._mode == "cancelling":
            return not self._futures
        return not self._futures and not any(state in ("waiting", "elsewhere") for state in self._state.values())

    def _submit(self) -> None:
        if self._mode != "running":
            return
        now = time.monotonic()
        for name, state in self._state.items():
            if state == "waiting" and now >= self._not_before.get(name, 0.0):
                self._state[name] = "submitted"
                future = self.client.submit(
                    do_run,
                    self._make_job(self._runs[name]),
                    self._hold.name,
                    self._stop_name(name),
                    key=f"run-{name}-{uuid.uuid4().hex[:8]}",
                    pure=False,
                    retries=0,
                )
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

    def _take(self, name: str, future: Any) -> None:
        if future.status == "finished":
            outcome = future.result()
        elif future.status == "error":
            error = future.exception()
            dead = type(error).__name__ == "KilledWorker"
            outcome = Outcome(name, "died" if dead else "failed", f"{type(error).__name__}: {error}")
        elif self.client.status == "running":
            outcome = Outcome(name, "died", "the cluster lost it")
        else:
            raise SweepError("the connection to the cluster was lost; sweep.run() goes on with what is left.")
        self._begun.pop(name, None)
        if outcome.kind == "held" or (outcome.kind == "died" and self._mode == "cancelling"):
            self._state[name] = "waiting"
        elif outcome.kind == "died":
            self._state[name] = "waiting"
            self._not_before[name] = time.monotonic() + PAUSE_AFTER_DEATH
        elif outcome.kind == "stopped" and name in self._pruned:
            failure = {"kind": "pruned", "message": self._pruned[name]}
            layout.write_json(layout.run_directory(self._directory, name) / layout.FAILED, failure)
            self._settle(name, Outcome(name, "pruned", self._pruned[name]))
        elif outcome.kind == "elsewhere":
            self._state[name] = "elsewhere"
            self._not_before[name] = time.monotonic() + LOOK_ELSEWHERE
        else:
            self._settle(name, outcome)

    def _settle(self, name: str, outcome: Outcome) -> None:
        self._state[name] = outcome.kind
        if outcome.kind == "finished" and outcome.seconds:
            self._durations.append(outcome.seconds)
        if outcome.kind == "failed":
            self._failures[self._label(self._runs[name]) or name] = outcome.message
        self._on_outcome(self._runs[name], outcome)

    def _settle_from_directory(self, name: str) -> bool:
        """Take a run as its directory has it, if it is at its end."""
        place = layout.run_directory(self._directory, name)
        if (finished := layout.read_json(place / layout.FINISHED)) is not None:
            self._durations.append(float(finished.get("wall_seconds") or 0.0))
            self._settle(name, Outcome(name, "finished"))
        elif (failure := layout.read_json(place / layout.FAILED)) is not None:
            kind = "pruned" if failure.get("kind") == "pruned" else "failed"
            self._settle(name, Outcome(name, kind, failure.get("message", ""), detail=failure))
        return self._state[name] not in ("waiting", "elsewhere")

    def _look_elsewhere(self) -> None:
        """Take note of what somebody else has finished, and take up what somebody else has dropped."""
        now = time.monotonic()
        for name in [name for name, state in self._state.items() if state == "elsewhere"]:
            if now < self._not_before[name]:
                continue
            self._not_before[name] = now + LOOK_ELSEWHERE
            if not self._settle_from_directory(name) and not layout.is_claimed(
                layout.run_directory(self._directory, name)
            ):
                self._state[name] = "waiting"

    def _stop_name(self, name: str) -> str:
        return f"stop-{self.id}-{name}"

    # --- looking --------------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Where all stand at this moment."""
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
            eta=time_to_go([s for s in self._durations if s], running, waiting, workers),
            state=self._mode,
            workers=workers,
        )

    def _under_way(self) -> tuple[Under, ...]:
        if not self._futures:
            return ()
        with contextlib.suppress(Exception):  # asking the scheduler is not worth failing for
            processing = {key for keys in self.client.processing().values() for key in keys}
            for name, future in tuple(self._futures.items()):
                place = layout.run_directory(self._directory, name)
                if future.key in processing and name not in self._begun and layout.is_claimed(place):
                    self._begun[name] = time.monotonic()
        found = []
        for name in self._begun:
            run = self._runs[name]
            found.append(look(self._directory, run, self._label(run), time.monotonic() - self._begun[name]))
        return tuple(found)
