"""Kernels for the runs of a sweep: forked from a process that has already imported what they need, where that is safe.

A kernel that imports torch takes three to four seconds to start, a forked one a few hundredths. ``fork_server.py`` says
what makes it safe; where it is not (another system than Linux, another interpreter, imports that start threads), the
kernel is started the ordinary way. Either way it talks through sockets in a directory of its own: no ports to race for,
and nobody else can connect. It holds its run's claim open, so that nobody else takes the run up while it lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from workbench.sweeps.fork_server import PACKET

SECONDS_TO_IMPORT = 120.0
SECONDS_TO_FORK = 30.0
NO_FORK = "WORKBENCH_NO_FORK"  # set in the workers' environment, it has every kernel started afresh

# What a kernel imports when its notebook imports the module on the left, as far as it starts no threads.
IMPORTS = {
    "numpy": ("numpy",),
    "pandas": ("pandas",),
    "torch": ("torch",),
    "matplotlib": ("matplotlib.figure",),
    "plotly": ("plotly.graph_objects",),
    "workbench": (
        *("numpy", "pandas", "torch", "matplotlib.figure", "plotly.graph_objects"),
        *("workbench.recipes", "workbench.reference", "workbench.envs.sampled_game"),
        *("workbench.envs.multi_agent_mujoco", "workbench.sweeps.recording", "workbench.jupyter.views"),
        *("workbench.jupyter.figures.picture.page", "workbench.jupyter.figures.picture.traces"),
    ),
}


def modules_to_import(imports: Sequence[str]) -> tuple[str, ...]:
    """What to import ahead for a notebook that imports these packages."""
    return tuple(dict.fromkeys(module for name in sorted(imports) for module in IMPORTS.get(name, ())))


def thread_limits(threads: int) -> dict[str, str]:
    """The environment in which numerical libraries use so many threads, and start none before they are needed."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**limits, "JE_ARROW_MALLOC_CONF": "background_thread:false"}


class ForkedProcess:
    """A kernel that a fork server made, with as much of ``subprocess.Popen``'s face as a provisioner looks at."""

    stdin = stdout = stderr = None

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._ended = threading.Event()

    def poll(self) -> int | None:
        """The exit status, None while it lives."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, waited for."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("kernel", timeout or 0.0)
        return self.returncode or 0

    def send_signal(self, number: int) -> None:
        """Sent by the server, which knows whether the process is still there."""
        if self.returncode is None:
            self._server.send({"signal": int(number), "pid": self.pid})

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def end(self, status: int) -> None:
        """It has ended, says the server; or the server has, and its children with it."""
        self.returncode = status
        self._ended.set()


class ForkServer:
    """One fork server and the line to it."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(theirs.fileno()), ",".join(modules)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,  # out of reach of the terminal's interrupt
        )
        theirs.close()
        self._lock = threading.Lock()
        self._forked: queue.Queue[int] = queue.Queue()
        self._children: dict[int, ForkedProcess] = {}
        self._early: dict[int, int] = {}
        self._known = threading.Event()
        self._fit = False
        threading.Thread(target=self._listen, name="fork server", daemon=True).start()

    @property
    def fit(self) -> bool:
        """Whether it can fork; waits until it knows."""
        self._known.wait(SECONDS_TO_IMPORT)
        return self._fit and self._process.poll() is None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(
        self, argv: Sequence[str], environment: Mapping[str, str], directory: str, descriptors: Sequence[int]
    ) -> ForkedProcess:
        """A kernel with these arguments, its output to the first descriptor and the others kept open."""
        job = {"argv": list(argv), "environment": dict(environment), "directory": directory}
        packet = json.dumps({"fork": job}).encode()
        with self._lock:
            try:
                socket.send_fds(self._line, [packet], list(descriptors))
                pid = self._forked.get(timeout=SECONDS_TO_FORK)
            except (OSError, queue.Empty):
                raise ChildProcessError("the process that forks kernels is gone") from None
            child = self._children[pid] = ForkedProcess(self, pid)
            if pid in self._early:
                child.end(self._early.pop(pid))
        return child

    def send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it is gone, and its children with it
            self._line.send(json.dumps(message).encode())

    def close(self) -> None:
        """Hang up, which ends the server and all its children."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while packet := self._line.recv(PACKET):
                said = json.loads(packet)
                if "forked" in said:
                    self._forked.put(said["forked"])
                elif "ended" in said:
                    self._bury(said["ended"], said["status"])
                else:
                    self._fit = "ready" in said
                    self._known.set()
        self._known.set()
        self._process.wait()
        for pid in tuple(self._children):
            self._bury(pid, -signal.SIGKILL)

    def _bury(self, pid: int, status: int) -> None:
        child = self._children.pop(pid, None)
        if child is None:
            self._early[pid] = status  # ended before ``fork`` had its number
        else:
            child.end(status)


_SERVERS: dict[tuple[tuple[str, ...], int], ForkServer] = {}
_STARTING = threading.Lock()


def fork_server(modules: Sequence[str], threads: int) -> ForkServer | None:
    """This process's fork server for such kernels, started if need be; None where forking is not to be trusted."""
    # macOS's own libraries do not survive a fork, and Windows has none.
    if sys.platform != "linux" or os.environ.get(NO_FORK):
        return None
    key = (tuple(modules), threads)
    with _STARTING:
        server = _SERVERS.get(key)
        if server is None or not server.alive:
            server = _SERVERS[key] = ForkServer(modules, {**os.environ, **thread_limits(threads)})
        return server


def close_fork_servers() -> None:
    """End this process's fork servers and their kernels."""
    with _STARTING:
        while _SERVERS:
            _SERVERS.popitem()[1].close()


class RunProvisioner(LocalProvisioner):
    """Launches the kernel of a ``RunKernel``: forked if its command is this interpreter's own ipykernel."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        manager = cast(RunKernel, self.parent)
        descriptors = [manager.output, *manager.kept_open]
        ours = cmd[:3] == [sys.executable, "-m", "ipykernel_launcher"]
        server = fork_server(manager.modules, manager.threads) if ours else None
        if server is None or not server.fit:
            return await super().launch_kernel(
                cmd,
                **{**kwargs, "env": {**kwargs["env"], **thread_limits(manager.threads)}},
                stdout=manager.output,
                stderr=manager.output,
                pass_fds=manager.kept_open,
            )
        directory = str(kwargs.get("cwd") or os.getcwd())
        environment = {**kwargs["env"], **thread_limits(manager.threads)}
        process = server.fork(cmd[2:], environment, directory, descriptors)
        self.process = cast(Any, process)
        self.pid, self.pgid, self.cwd = process.pid, None, directory
        return self.connection_info


class RunKernel(AsyncKernelManager):
    """A kernel for one run; a subclass sets what is particular to the run.

    modules    to be imported before it is forked
    threads    that its numerical libraries may use
    output     descriptor that takes what its process says outside of the notebook
    kept_open  descriptors that stay open as long as it lives
    started    called with this manager when the process has been started
    """

    modules: Sequence[str] = ()
    threads: int = 1
    output: int = 2
    kept_open: Sequence[int] = ()
    started: Callable[[RunKernel], object] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.over = threading.Event()  # set when the process has been seen off
        self._sockets = tempfile.TemporaryDirectory(prefix="wb-kernel-")
        self.connection_file = os.path.join(self._sockets.name, "kernel.json")
        self.transport = "ipc"
        self.ip = os.path.join(self._sockets.name, "k")

    def signal_process(self, number: int) -> None:
        """A signal to the kernel's own process, from any thread; nothing if it is gone."""
        process = getattr(self.provisioner, "process", None)
        if process is not None:
            with contextlib.suppress(OSError):
                process.send_signal(number)

    async def _async_pre_start_kernel(self, **kwargs: Any) -> Any:
        if self.provisioner is None:
            self.provisioner = RunProvisioner(kernel_id=self.kernel_id or "", kernel_spec=self.kernel_spec, parent=self)
        return await super()._async_pre_start_kernel(**kwargs)

    async def _async_post_start_kernel(self, **kwargs: Any) -> None:
        await super()._async_post_start_kernel(**kwargs)
        if self.started is not None:
            self.started(self)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart=restart)
        self.over.set()
        self._sockets.cleanup()

    cleanup_resources = _async_cleanup_resources
