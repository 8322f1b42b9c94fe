"""What may be done to a session's trainers, by code or from the page, and what the status line says about it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from workbench.errors import unknown_name
from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.figures.run_columns import unit_label
from workbench.jupyter.panel.history_buffer import HistoryBuffer, follow
from workbench.jupyter.panel.message import Message, one_line
from workbench.jupyter.panel.training_thread import Goal, TrainingThread
from workbench.learning.events import AgentUpdated, CriticUpdated, Event

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer

Names = tuple[str, ...]
Result = TypeVar("Result")

ARRANGED, OWN = "arranged", "own"  # orders beside the named rules: as the user has put the agents, a function
BACK = ("agent", "iteration")
NUMBERS = (
    ("kl", "KL", ".3g"),
    ("clipped_fraction", "clipped", ".1%"),
    ("surrogate_gain", "gain", ".3g"),
    ("effective_sample_size", "ESS", ".1%"),
)
PHASES_BACK = {"update_agent": 1, "update_critic": 1, "collect": 2, "estimate": 3}  # to before the last agent's update


@dataclass(frozen=True)
class AdjustableSetting:
    """A number of a method that the panel has a slider for."""

    setting: str
    label: str
    title: str
    low: float
    high: float
    logarithmic: bool = False


CLIP = "How far the ratio of an agent's policies may move the surrogate"
TEAM_KL = "How far the whole team may move in one iteration, in nats"
AGENT_KL = "How far an agent's policy may move in one update, in nats"
ADJUSTABLE_SETTINGS = (
    AdjustableSetting("clip_epsilon", "clip ε", CLIP, 0.01, 0.5),
    AdjustableSetting("team_max_kl", "team's KL δ", TEAM_KL, 1e-3, 0.5, True),
    AdjustableSetting("max_kl", "max KL δ", AGENT_KL, 1e-4, 0.1, True),
)


def numbers_of(event: AgentUpdated) -> str:
    """The numbers of an update that the status line names, those that the method has."""
    known = [(label, event.diagnostics.get(name, math.nan), form) for name, label, form in NUMBERS]
    words = [f"{label} {value:{form}}" for label, value, form in known if not math.isnan(value)]
    return f": {', '.join(words)}" if words else ""


class SessionController:
    """The runs of a session, the worker that steps the active one, and the message of the status line.

    Methods that change a trainer are to be called between two phases: ``submit`` and ``do`` see to that. ``on_change``
    is called, in any thread, when there may be something new to show.

    buffers      {name: buffer} of all runs; ``active`` the name of the one that the panel drives
    message      of the status line; ``trouble`` what went wrong beside it, in a listener
    evaluating   whether it plays episodes with the policies as they are
    asked_order  an order that was asked for and is not in effect yet; ``asked_value`` of the setting likewise
    """

    def __init__(self, trainer: Trainer, name: str, on_change: Callable[[], None]) -> None:
        self.buffers = {name: HistoryBuffer(trainer, name)}
        self._ends: list[Callable[[], object]] = []
        self.active = name
        self.message = Message("Ready.")
        self.trouble = Message()
        self.error: BaseException | None = None
        self.failure: Exception | None = None
        self.events: list[Event] = []
        self.evaluating = False
        self.asked_order: Names | None = None
        self.asked_value: float | None = None
        self.on_change = on_change
        self.worker = TrainingThread(self._step, self.evaluate, lambda: self.on_change(), self._stopped)
        self._started_at = 0
        self._watch(trainer)

    @property
    def trainer(self) -> Trainer:
        """The trainer of the active run."""
        return self.buffers[self.active].trainer

    @property
    def running(self) -> bool:
        """Whether it trains."""
        return self.worker.goal is not None

    @property
    def fraction(self) -> float | None:
        """How far it is on the way to its goal, where that is known."""
        goal = self.worker.goal
        if goal is None or not goal.env_steps:
            return None
        whole = max(goal.env_steps - self._started_at, 1)
        return min(max((self.trainer.env_steps - self._started_at) / whole, 0.0), 1.0)

    @property
    def setting(self) -> AdjustableSetting | None:
        """The setting of the trainer's method that may be adjusted, if it has one."""
        held = self.trainer.settings
        return next((each for each in ADJUSTABLE_SETTINGS if getattr(held, each.setting, None) is not None), None)

    @property
    def order(self) -> Names:
        """The order to show: what was asked for, else this iteration's order, else the next one's."""
        trainer = self.trainer
        if self.asked_order is not None:
            return self.asked_order
        if trainer.phase in ("update_agent", "update_critic"):
            return trainer.iteration_order
        try:
            return trainer.remaining
        except Exception:  # a user's own rule may need what is not there yet
            return trainer.units

    def following(self) -> str:
        """Whose update comes next, or which phase."""
        trainer = self.trainer
        left = trainer.remaining if trainer.phase == "update_agent" else ()  # none any more, where it goes on meanwhile
        return unit_label(trainer.env.agents, left[0]) if left else trainer.phase.replace("_", " ")

    def say(self, text: str) -> None:
        """Put a message into the status line."""
        self.message = Message(text)

    def say_error(self, error: BaseException, text: str | None = None) -> None:
        """Put what went wrong into the status line, with its traceback folded under it."""
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        self.message = Message.of(text or first, error)
        self.on_change()

    def _watch(self, trainer: Trainer) -> None:
        """Hear of listeners that fail, as long as this controller exists."""
        self._ends = [*self._ends, follow(trainer.on_listener_failure, self._listener_failed)]

    def _listener_failed(self, listener: Callable[[Event], None], error: Exception) -> None:
        if self.failure is None:
            name = getattr(listener, "__name__", type(listener).__name__)
            self.failure = error
            self.trouble = Message.of(f"The listener {name} failed, training goes on: {one_line(error)}", error)
            self.on_change()

    def close(self) -> None:
        """Follow the trainers no longer."""
        for buffer in self.buffers.values():
            buffer.close()
        for end in self._ends:
            end()

    # --- stepping -----------------------------------------------------------------------------------------------------

    def begin(self, goal: Goal, text: str) -> None:
        """Work towards a goal."""
        self.error = self.failure = None
        self.trouble = Message()
        self._started_at = self.trainer.env_steps
        self.events = []
        self.say(text)
        self.worker.pursue(goal)

    def _step(self) -> Event:
        event: Event = self.trainer.step()
        goal = self.worker.goal
        if goal is not None and goal.kind != "steps":
            self.events.append(event)
        if goal is not None and goal.reached(event):
            self.say(f"Done: {event.env_steps:,} env steps." if goal.kind == "steps" else self._summary(event))
        return event

    def _summary(self, event: Event) -> str:
        """What a step came to."""
        if isinstance(event, AgentUpdated):
            place = f"{event.position + 1} of {len(self.trainer.units)}"
            return f"Updated {unit_label(self.trainer.env.agents, event.agent)} ({place}){numbers_of(event)}."
        if isinstance(event, CriticUpdated):
            mean = self.trainer.history["return"].iloc[-1]
            ended = "" if math.isnan(mean) else f"mean return {mean:.4g}, "
            return f"Iteration {event.iteration} is complete: {ended}value loss {event.value_loss:.3g}."
        return f"Done: {event!r}."

    def _stopped(self, error: BaseException) -> None:
        self.error = error
        self.say_error(error, f"Stopped by {one_line(error)}. The last good state is kept.")

    # --- what is done between two phases ------------------------------------------------------------------------------

    def evaluate(self, episodes: int) -> Floats:
        """Returns (episodes,) of whole episodes with the policies as they are."""
        self.evaluating = True
        self.on_change()
        try:
            returns = self.trainer.evaluate(episodes)
        finally:
            self.evaluating = False
        self.say(f"Evaluated on {episodes} episodes: mean return {returns.mean():.5g}.")
        return returns

    def rewind(self, what: str | None = None, phases: int | None = None, iterations: int | None = None) -> None:
        """Go back to before the last agent's update, to the beginning of an iteration, or as ``Trainer.rewind``."""
        trainer = self.trainer
        if what is not None and what not in BACK:
            raise unknown_name("rewind", what, BACK)
        if what == "iteration":
            iterations = 0 if trainer.phase != "collect" else 1
        elif what == "agent":
            at_first = trainer.phase == "update_agent" and trainer.remaining == trainer.iteration_order
            phases = 4 if at_first else PHASES_BACK[trainer.phase]
        trainer.rewind(phases=phases, iterations=iterations)
        update = "update of " if trainer.phase == "update_agent" else ""
        self.say(f"Back in iteration {trainer.iteration}; next: {update}{self.following()}.")

    def fork(self, name: str | None, changes: dict[str, object]) -> Trainer:
        """A copy of the active run, which is the active one then."""
        if name in self.buffers:
            raise ValueError(f"there is a run {name!r} already; choose another name.")
        if name is None:
            name = next(f"fork {k}" for k in range(1, len(self.buffers) + 1) if f"fork {k}" not in self.buffers)
        parent, fork = self.active, self.trainer.fork(**changes)
        self.buffers = {**self.buffers, name: HistoryBuffer(fork, name)}
        self._watch(fork)
        self.active = name
        self.say(f"{name} parts from {parent} in iteration {fork.iteration}; the panel drives {name} now.")
        return fork

    def say_code(self) -> None:
        """The run as Python, folded under the status line."""
        self.message = Message(
            "The run as Python, folded below; trainer.script() returns it.", traceback=self.trainer.script()
        )

    def select(self, name: str) -> None:
        """Make another run the active one."""
        if name not in self.buffers:
            raise unknown_name("run", name, self.buffers)
        self.active = name
        self.say(f"The panel drives {name} now.")

    def _set(self, name: str, value: object) -> None:
        """Change the order or a setting, as a user does by hand."""
        setattr(self.trainer, name, value)

    def _apply_order(self, asked: Names) -> None:
        trainer = self.trainer
        done = trainer.iteration_order[: -len(trainer.remaining)] if trainer.phase == "update_agent" else ()
        try:
            self._set("order", asked)  # also for the agents still to be updated in this iteration
        finally:
            self.asked_order = None
        left = " → ".join(unit_label(trainer.env.agents, unit) for unit in trainer.remaining)
        text = f"Order as arranged: {left}." if left else "Order as arranged, from the next iteration on."
        missed = [unit_label(trainer.env.agents, unit) for k, unit in enumerate(done) if asked.index(unit) != k]
        if missed:
            what = "had been updated before the change came: moved from the next iteration on."
            text += f" {' and '.join(missed)} {what}"
        self.say(text)

    def _apply_rule(self, rule: str) -> None:
        if rule == OWN:
            return
        self._set("order", self.order if rule == ARRANGED else rule)
        since = "who is left in this iteration on" if self.trainer.phase == "update_agent" else "the next iteration on"
        self.say(f"Order: {rule.replace('_', '-')}, from {since}.")

    def _apply_value(self, setting: AdjustableSetting, value: float | str) -> None:
        try:
            with contextlib.suppress(TypeError, ValueError):
                value = float(value)
            self._set(setting.setting, value)
        finally:
            self.asked_value = None
        following = self.following() if self.trainer.phase == "update_agent" else "the next agent"
        self.say(f"{setting.label} is {value:g} from the update of {following} on.")

    # --- having it done -----------------------------------------------------------------------------------------------

    def do(self, action: Callable[[], Result]) -> Result:
        """Have something done between two phases, and wait for its result."""
        try:
            return self.worker.submit(action).result()
        finally:
            self.on_change()

    def submit(self, action: Callable[[], object], key: str | None = None) -> None:
        """Have something done between two phases, and return; if it fails, the status line says so.

        Of what is asked for with one ``key`` again and again, the newest counts.
        """
        self.worker.submit(action, key).add_done_callback(self._report)
        self.on_change()

    def pause_and(self, action: Callable[[], object]) -> None:
        """Pause after the phase under way, and have something done."""
        self.worker.pursue(None)
        self.submit(action)

    def _report(self, done: Future[object]) -> None:
        error = done.exception()
        if error is not None:
            self.say_error(error)

    def say_paused(self) -> None:
        """Say where it stands."""
        self.say(f"Paused in iteration {self.trainer.iteration}.")

    def step(self, what: str) -> None:
        """Go on by one "phase", to the end of the next "agent" update, or of the "iteration"."""
        if self.running:
            raise RuntimeError("it is training; pause() before step().")
        end = {"agent": "next agent’s update", "iteration": "iteration"}.get(what, what)
        self.begin(Goal(what), f"On to the end of the {end} …")

    def ask_rule(self, rule: str) -> None:
        """Let a named rule decide the order."""
        self.submit(lambda: self._apply_rule(rule), key="rule")

    def ask_value(self, value: float | str) -> None:
        """Set the adjustable setting; what is no number is refused by the trainer."""
        setting = self.setting
        if setting is None:
            return
        with contextlib.suppress(TypeError, ValueError):
            self.asked_value = float(value)
        self.submit(lambda: self._apply_value(setting, value), key="value")

    def rearrange(self, how: Callable[[list[str]], list[str]]) -> None:
        """Put the agents that are still to be updated into another order among their places."""
        order = self.order
        left = self.trainer.remaining if self.trainer.phase == "update_agent" else order
        moved = iter(how([unit for unit in order if unit in left]))
        self.ask_order(tuple(next(moved) if unit in left else unit for unit in order))

    def ask_order(self, order: Names) -> None:
        """Update the agents in this order."""
        self.asked_order = order
        self.submit(lambda: self._apply_order(order), key="order")
