"""Stopping where nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any


class PhaseBoundaryInterrupt(contextlib.AbstractContextManager["PhaseBoundaryInterrupt"]):
    """Turns the first SIGINT into a request that is honoured at a phase boundary; the second raises at once.

    With ``terminate`` SIGTERM is such a request too, so that a checkpoint can be written before the process ends. Only
    the main thread may handle signals; elsewhere this does nothing.
    """

    def __init__(self, *, terminate: bool = False) -> None:
        self._asked: int | None = None
        self._signals = (signal.SIGINT, signal.SIGTERM) if terminate else (signal.SIGINT,)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> PhaseBoundaryInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: object) -> None:
        if self._asked == signal.SIGINT and number == signal.SIGINT:
            raise _interrupt(shown="stopped at once; the unfinished phase is dropped, and run() goes on from before it")
        self._asked = number

    @property
    def terminating(self) -> bool:
        """Whether the process was asked to end."""
        return self._asked == signal.SIGTERM

    def raise_if_asked(self, where: str) -> None:
        """Honour the request: ``KeyboardInterrupt``, or the exit that a termination signal means."""
        if self._asked == signal.SIGINT:
            message = f"stopped {where}; run() goes on from there"
            raise _interrupt(message, shown=message)
        if self.terminating:
            raise SystemExit(128 + signal.SIGTERM)


def _interrupt(*message: str, shown: str) -> KeyboardInterrupt:
    """One that a notebook shows as one line in place of a traceback; a script meets the ordinary one."""
    interrupt: Any = KeyboardInterrupt(*message)
    interrupt._render_traceback_ = lambda: [shown]  # IPython asks for it
    return interrupt  # type: ignore[no-any-return]
