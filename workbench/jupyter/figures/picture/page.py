"""A PNG of a Plotly figure, drawn by matplotlib: no browser, no display, the same bytes for the same figure.

It covers what the workbench's figures are made of: scatter (lines, markers, dashes, bands, error bars, text), bar, box
(of quartiles) and heatmap traces; panels by axis domains, shared, twin and logarithmic axes, axes of names; titles,
legends, shapes and annotations; Plotly's templates. A type of trace that it cannot draw is refused by name.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from workbench.jupyter.figures.picture.axes import XY, finish_axes, names_along
from workbench.jupyter.figures.picture.style import POINTS_PER_PIXEL, font, line_style, plain_text, rgba, with_template
from workbench.jupyter.figures.picture.traces import PictureAxes, draw_trace, swatch
from workbench.jupyter.look import Spec

DPI = 100
MOST_BYTES = 100_000

Box = tuple[float, float, float, float]  # left, right, top, bottom margin in pixels


def png(figure: Spec) -> bytes:
    """The picture of a figure in plain form, ``layout.width`` × ``layout.height`` pixels.

    Raises ``ValueError`` naming the trace type where a trace cannot be drawn.
    """
    traces, layout = with_template(figure)
    page = Page(traces, layout)
    return page.render()


class Page:
    """The sheet that a figure is drawn on: its panels, and around them title, legend, shapes and annotations."""

    def __init__(self, traces: Sequence[Spec], layout: Spec) -> None:
        self.traces = [trace for trace in traces if trace.get("visible", True) is True]
        self.layout = layout
        self.width, self.height = float(layout.get("width", 700)), float(layout.get("height", 450))
        self.font = layout.get("font") or {}
        given = layout.get("margin") or {}
        self.margin: Box = tuple(float(given.get(side, 80)) for side in "lrtb")  # type: ignore[assignment]

    def render(self) -> bytes:
        """Draw until the margins hold the labels and the legend; wider margins can turn the labels, so look again."""
        for _ in range(4):
            self.draw()
            before, self.margin = self.margin, self.grown_margin()
            if max(np.subtract(self.margin, before)) < 1:
                break
        return self.encode()

    def draw(self) -> None:
        """Put everything on a fresh sheet."""
        self.sheet: Any = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)
        self.canvas: Any = FigureCanvasAgg(self.sheet)
        self.sheet.patch.set_facecolor(rgba(self.layout.get("paper_bgcolor", "#ffffff")))
        self.panels = {pair: self.add_panel(*pair) for pair in self.pairs()}
        self.draw_traces()
        self.see_shapes()
        finish_axes(self.panels, self.layout, self.font)
        self.draw_shapes()
        self.draw_annotations()
        self.draw_title()
        self.legend = self.draw_legend()

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of axes in use, those that lie over others last."""
        used = dict.fromkeys((str(t.get("xaxis") or "x"), str(t.get("yaxis") or "y")) for t in self.traces)
        return sorted(used or {("x", "y"): None}, key=lambda pair: bool(self.axis(pair[1]).get("overlaying")))

    def axis(self, name: str) -> Spec:
        """The layout of an axis by its short name ("x", "y2")."""
        own = self.layout.get(f"{name[0]}axis{name[1:]}")
        return dict(own if own is not None else self.layout.get(f"{name[0]}axis") or {})

    def domain(self, name: str) -> tuple[float, float]:
        """The part of the plotting area, from 0 to 1, that an axis spans; a twin spans what the axis under it does."""
        axis = self.axis(name)
        low, high = (
            self.axis(str(axis["overlaying"])).get("domain") or (0, 1)
            if axis.get("overlaying")
            else (axis.get("domain") or (0, 1))
        )
        return float(low), float(high)

    def in_paper(self, x: float, y: float) -> tuple[float, float]:
        """From Plotly's paper coordinates (0 to 1 over the plotting area) to fractions of the sheet."""
        left, right, top, bottom = self.margin
        across, up = self.width - left - right, self.height - top - bottom
        return (left + x * across) / self.width, (bottom + y * up) / self.height

    def add_panel(self, x: str, y: str) -> PictureAxes:
        (x0, x1), (y0, y1) = self.domain(x), self.domain(y)
        (left, low), (right, high) = self.in_paper(x0, y0), self.in_paper(x1, y1)
        axes = self.sheet.add_axes((left, low, max(right - left, 0.01), max(high - low, 0.01)))
        over = bool(self.axis(y).get("overlaying"))
        axes.patch.set_facecolor("none" if over else rgba(self.layout.get("plot_bgcolor", "#e5ecf6")))
        panel = PictureAxes(axes, self.layout, self.font)
        for which, name in zip(XY, (x, y), strict=True):
            axis = self.axis(name)
            names = names_along(which, name, axis, self.traces)
            if names is not None:
                panel.categories[which] = names
            elif axis.get("type") == "log":
                getattr(axes, f"set_{which}scale")("log")
        return panel

    def draw_traces(self) -> None:
        mode = self.layout.get("barmode", "group")
        earlier: dict[tuple[str, str], Spec] = {}
        for pair, panel in self.panels.items():
            mine = [t for t in self.traces if (t.get("xaxis") or "x", t.get("yaxis") or "y") == pair]
            bars = [t for t in mine if t["type"] == "bar"]
            if mode in ("stack", "relative"):
                stack(bars)
            for trace in mine:
                slot = (bars.index(trace), len(bars)) if mode == "group" and trace["type"] == "bar" else (0, 1)
                draw_trace(panel, trace, slot, earlier.get(pair))
                earlier[pair] = trace

    def see_shapes(self) -> None:
        """Shapes in data coordinates are kept in view too."""
        for shape in self.layout["shapes"]:
            for which in "xy":
                ref = str(shape.get(f"{which}ref") or "paper")
                if ref != "paper" and " " not in ref:
                    panel = next((p for pair, p in self.panels.items() if ref in pair), None)
                    if panel is not None and which not in panel.categories:
                        panel.see(which, [shape[f"{which}0"], shape[f"{which}1"]])

    def draw_shapes(self) -> None:
        for shape in self.layout["shapes"]:
            corners = [self.anchor(shape, f"x{k}", f"y{k}") for k in (0, 1)]
            (x0, y0), (x1, y1) = corners
            line = shape.get("line") or {}
            edge = {**line_style(line), "color": rgba(line.get("color", "#444444"), float(shape.get("opacity", 1)))}
            if shape.get("type", "line") == "line":
                self.sheet.add_artist(Line2D([x0, x1], [y0, y1], **edge))
            elif shape["type"] == "rect":
                fill = rgba(shape.get("fillcolor", "rgba(0,0,0,0)"), float(shape.get("opacity", 1)))
                edges = {"edgecolor": edge["color"], "linewidth": edge["linewidth"]}
                self.sheet.add_artist(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=fill, **edges))

    def draw_annotations(self) -> None:
        for note in self.layout["annotations"]:
            if note.get("visible") is False:
                continue
            at = self.anchor(note, "x", "y")
            words, bold = plain_text(note.get("text", ""))
            style = font({**self.font, **(note.get("font") or {})}, bold=bold)
            offset, arrow = (float(note.get("xshift", 0)), float(note.get("yshift", 0))), None
            align = {"ha": _horizontal(note, at[0]), "va": _vertical(note, at[1])}
            if note.get("showarrow", True):
                offset = (float(note.get("ax", -10)), -float(note.get("ay", -30)))
                arrow = {"arrowstyle": "->", "color": rgba(note.get("arrowcolor", "#444444")), "shrinkA": 0}
                align = {"ha": "center", "va": "center"}
            ground = note.get("bgcolor")
            text = Annotation(
                words,
                at,
                (offset[0] * POINTS_PER_PIXEL, offset[1] * POINTS_PER_PIXEL),
                xycoords="figure fraction",
                textcoords="offset points",
                rotation=-float(note.get("textangle", 0)),
                arrowprops=arrow,
                bbox={"facecolor": rgba(ground), "edgecolor": "none", "pad": 2} if ground else None,
                annotation_clip=False,
                **align,
                **style,
            )
            self.sheet.add_artist(text)

    def anchor(self, thing: Spec, x: str, y: str) -> tuple[float, float]:
        """Where a shape or annotation is, as fractions of the sheet: in data, domain or paper coordinates."""
        place = [0.0, 0.0]
        xref, yref = str(thing.get("xref") or "paper"), str(thing.get("yref") or "paper")
        for k, (key, ref) in enumerate(((x, xref), (y, yref))):
            value = thing[key]
            if ref == "paper":
                place[k] = self.in_paper(*((value, 0) if k == 0 else (0, value)))[k]
            else:
                place[k] = self.along_axis("xy"[k], ref, value)
        return place[0], place[1]

    def along_axis(self, which: str, ref: str, value: Any) -> float:
        name, _, domain = ref.partition(" ")
        panel = next(p for pair, p in self.panels.items() if name in pair)
        box = panel.axes.get_position()
        start, length = (box.x0, box.width) if which == "x" else (box.y0, box.height)
        if domain:
            return float(start + float(value) * length)
        at = float(panel.place(which, [value])[0])
        scale = panel.axes.transData.transform((at, at) if at > 0 else (max(at, 1e-300), at))
        fraction = panel.axes.transAxes.inverted().transform(scale)["xy".index(which)]
        return float(start + fraction * length)

    def draw_title(self) -> None:
        title = self.layout.get("title") or {}
        if not title.get("text"):
            return
        words, bold = plain_text(title["text"])
        x = float(title.get("x", 0.05))
        align = {"left": "left", "center": "center", "right": "right"}.get(title.get("xanchor", ""), "left")
        y = 1 - self.margin[2] / 2 / self.height if title.get("y") is None else float(title["y"])
        style = font({"size": 17, **self.font, **(title.get("font") or {})}, bold=bold)
        self.sheet.text(x, y, words, ha=align, va="center", **style)

    def draw_legend(self) -> Any:
        """The legend, with one entry for each name; nothing where no trace asks for one."""
        named = [t for t in self.traces if t.get("name") and t.get("showlegend", True)]
        if not self.layout.get("showlegend", len(self.traces) > 1 or any(t.get("showlegend") for t in self.traces)):
            return None
        entries = {(t.get("legendgroup"), t["name"]): t for t in reversed(named)}
        if not entries:
            return None
        entries = dict(reversed(entries.items()))
        box = self.layout.get("legend") or {}
        across = box.get("orientation") == "h"
        x, y = float(box.get("x", 0 if across else 1.02)), float(box.get("y", -0.1 if across else 1))
        corner = (_side(box.get("yanchor", "auto"), y, VERTICAL_SIDES), _side(box.get("xanchor", "left"), x, SIDES))
        style = font({**self.font, **(box.get("font") or {})})
        labels = [plain_text(name)[0] for _, name in entries]
        longest = max(len(label) for label in labels)
        columns = max(1, min(len(labels), int((self.width - 40) / (6.2 * longest + 52)))) if across else 1
        rows = by_rows(len(labels), columns)
        traces = list(entries.values())
        legend = self.sheet.legend(
            [swatch(traces[i]) for i in rows],
            [labels[i] for i in rows],
            loc=LOCATIONS[corner],
            bbox_to_anchor=self.in_paper(x, y),
            prop=style["fontproperties"],
            labelcolor=style["color"],
            frameon=False,
            ncols=columns,
            borderpad=0,
            borderaxespad=0,
            handlelength=2.2,
            columnspacing=1.6,
            labelspacing=0.45,
        )
        for text in legend.get_texts():
            text.set(parse_math=False, usetex=False)
        return legend

    def grown_margin(self) -> Box:
        """Margins that hold the tick labels, axis titles and the legend, where the given ones are too small."""
        renderer = self.canvas.get_renderer()
        boxes = [axes.get_tightbbox(renderer) for axes in self.sheet.axes]
        boxes += [self.legend.get_window_extent(renderer)] if self.legend is not None else []
        left, right, top, bottom = self.margin
        edge = 4.0
        over = [
            max(edge - min(box.x0 for box in boxes), 0),
            max(max(box.x1 for box in boxes) - (self.width - edge), 0),
            max(max(box.y1 for box in boxes) - (self.height - edge), 0),
            max(edge - min(box.y0 for box in boxes), 0),
        ]
        return left + over[0], right + over[1], top + over[2], bottom + over[3]

    def encode(self) -> bytes:
        """The sheet as PNG bytes; in 256 colours where it would be large."""
        from PIL import Image

        self.canvas.draw()
        image = Image.fromarray(np.asarray(self.canvas.buffer_rgba()), "RGBA")
        whole = _png_bytes(image)
        if len(whole) <= MOST_BYTES // 2:
            return whole
        return _png_bytes(image.quantize(256, method=Image.Quantize.FASTOCTREE))


SIDES = ("left", "center", "right")
VERTICAL_SIDES = ("lower", "center", "upper")
LOCATIONS = {
    (row, column): "center" if (row, column) == ("center", "center") else f"{row} {column}"
    for row in VERTICAL_SIDES
    for column in SIDES
}


def by_rows(n: int, columns: int) -> list[int]:
    """The order in which matplotlib, which fills a legend column by column, sets n entries row by row.

    >>> by_rows(5, 2)
    [0, 2, 4, 1, 3]
    """
    return [i for column in range(columns) for i in range(column, n, columns)]


def stack(bars: Sequence[Spec]) -> None:
    """Stand bars on those before them at the same place."""
    heights: dict[Any, float] = {}
    for trace in bars:
        places = trace.get("x") or range(len(trace["y"]))
        trace["stack_base"] = [heights.get(at, 0.0) for at in places]
        for at, value in zip(places, trace["y"], strict=True):
            heights[at] = heights.get(at, 0.0) + (value or 0.0)


def _png_bytes(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def _side(given: str, at: float, sides: tuple[str, str, str]) -> str:
    """Which side of a box is at its anchor; "auto" goes by the third of the area that the anchor lies in."""
    named = {"left": 0, "center": 1, "right": 2, "bottom": 0, "middle": 1, "top": 2}
    third = 0 if at <= 1 / 3 else 1 if at < 2 / 3 else 2
    return sides[named.get(given, third)]


def _horizontal(note: Spec, at: float) -> str:
    return _side(str(note.get("xanchor", "auto" if note.get("xref") == "paper" else "center")), at, SIDES)


def _vertical(note: Spec, at: float) -> str:
    side = _side(str(note.get("yanchor", "auto" if note.get("yref") == "paper" else "middle")), at, VERTICAL_SIDES)
    return {"lower": "bottom", "upper": "top", "center": "center"}[side]
