"""What a session shows: its widgets, brought up to date from the run whenever something happened."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets

from workbench.errors import unknown_name
from workbench.jupyter import distributions, drawings, look
from workbench.jupyter.drawings import Drawing
from workbench.jupyter.flusher import ANSWER, Flusher
from workbench.jupyter.live_plot import LivePlot
from workbench.jupyter.message import Message, one_line
from workbench.jupyter.record import Record
from workbench.jupyter.runs import unit_label
from workbench.jupyter.tape import Tape
from workbench.jupyter.widgets import Buttons, Knob, Permutation, Request, Status, close_all
from workbench.orders import RULES

ARRANGED, OWN = "arranged", "own"
RULE_TEXTS = {"random": "random each iteration", "fixed": "environment's order"}
ANSWERS_APART = 5.0  # seconds
PAGES = ("overview", "diagnostics")
DOING = {
    "collect": "collecting",
    "estimate": "estimating advantages",
    "update_agent": "updating",
    "update_critic": "fitting the critic",
}


@dataclass(frozen=True)
class Dial:
    """The setting that a method's knob turns."""

    setting: str
    label: str
    title: str
    low: float
    high: float
    logarithmic: bool = False


DIALS = (
    Dial("clip_epsilon", "clip ε", "How far the ratio of an agent's policies may move the surrogate", 0.01, 0.5),
    Dial("max_kl", "max KL δ", "How far an agent's policy may move in one update, in nats", 1e-4, 0.1, True),
)


def dial_of(trainer: Any) -> Dial | None:
    """The dial of a trainer's method, None where it has none."""
    return next((dial for dial in DIALS if hasattr(trainer.settings, dial.setting)), None)


@dataclass(frozen=True)
class View:
    """What the panel needs to know of its session.

    tapes           {name: tape} of all its runs; ``active`` the name of the one it drives
    running         whether the worker has a goal; ``fraction`` how far it is on the way, where that is known
    evaluating      whether it plays episodes with the policies as they are
    message         of the status line; ``trouble`` what went wrong beside it, a listener
    asked_order     an order that was asked for and is not in effect yet; ``asked_value`` of the dial likewise
    """

    tapes: Mapping[str, Tape]
    active: str
    running: bool
    evaluating: bool
    fraction: float | None
    message: Message
    trouble: Message
    asked_order: tuple[str, ...] | None
    asked_value: float | None

    @property
    def trainer(self) -> Any:
        return self.tapes[self.active].trainer


class Panel:
    """The widgets of a session. ``look_at()`` gives the session's ``View``; ``on_request`` gets what the page asks for.

    ``changed()`` is to be called, from any thread, whenever something may have happened. ``failure`` is what went wrong
    in drawing, if anything did.
    """

    def __init__(self, look_at: Callable[[], View], on_request: Callable[[Request], None], kind: str) -> None:
        if kind not in distributions.KINDS:
            raise unknown_name("kind of distribution", kind, distributions.KINDS)
        self.kind = kind
        self.page = PAGES[0]
        self.failure: Exception | None = None
        self._look_at = look_at
        self._on_request = on_request
        self._scale: distributions.Scale = "auto"
        self._speed = Speed()
        self._told: object = None
        self._heard = -ANSWERS_APART
        self._figure_flusher = Flusher(self._flush_figure, self.figure_failed)
        self._control_flusher = Flusher(self._flush_controls, self._controls_failed)
        self.permutation = Permutation(self._hear_request, rules=[[name, RULE_TEXTS.get(name, name)] for name in RULES])
        self.knob = Knob(self._hear_request)
        self.buttons = Buttons(self._hear_request)
        self.status = Status(self._hear_status)
        self.plot = LivePlot(self._hear_plot)
        self._row = ipywidgets.HBox([self.buttons, self.knob, self.status]).add_class("wb-row")
        self.box = ipywidgets.VBox([self.permutation, self._row, self.plot]).add_class("wb-panel")
        self._widths = self.plot.widths
        self._flush_controls()

    def changed(self) -> None:
        """Show what is new, as soon as the page can take it."""
        view = self._look_at()
        told = (view.message, view.trouble, view.asked_order, view.asked_value, view.running, view.active)
        self._told, urgent = told, told != self._told  # what the user waits for
        for flusher in (self._control_flusher, self._figure_flusher):
            flusher.gentle = view.running
            flusher.poke(urgent and flusher is self._control_flusher)

    def unattended(self, on: bool) -> None:
        """Whether the kernel is busy with a cell, so that the page's answers are not heard."""
        for flusher in (self._figure_flusher, self._control_flusher):
            flusher.unattended = on

    def close(self) -> None:
        """Take the widgets off the page and stop drawing."""
        for flusher in (self._figure_flusher, self._control_flusher):
            flusher.close()
        close_all(self.permutation, *self._row.children, self._row, self.plot, self.box)

    def _hear_request(self, request: Request) -> None:
        self._control_flusher.answered()  # whoever asks sees the panel, its status line or not
        self._on_request(request)

    def _hear_status(self, request: Request) -> None:
        if request["type"] == "shown":
            self._heard = time.monotonic()
            self._control_flusher.answered(float(request["took"]) / 1000)
        elif request["type"] == "kind" and request["kind"] in distributions.KINDS:
            self.kind = request["kind"]
            self.changed()
        elif request["type"] == "page" and request["page"] in PAGES:
            self.page = request["page"]
            self.changed()
        else:
            self._hear_request(request)

    def _hear_plot(self) -> None:
        if self.plot.drawn == self.plot.sent:
            self._figure_flusher.answered(self.plot.took and self.plot.took + ANSWER)
        if self.plot.widths != self._widths:
            self._widths = self.plot.widths
            self._figure_flusher.poke()

    # --- the figure -------------------------------------------------------------------------------------------------

    def drawing(self, view: View, page: str) -> Drawing:
        """A page: what agents did in the active run, returns and critics of all."""
        active = view.tapes[view.active].run(settled=view.running)
        runs = [active if name == view.active else tape.run(beside=True) for name, tape in view.tapes.items()]
        main = list(view.tapes).index(view.active)
        if page == "diagnostics":
            return drawings.diagnostics(runs, main)
        drawing = drawings.overview(runs, self.kind, self._scale, main)  # type: ignore[arg-type]
        if distributions.has_asinh(drawing.plots[1]):
            self._scale = "asinh"  # and stay with it: an axis that changes from frame to frame cannot be read
        return drawing

    def record(self) -> Record:
        """The overview as a record."""
        view = self._look_at()
        return replace(self.drawing(view, PAGES[0]), text=f"Panel of {', '.join(view.tapes)}").record()

    def _flush_figure(self) -> bool:
        view = self._look_at()
        drawing = self.drawing(view, self.page)
        self.plot.complain(Message())
        figures = drawing.arranged({width: drawings.live_height(width) for width in self.plot.widths})
        return self.plot.draw(figures, f"{view.trainer.method}. {drawing.text}")

    def figure_failed(self, error: Exception) -> None:
        """Say under the figure that it could not be drawn."""
        self.failure = error
        self.plot.complain(Message.of(f"The figure failed, training goes on: {one_line(error)}", error))

    # --- the controls -----------------------------------------------------------------------------------------------

    def _flush_controls(self) -> bool:
        view = self._look_at()
        order = shown_order(view)
        with self.permutation.hold_sync():
            self.permutation.items = items_of(view, order)
            self.permutation.pending = view.asked_order is not None
            self.permutation.rules, self.permutation.rule = rules_of(view)
        self._turn_knob(view)
        with self.buttons.hold_sync():
            self.buttons.can, self.buttons.running = possible(view), view.running
        # While it trains, every few seconds is often enough to learn whether anybody looks.
        answer = not view.running or time.monotonic() - self._heard > ANSWERS_APART
        self.status.state = self._state(view) | {"answer": answer}
        return answer

    def _controls_failed(self, error: Exception) -> None:
        self.failure = error
        said = Message.of(f"The panel failed, training goes on: {one_line(error)}", error)
        told = {"message": said.text, "error": True, "traceback": said.traceback}
        self.status.state = {**self.status.state, **told}

    def _turn_knob(self, view: View) -> None:
        dial = dial_of(view.trainer)
        if dial is None:
            self.knob.label = ""
            return
        value = view.asked_value
        with self.knob.hold_sync():
            self.knob.label, self.knob.title, self.knob.logarithmic = dial.label, dial.title, dial.logarithmic
            self.knob.low, self.knob.high = dial.low, dial.high
            self.knob.pending = value is not None
            self.knob.value = getattr(view.trainer.settings, dial.setting) if value is None else value

    def _state(self, view: View) -> dict[str, Any]:
        trainer, message = view.trainer, view.message
        steps = self._speed.of(view.active, trainer.env_steps) if view.running else None
        return {
            "running": view.running,
            "where": where(view, steps),
            "fraction": view.fraction,
            "message": message.text,
            "error": message.error,
            "trouble": view.trouble.text,
            "traceback": message.traceback or view.trouble.traceback,
            "runs": list(view.tapes),
            "active": view.active,
            "pages": list(PAGES),
            "page": self.page,
            "kinds": list(distributions.KINDS),
            "kind": self.kind,
            "frame": time.monotonic(),  # every state differs from the last, so that the page answers each
        }


class Speed:
    """Env steps a second over the last few seconds."""

    WINDOW = 5.0

    def __init__(self) -> None:
        self._name = ""
        self._seen: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def of(self, name: str, env_steps: int) -> float | None:
        """The speed, now that so many steps are taken; None until there is something to compare with."""
        now = time.monotonic()
        with self._lock:
            if name != self._name or (self._seen and (env_steps < self._seen[-1][1] or now - self._seen[-1][0] > 30)):
                self._name = name
                self._seen.clear()
            if not self._seen or env_steps > self._seen[-1][1]:
                self._seen.append((now, env_steps))
            while len(self._seen) > 2 and now - self._seen[0][0] > self.WINDOW:
                self._seen.popleft()
            (then, before), (last, steps) = self._seen[0], self._seen[-1]
        return (steps - before) / (last - then) if last > then else None


def shown_order(view: View) -> tuple[str, ...]:
    """Who stands where on the chips: this iteration's order, or the next one's, or what was asked for."""
    trainer = view.trainer
    if view.asked_order is not None:
        return view.asked_order
    if trainer.phase in ("update_agent", "update_critic"):
        return tuple(trainer.iteration_order)
    try:
        return tuple(trainer.remaining)
    except Exception:  # a user's own rule may need what is not there yet
        return tuple(trainer.units)


def items_of(view: View, order: tuple[str, ...]) -> list[dict[str, str]]:
    """The chips."""
    trainer = view.trainer
    agents = tuple(trainer.env.agents)
    left = trainer.remaining if trainer.phase in ("update_agent", "update_critic") else order
    current = left[0] if trainer.phase == "update_agent" and left else None
    state = {unit: "left" if unit in left else "done" for unit in order} | ({current: "now"} if current else {})
    return [
        {
            "unit": unit,
            "label": unit_label(agents, unit),
            "color": look.agent_color(agents, unit),
            "state": state[unit],
        }
        for unit in order
    ]


def rules_of(view: View) -> tuple[list[list[str]], str]:
    """What may decide the order, and what does."""
    given = view.trainer.order
    rules = [[name, RULE_TEXTS.get(name, name.replace("_", "-"))] for name in RULES] + [[ARRANGED, "as arranged"]]
    if callable(given):
        return [*rules, [OWN, getattr(given, "__name__", "own rule")]], OWN
    return rules, given if isinstance(given, str) else ARRANGED


def possible(view: View) -> list[str]:
    """What the buttons may do now."""
    trainer = view.trainer
    copies = ["fork"] if trainer.env.can_snapshot else []
    back = ["rewind agent", "rewind iteration"] if trainer.env.can_snapshot and trainer.env_steps else []
    return [*copies, *back, "pause"] if view.running else [*copies, *back, "step agent", "step iteration", "run"]


def where(view: View, speed: float | None) -> str:
    """The progress in words."""
    trainer = view.trainer
    doing = DOING[trainer.phase] if view.running else f"next: {trainer.phase.replace('_', ' ')}"
    if trainer.phase == "update_agent":
        order, left = trainer.iteration_order, trainer.remaining
        place = f"{len(order) - len(left) + 1} of {len(order)}"
        agent = unit_label(trainer.env.agents, left[0])
        doing = f"updating {agent} ({place})" if view.running else f"next: {agent} ({place})"
    if view.evaluating:
        doing = "evaluating"
    parts = [f"iteration {trainer.iteration}", doing, f"{trainer.env_steps:,} env steps"]
    parts += [f"{speed:,.0f} steps/s"] if speed else []
    return " · ".join([*parts, "running" if view.running else "paused"])
