"""What a session shows: its widgets, brought up to date from the run whenever something happened."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import ipywidgets
import numpy as np

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.assets import PageMessage
from workbench.jupyter.figures import drawings, m_distributions
from workbench.jupyter.figures.drawings import Drawing
from workbench.jupyter.figures.record import Record
from workbench.jupyter.figures.run_columns import unit_label
from workbench.jupyter.look import Spec
from workbench.jupyter.panel.controller import ARRANGED, OWN, SessionController
from workbench.jupyter.panel.frame_scheduler import FrameScheduler
from workbench.jupyter.panel.live_plot import LivePlot
from workbench.jupyter.panel.message import Message, one_line
from workbench.jupyter.panel.training_thread import Goal
from workbench.jupyter.panel.widgets import Buttons, Permutation, SettingControl, Status, close_all
from workbench.learning.orders import RULES

RULE_TEXTS = {"random": "random each iteration", "fixed": "environment's order"}
ANSWERS_APART = 5.0  # seconds
WORDS_APART = 60.0  # seconds
PAGES = ("overview", "diagnostics")
DOING = {
    "collect": "collecting",
    "estimate": "estimating advantages",
    "update_agent": "updating",
    "update_critic": "fitting the critic",
}


def live_height(width: int) -> int:
    """Pixels of the figure's panels: as high as a window of that width has room for, beside the controls."""
    return 165 if width < drawings.NARROW or width >= 1000 else 120


class LivePanel:
    """The widgets of a session: they show the controller's state, and hand it what the page asks for.

    ``changed()`` is to be called, from any thread, whenever something may have happened. ``failure`` is what went wrong
    in drawing, if anything did.
    """

    def __init__(self, controller: SessionController, kind: m_distributions.Kind) -> None:
        if kind not in m_distributions.KINDS:
            raise unknown_name("kind of distribution", kind, m_distributions.KINDS)
        self.kind = kind
        self.page = PAGES[0]
        self.failure: Exception | None = None
        self._controller = controller
        self._scale: m_distributions.Scale = "auto"
        self._shown: object = None
        self._heard = -ANSWERS_APART
        self._told = time.monotonic()
        self._control_frames = FrameScheduler(self._flush_controls, self._controls_failed)
        self.permutation = Permutation(self._hear_request, rules=[[name, RULE_TEXTS.get(name, name)] for name in RULES])
        self.setting = SettingControl(self._hear_request)
        self.buttons = Buttons(self._hear_request)
        self.status = Status(self._hear_status)
        self.plot = LivePlot(self._arranged, self._failed)
        self._schedulers = (self._control_frames, self.plot.frames)
        self._row = ipywidgets.HBox([self.buttons, self.setting, self.status]).add_class("wb-row")
        self.box = ipywidgets.VBox([self.permutation, self._row, self.plot]).add_class("wb-panel")
        self._flush_controls()

    def changed(self) -> None:
        """Show what has changed, as soon as the page can draw it."""
        held = self._controller
        shown = (held.message, held.trouble, held.asked_order, held.asked_value, held.running, held.active)
        self._shown, urgent = shown, shown != self._shown  # what the user waits for
        for scheduler in self._schedulers:
            scheduler.gentle = held.running
            scheduler.poke(urgent and scheduler is self._control_frames)
        if held.running and time.monotonic() - self._told >= WORDS_APART:
            # A kernel whose cell has returned counts as idle, and a hub ends it amid training unless it says something.
            self._told = time.monotonic()
            self.status.send({"type": "training"})

    def unattended(self, on: bool) -> None:
        """Whether the kernel is busy with a cell, so that the page's answers are not heard."""
        for scheduler in self._schedulers:
            scheduler.unattended = on

    def close(self) -> None:
        """Take the widgets off the page and stop drawing."""
        for scheduler in self._schedulers:
            scheduler.close()
        self.plot.close()
        close_all(self.permutation, *self._row.children, self._row, self.box)

    def _hear_request(self, request: PageMessage) -> None:
        self._control_frames.answered()  # a page that asks shows the panel, its status line or not
        held = self._controller
        try:
            match request:
                case {"type": "do", "what": "run"}:
                    held.begin(Goal(), "Training until paused.")
                case {"type": "do", "what": "pause"}:
                    held.pause_and(held.say_paused)
                case {"type": "do", "what": "fork"}:
                    held.submit(lambda: held.fork(None, {}))
                case {"type": "do", "what": "code"}:
                    held.submit(held.say_code)
                case {"type": "do", "what": "step agent" | "step iteration" as step}:
                    held.step(step.removeprefix("step "))
                case {"type": "do", "what": "rewind agent" | "rewind iteration" as back}:
                    held.pause_and(lambda: held.rewind(back.removeprefix("rewind ")))
                case {"type": "select", "name": name}:
                    held.pause_and(lambda: held.select(name))
                case {"type": "order", "units": units}:
                    held.ask_order(tuple(units))
                case {"type": "shuffle"}:
                    held.rearrange(lambda units: np.random.default_rng().permutation(units).tolist())
                case {"type": "reverse"}:
                    held.rearrange(lambda units: units[::-1])
                case {"type": "rule", "rule": rule}:
                    held.ask_rule(rule)
                case {"type": "value", "value": value}:
                    held.ask_value(value)
                case _:
                    asked = request.get("what", request["type"])
                    raise ValueError(f"the page asks for {asked!r}, which the panel does not know; reload the page.")
        except Exception as error:
            held.say_error(error)

    def _hear_status(self, request: PageMessage) -> None:
        if request["type"] == "shown":
            self._heard = time.monotonic()
            self._control_frames.answered(float(request["took"]) / 1000)
        elif request["type"] == "kind" and request["kind"] in m_distributions.KINDS:
            self.kind = request["kind"]
            self.changed()
        elif request["type"] == "page" and request["page"] in PAGES:
            self.page = request["page"]
            self.changed()
        else:
            self._hear_request(request)

    # --- the figure -------------------------------------------------------------------------------------------------

    def drawing(self, page: str) -> Drawing:
        """A page: what agents did in the active run, returns and critics of all."""
        buffers, active, running = self._controller.buffers, self._controller.active, self._controller.running
        runs = [each.run(settled=running and name == active, beside=name != active) for name, each in buffers.items()]
        main = list(buffers).index(active)
        if page == "diagnostics":
            return drawings.diagnostics(runs, main)
        drawing = drawings.overview(runs, self.kind, self._scale, main)
        if m_distributions.has_asinh(drawing.plots[1]):
            self._scale = "asinh"  # and stay with it: an axis that changes from frame to frame cannot be read
        return drawing

    def record(self) -> Record:
        """The overview as a record."""
        steered = "; steered by hand, as code: trainer.script()" if len(self._controller.trainer._state.changes) else ""
        text = f"Panel of {', '.join(self._controller.buffers)}{steered}"
        return Drawing(text, self.drawing(PAGES[0]).plots, columns=2)

    def _arranged(self, widths: Iterable[int]) -> tuple[Mapping[int, Spec], str]:
        drawing = self.drawing(self.page)
        figures = drawing.arranged({width: live_height(width) for width in widths})
        return figures, f"{self._controller.trainer.method}. {drawing.text}"

    def _failed(self, error: Exception) -> None:
        self.failure = error

    # --- the controls -----------------------------------------------------------------------------------------------

    def _flush_controls(self) -> bool:
        held = self._controller
        with self.permutation.hold_sync():
            self.permutation.items = items_of(held)
            self.permutation.pending = held.asked_order is not None
            self.permutation.rules, self.permutation.rule = rules_of(held)
        with self.setting.hold_sync():
            self._show_setting()
        with self.buttons.hold_sync():
            self.buttons.can, self.buttons.running = possible(held), held.running
        # While it trains, every few seconds is often enough to learn whether anybody looks.
        answer = not held.running or time.monotonic() - self._heard > ANSWERS_APART
        self.status.state = self._state() | {"answer": answer}
        return answer

    def _controls_failed(self, error: Exception) -> None:
        self.failure = error
        said = Message.of(f"The panel failed, training goes on: {one_line(error)}", error)
        failure = {"message": said.text, "error": True, "traceback": said.traceback}
        self.status.state = {**self.status.state, **failure}

    def _show_setting(self) -> None:
        shown, asked = self._controller.setting, self._controller.asked_value
        if shown is None:
            self.setting.label = ""
            return
        for name in ("label", "title", "low", "high", "logarithmic"):
            setattr(self.setting, name, getattr(shown, name))
        self.setting.pending = asked is not None
        self.setting.value = getattr(self._controller.trainer.settings, shown.setting) if asked is None else asked

    def _state(self) -> dict[str, object]:
        held = self._controller
        return {
            "running": held.running,
            "where": where(held),
            "fraction": held.fraction,
            "message": held.message.text,
            "error": held.message.error,
            "trouble": held.trouble.text,
            "traceback": held.message.traceback or held.trouble.traceback,
            "runs": list(held.buffers),
            "active": held.active,
            "pages": list(PAGES),
            "page": self.page,
            "kinds": list(m_distributions.KINDS),
            "kind": self.kind,
            "frame": time.monotonic(),  # every state differs from the last, so that the page answers each
        }


def items_of(held: SessionController) -> list[dict[str, str]]:
    """The chips."""
    trainer, order = held.trainer, held.order
    agents = tuple(trainer.env.agents)
    left = trainer.remaining if trainer.phase in ("update_agent", "update_critic") else order
    standing = {unit: "left" if unit in left else "done" for unit in order}
    if trainer.phase == "update_agent" and left:
        standing[left[0]] = "now"
    return [
        {"unit": unit, "label": unit_label(agents, unit), "color": look.agent_color(agents, unit), "state": state}
        for unit, state in standing.items()
    ]


def rules_of(held: SessionController) -> tuple[list[list[str]], str]:
    """What may decide the order, and what does."""
    given = held.trainer.order
    rules = [[name, RULE_TEXTS.get(name, name.replace("_", "-"))] for name in RULES] + [[ARRANGED, "as arranged"]]
    if callable(given):
        return [*rules, [OWN, getattr(given, "__name__", "own rule")]], OWN
    return rules, given if isinstance(given, str) else ARRANGED


def possible(held: SessionController) -> list[str]:
    """What the buttons may do now."""
    trainer = held.trainer
    copies = ["fork"] if trainer.env.can_snapshot else []
    back = ["rewind agent", "rewind iteration"] if trainer.env.can_snapshot and trainer.env_steps else []
    always = [*copies, *back, "code"]
    return [*always, "pause"] if held.running else [*always, "step agent", "step iteration", "run"]


def where(held: SessionController) -> str:
    """The progress in words."""
    trainer, following = held.trainer, held.following()
    doing = DOING[trainer.phase] if held.running else "next:"
    if trainer.phase == "update_agent":
        n = len(trainer.iteration_order)
        doing += f" {following} ({n - len(trainer.remaining) + 1} of {n})"
    elif not held.running:
        doing += f" {following}"
    doing = "evaluating" if held.evaluating else doing
    parts = [f"iteration {trainer.iteration}", doing, f"{trainer.env_steps:,} env steps"]
    history = trainer._state.history
    if held.running and len(history):
        parts.append(f"{history[-1]['env_steps_per_second']:,.0f} steps/s")
    return " · ".join([*parts, "running" if held.running else "paused"])
