"""``Session``: a trainer in a live panel, driven by buttons and by code alike.

One thread steps the trainer; what buttons and code ask for is done between two phases, in the order in which it came,
and the status line says how it went. Cells return at once, so that the notebook stays usable while it trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import unknown_name
from workbench.jupyter.cells import CellHooks
from workbench.jupyter.figures.m_distributions import Kind
from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.figures.record import Record
from workbench.jupyter.panel.controller import SessionController
from workbench.jupyter.panel.live_panel import LivePanel
from workbench.jupyter.panel.stored_record import StoredRecord
from workbench.jupyter.panel.training_thread import KINDS, Goal
from workbench.learning.events import Events

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer


class Session:
    """A live panel around a trainer; the last expression of a cell shows it.

    Parameters
    ----------
    trainer  what ``wb.happo`` and the others return
    name     what the panel calls it, beside its forks
    kind     how M-factors are drawn: "violin", "box" or "histogram"

    ``session.start()`` trains until ``session.pause()``; both, and all else, can be clicked too. The trainer itself can
    be looked at and changed at any time: ``trainer.clip_epsilon = 0.1`` waits for the end of the phase under way.
    """

    def __init__(self, trainer: Trainer, *, name: str = "main", kind: Kind = "violin") -> None:
        if not hasattr(trainer, "agent_history") or not hasattr(trainer, "subscribe"):
            raise TypeError(f"trainer is {trainer!r}; expected a trainer, such as wb.happo(env) makes.")
        if not isinstance(name, str) or not name:
            raise ValueError(f"name is {name!r}; expected what the panel shall call this run, such as 'main'.")
        self._controller = SessionController(trainer, name, lambda: None)
        self._panel = LivePanel(self._controller, kind)
        self._shown = StoredRecord(self.record, self._panel.plot.failed)
        self._controller.on_change = self._changed
        self._around_each_cell = CellHooks(self._unattended)

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def trainer(self) -> Trainer:
        """The trainer that the panel drives."""
        return self._controller.trainer

    @property
    def trainers(self) -> dict[str, Trainer]:
        """{name: trainer} of the run and its forks."""
        return {name: buffer.trainer for name, buffer in self._controller.buffers.items()}

    @property
    def running(self) -> bool:
        """Whether it trains."""
        return self._controller.running

    @property
    def status(self) -> str:
        """What the status line says."""
        return self._controller.message.text

    def record(self) -> Record:
        """The panel's figures as they are now, in a form that is kept with the notebook."""
        return self._panel.record()

    # --- driving ------------------------------------------------------------------------------------------------------

    def start(
        self,
        iterations: int | None = None,
        *,
        env_steps: int | None = None,
        evaluate_every: int | None = None,
        evaluate_episodes: int = 10,
    ) -> None:
        """Train, and return at once: to the end of so many ``iterations``, until ``env_steps`` in all, or until paused.

        ``evaluate_every`` k iterations the policies are evaluated on ``evaluate_episodes`` episodes.
        """
        if iterations is not None and env_steps is not None:
            raise ValueError("start() takes iterations= or env_steps=, or neither to train until paused.")
        given = {"iterations": iterations, "env_steps": env_steps, "evaluate_every": evaluate_every}
        for name, value in (given | {"evaluate_episodes": evaluate_episodes}).items():
            if value is not None and (not isinstance(value, int | np.integer) or value < 1):
                raise ValueError(f"{name} is {value!r}; expected an integer ≥ 1.")
        if iterations is not None:
            trainer = self.trainer
            collected = trainer.phase != "collect"  # the iteration under way, the first of them, has its steps already
            each = trainer.env.n_envs * trainer.settings.n_steps
            env_steps = trainer.env_steps + (iterations - collected) * each
        text = "Training until paused." if env_steps is None else f"Training until {env_steps:,} env steps."
        self._controller.begin(Goal("steps", env_steps, evaluate_every, evaluate_episodes), text)

    def pause(self) -> None:
        """Stop after the phase under way, at most one rollout or one agent's update; returns when it stands."""
        was_running = self.running
        self._controller.worker.pursue(None)
        self._settle()
        if was_running and self._controller.error is None:
            self._controller.say_paused()
            self._changed()

    def step(self, what: str = "agent") -> Events:
        """Go on by one "phase", to the end of the next "agent" update, or of the "iteration"; returns the events."""
        if what not in KINDS:
            raise unknown_name("step", what, KINDS)
        self._controller.step(what)
        self._settle()
        self._raise()
        return Events(self._controller.events)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it stands: at its goal, paused, or stopped by an error, which is raised here.

        An interrupt (the notebook's stop button) pauses it at the end of the phase under way, and raises
        ``KeyboardInterrupt`` then. ``TimeoutError`` comes after ``timeout`` seconds; it trains on then. While a cell
        waits, the kernel may hear no button: interrupt, or do not wait.
        """
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0):
            raise ValueError(f"timeout is {timeout!r}; expected None, or a number of seconds ≥ 0.")
        if not self._settle(timeout):
            raise TimeoutError(f"still training after {timeout} s; session.pause() stops it.")
        self._shown.renew()
        self._raise()

    def rewind(self, what: str | None = None, *, phases: int | None = None, iterations: int | None = None) -> None:
        """Go back to before the last "agent" update or to the beginning of the "iteration"; or as ``trainer.rewind``.

        Pauses first; with no argument at all it goes back by one phase. Raises what ``trainer.rewind`` raises.
        """
        self.pause()
        self._controller.do(lambda: self._controller.rewind(what, phases, iterations))

    def fork(self, name: str | None = None, **changes: object) -> Trainer:
        """A copy from here on, with changes, which the panel then drives; the run it came from stays as it is.

        Returns the copy. ``name`` is by default "fork 1", "fork 2", …; ``select("main")`` goes back.
        """
        self.pause()
        return self._controller.do(lambda: self._controller.fork(name, changes))

    def select(self, name: str) -> None:
        """Drive another of ``trainers``; pauses first."""
        self.pause()
        self._controller.do(lambda: self._controller.select(name))

    def evaluate(self, episodes: int = 10) -> Floats:
        """Evaluate between two phases: returns (episodes,), marked in the figure."""
        return self._controller.do(lambda: self._controller.evaluate(episodes))

    def close(self) -> None:
        """Stop training and take the panel off the page. The trainers stay usable."""
        self._controller.worker.pursue(None)
        self._controller.worker.wait()
        self._controller.worker.dismiss()
        self._around_each_cell.close()
        self._shown.close()
        self._controller.close()
        self._panel.close()

    def _settle(self, timeout: float | None = None) -> bool:
        """Wait for the worker, and keep the page up to date as well as a busy kernel can; an interrupt pauses."""
        worker = self._controller.worker
        self._panel.unattended(True)
        try:
            return worker.wait(timeout)
        except KeyboardInterrupt:
            worker.pursue(None)
            worker.wait()
            self._controller.say(f"Interrupted; paused in iteration {self.trainer.iteration}.")
            raise
        finally:
            self._panel.unattended(self._around_each_cell.inside)
            self._changed()

    def _raise(self) -> None:
        """Raise what stopped the run; else the first of what failed beside it, a listener or a view."""
        error = self._controller.error or self._controller.failure or self._panel.failure
        self._controller.error = self._controller.failure = self._panel.failure = None
        if error is not None:
            raise error

    def _unattended(self, on: bool) -> None:
        self._panel.unattended(on)
        if not on:
            self._changed()

    def _changed(self) -> None:
        self._panel.changed()
        if not self.running:
            self._shown.renew_soon()

    # --- showing itself -----------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        trainer, runs = self.trainer, len(self.trainers)
        state = "running" if self.running else "stopped by an error" if self._controller.error is not None else "paused"
        name = self._controller.active + (f", one of {runs} runs" if runs > 1 else "")
        return f"Session of {trainer.method} ({name}) · {state} · iteration {trainer.iteration}"

    def _ipython_display_(self) -> None:
        self._shown.display(self._panel.box, repr(self))
        self._changed()
