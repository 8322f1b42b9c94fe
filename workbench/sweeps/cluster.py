"""Where runs are done: a Dask cluster of this machine's own, or any other; and what its workers are told to do."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import dask
from distributed import Client, Event, LocalCluster, get_client

from workbench.sweeps.job import Job, RunOutcome
from workbench.sweeps.main_guard import SweepError, refuse_without_guard

LONG_POLL = "5s"
PATIENCE = "10s"  # with a scheduler that does not answer

# One run at a time for each worker, none in advance; a run is given up by its own count of deaths, not by Dask's.
CONFIG = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 100}

# Of a cluster made here: whoever may send tasks to it runs code as its owner, so connections need keys that live as
# long as it does, and its HTTP servers, which cannot be left out, answer nobody.
SHUT: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}


def dask_setup(worker: object) -> None:
    """A worker process that starts leaves a terminal's interrupt to the client, which stops the runs in good order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def do_run(job: Job, hold: str, stop: str) -> RunOutcome:
    """On a worker: do a run unless the sweep is on hold, and stop it when asked to."""
    from workbench.sweeps.run_one import run_one  # with papermill, which no client needs

    client = get_client()
    if Event(hold, client=client).is_set():
        return RunOutcome(job.run.name, "held")
    asked, over = threading.Event(), threading.Event()
    signalled = Event(stop, client=client)

    def wait() -> None:
        with contextlib.suppress(Exception):  # the scheduler is gone, and this process will be with it
            while not over.is_set():
                if signalled.wait(timeout=LONG_POLL):
                    asked.set()
                    return

    threading.Thread(target=wait, name=f"wait {job.run.name}", daemon=True).start()
    try:
        return run_one(job, asked.is_set)
    finally:
        over.set()


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
        except (OSError, ValueError, TypeError) as error:  # the last for want of keys
            raise SweepError(f"no Dask scheduler answers at {scheduler!r} ({error}).") from None
        with connected:
            yield connected
        return
    refuse_without_guard()
    try:
        with dask.config.set({**CONFIG, **SHUT}):
            local = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,  # the runs live in processes of their own
                host="127.0.0.1",
                security=True,
                dashboard_address="127.0.0.1:0",  # left out, it would listen on all addresses
                worker_dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                preload=__name__,
                silence_logs=logging.CRITICAL,
            )
    except RuntimeError as error:
        remedy = "what a script does must stand under `if __name__ == '__main__':`."
        raise SweepError(f"no worker process could be started ({error}); {remedy}") from None
    with local, Client(local, set_as_default=False) as connected:
        yield connected


def worker_state(token: str) -> tuple[str, bool, list[str]]:
    """On a worker: its version of the workbench, whether it sees a file, and the kernels that it has."""
    from jupyter_client.kernelspec import KernelSpecManager

    from workbench import __version__

    return __version__, Path(token).exists(), sorted(KernelSpecManager().find_kernel_specs())


def check_workers(client: Client, directory: Path, kernel: str) -> None:
    """Refuse a cluster whose workers have another workbench, lack the kernel, or do not see the directory."""
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
        version, sees, kernels = state
        if version != __version__:
            raise SweepError(f"the worker at {address} has workbench {version}, this is {__version__}.")
        if kernel not in kernels:
            raise SweepError(
                f"the worker at {address} has no kernel {kernel!r}; it has {', '.join(kernels) or 'none'}."
            )
        if not sees:
            raise SweepError(
                f"the worker at {address} does not see {str(directory)!r}. Choose a directory that all machines share."
            )


def n_workers(client: Client) -> int:
    """How many runs go on at a time; at least one, that will be done when a worker comes."""
    return max(1, sum(int(threads) for threads in client.nthreads().values()))
