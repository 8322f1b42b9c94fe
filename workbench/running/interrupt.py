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
            raise KeyboardInterrupt
        self._asked = number

    @property
    def terminating(self) -> bool:
        """Whether the process was asked to end."""
        return self._asked == signal.SIGTERM

    def raise_if_asked(self) -> None:
        """Honour the request: ``KeyboardInterrupt``, or the exit that a termination signal means."""
        if self._asked == signal.SIGINT:
            raise KeyboardInterrupt("stopped at a phase boundary; the trainer can go on")
        if self.terminating:
            raise SystemExit(128 + signal.SIGTERM)
