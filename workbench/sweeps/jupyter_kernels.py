"""Kernels for the runs of a sweep.

A kernel talks through sockets in a directory of its own: no ports to race for, and other users cannot connect to it.
It holds its run's claim open, so that no other process takes the run up while it lives.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from jupyter_client.manager import AsyncKernelManager


class RunKernel(AsyncKernelManager):
    """A kernel for one run; a subclass sets what is particular to the run.

    threads    that its numerical libraries may use
    output     descriptor that takes what its process says outside of the notebook
    kept_open  descriptors that stay open as long as it lives
    started    called with this manager when the process has been started
    """

    threads: int = 1
    output: int = 2
    kept_open: Sequence[int] = ()
    started: Callable[[RunKernel], object] | None = None

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.over = threading.Event()  # set when the process has ended and was cleaned up after
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

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        """The command, and with what it is started."""
        command, options = await super()._async_pre_start_kernel(**options)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads))
        options["env"] = {**options["env"], **limits}
        return command, {**options, "stdout": self.output, "stderr": self.output, "pass_fds": self.kept_open}

    async def _async_post_start_kernel(self, **options: object) -> None:
        await super()._async_post_start_kernel(**options)
        if self.started is not None:
            self.started(self)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart=restart)
        self.over.set()
        self._sockets.cleanup()

    cleanup_resources = _async_cleanup_resources
