"""When a live figure is drawn: as often as there is something new and the page can follow, and seldom enough."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

MOST_A_SECOND = 5  # frames
SHARE = 0.02  # of the kernel's time, at most, goes into frames while training
PAGE_SHARE = 0.015  # of each core but one goes into drawing them, since the page may well be on this machine too
ANSWER = 0.04  # seconds that a page works to answer: JupyterLab shows the kernel as busy, then as idle
LONGEST = 5.0  # seconds between frames for the sake of the shares
LINGER = 10.0  # seconds that a thread waits for more to do: new ones take new memory from the C library, megabytes each
PATIENCE = 2.0  # seconds without an answer after which a page counts as hidden


class FrameScheduler:
    """Calls ``flush`` in a thread of its own, which lives while there is something to draw and a little longer.

    ``poke()`` says that something is new. A frame is drawn when the page has ``answered()`` the one before it; a hidden
    or closed page answers nothing and is sent nothing, until it answers again. ``flush`` returns whether it sent a
    frame that a page will answer; what it raises goes to ``on_error``.

    gentle      while true, frames take no more than their shares of the time, since something else needs it; what is
                ``urgent``, an answer to the user for instance, waits for none of that
    unattended  while true, answers cannot be heard (the kernel is busy with a cell): frames go out once a second anyway
    """

    def __init__(self, flush: Callable[[], bool], on_error: Callable[[Exception], None]) -> None:
        self.gentle = False
        self.unattended = False
        self._flush = flush
        self._on_error = on_error
        self._changed = threading.Condition()
        self._new = False
        self._unanswered = False
        self._sent: deque[float] = deque([-1e9], maxlen=MOST_A_SECOND)
        self._urgent = False
        self._cost = 0.0
        self._page_cost = 0.0
        self._others = max((os.cpu_count() or 1) - 1, 1)  # cores
        self._thread: threading.Thread | None = None
        self._closed = False

    def poke(self, urgent: bool = False) -> None:
        """Something is new."""
        with self._changed:
            self._new = True
            self._urgent |= urgent
            self._wake()

    def answered(self, took: float = 0.0) -> None:
        """A page has drawn the frame that it was sent, at the cost of so many seconds, or has appeared."""
        with self._changed:
            self._page_cost = 0.5 * (self._page_cost + took) if took else self._page_cost
            self._unanswered = False
            self._wake()

    def close(self) -> None:
        """Draw nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wanted(self) -> bool:
        """Whether there is something to draw, and a page that will look at it."""
        return self._new and not self._closed and (not self._unanswered or self.unattended)

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._thread is None and self._wanted():
            self._thread = threading.Thread(target=self._work, name="workbench-view", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while self._wait_for_turn():
            started = time.perf_counter()
            with self._changed:
                self._unanswered = True  # before it is sent: the answer may come while the frame is still under way
            try:
                sent = self._flush()
            except Exception as error:
                self._on_error(error)
                sent = False
            with self._changed:
                self._sent.append(time.perf_counter())
                self._cost = 0.5 * (self._cost + self._sent[-1] - started)
                self._unanswered &= sent

    def _wait_for_turn(self) -> bool:
        """Wait until a frame is due; False, and the thread is over, where none was for long."""
        with self._changed:
            while not self._closed:
                now = time.perf_counter()
                since = now - self._sent[-1]
                hidden = self._unanswered and not self.unattended and since > PATIENCE  # or closed; its answer wakes us
                if hidden or not self._new:
                    if not self._changed.wait_for(lambda: self._closed or self._wanted(), LINGER):
                        break
                    continue
                silent = self._unanswered and since < (1.0 if self.unattended else PATIENCE)
                due = self._due()
                if now >= due and not silent:
                    self._new = self._urgent = False
                    return True
                self._changed.wait(max(due - now, 0.01) if now < due else 0.05)
            self._thread = None
            return False

    def _due(self) -> float:
        """The earliest time of the next frame."""
        last = self._sent[-1]
        due = self._sent[0] + 1.0 if len(self._sent) == MOST_A_SECOND else last
        if not self.gentle or self._urgent:
            return due
        rest = max(self._cost / SHARE, self._page_cost / (self._others * PAGE_SHARE))
        return max(due, last + max(1 / MOST_A_SECOND, min(rest, LONGEST)))
