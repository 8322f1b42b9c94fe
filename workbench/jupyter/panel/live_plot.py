"""Plotly figures that are drawn anew, fast, as often as their page can follow.

A frame is a figure in plain form. Its arrays travel as float32 in one block, the rest as JSON; the page draws the
newest frame with ``Plotly.react``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import traitlets

from workbench.jupyter import look
from workbench.jupyter.assets import ArrayBlock, PageMessage, PageWidget, script, style
from workbench.jupyter.look import Spec
from workbench.jupyter.panel.frame_scheduler import ANSWER, FrameScheduler
from workbench.jupyter.panel.message import Message, one_line

MOST_WIDTHS = 4  # views of one figure that are arranged for, each its own way; the newest count


class LivePlot(PageWidget):
    """A figure in the page, or in several places of it, drawn some time after each ``frames.poke()``.

    ``make`` gets the widths of the page's views, and returns {width: the figure arranged for it}, all of the same
    traces, and a text for screen readers. What it raises is said under the figure, and goes to ``on_failure``.

    widths  of its views in pixels, as the page last said; ``look.WIDTH`` before any has
    drawn   the number of the last frame that a page has drawn; ``sent`` that of the last frame sent
    """

    library = "plotly"
    _esm = script("page", "panel/live_plot")
    _css = style("panel/live_plot")

    spec = traitlets.Dict().tag(sync=True)
    block = traitlets.Bytes().tag(sync=True)
    templates = traitlets.Dict().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    traceback = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        make: Callable[[tuple[int, ...]], tuple[Mapping[int, Spec], str]],
        on_failure: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.sent = self.drawn = 0
        self._took = 0.0
        self._views: dict[str, int] = {}
        self._make, self._on_failure = make, on_failure
        self.frames = FrameScheduler(self.flush, self.failed)
        super().__init__(templates={"light": look.template("light"), "dark": look.template("dark")})

    @property
    def widths(self) -> tuple[int, ...]:
        """The different widths to arrange the figure for."""
        return tuple(dict.fromkeys(self._views.values())) or (look.WIDTH,)

    def flush(self) -> bool:
        """Draw now; returns whether a page was sent anything: none that has drawn the very same already is."""
        figures, label = self._make(self.widths)
        self._complain(Message())
        block = ArrayBlock()
        data = block.pack(next(iter(figures.values()))["data"])
        layouts = {str(width): block.pack(figure["layout"]) for width, figure in figures.items()}
        spec = {"data": data, "layouts": layouts, "label": label, "frame": self.sent}
        if self.drawn == self.sent and spec == self.spec and block.bytes() == self.block:
            return False
        self.sent += 1
        with self.hold_sync():
            self.block = block.bytes()
            self.spec = {**spec, "frame": self.sent}
        return True

    def failed(self, error: Exception) -> None:
        """Say under the figure that it could not be drawn."""
        self._on_failure(error)
        self._complain(Message.of(f"The figure failed, training goes on: {one_line(error)}", error))

    def _complain(self, message: Message) -> None:
        with self.hold_sync():
            self.error, self.traceback = message.text, message.traceback

    def close(self) -> None:
        """Draw nothing any more, and take the figure off the page."""
        self.frames.close()
        super().close()

    def hear(self, message: PageMessage) -> None:
        kind, widths = message.get("type"), self.widths
        if kind == "drawn":
            self.drawn = max(self.drawn, int(message["frame"]))
            self._took = float(message["took"]) / 1000
        elif kind in ("width", "gone"):
            others = {view: width for view, width in self._views.items() if view != message["view"]}
            newest = {message["view"]: int(message["width"])} if kind == "width" else {}
            self._views = dict([*others.items(), *newest.items()][-MOST_WIDTHS:])
        if self.drawn == self.sent:
            self.frames.answered(self._took and self._took + ANSWER)
        if self.widths != widths:
            self.frames.poke()
