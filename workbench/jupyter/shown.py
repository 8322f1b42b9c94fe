"""What a session leaves in the notebook, and when: the record under a live panel, and calls around each cell."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from workbench.jupyter.record import Record

DELAY = 1.5  # seconds of rest before the record is drawn anew


class ShownRecord:
    """Shows a panel with a record below it, and keeps the record up to date while the panel rests.

    The page hides the record while the panel above it is alive; it is what a reader without a kernel sees. What
    ``make`` raises goes to ``on_error``, and the record stays as it was.
    """

    def __init__(self, make: Callable[[], Record], on_error: Callable[[Exception], None]) -> None:
        self._make = make
        self._on_error = on_error
        self._handles: list[Any] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def display(self, box: Any, text: str) -> None:
        """Show the panel, and below it the record."""
        import IPython.display

        bundle = box._repr_mimebundle_()
        IPython.display.display({**bundle, "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]
        record = self._made()
        if record is None:
            return
        handle = IPython.display.display(record, display_id=True)  # type: ignore[no-untyped-call]
        if handle is not None:
            self._handles.append(handle)

    def _made(self) -> Record | None:
        try:
            return self._make()
        except Exception as error:
            self._on_error(error)
            return None

    def renew_soon(self) -> None:
        """Draw the record anew after a moment without further changes."""
        if not self._handles:
            return
        with self._lock:
            self._forget_timer()
            self._timer = threading.Timer(DELAY, self.renew)
            self._timer.daemon = True
            self._timer.start()

    def renew(self) -> None:
        """Draw the record anew."""
        if not self._handles:
            return
        with self._lock:
            self._forget_timer()
            record = self._made()
            for handle in self._handles if record is not None else []:
                handle.update(record)

    def close(self) -> None:
        """Leave the record as it is."""
        with self._lock:
            self._forget_timer()
            self._handles = []

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class AroundEachCell:
    """Calls ``before`` and ``after`` around each cell of the notebook, where there is one, until closed.

    ``inside`` is whether a cell is being run that began after this was made.
    """

    def __init__(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        self.inside = False
        self._before, self._after = before, after
        self._events: Any = None
        with contextlib.suppress(ImportError):
            from IPython.core.getipython import get_ipython

            shell = get_ipython()
            self._events = None if shell is None else shell.events
        if self._events is not None:
            self._events.register("pre_run_cell", self._enter)
            self._events.register("post_run_cell", self._leave)

    def _enter(self, *_: object) -> None:
        self.inside = True
        self._before()

    def _leave(self, *_: object) -> None:
        self.inside = False
        self._after()

    def close(self) -> None:
        """Call nothing any more."""
        if self._events is not None:
            self._events.unregister("pre_run_cell", self._enter)
            self._events.unregister("post_run_cell", self._leave)
            self._events = None
