"""What may be done to a session's trainers, by code or from the page; what became of it is said in one line."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from workbench.errors import unknown_name
from workbench.events import AgentUpdated, CriticUpdated, Event
from workbench.jupyter.message import Message, one_line
from workbench.jupyter.panel import ARRANGED, OWN, View, dial_of, shown_order
from workbench.jupyter.runs import unit_label
from workbench.jupyter.tape import Tape
from workbench.jupyter.widgets import Request
from workbench.jupyter.worker import Goal, Worker

Names = tuple[str, ...]

BACK = ("agent", "iteration")
NUMBERS = (
    ("kl", "KL", ".3g"),
    ("clipped_fraction", "clipped", ".1%"),
    ("surrogate_gain", "gain", ".3g"),
    ("effective_sample_size", "ESS", ".1%"),
)
PHASES_BACK = {"update_agent": 1, "update_critic": 1, "collect": 2, "estimate": 3}  # to before the last agent's update


def numbers_of(event: AgentUpdated) -> str:
    """The numbers of an update that the status line names, those that the method has."""
    known = [(label, event.diagnostics.get(name, math.nan), form) for name, label, form in NUMBERS]
    words = [f"{label} {value:{form}}" for label, value, form in known if not math.isnan(value)]
    return f": {', '.join(words)}" if words else ""


class Steering:
    """The runs of a session, the worker that steps the active one, and the message of the status line.

    Methods that change a trainer are to be called between two phases: ``submit`` and ``do`` see to that. ``on_change``
    is called, in any thread, after whatever may be worth showing.
    """

    def __init__(self, trainer: Any, name: str, on_change: Callable[[], None]) -> None:
        self.tapes = {name: Tape(trainer, name)}
        self._ends: list[Callable[[], object]] = []
        self.active = name
        self.message = Message("Ready.")
        self.trouble = Message()
        self.error: BaseException | None = None
        self.failure: Exception | None = None
        self.events: list[Event] = []
        self.evaluating = False
        self.on_change = on_change
        self.worker = Worker(self._step, self.evaluate, lambda: self.on_change(), self._stopped)
        self._asked_order: Names | None = None
        self._asked_value: float | None = None
        self._started_at = 0
        self._watch(trainer)

    @property
    def trainer(self) -> Any:
        """The trainer of the active run."""
        return self.tapes[self.active].trainer

    def view(self) -> View:
        """What there is to show."""
        goal = self.worker.goal
        fraction = None
        if goal is not None and goal.env_steps:
            whole = max(goal.env_steps - self._started_at, 1)
            fraction = min(max((self.trainer.env_steps - self._started_at) / whole, 0.0), 1.0)
        return View(
            tapes=self.tapes,
            active=self.active,
            running=goal is not None,
            evaluating=self.evaluating,
            fraction=fraction,
            message=self.message,
            trouble=self.trouble,
            asked_order=self._asked_order,
            asked_value=self._asked_value,
        )

    def say(self, text: str) -> None:
        """Put a message into the status line."""
        self.message = Message(text)

    def say_error(self, error: BaseException, text: str | None = None) -> None:
        """Put what went wrong into the status line, with its traceback folded under it."""
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        self.message = Message.of(text or first, error)
        self.on_change()

    def _watch(self, trainer: Any) -> None:
        """Hear of listeners that fail, for as long as this is there to be told."""
        told = weakref.WeakMethod(self._listener_failed)
        end = trainer.on_listener_failure(lambda listener, error: (method := told()) and method(listener, error))
        self._ends = [*self._ends, weakref.finalize(self, end)]

    def _listener_failed(self, listener: object, error: Exception) -> None:
        if self.failure is None:
            name = getattr(listener, "__name__", type(listener).__name__)
            self.failure = error
            self.trouble = Message.of(f"The listener {name} failed, training goes on: {one_line(error)}", error)
            self.on_change()

    def close(self) -> None:
        """Follow the trainers no longer."""
        for tape in self.tapes.values():
            tape.close()
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

    def refuse_while_running(self, what: str) -> None:
        """Raise where a step would get in the way of the training under way."""
        if self.worker.goal is not None:
            raise RuntimeError(f"it is training; pause() before {what}().")

    def _step(self) -> Event:
        event: Event = self.trainer.step()
        goal = self.worker.goal
        if goal is not None and goal.kind != "steps":
            self.events.append(event)
        if goal is not None and goal.reached(event):
            self.say(f"Done: {event.env_steps:,} env steps." if goal.kind == "steps" else self._told(event))
        return event

    def _told(self, event: Event) -> str:
        """What a step came to."""
        if isinstance(event, AgentUpdated):
            place = f"{event.position + 1} of {len(self.trainer.units)}"
            return f"Updated {unit_label(self.trainer.env.agents, event.agent)} ({place}){numbers_of(event)}."
        if isinstance(event, CriticUpdated):
            mean = self.tapes[self.active].latest("return")
            ended = "" if math.isnan(mean) else f"mean return {mean:.4g}, "
            return f"Iteration {event.iteration} is complete: {ended}value loss {event.value_loss:.3g}."
        return f"Done: {event!r}."

    def _stopped(self, error: BaseException) -> None:
        self.error = error
        self.say_error(error, f"Stopped by {one_line(error)}. The last good state is kept.")

    # --- what is done between two phases ------------------------------------------------------------------------------

    def evaluate(self, episodes: int) -> Any:
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
        following = trainer.phase.replace("_", " ")
        if trainer.phase == "update_agent":
            following = f"update of {unit_label(trainer.env.agents, trainer.remaining[0])}"
        self.say(f"Back in iteration {trainer.iteration}; next: {following}.")

    def fork(self, name: str | None, changes: dict[str, Any]) -> Any:
        """A copy of the active run, which is the active one then."""
        if name in self.tapes:
            raise ValueError(f"there is a run {name!r} already; choose another name.")
        if name is None:
            name = next(f"fork {k}" for k in range(1, len(self.tapes) + 1) if f"fork {k}" not in self.tapes)
        parent, fork = self.active, self.trainer.fork(**changes)
        self.tapes = {**self.tapes, name: Tape(fork, name)}
        self._watch(fork)
        self.active = name
        self.say(f"{name} parts from {parent} in iteration {fork.iteration}; the panel drives {name} now.")
        return fork

    def select(self, name: str) -> None:
        """Make another run the active one."""
        if name not in self.tapes:
            raise unknown_name("run", name, self.tapes)
        self.active = name
        self.say(f"The panel drives {name} now.")

    def _apply_order(self, asked: Names) -> None:
        trainer = self.trainer
        try:
            done: Names = ()
            if trainer.phase == "update_agent":
                done = trainer.iteration_order[: len(trainer.iteration_order) - len(trainer.remaining)]
            trainer.order = asked  # who is left goes on by it, and the next iteration begins by it
        finally:
            self._asked_order = None
        missed = [unit for place, unit in enumerate(done) if asked.index(unit) != place]
        self.say(self._order_outcome(missed))

    def _order_outcome(self, missed: Sequence[str]) -> str:
        agents, left = self.trainer.env.agents, self.trainer.remaining
        text = "Order as arranged"
        text += (
            f": {' → '.join(unit_label(agents, unit) for unit in left)}." if left else ", from the next iteration on."
        )
        if missed:
            names = " and ".join(unit_label(agents, unit) for unit in missed)
            text += f" {names} had been updated before the change came: moved from the next iteration on."
        return text

    def _apply_rule(self, rule: str) -> None:
        if rule == OWN:
            return
        self.trainer.order = shown_order(self.view()) if rule == ARRANGED else rule
        since = "who is left in this iteration on" if self.trainer.phase == "update_agent" else "the next iteration on"
        self.say(f"Order: {rule.replace('_', '-')}, from {since}.")

    def _apply_value(self, setting: str, label: str, value: Any) -> None:
        trainer = self.trainer
        try:
            with contextlib.suppress(TypeError, ValueError):
                value = float(value)
            setattr(trainer, setting, value)
        finally:
            self._asked_value = None
        following = "the next agent"
        if trainer.phase == "update_agent":
            following = unit_label(trainer.env.agents, trainer.remaining[0])
        self.say(f"{label} is {value:g} from the update of {following} on.")

    # --- having it done -----------------------------------------------------------------------------------------------

    def do(self, action: Callable[[], Any]) -> Any:
        """Have something done between two phases, and wait for what comes of it."""
        try:
            return self.worker.submit(action).result()
        finally:
            self.on_change()

    def submit(self, action: Callable[[], Any], key: str | None = None) -> None:
        """Have something done between two phases, and return; if it fails, the status line says so."""
        self.worker.submit(action, key).add_done_callback(self._report)
        self.on_change()

    def _report(self, done: Future[Any]) -> None:
        error = done.exception()
        if error is not None:
            self.say_error(error)

    def request(self, request: Request) -> None:
        """Do what the page asks for; returns at once."""
        try:
            getattr(self, f"_on_{request['type']}")(request)
        except Exception as error:
            self.say_error(error)

    def _on_do(self, request: Request) -> None:
        verb, _, unit = request["what"].partition(" ")
        if verb == "run":
            self.begin(Goal(), "Training until paused.")
        elif verb == "step":
            self.refuse_while_running("step")
            self.begin(
                Goal(unit), f"On to the end of {'the next agent’s update' if unit == 'agent' else 'the iteration'} …"
            )
        elif verb == "fork":
            self.submit(lambda: self.fork(None, {}))
        else:
            self.worker.pursue(None)
            self.submit(self.say_paused if verb == "pause" else lambda: self.rewind(unit))

    def say_paused(self) -> None:
        """Say where it stands."""
        self.say(f"Paused in iteration {self.trainer.iteration}.")

    def _on_select(self, request: Request) -> None:
        self.worker.pursue(None)
        self.submit(lambda: self.select(request["name"]))

    def _on_order(self, request: Request) -> None:
        self._ask_order(tuple(request["units"]))

    def _on_shuffle(self, _: Request) -> None:
        self._rearrange(lambda units: np.random.default_rng().permutation(units).tolist())

    def _on_reverse(self, _: Request) -> None:
        self._rearrange(lambda units: units[::-1])

    def _on_rule(self, request: Request) -> None:
        self.submit(lambda: self._apply_rule(request["rule"]), key="rule")

    def _on_value(self, request: Request) -> None:
        dial, value = dial_of(self.trainer), request["value"]
        if dial is None:
            return
        with contextlib.suppress(TypeError, ValueError):
            self._asked_value = float(value)
        self.submit(lambda: self._apply_value(dial.setting, dial.label, value), key="value")

    def _rearrange(self, how: Callable[[list[str]], list[str]]) -> None:
        """Put those who are left into another order among their places."""
        order = list(shown_order(self.view()))
        left = self.trainer.remaining if self.trainer.phase == "update_agent" else order
        moved = iter(how([unit for unit in order if unit in left]))
        self._ask_order(tuple(next(moved) if unit in left else unit for unit in order))

    def _ask_order(self, order: Names) -> None:
        self._asked_order = order
        self.submit(lambda: self._apply_order(order), key="order")
