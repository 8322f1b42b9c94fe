"""Records are drawn anew a moment after the last change, all in one thread."""

from __future__ import annotations

import threading
import time
import weakref

import pytest
from sessions import SECONDS

from workbench.jupyter.panel import stored_record
from workbench.jupyter.panel.stored_record import RedrawQueue


class Drawn:
    """Stands for a record: notes who draws it, and fails where it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.by: list[threading.Thread] = []
        self.errors: list[Exception] = []
        self.failed = self.errors.append
        self.error = error
        self.arrived = threading.Event()

    def renew(self) -> None:
        self.by.append(threading.current_thread())
        self.arrived.set()
        if self.error is not None:
            raise self.error

    def await_it(self) -> None:
        assert self.arrived.wait(SECONDS)
        self.arrived.clear()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_record, "DELAY", 0.01)


def test_one_thread_draws_all() -> None:
    queue, records = RedrawQueue(), [Drawn(), Drawn()]
    for record in [*records, *records]:
        queue.renew(record)  # type: ignore[arg-type]
        record.await_it()
    assert len({thread for record in records for thread in record.by}) == 1
    queue.renew(records[0])  # type: ignore[arg-type]
    queue.forget(records[0])  # type: ignore[arg-type]
    queue.renew(records[1])  # type: ignore[arg-type]
    records[1].await_it()
    assert len(records[0].by) == 2, "what is closed stays as it is"


def test_the_thread_keeps_no_record_alive() -> None:
    queue, record = RedrawQueue(), Drawn()
    queue.renew(record)  # type: ignore[arg-type]
    record.await_it()
    gone = threading.Event()
    weakref.finalize(record, gone.set)
    del record
    assert gone.wait(SECONDS)


def test_what_was_drawn_meanwhile_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, record, other = RedrawQueue(), Drawn(), Drawn()
    monkeypatch.setattr(stored_record, "DELAY", 0.2)
    queue.renew(record)  # type: ignore[arg-type]
    queue.renew(other)  # type: ignore[arg-type]
    queue.forget(record)  # type: ignore[arg-type]
    other.await_it()
    assert record.by == []


def test_a_failure_is_told_and_the_next_is_drawn() -> None:
    queue, broken, sound = RedrawQueue(), Drawn(OSError("the kernel is closing")), Drawn()
    for record in (broken, sound):
        queue.renew(record)  # type: ignore[arg-type]
        record.await_it()
    end = time.monotonic() + SECONDS
    while not broken.errors and time.monotonic() < end:
        time.sleep(0.01)
    assert broken.errors == [broken.error]
