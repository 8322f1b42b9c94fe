"""Sessions for tests: small trainers, the page's clicks without a page, a gate that lets one phase pass at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import workbench as wb
from workbench.jupyter.panel.session import Session
from workbench.learning.events import Event

SECONDS = 60.0  # long beyond any need: a test that waits for more has found a deadlock


def make_trainer(method: str = "happo", seed: int = 0, **settings: Any) -> Any:
    """Three agents on a small game: an iteration takes a few milliseconds."""
    rng = np.random.default_rng(0)
    reward = rng.uniform(size=(3, 2, 2, 2))
    transition = rng.dirichlet(np.ones(3), size=(3, 2, 2, 2))
    game = wb.theory.TabularGame(reward, transition, np.ones(3) / 3, 0.9)
    env = wb.envs.tabular(game, n_envs=2)
    return getattr(wb, method)(env, seed=seed, n_steps=8, hidden_sizes=(8,), **settings)


def click(session: Session, what: str) -> None:
    """Press a button of the page."""
    session._panel.buttons._handle_custom_msg({"type": "do", "what": what, "number": 1}, [])


def turn(session: Session, value: Any) -> None:
    session._panel.setting._handle_custom_msg({"type": "value", "value": value}, [])


def arrange(session: Session, *units: str) -> None:
    session._panel.permutation._handle_custom_msg({"type": "order", "units": list(units)}, [])


def stand(session: Session) -> None:
    """Wait until everything that was clicked is done."""
    assert session._controller.worker.wait(SECONDS)


class Gate:
    """Lets the worker pass one phase at a time, by a listener that holds it."""

    def __init__(self, trainer: Any) -> None:
        self.arrived = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.events: list[Event] = []
        trainer.subscribe(self._hold)

    def _hold(self, event: Event) -> None:
        self.events.append(event)
        self.arrived.release()
        assert self.open.acquire(timeout=SECONDS)

    def await_phase(self) -> Event:
        """Wait for the end of a phase; the worker is held there, before it does what was asked for meanwhile."""
        assert self.arrived.acquire(timeout=SECONDS)
        return self.events[-1]

    def release(self, phases: int = 1) -> None:
        for _ in range(phases):
            self.open.release()


def await_condition(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)
