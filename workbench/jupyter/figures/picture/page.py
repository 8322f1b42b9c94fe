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
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, BboxTransformTo, Transform, TransformedBbox, blended_transform_factory
from PIL import Image

from workbench.jupyter.figures.picture.axes import finish_axes, set_range
from workbench.jupyter.figures.picture.style import POINTS_PER_PIXEL, font, line_style, plain_text, rgba, with_template
from workbench.jupyter.figures.picture.traces import ROOM, PictureAxes, Which, draw_trace
from workbench.jupyter.look import Spec

DPI = 100
MOST_BYTES = 100_000
EDGE = 4.0  # pixels that labels and legend leave free at the sheet's edge

Pair = tuple[str, str]  # the names of a panel's axes
XY: tuple[Which, Which] = ("x", "y")
SIDES = {"left": 0, "center": 1, "right": 2, "bottom": 0, "middle": 1, "top": 2}
ACROSS, UP = ("left", "center", "right"), ("bottom", "center", "top")


# Text stays text, in fonts that the file has (PDF) or names (SVG), and the same figure gives the same bytes.
AS_TEXT: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "workbench"}
UNDATED: dict[str, dict[str, None]] = {
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
    "svg": dict.fromkeys(("Date", "Creator")),
    "png": {"Software": None},
}
PRINT_DPI = 300


def printed(figure: Spec, kind: str) -> bytes:
    """The figure as "pdf", "svg" or "png" for print, a hundredth of an inch to the pixel; errors as for ``png``."""
    page, stream = Page(*with_template(figure)), io.BytesIO()
    page.fit()
    with rc_context(AS_TEXT):
        page.sheet.savefig(stream, format=kind, dpi=PRINT_DPI, metadata=UNDATED[kind])
    return stream.getvalue()


def png(figure: Spec) -> bytes:
    """The picture of a figure in plain form, ``layout.width`` × ``layout.height`` pixels.

    Raises ``ValueError`` naming the trace type where a trace cannot be drawn.
    """
    return Page(*with_template(figure)).render()


class Page:
    """The sheet that a figure is drawn on: its panels, and around them title, legend, shapes and annotations."""

    def __init__(self, traces: Sequence[Spec], layout: Spec) -> None:
        self.traces = [trace for trace in traces if trace.get("visible", True) is True]
        self.layout = layout
        self.width, self.height = float(layout.get("width", 700)), float(layout.get("height", 450))
        self.font: Spec = layout.get("font", {})
        given = layout.get("margin", {})
        self.margin = np.array([float(given.get(side, 80)) for side in "lrtb"])

    def render(self) -> bytes:
        """The sheet as PNG bytes."""
        self.fit()
        return self.encode()

    def fit(self) -> None:
        """Draw until the margins hold the labels and the legend; wider margins can turn the labels, so look again."""
        for _ in range(4):
            self.draw()
            beyond = self.beyond_the_sheet()
            self.margin = self.margin + beyond
            if beyond.max() < 1:
                break

    def draw(self) -> None:
        """Put everything on a fresh sheet."""
        self.sheet = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)
        self.canvas = FigureCanvasAgg(self.sheet)
        self.sheet.patch.set_facecolor(rgba(self.layout.get("paper_bgcolor", "#ffffff")))
        left, right, top, bottom = self.margin / [self.width, self.width, self.height, self.height]
        area = TransformedBbox(Bbox.from_extents(left, bottom, 1 - right, 1 - top), self.sheet.transFigure)
        self.paper = BboxTransformTo(area)
        used = dict.fromkeys((str(t.get("xaxis", "x")), str(t.get("yaxis", "y"))) for t in self.traces)
        self.panels: dict[Pair, PictureAxes] = {}
        for pair in sorted(used or {("x", "y"): None}, key=lambda pair: "overlaying" in self.axis(pair[1])):
            self.panels[pair] = self.add_panel(*pair)  # those that lie over others come last
        entries = self.draw_traces()
        self.finish_axes()
        self.draw_shapes()
        self.draw_annotations()
        self.draw_title()
        self.legend = self.draw_legend(entries)

    def axis(self, name: str) -> Spec:
        """The layout of an axis by its short name ("x", "y2")."""
        default: Spec = self.layout.get(f"{name[0]}axis", {})
        return self.layout.get(f"{name[0]}axis{name[1:]}") or default

    def add_panel(self, x: str, y: str) -> PictureAxes:
        """The axes of a pair, which share what is drawn along with those before them, and lie where their domains say.

        A twin spans what the axis under it does.
        """
        corners = [self.axis(self.axis(name).get("overlaying", name)).get("domain", (0, 1)) for name in (x, y)]
        box = self.sheet.transFigure.inverted().transform(self.paper.transform(np.transpose(corners)))
        (left, low), (across, up) = box[0], np.maximum(box[1] - box[0], 0.01)
        axes = self.sheet.add_axes((left, low, across, up))
        axes.margins(x=0, y=ROOM)
        over = "overlaying" in self.axis(y)
        axes.patch.set_facecolor("none" if over else rgba(self.layout.get("plot_bgcolor", "#e5ecf6")))
        panel = PictureAxes(axes, self.font, float(self.layout.get("bargap", 0.2)))
        for k, (which, name) in enumerate(zip(XY, (x, y), strict=True)):
            axis = self.axis(name)
            roots = {self.axis(pair[k]).get("matches", pair[k]): other.axes for pair, other in self.panels.items()}
            if axis.get("matches", name) in roots:
                getattr(axes, f"share{which}")(roots[axis.get("matches", name)])
            if axis.get("type") == "log":
                getattr(axes, f"set_{which}scale")("log")
            if "categoryarray" in axis:
                panel.place(which, map(str, axis["categoryarray"]))
        return panel

    def draw_traces(self) -> dict[tuple[str | None, str], list[Artist]]:
        """Draw all; returns {(group, name): what stands for it in the legend}, one entry for each name."""
        mode = self.layout.get("barmode", "group")
        earlier: dict[Pair, Spec] = {}
        entries: dict[tuple[str | None, str], list[Artist]] = {}
        bars = {pair: [t for t in self.traces if self.pair(t) == pair and t["type"] == "bar"] for pair in self.panels}
        if mode in ("stack", "relative"):
            for several in bars.values():
                stack(several)
        for pair, panel in self.panels.items():
            for trace in self.traces:
                if self.pair(trace) != pair:
                    continue
                grouped = mode == "group" and trace["type"] == "bar"
                slot = (bars[pair].index(trace), len(bars[pair])) if grouped else (0, 1)
                drawn = draw_trace(panel, trace, slot, earlier.get(pair))
                earlier[pair] = trace
                if drawn and trace.get("name") and trace.get("showlegend", True):
                    entries.setdefault((trace.get("legendgroup"), trace["name"]), drawn)
        return entries

    @staticmethod
    def pair(trace: Spec) -> Pair:
        return str(trace.get("xaxis", "x")), str(trace.get("yaxis", "y"))

    def finish_axes(self) -> None:
        for shape in self.layout["shapes"]:  # those in data coordinates are kept in view too
            for which in XY:
                for pair, panel in self.panels.items():
                    if shape.get(f"{which}ref") in pair and not panel.axis(which).have_units():
                        ends = [(shape[f"{which}{k}"],) * 2 for k in (0, 1)]
                        panel.axes.update_datalim(ends, updatex=which == "x", updatey=which == "y")
        for (x, y), panel in self.panels.items():
            set_range(panel, "x", self.axis(x))
            set_range(panel, "y", self.axis(y))
        for (x, y), panel in self.panels.items():
            anchor = self.axis(x).get("anchor", y)
            borrowed = "overlaying" in self.axis(y) or (x, anchor) in self.panels.keys() - {(x, y)}
            finish_axes(panel, self.axis(x), self.axis(y), self.font, borrowed)

    def place(self, thing: Spec, k: str = "") -> tuple[tuple[float, float], Transform]:
        """Where a shape or an annotation is (``k``: its corner), in data, domain or paper coordinates."""
        at: list[float] = []
        ways: list[Transform] = []
        for which in XY:
            name, _, domain = str(thing.get(f"{which}ref", "paper")).partition(" ")
            value: float = thing[f"{which}{k}"]
            way: Transform = self.paper
            if name != "paper":
                panel = next(panel for pair, panel in self.panels.items() if name in pair)
                value = value if domain else panel.place(which, [value])[0]
                way = panel.axes.transAxes if domain else panel.axes.transData
            at.append(float(value))
            ways.append(way)
        return (at[0], at[1]), blended_transform_factory(*ways)

    def draw_shapes(self) -> None:
        for shape in self.layout["shapes"]:
            ((x0, y0), way), ((x1, y1), _) = self.place(shape, "0"), self.place(shape, "1")
            line, opacity = shape.get("line", {}), float(shape.get("opacity", 1))
            style, color = line_style(line), rgba(line.get("color", "#444444"), opacity)
            if shape.get("type", "line") == "line":
                self.sheet.add_artist(Line2D([x0, x1], [y0, y1], color=color, transform=way, **style))
            elif shape["type"] == "rect":
                fill = rgba(shape.get("fillcolor", "transparent"), opacity)
                style = {"facecolor": fill, "edgecolor": color, "linewidth": style["linewidth"], "transform": way}
                self.sheet.add_artist(Rectangle((x0, y0), x1 - x0, y1 - y0, **style))

    def draw_annotations(self) -> None:
        for note in self.layout["annotations"]:
            if note.get("visible") is False:
                continue
            at, way = self.place(note)
            words, bold = plain_text(note.get("text", ""))
            offset, arrow = (note.get("xshift", 0), note.get("yshift", 0)), None
            align = {"ha": side_of(note, "x", ACROSS), "va": side_of(note, "y", UP)}
            if note.get("showarrow", True):
                offset = (note.get("ax", -10), -note.get("ay", -30))
                arrow = {"arrowstyle": "->", "color": rgba(note.get("arrowcolor", "#444444")), "shrinkA": 0}
                align = {"ha": "center", "va": "center"}
            ground = {"facecolor": rgba(note.get("bgcolor", "transparent")), "edgecolor": "none", "pad": 2}
            text = Annotation(
                words,
                at,
                (offset[0] * POINTS_PER_PIXEL, offset[1] * POINTS_PER_PIXEL),
                xycoords=way,
                textcoords="offset points",
                rotation=-float(note.get("textangle", 0)),
                arrowprops=arrow,
                bbox=ground if "bgcolor" in note else None,
                annotation_clip=False,
                **align,
                **font(self.font, note.get("font", {}), bold=bold),
            )
            self.sheet.add_artist(text)

    def draw_title(self) -> None:
        title = self.layout.get("title", {})
        words, bold = plain_text(title.get("text", ""))
        x, y = float(title.get("x", 0.05)), float(title.get("y", 1 - self.margin[2] / 2 / self.height))
        align = ACROSS[SIDES.get(title.get("xanchor", "left"), 0)]
        style = font({"size": 17}, self.font, title.get("font", {}), bold=bold)
        self.sheet.text(x, y, words, ha=align, va="center", **style)

    def draw_legend(self, entries: dict[tuple[str | None, str], list[Artist]]) -> Legend | None:
        """The legend; nothing where no trace asks for one."""
        several = len(self.traces) > 1 or any(t.get("showlegend") for t in self.traces)
        if not entries or not self.layout.get("showlegend", several):
            return None
        box = self.layout.get("legend", {})
        across = box.get("orientation") == "h"
        box = {"x": 0 if across else 1.02, "y": -0.1 if across else 1, "xanchor": "left", "yanchor": "auto", **box}
        side, height = side_of(box, "x", ACROSS), side_of(box, "y", ("lower", "center", "upper"))
        labels, drawn = [plain_text(name)[0] for _, name in entries], list(entries.values())
        room = 6.2 * max(map(len, labels)) + 52
        columns = max(1, min(len(labels), int((self.width - 40) / room))) if across else 1
        style = font(self.font, box.get("font", {}))
        order = by_rows(len(labels), columns)
        legend: Legend = self.sheet.legend(  # type: ignore[call-overload]  # which knows nothing of tuples
            [tuple(drawn[i]) for i in order],
            [labels[i] for i in order],
            loc="center" if side == height else f"{height} {side}",
            bbox_to_anchor=(box["x"], box["y"]),
            bbox_transform=self.paper,
            prop=style["fontproperties"],
            labelcolor=style["color"],
            frameon=False,
            ncols=columns,
            numpoints=1,
            scatterpoints=1,
            scatteryoffsets=[0.5],
            markerscale=1,
            borderpad=0,
            borderaxespad=0,
            handlelength=2.2,
            handleheight=0.7,
            handletextpad=0.8,
            columnspacing=1.6,
            labelspacing=0.45,
        )
        for text in legend.get_texts():
            text.set(parse_math=False, usetex=False)
        return legend

    def beyond_the_sheet(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """By how many pixels tick labels, titles and legend go beyond the sheet: left, right, top, bottom."""
        renderer = self.canvas.get_renderer()  # type: ignore[no-untyped-call]
        boxes = [axes.get_tightbbox(renderer) for axes in self.sheet.axes]
        boxes += [self.legend.get_window_extent(renderer)] if self.legend is not None else []
        all_of_it = Bbox.union([box for box in boxes if box is not None])
        right, top = all_of_it.x1 - self.width, all_of_it.y1 - self.height
        return np.maximum(np.array([-all_of_it.x0, right, top, -all_of_it.y0]) + EDGE, 0)

    def encode(self) -> bytes:
        """The sheet as PNG bytes; in 256 colours where it would be large."""
        self.canvas.draw()  # type: ignore[no-untyped-call]
        image = Image.fromarray(np.asarray(self.canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
        whole = _png_bytes(image)
        if len(whole) <= MOST_BYTES // 2:
            return whole
        return _png_bytes(image.quantize(256, method=Image.Quantize.FASTOCTREE))


def by_rows(n: int, columns: int) -> list[int]:
    """The order in which matplotlib, which fills a legend column by column, sets n entries row by row.

    >>> by_rows(5, 2)
    [0, 2, 4, 1, 3]
    """
    return [i for column in range(columns) for i in range(column, n, columns)]


def stack(bars: Sequence[Spec]) -> None:
    """Stand bars on those before them at the same place."""
    heights: dict[object, float] = {}
    for trace in bars:
        places = trace.get("x", range(len(trace["y"])))
        trace["stack_base"] = [heights.get(at, 0.0) for at in places]
        for at, value in zip(places, trace["y"], strict=True):
            heights[at] = heights.get(at, 0.0) + (value or 0.0)


def side_of(box: Spec, which: Which, sides: tuple[str, str, str]) -> str:
    """Which side of a box is at its anchor; "auto" goes by the third of the paper that the anchor lies in."""
    in_paper = box.get(f"{which}ref", "paper") == "paper"
    third = int(np.clip(3 * box[which], 0, 2)) if in_paper else 1
    return sides[SIDES.get(box.get(f"{which}anchor", "auto"), third)]


def _png_bytes(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=6)
    return stream.getvalue()
