"""Stopping where nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any


class PhaseBoundaryInterrupt(contextlib.AbstractContextManager["PhaseBoundaryInterrupt"]):
    """Turns the first SIGINT into a request that is honoured at a phase boundary; the second raises at once.

    Only the main thread may handle signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._asked = False
        self._previous: Any = None

    def __enter__(self) -> PhaseBoundaryInterrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def raise_if_asked(self) -> None:
        if self._asked:
            raise KeyboardInterrupt("stopped at a phase boundary; the trainer can go on")
