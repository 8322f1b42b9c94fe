"""Panels and how they stand together: a ``Plot`` is one pair of axes, ``arrange`` makes one figure of several."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from workbench.jupyter import look
from workbench.jupyter.look import Spec

Floats = npt.NDArray[np.float64]

MOST_POINTS = 600  # a line: twice as many as a panel has pixels tells the eye nothing more
TITLE_ROOM, AXIS_ROOM, TOP_ROOM = 30, 46, 6  # pixels: above a panel, below it, above all of them
LINE = 15  # pixels: height of a line of letters
LEGEND_ROW, LEGEND_ENTRY = 20, 46  # pixels: height of a row, width of an entry beside its letters
LETTER, CAPTION_LETTER = 7.0, 5.8  # pixels: width of a letter, of one in small print
CAPTION_GAP = 6  # pixels above small print
SIDE_ROOM = 64  # pixels left of a panel, for ticks and title
COLUMN_GAP = 88  # pixels between panels side by side
STRIP_GAP = 16  # pixels between the two strips of a panel that has two scales


@dataclass(frozen=True)
class Plot:
    """One panel in plain Plotly terms; axes are called x, y and y2 here, wherever the panel will stand.

    title       above the panel
    traces      its data
    yaxis2      the scale of the lower strip, where the panel is two strips over one x axis
    shapes      lines and areas; ``notes``: Plotly's annotations
    label_room  pixels below the panel for the ticks' labels and the axis' title
    """

    title: str
    traces: list[Spec]
    xaxis: Spec = field(default_factory=dict)
    yaxis: Spec = field(default_factory=dict)
    yaxis2: Spec | None = None
    shapes: list[Spec] = field(default_factory=list)
    notes: list[Spec] = field(default_factory=list)
    label_room: int = AXIS_ROOM


def arrange(
    plots: Sequence[Plot],
    columns: int = 1,
    width: int = look.WIDTH,
    panel_height: int = look.PANEL_HEIGHT,
    legend: bool = True,
) -> Spec:
    """One figure of several panels, row by row, with one legend below, in plain form.

    The legend names everything once, and an agent's entry switches the agent on and off in all panels. Axes are
    ``panel_height`` pixels high; what titles, labels and the legend need comes on top. Without a ``legend`` the traces
    still say which of them one would name.
    """
    across = [_share(k, columns, COLUMN_GAP, width - SIDE_ROOM - 16) for k in range(columns)]
    spans = [(end - start) * (width - SIDE_ROOM - 16) for start, end in across]
    plots = [fit_labels(plot, spans[k % columns]) for k, plot in enumerate(plots)]
    rooms = [max(plot.label_room for plot in plots[k : k + columns]) for k in range(0, len(plots), columns)]
    names = _legend_names(plots) if legend else []
    below = _legend_rows(names, width) * LEGEND_ROW + (8 if names else 0)
    area = panel_height * len(rooms) + sum(rooms[:-1]) + TITLE_ROOM * (len(rooms) - 1)
    height = TOP_ROOM + TITLE_ROOM + area + rooms[-1] + below
    traces: list[Spec] = []
    layout: Spec = {"shapes": [], "annotations": [], "width": width, "height": height}
    seen: set[str] = set()
    for k, plot in enumerate(plots):
        row = k // columns
        top = area - row * (panel_height + TITLE_ROOM) - sum(rooms[:row])
        up = [round((top - panel_height) / area, 5), round(top / area, 5)]
        _add(plot, k, across[k % columns], up, 0.5 * STRIP_GAP / area, traces, layout, seen)
    layout["margin"] = {"l": SIDE_ROOM, "r": 16, "t": TOP_ROOM + TITLE_ROOM, "b": rooms[-1] + below}
    layout["showlegend"] = bool(names)
    layout["legend"] = {"orientation": "h", "x": 0, "xanchor": "left", "y": -(rooms[-1] + 6) / area, "yanchor": "top"}
    return {"data": traces, "layout": layout}


def captioned(figure: Spec, lines: Sequence[str]) -> Spec:
    """The figure with lines of small print below it."""
    layout = figure["layout"]
    letters = int((layout["width"] - 24) / CAPTION_LETTER)
    wrapped = [part for text in lines for part in textwrap.wrap(text, letters, subsequent_indent="    ")]
    below = layout["margin"]["b"]
    words = "<br>".join(wrapped).replace("    ", "&nbsp;" * 4)
    shift = {"xshift": 12 - layout["margin"]["l"], "yshift": -below - CAPTION_GAP}
    style: Spec = {"font": {"size": look.TICK_SIZE}, "align": "left", "name": "caption"}
    notes = [*layout["annotations"], note(words, ("paper", 0, "left"), ("paper", 0, "top"), **shift, **style)]
    room = LINE * len(wrapped) + CAPTION_GAP + 8
    margin = {**layout["margin"], "b": below + room}
    larger = {**layout, "annotations": notes, "height": layout["height"] + room, "margin": margin}
    return {"data": figure["data"], "layout": larger}


def fit_labels(plot: Plot, span: float) -> Plot:
    """The panel with the names on its x axis (written "number<br>name") turned as far as ``span`` pixels demand."""
    labels = plot.xaxis.get("ticktext")
    if not labels:
        return plot
    widest = max(max(map(len, label.split("<br>"))) for label in labels) * LETTER
    if widest + 6 <= span / len(labels):
        return replace(plot, label_room=AXIS_ROOM + (LINE if any("<br>" in label for label in labels) else 0))
    words = [label.replace("<br>", " ") for label in labels]
    longest = max(map(len, words)) * LETTER
    angle, drop = (-35, 0.57 * longest + LINE) if span / len(labels) >= 24 else (-90, longest)
    return replace(
        plot, xaxis={**plot.xaxis, "ticktext": words, "tickangle": angle}, label_room=round(AXIS_ROOM + drop - LINE + 4)
    )


def _share(k: int, n: int, gap: float, length: float) -> list[float]:
    """The k-th of n equal parts of a length, with gaps (same units) between them, as fractions."""
    part = (length - gap * (n - 1)) / n
    return [round(k * (part + gap) / length, 5), round((k * (part + gap) + part) / length, 5)]


def _add(
    plot: Plot,
    k: int,
    across: list[float],
    up: list[float],
    half_gap: float,
    traces: list[Spec],
    layout: Spec,
    seen: set[str],
) -> None:
    number = "" if k == 0 else str(2 * k + 1)
    ids = {"x": f"x{number}", "y": f"y{number}", "y2": f"y{2 * k + 2}"}
    low, middle, high = up[0], (up[0] + up[1]) / 2, up[1]
    if plot.yaxis2 is not None:
        lower = [low, round(middle - half_gap, 5)]
        layout[f"yaxis{2 * k + 2}"] = {**plot.yaxis2, "domain": lower, "anchor": ids["x"]}
        low = round(middle + half_gap, 5)
    layout[f"xaxis{number}"] = {**plot.xaxis, "domain": across, "anchor": ids["y2" if plot.yaxis2 else "y"]}
    layout[f"yaxis{number}"] = {**plot.yaxis, "domain": [low, high], "anchor": ids["x"]}
    for trace in plot.traces:
        own = {**trace, "xaxis": ids["x"], "yaxis": ids[trace.get("yaxis", "y")]}
        if own.get("name") and own.get("showlegend", True):
            own["showlegend"] = own["name"] not in seen
            own.setdefault("legendgroup", own["name"])
            seen.add(own["name"])
        traces.append(own)
    for kind, things in (("shapes", plot.shapes), ("annotations", plot.notes)):
        layout[kind] += [{**thing, **{ref: _moved(thing[ref], ids) for ref in ("xref", "yref")}} for thing in things]
    style: Spec = {"name": "panel title", "yshift": 6, "font": {"size": look.TITLE_SIZE}}
    place = ("paper", across[0], "left"), ("paper", high, "bottom")
    layout["annotations"].append(note(f"<b>{plot.title}</b>", *place, **style))


def _moved(ref: str, ids: dict[str, str]) -> str:
    """ "x domain" of a panel as the figure calls it."""
    axis, _, domain = ref.partition(" ")
    return f"{ids[axis]} {domain}".strip()


def _legend_names(plots: Sequence[Plot]) -> list[str]:
    names = (t["name"] for plot in plots for t in plot.traces if t.get("name") and t.get("showlegend", True))
    return list(dict.fromkeys(names))


def _legend_rows(names: Sequence[str], width: float) -> int:
    if not names:
        return 0
    entry = LEGEND_ENTRY + LETTER * max(map(len, names))
    return -(-len(names) // max(1, int((width - 80) / entry)))


def note(text: str, across: tuple[str, float, str], up: tuple[str, float, str], **more: object) -> Spec:
    """Words in a figure; ``across`` and ``up``: the axis that they are placed by, where, and which side is there."""
    place: Spec = {"text": text, "showarrow": False}
    for which, at in (("x", across), ("y", up)):
        place |= {f"{which}ref": at[0], which: at[1], f"{which}anchor": at[2]}
    return place | more


def trace(mode: str, x: Floats | Sequence[float], y: Floats | Sequence[float], **more: object) -> Spec:
    """A scatter trace: "lines", "markers" or both, as Plotly writes them."""
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **more}


def empty(title: str, message: str, entries: Sequence[Spec] = ()) -> Plot:
    """A panel that says why it shows nothing; ``entries`` are traces without points, for the legend."""
    words = note(message, ("x domain", 0.5, "center"), ("y domain", 0.5, "middle"))
    hidden = {"showticklabels": False, "ticks": "", "showgrid": False, "range": [0, 1]}
    return Plot(title, [trace("lines", [], [], showlegend=False), *entries], dict(hidden), dict(hidden), notes=[words])


def thinned(x: Floats, y: Floats, most: int = MOST_POINTS) -> tuple[Floats, Floats]:
    """At most ``most`` of a line's points (all finite) that look like all: least and largest of each stretch.

    >>> x, y = thinned(np.arange(10_000.0), np.sin(np.arange(10_000.0)))
    >>> len(x) <= 600, float(x[0]), float(x[-1]), bool(y.max() > 0.9999)
    (True, 0.0, 9999.0, True)
    """
    if len(x) <= most:
        return x, y
    inner = len(x) - 2
    size = -(-inner // ((most - 2) // 2))
    table = np.full((-(-inner // size), size), np.nan)
    table.flat[:inner] = y[1:-1]
    starts = 1 + size * np.arange(len(table))
    keep = np.unique([0, *(starts + np.nanargmin(table, 1)), *(starts + np.nanargmax(table, 1)), len(x) - 1])
    return x[keep], y[keep]


def line(x: Floats, y: Floats, style: Spec, **more: object) -> Spec:
    """A trace of the finite points; marked one by one while they are few."""
    finite = np.isfinite(y)
    few = int(finite.sum()) <= 30
    x, y = thinned(x[finite], y[finite])
    stroke = {"width": look.LINE_WIDTH} | {key: style[key] for key in ("color", "dash") if key in style}
    marker = {"size": 5, "color": style["color"], "symbol": style.get("symbol", "circle")}
    return trace("lines+markers" if few else "lines", x, y, **more, line=stroke, marker=marker)


def level(y: float, text: str) -> tuple[Spec, Spec]:
    """A dashed line across a panel at a value, with its name: (shape, note)."""
    across = {"xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": y, "y1": y}
    shape = {"type": "line", **across, "line": {"dash": "dash"}}
    return shape, note(text, ("x domain", 1, "right"), ("y", y, "bottom"))
