"""The controls of a session's panel: the update order as chips, a setting with slider and field, the buttons.

What a user asks for on the page arrives as plain messages, which each widget hands to ``on_request``; what it shows are
its traits. Widgets know nothing of trainers.
"""

from __future__ import annotations

from collections.abc import Callable

import anywidget
import traitlets
from ipywidgets import DOMWidget

from workbench.jupyter.assets import PageMessage, script, style


def close_all(*widgets: DOMWidget) -> None:
    """Close widgets and their layouts, which ipywidgets would keep for ever."""
    for widget in widgets:
        widget.layout.close()
        widget.close()


class PanelWidget(anywidget.AnyWidget):
    """A widget that hands the page's messages to ``on_request``, which must return at once."""

    def __init__(self, on_request: Callable[[PageMessage], None], **traits: object) -> None:
        super().__init__(**traits)
        self._on_request = on_request
        self.on_msg(self._hear)

    def _hear(self, _: object, message: PageMessage, __: object) -> None:
        if "number" in message:
            self.send({"type": "heard", "number": message["number"]})
        self._on_request(message)


class Permutation(PanelWidget):
    """The update order as chips, moved by drag or keyboard; asks for "order", "shuffle", "reverse" or "rule".

    items    [{"unit", "label", "color", "state"}] in order; state is "done", "now" or "left"
    rules    [[name, text]], what may decide the order; ``rule`` the one that does
    pending  whether what is shown was asked for and is not yet in effect
    """

    _esm = script("panel/permutation")
    _css = style("panel/permutation")

    items: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    rules: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    rule = traitlets.Unicode().tag(sync=True)
    pending = traitlets.Bool(False).tag(sync=True)


class SettingControl(PanelWidget):
    """A positive number with slider and field; asks for "value".

    low, high    ends of the slider; the field takes others too
    logarithmic  whether the slider goes by factors
    """

    _esm = script("panel/setting")
    _css = style("panel/setting")

    label = traitlets.Unicode().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    value = traitlets.Float(1.0).tag(sync=True)
    low = traitlets.Float(0.01).tag(sync=True)
    high = traitlets.Float(1.0).tag(sync=True)
    step = traitlets.Float(0.01).tag(sync=True)
    logarithmic = traitlets.Bool(False).tag(sync=True)
    pending = traitlets.Bool(False).tag(sync=True)


class Buttons(PanelWidget):
    """Back, forward, run, pause, fork, code; asks for "do".

    can      what may be done now, by the names that are asked for
    running  whether it trains
    """

    _esm = script("panel/buttons")
    _css = style("panel/buttons")

    can: traitlets.List[str] = traitlets.List().tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)


class Status(PanelWidget):
    """Progress and messages, and what is shown; asks for "select", "page" or "kind", and says "shown".

    ``state`` is one mapping: ``where`` (progress in words), ``running``, ``fraction`` (of the goal, or None),
    ``message``, ``error`` (whether the message is one), ``trouble``, ``traceback``, ``runs``, ``active``, ``pages``,
    ``page``, ``kinds``, ``kind`` (that of the M-factors on the first page), ``answer`` (whether to say "shown").
    """

    _esm = script("panel/status")
    _css = style("panel/status")

    state = traitlets.Dict().tag(sync=True)
