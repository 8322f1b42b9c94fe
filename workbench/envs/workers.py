"""Objects that live in processes of their own, called together: for environments too slow for one core.

Each worker is a fresh interpreter, started without a fork (threads and locks of this process stay here) and without
running the main script again (so it works from a notebook and from a script without a guard). Workers ignore a keyboard
interrupt meant for this process, and end when it does, however it does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import IO, Any

import cloudpickle

from workbench.errors import EnvironmentFailedError, WorkbenchError

SECONDS_TO_LEAVE = 5.0
SHOWN_OF_LOG = 4000  # characters of a dead worker's last words

_BOOT = "from workbench.envs.workers import serve; serve({descriptor})"


def usable_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerError(EnvironmentFailedError):
    """A worker process died, or what it ran raised an error; the message names the worker, its share and the cause."""


class _WorkerProcess:
    """One process and the line to it."""

    def __init__(self, number: int, share: str, factory: bytes) -> None:
        self.name = f"worker {number} ({share})"
        self.waiting = False  # a reply is due
        self._said = ""
        ours, theirs = socket.socketpair()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker lives
        environment = {
            "OMP_NUM_THREADS": "1",
            **os.environ,
            # What the factory refers to by name is imported again, from where this process would.
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        boot = _BOOT.format(descriptor=theirs.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", boot],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            env=environment,
            start_new_session=True,  # out of reach of the terminal's interrupt
        )
        theirs.close()
        self._line = Connection(ours.detach())
        self.send(factory)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None and not self._line.closed

    def send(self, message: object) -> None:
        self.waiting = True
        with contextlib.suppress(OSError):  # it is gone, as receive() will say
            self._line.send(message)

    def receive(self) -> Any:
        """The reply that is due; raises what the worker's object raised, or ``WorkerError``."""
        try:
            kind, value = self._line.recv()
        except (EOFError, OSError):
            raise WorkerError(self._last_words()) from None
        self.waiting = False
        if kind == "value":
            return value
        if kind == "own error":
            raise value
        raise WorkerError(f"{self.name} failed:\n\n{value.rstrip()}")

    def _last_words(self) -> str:
        self.end(grace=1.0)
        code = self.process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return f"{self.name} {how}." + (f" Its last words:\n\n{self._said}" if self._said else " It said nothing.")

    def end(self, grace: float = SECONDS_TO_LEAVE) -> None:
        """Hang up, which ends the process; one that does not leave in time is killed."""
        self._line.close()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if not self._log.closed:
            self._log.seek(0)
            self._said = self._log.read().decode(errors="replace").strip()[-SHOWN_OF_LOG:]
            self._log.close()


class WorkerPool:
    """One object per worker, made there by ``factories[i]``; ``shares[i]`` says in errors what it is in charge of.

    A call goes to all objects at once, and all replies are awaited. What an object raises is raised here: the project's
    own errors as they are, all others as a ``WorkerError`` with their traceback. A worker that dies raises one too; the
    others live on, and ``revive()`` starts the dead anew.
    """

    def __init__(self, factories: Sequence[Callable[[], object]], shares: Sequence[str]) -> None:
        if sys.platform == "win32":
            raise NotImplementedError("worker processes need a Unix system; use workers=0 here.")
        try:
            self._factories = [cloudpickle.dumps(factory) for factory in factories]
        except Exception as error:
            raise ValueError(
                f"what the workers are to run cannot be sent to another process ({error}). Make everything it needs "
                "within the function, or use workers=0."
            ) from error
        self._shares = tuple(shares)
        self._workers: list[_WorkerProcess] = []
        self._finalizer = weakref.finalize(self, _end_all, self._workers)
        try:
            # All start at once, then each says that its object stands.
            for number in range(len(self._factories)):
                self._workers.append(self._start(number))
            self._replies(self._workers)
        except BaseException:
            self.close()
            raise

    def _start(self, number: int) -> _WorkerProcess:
        return _WorkerProcess(number, self._shares[number], self._factories[number])

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        self._refuse_closed()
        return [worker.process.pid for worker in self._workers]

    def kill(self, number: int) -> None:
        """End a worker as a crash would, and return once its process is gone: what then happens can be tried."""
        self._refuse_closed()
        self._workers[number].process.kill()
        self._workers[number].process.wait()

    def call(self, method: str, arguments: Sequence[tuple[object, ...]]) -> list[Any]:
        """``object.method(*arguments[i])`` in every worker i; the values they return."""
        self._refuse_closed()
        return self._replies(self._workers, [(method, given) for given in arguments])

    def _refuse_closed(self) -> None:
        if not self._workers:
            raise RuntimeError("the workers were closed; make a new environment.")

    def revive(self) -> None:
        """Start every dead worker anew, its object freshly made."""
        dead = [number for number, worker in enumerate(self._workers) if not worker.alive]
        for number in dead:
            self._workers[number].end()
            self._workers[number] = self._start(number)
        self._replies([self._workers[number] for number in dead])

    def close(self) -> None:
        """End all workers. Safe to call twice."""
        self._finalizer()

    @staticmethod
    def _replies(workers: Sequence[_WorkerProcess], messages: Sequence[object] = ()) -> list[Any]:
        """What the workers reply to ``messages``, or to what they were sent before."""
        replies, failures = [], []
        try:
            for worker, message in zip(workers, messages, strict=bool(messages)):
                worker.send(message)
            for worker in workers:
                try:
                    replies.append(worker.receive())
                except Exception as error:  # all are heard before the first failure is raised
                    failures.append(error)
        except BaseException:
            # Interrupted: a reply that is still due would be taken for the next call's.
            for worker in workers:
                if worker.waiting:
                    worker.end(grace=0.0)
            raise
        if failures:
            raise failures[0]
        return replies


def _end_all(workers: list[_WorkerProcess]) -> None:
    while workers:
        workers.pop().end()


def serve(descriptor: int) -> None:
    """The worker's side: make the object, then answer calls until the line goes dead."""
    line = Connection(descriptor)
    factory = line.recv()
    kind, target = _attempt(lambda: cloudpickle.loads(factory)())
    try:
        line.send((kind, None if kind == "value" else target))
        while kind == "value":
            method, arguments = line.recv()
            line.send(_attempt(functools.partial(getattr(target, method), *arguments)))
    except (EOFError, OSError):
        pass  # nobody listens any more
    if kind == "value":
        target.close()


def _attempt(action: Callable[[], object]) -> tuple[str, Any]:
    try:
        return "value", action()
    except EnvironmentFailedError:
        return "error", traceback.format_exc()  # the traceback of its cause would not come through by itself
    except WorkbenchError as error:
        return "own error", error
    except Exception:
        return "error", traceback.format_exc()
