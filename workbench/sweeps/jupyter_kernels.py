"""Kernels for the runs of a sweep, and what is kept of what they say.

A kernel talks through sockets in a directory of its own: no ports to race for, and other users cannot connect to it.
(ipykernel opens one port on loopback, for what its subprocesses print; what comes without its secret is dropped.)
It holds its run's claim open, so that no other process takes the run up while it lives.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine

from workbench.sweeps.layout import Claim

SOCKETS = "wb-kernel-"  # how the directories of sockets begin
NEWBORN = 60.0  # seconds within which a directory may not be claimed yet
MOST_PRINTED = 5_000_000  # characters of what a run prints that its report keeps


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
        _clear_abandoned_sockets()
        self._sockets = tempfile.TemporaryDirectory(prefix=SOCKETS)
        self._claim = Claim.take(Path(self._sockets.name))
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
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    cleanup_resources = _async_cleanup_resources


def _clear_abandoned_sockets() -> None:
    """Remove the directories whose owners were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{SOCKETS}*"):
        with contextlib.suppress(OSError):  # somebody else's, or just removed
            if time.time() - left.stat().st_mtime > NEWBORN and (claim := Claim.take(left)) is not None:
                claim.release()
                shutil.rmtree(left)


class BoundedClient(PapermillNotebookClient):  # type: ignore[misc]
    """Keeps the first ``MOST_PRINTED`` characters that a run prints: a report with all of it would fill the memory."""

    printed = 0

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """What a cell says."""
        if msg["msg_type"] == "stream":
            text, room = msg["content"]["text"], MOST_PRINTED - self.printed
            self.printed += len(text)
            if room < 0:
                return None
            if len(text) > room:
                text = (
                    f"{text[:room]}\n… the run printed more than {MOST_PRINTED:,} characters; the rest was not kept.\n"
                )
                msg = {**msg, "content": {**msg["content"], "text": text}}
        return super().output(outs, msg, display_id, cell_index)


class BoundedEngine(NBClientEngine):  # type: ignore[misc]
    """Papermill's engine with that client."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        """Run a notebook; of ``options`` those that a run is given."""
        given = {name: options[name] for name in ("kernel_manager_class", "resources")}
        log, patience = logging.getLogger("papermill"), options["start_timeout"]
        return BoundedClient(nb_man, kernel_name=kernel_name, startup_timeout=patience, log=log, **given).execute()
