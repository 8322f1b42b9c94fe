"""The record below a live panel or view: what stays in the notebook, and when it is drawn anew."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.jupyter.figures.record import Record

if TYPE_CHECKING:
    from IPython.display import DisplayHandle
    from ipywidgets import DOMWidget

DELAY = 1.5  # seconds of rest before the record is drawn anew


class StoredRecord:
    """Shows a panel with a record below it, and keeps the record up to date while the panel rests.

    The page hides the record while the panel above it is alive; it is what a reader without a kernel sees. What
    ``make`` raises goes to ``on_error``, and the record stays as it was.
    """

    def __init__(self, make: Callable[[], Record], on_error: Callable[[Exception], None]) -> None:
        self._make = make
        self.failed = on_error
        self._handles: list[DisplayHandle] = []
        self._lock = threading.Lock()

    def display(self, box: DOMWidget, text: str) -> None:
        """Show the panel, and below it the record."""
        import IPython.display

        shown: Any = box._repr_mimebundle_()
        bundle, metadata = shown if isinstance(shown, tuple) else (shown, {})  # anywidget's has metadata beside it
        display: Any = IPython.display.display
        display({**bundle, "text/plain": text}, raw=True, metadata=metadata)
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
            self.failed(error)
            return None

    def renew_soon(self) -> None:
        """Draw the record anew after a moment without further changes."""
        if self._handles:
            _REDRAWS.renew(self)

    def renew(self) -> None:
        """Draw the record anew."""
        if not self._handles:
            return
        _REDRAWS.forget(self)
        with self._lock:
            record = self._made()
            for handle in self._handles if record is not None else []:
                handle.update(record)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Leave the record as it is."""
        _REDRAWS.forget(self)
        with self._lock:
            self._handles = []


class RedrawQueue:
    """Draws records once their moment has come, all in one thread, which then stays.

    In a new thread each time, the C library and matplotlib's fonts would each time take new memory: megabytes a record.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: weakref.WeakKeyDictionary[StoredRecord, float] = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None

    def renew(self, record: StoredRecord) -> None:
        """Draw it in a moment, unless it is asked for again by then."""
        with self._changed:
            self._due[record] = time.monotonic() + DELAY
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="workbench-record", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def forget(self, record: StoredRecord) -> None:
        """It has been drawn, or is closed."""
        with self._changed:
            self._due.pop(record, None)

    def _work(self) -> None:
        while True:
            with self._changed:
                left = min((at - time.monotonic() for at in self._due.values()), default=None)
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                record = min(self._due, key=self._due.__getitem__)
                del self._due[record]
            try:
                record.renew()
            except Exception as error:
                record.failed(error)
            del record  # a thread at rest keeps nothing alive


_REDRAWS = RedrawQueue()
