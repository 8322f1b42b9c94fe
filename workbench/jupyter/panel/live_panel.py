"""What a session shows: its widgets, brought up to date from the run whenever something happened."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import ipywidgets
import numpy as np

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.figures import drawings, m_distributions
from workbench.jupyter.figures.drawings import Drawing
from workbench.jupyter.figures.record import Record
from workbench.jupyter.figures.run_columns import unit_label
from workbench.jupyter.look import Spec
from workbench.jupyter.panel.controller import SessionController
from workbench.jupyter.panel.frame_scheduler import FrameScheduler
from workbench.jupyter.panel.live_plot import LiveFigure
from workbench.jupyter.panel.message import Message, one_line
from workbench.jupyter.panel.panel_state import ARRANGED, OWN, PanelState
from workbench.jupyter.panel.training_thread import Goal
from workbench.jupyter.panel.widgets import Buttons, Permutation, Request, SettingControl, Status, close_all
from workbench.learning.orders import RULES

RULE_TEXTS = {"random": "random each iteration", "fixed": "environment's order"}
ANSWERS_APART = 5.0  # seconds
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
        self._speed = Speed()
        self._shown: object = None
        self._heard = -ANSWERS_APART
        self._control_frames = FrameScheduler(self._flush_controls, self._controls_failed)
        self.permutation = Permutation(self._hear_request, rules=[[name, RULE_TEXTS.get(name, name)] for name in RULES])
        self.setting = SettingControl(self._hear_request)
        self.buttons = Buttons(self._hear_request)
        self.status = Status(self._hear_status)
        self.figure = LiveFigure(self._arranged, self._failed)
        self.plot = self.figure.plot
        self._schedulers = (self._control_frames, self.figure.frames)
        self._row = ipywidgets.HBox([self.buttons, self.setting, self.status]).add_class("wb-row")
        self.box = ipywidgets.VBox([self.permutation, self._row, self.plot]).add_class("wb-panel")
        self._flush_controls()

    def changed(self) -> None:
        """Show what has changed, as soon as the page can draw it."""
        state = self._controller.state()
        shown = (state.message, state.trouble, state.asked_order, state.asked_value, state.running, state.active)
        self._shown, urgent = shown, shown != self._shown  # what the user waits for
        for scheduler in self._schedulers:
            scheduler.gentle = state.running
            scheduler.poke(urgent and scheduler is self._control_frames)

    def unattended(self, on: bool) -> None:
        """Whether the kernel is busy with a cell, so that the page's answers are not heard."""
        for scheduler in self._schedulers:
            scheduler.unattended = on

    def close(self) -> None:
        """Take the widgets off the page and stop drawing."""
        for scheduler in self._schedulers:
            scheduler.close()
        self.figure.close()
        close_all(self.permutation, *self._row.children, self._row, self.box)

    def _hear_request(self, request: Request) -> None:
        self._control_frames.answered()  # a page that asks shows the panel, its status line or not
        controller, kind = self._controller, request["type"]
        try:
            if kind == "do":
                self._press(request["what"])
            elif kind == "select":
                controller.ask_run(request["name"])
            elif kind == "order":
                controller.ask_order(tuple(request["units"]))
            elif kind == "shuffle":
                controller.rearrange(lambda units: np.random.default_rng().permutation(units).tolist())
            elif kind == "reverse":
                controller.rearrange(lambda units: units[::-1])
            elif kind == "rule":
                controller.ask_rule(request["rule"])
            elif kind == "value":
                controller.ask_value(request["value"])
            else:
                raise ValueError(f"the page asks for {kind!r}, which the panel does not know; reload the page.")
        except Exception as error:
            controller.say_error(error)

    def _press(self, button: str) -> None:
        controller, (verb, _, unit) = self._controller, button.partition(" ")
        if verb == "run":
            controller.begin(Goal(), "Training until paused.")
        elif verb == "step":
            controller.step(unit)
        elif verb == "fork":
            controller.submit(lambda: controller.fork(None, {}))
        elif verb == "pause":
            controller.ask_pause()
        else:
            controller.ask_rewind(unit)

    def _hear_status(self, request: Request) -> None:
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

    def drawing(self, state: PanelState, page: str) -> Drawing:
        """A page: what agents did in the active run, returns and critics of all."""
        active = state.buffers[state.active].run(settled=state.running)
        runs = [active if name == state.active else buffer.run(beside=True) for name, buffer in state.buffers.items()]
        main = list(state.buffers).index(state.active)
        if page == "diagnostics":
            return drawings.diagnostics(runs, main)
        drawing = drawings.overview(runs, self.kind, self._scale, main)
        if m_distributions.has_asinh(drawing.plots[1]):
            self._scale = "asinh"  # and stay with it: an axis that changes from frame to frame cannot be read
        return drawing

    def record(self) -> Record:
        """The overview as a record."""
        state = self._controller.state()
        return Drawing(f"Panel of {', '.join(state.buffers)}", self.drawing(state, PAGES[0]).plots, columns=2)

    def _arranged(self, widths: Iterable[int]) -> tuple[Mapping[int, Spec], str]:
        state = self._controller.state()
        drawing = self.drawing(state, self.page)
        figures = drawing.arranged({width: live_height(width) for width in widths})
        return figures, f"{state.trainer.method}. {drawing.text}"

    def _failed(self, error: Exception) -> None:
        self.failure = error

    # --- the controls -----------------------------------------------------------------------------------------------

    def _flush_controls(self) -> bool:
        state = self._controller.state()
        with self.permutation.hold_sync():
            self.permutation.items = items_of(state)
            self.permutation.pending = state.asked_order is not None
            self.permutation.rules, self.permutation.rule = rules_of(state)
        self._show_setting(state)
        with self.buttons.hold_sync():
            self.buttons.can, self.buttons.running = possible(state), state.running
        # While it trains, every few seconds is often enough to learn whether anybody looks.
        answer = not state.running or time.monotonic() - self._heard > ANSWERS_APART
        self.status.state = self._state(state) | {"answer": answer}
        return answer

    def _controls_failed(self, error: Exception) -> None:
        self.failure = error
        said = Message.of(f"The panel failed, training goes on: {one_line(error)}", error)
        failure = {"message": said.text, "error": True, "traceback": said.traceback}
        self.status.state = {**self.status.state, **failure}

    def _show_setting(self, state: PanelState) -> None:
        shown = state.setting
        if shown is None:
            self.setting.label = ""
            return
        value = state.asked_value
        with self.setting.hold_sync():
            for name in ("label", "title", "low", "high", "logarithmic"):
                setattr(self.setting, name, getattr(shown, name))
            self.setting.pending = value is not None
            self.setting.value = getattr(state.trainer.settings, shown.setting) if value is None else value

    def _state(self, state: PanelState) -> dict[str, Any]:
        trainer, message = state.trainer, state.message
        steps = self._speed.of(state.active, trainer.env_steps) if state.running else None
        return {
            "running": state.running,
            "where": where(state, steps),
            "fraction": state.fraction,
            "message": message.text,
            "error": message.error,
            "trouble": state.trouble.text,
            "traceback": message.traceback or state.trouble.traceback,
            "runs": list(state.buffers),
            "active": state.active,
            "pages": list(PAGES),
            "page": self.page,
            "kinds": list(m_distributions.KINDS),
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


def items_of(state: PanelState) -> list[dict[str, str]]:
    """The chips."""
    trainer, order = state.trainer, state.order
    agents = tuple(trainer.env.agents)
    left = trainer.remaining if trainer.phase in ("update_agent", "update_critic") else order
    current = left[0] if trainer.phase == "update_agent" and left else None
    standing = {unit: "left" if unit in left else "done" for unit in order} | ({current: "now"} if current else {})
    return [
        {
            "unit": unit,
            "label": unit_label(agents, unit),
            "color": look.agent_color(agents, unit),
            "state": standing[unit],
        }
        for unit in order
    ]


def rules_of(state: PanelState) -> tuple[list[list[str]], str]:
    """What may decide the order, and what does."""
    given = state.trainer.order
    rules = [[name, RULE_TEXTS.get(name, name.replace("_", "-"))] for name in RULES] + [[ARRANGED, "as arranged"]]
    if callable(given):
        return [*rules, [OWN, getattr(given, "__name__", "own rule")]], OWN
    return rules, given if isinstance(given, str) else ARRANGED


def possible(state: PanelState) -> list[str]:
    """What the buttons may do now."""
    trainer = state.trainer
    copies = ["fork"] if trainer.env.can_snapshot else []
    back = ["rewind agent", "rewind iteration"] if trainer.env.can_snapshot and trainer.env_steps else []
    return [*copies, *back, "pause"] if state.running else [*copies, *back, "step agent", "step iteration", "run"]


def where(state: PanelState, speed: float | None) -> str:
    """The progress in words."""
    trainer = state.trainer
    doing = DOING[trainer.phase] if state.running else f"next: {trainer.phase.replace('_', ' ')}"
    if trainer.phase == "update_agent":
        order, left = trainer.iteration_order, trainer.remaining
        place = f"{len(order) - len(left) + 1} of {len(order)}"
        agent = unit_label(trainer.env.agents, left[0])
        doing = f"updating {agent} ({place})" if state.running else f"next: {agent} ({place})"
    if state.evaluating:
        doing = "evaluating"
    parts = [f"iteration {trainer.iteration}", doing, f"{trainer.env_steps:,} env steps"]
    parts += [f"{speed:,.0f} steps/s"] if speed else []
    return " · ".join([*parts, "running" if state.running else "paused"])
