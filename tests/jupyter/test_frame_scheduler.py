"""Frames go out when there is something new and the page has answered the last one, and never faster than it can."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest
from sessions import SECONDS, await_condition

from workbench.jupyter.panel import frame_scheduler
from workbench.jupyter.panel.frame_scheduler import FrameScheduler

REST = 0.2  # seconds in which a frame that nothing holds up would have come


def fail(error: Exception) -> None:
    raise AssertionError from error


class Sent:
    """Counts frames; ``await_number`` waits for one. ``during`` is called while a frame is being sent."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.number = 0
        self.during = during
        self._arrived = threading.Condition()

    def __call__(self) -> bool:
        self.during()
        with self._arrived:
            self.number += 1
            self._arrived.notify_all()
        return True

    def await_number(self, number: int) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.number >= number, SECONDS)


def test_the_next_frame_waits_for_the_answer() -> None:
    sent = Sent()
    tested = FrameScheduler(sent, fail)
    tested.poke()
    sent.await_number(1)
    tested.poke()
    time.sleep(REST)
    assert sent.number == 1
    tested.answered()
    sent.await_number(2)
    tested.close()


def test_all_frames_are_drawn_in_one_thread() -> None:
    drawn_by: set[threading.Thread] = set()
    sent = Sent(lambda: drawn_by.add(threading.current_thread()))
    tested = FrameScheduler(sent, fail)
    for number in (1, 2, 3):
        tested.poke()
        sent.await_number(number)
        tested.answered()
    tested.close()
    (thread,) = drawn_by
    thread.join(SECONDS)
    assert not thread.is_alive(), "closing does not linger"


def test_an_answer_that_comes_while_the_frame_is_being_sent_is_heard() -> None:
    sent = Sent()
    tested = FrameScheduler(sent, fail)
    sent.during = tested.answered
    for number in (1, 2, 3):
        tested.poke()
        sent.await_number(number)
    tested.close()


def test_a_frame_that_was_not_sent_needs_no_answer() -> None:
    calls = threading.Semaphore(0)

    def nothing_to_send() -> bool:
        calls.release()
        return False

    tested = FrameScheduler(nothing_to_send, fail)
    for _ in range(3):
        tested.poke()
        assert calls.acquire(timeout=SECONDS)
    tested.close()


def test_what_a_flush_raises_is_handed_on_and_the_next_one_comes() -> None:
    errors: list[str] = []
    sent = Sent()
    tested = FrameScheduler(sent, lambda error: errors.append(str(error)))

    def stumble() -> None:
        sent.during = lambda: None
        raise ValueError("no figure")

    sent.during = stumble
    tested.poke()
    await_condition(lambda: errors)
    tested.poke()
    sent.await_number(1)
    assert errors == ["no figure"]
    tested.close()


def test_a_kernel_that_cannot_hear_answers_sends_without_them() -> None:
    sent = Sent()
    tested = FrameScheduler(sent, fail)
    tested.unattended = True
    for number in (1, 2):
        tested.poke()
        sent.await_number(number)
    tested.close()


def test_at_most_five_a_second_and_small_shares_of_the_time_while_training() -> None:
    tested = FrameScheduler(lambda: True, fail)
    assert tested._due() < 0, "the first comes at once"
    tested._sent.extend([10.0, 10.1, 10.2, 10.3, 10.4])
    assert tested._due() == 11.0, "the sixth a second after the first"
    tested.gentle = True
    tested._sent.extend([10.0, 20.0, 30.0, 40.0, 50.0])
    assert tested._due() == pytest.approx(50.2)
    tested._cost = 0.1
    assert tested._due() == pytest.approx(50 + frame_scheduler.LONGEST)
    tested._cost = 0.01
    assert tested._due() == pytest.approx(50 + 0.01 / frame_scheduler.SHARE)
    for _ in range(60):
        tested.answered(0.03)
    assert tested._due() == pytest.approx(50 + 0.03 / frame_scheduler.PAGE_SHARE / max((os.cpu_count() or 1) - 1, 1))


def test_what_is_urgent_does_not_wait_for_the_shares() -> None:
    sent = Sent()
    tested = FrameScheduler(sent, fail)
    tested.gentle, sent.during = True, tested.answered
    tested._cost = 10.0
    tested._sent.append(time.perf_counter())
    tested.poke()
    time.sleep(REST)
    assert sent.number == 0
    tested.poke(urgent=True)
    sent.await_number(1)
    tested.close()


def test_closed_sends_nothing() -> None:
    sent = Sent()
    tested = FrameScheduler(sent, fail)
    tested.close()
    tested.poke()
    time.sleep(REST)
    assert sent.number == 0
