"""The one thread that steps a session's trainer: commands are done between phases, in the order in which they came."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from workbench.learning.events import AgentUpdated, CriticUpdated, Event

Result = TypeVar("Result")

KINDS = ("phase", "agent", "iteration")


@dataclass(frozen=True)
class Goal:
    """How far to train.

    kind                         "phase", "agent" or "iteration": to the end of the next such; "steps": until env_steps
    env_steps                    where "steps" ends, at the end of an iteration; None: until paused
    evaluate_every               iterations between evaluations, or None
    evaluate_episodes            episodes of each
    """

    kind: str = "steps"
    env_steps: int | None = None
    evaluate_every: int | None = None
    evaluate_episodes: int = 10

    def reached(self, event: Event) -> bool:
        """Whether this event was the last on the way."""
        if self.kind == "phase":
            return True
        if self.kind == "agent":
            return isinstance(event, AgentUpdated)
        if self.kind == "iteration":
            return isinstance(event, CriticUpdated)
        return isinstance(event, CriticUpdated) and self.env_steps is not None and event.env_steps >= self.env_steps

    def evaluation_due(self, event: Event) -> bool:
        every = self.evaluate_every
        return bool(every) and isinstance(event, CriticUpdated) and (event.iteration + 1) % (every or 1) == 0


@dataclass(eq=False)
class Command:
    """Something to be done between two phases; ``done`` holds what it returned or raised.

    Of commands with one ``key`` that follow each other only the newest is done; they share ``done``.
    """

    action: Callable[[], object]
    key: str | None = None
    done: Future[Any] = field(default_factory=Future)

    def run(self) -> None:
        try:
            result = self.action()
        except BaseException as error:  # for the caller to handle, in the thread that waits
            self.done.set_exception(error)
        else:
            self.done.set_result(result)


class TrainingThread:
    """Steps a trainer towards a goal in one thread, which lasts as long as this does.

    ``step`` does one phase; ``evaluate`` is called with a number of episodes where the goal asks for it. ``on_change``
    is called in the thread after everything that happened, and ``on_error`` with an exception that stopped it. Where
    the interpreter ends, it waits for the phase under way.
    """

    def __init__(
        self,
        step: Callable[[], Event],
        evaluate: Callable[[int], object],
        on_change: Callable[[], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._step = step
        self._evaluate = evaluate
        self._on_change = on_change
        self._on_error = on_error
        self._changed = threading.Condition()
        self._queue = ThreadPoolExecutor(1, "workbench-worker")
        self._left = 0  # pieces of work that are not done
        self._newest: Command | None = None
        self._goal: Goal | None = None

    @property
    def goal(self) -> Goal | None:
        """What is worked towards; None while paused."""
        return self._goal

    def submit(self, action: Callable[[], Result], key: str | None = None) -> Future[Result]:
        """Do something between two phases: at once where none is under way. Called from any thread."""
        with self._changed:
            newest = self._newest
            if newest is None or key is None or newest.key != key:
                newest = self._newest = Command(action, key)
                self._put(partial(self._do, newest))
            newest.action = action
        return newest.done

    def pursue(self, goal: Goal | None) -> None:
        """Train towards a goal, or, with None, pause after the phase under way."""
        with self._changed:
            self._goal = goal
            if goal is not None:
                self._put(partial(self._advance, goal))
        self._on_change()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is under way; returns whether that came in time. An interrupt is heard while it waits."""
        end = time.monotonic() + (math.inf if timeout is None else timeout)
        with self._changed:
            while self._left and (left := end - time.monotonic()) > 0:
                self._changed.wait(min(left, 0.2))
            return not self._left

    def dismiss(self) -> None:
        """End the thread once nothing is under way; the next command has a new one."""
        with self._changed:
            self._queue.shutdown(wait=False)
            self._queue = ThreadPoolExecutor(1, "workbench-worker")

    def _put(self, work: Callable[[], None]) -> None:
        self._left += 1
        self._queue.submit(self._work, work)

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
            self._on_change()
        finally:
            with self._changed:
                self._left -= 1
                self._changed.notify_all()

    def _do(self, command: Command) -> None:
        with self._changed:
            if self._newest is command:
                self._newest = None
        command.run()

    def _advance(self, goal: Goal) -> None:
        if self._goal is not goal:  # paused, or given another
            return
        try:
            event = self._step()
            if goal.evaluation_due(event):
                self._evaluate(goal.evaluate_episodes)
            finished = goal.reached(event)
        except BaseException as error:
            self._on_error(error)
            finished = True
        with self._changed:
            if self._goal is goal and finished:
                self._goal = None
            elif self._goal is goal:
                self._put(partial(self._advance, goal))
