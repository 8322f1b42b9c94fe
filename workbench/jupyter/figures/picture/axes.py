"""Ranges, ticks, grids and titles of a picture's axes, as plotly.js would choose them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MultipleLocator, NullLocator

from workbench.jupyter.figures.picture.style import POINTS_PER_PIXEL, font, number_text, plain_text, rgba, si_number
from workbench.jupyter.figures.picture.traces import PictureAxes
from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.look import Spec

Which = Literal["x", "y"]

XY: tuple[Which, Which] = ("x", "y")
ROOM = 0.055  # the share of its length that plotly.js leaves free at the ends of an axis


def names_along(which: Which, name: str, axis: Spec, traces: Sequence[Spec]) -> list[str] | None:
    """The names along an axis in the order in which they first occur, or None where it counts in numbers."""
    names: dict[str, None] = dict.fromkeys(str(item) for item in axis.get("categoryarray") or ())
    for trace in traces:
        if (trace.get(f"{which}axis") or which) != name:
            continue
        values = trace.get(which)
        if values is not None and any(isinstance(value, str) for value in values):
            names.update(dict.fromkeys(str(value) for value in values))
    return list(names) if names and axis.get("type", "category") == "category" else None


def finish_axes(panels: Mapping[tuple[str, str], PictureAxes], layout: Spec, base: Spec) -> None:
    """Set every axis: its range over all panels that share it, its ticks, grid, lines and title."""
    roots = {name: _root(name, layout) for pair in panels for name in pair}
    for pair, panel in panels.items():
        for which, name in zip(XY, pair, strict=True):
            sharing = [p for other, p in panels.items() if roots[other["xy".index(which)]] == roots[name]]
            axis = _axis(name, layout)
            low, high = _range(which, axis, sharing)
            getattr(panel.axes, f"set_{which}lim")(low, high)
    for pair, panel in panels.items():
        anchor = _axis(pair[0], layout).get("anchor") or pair[1]
        borrowed = bool(_axis(pair[1], layout).get("overlaying")) or (pair[0], anchor) in panels.keys() - {pair}
        _frame(panel, _axis(pair[0], layout), _axis(pair[1], layout), borrowed)
        if borrowed:
            panel.axes.xaxis.set_visible(False)  # the panel below has drawn it
        for which, name in zip(XY, pair, strict=True):
            _finish_axis(panel, which, _axis(name, layout), base)


def _axis(name: str, layout: Spec) -> Spec:
    own = layout.get(f"{name[0]}axis{name[1:]}")
    return own if own is not None else layout.get(f"{name[0]}axis") or {}


def _root(name: str, layout: Spec) -> str:
    """The axis whose range an axis takes (``matches``)."""
    seen = {name}
    while (further := _axis(name, layout).get("matches")) and further not in seen:
        name = str(further)
        seen.add(name)
    return name


def _range(which: Which, axis: Spec, sharing: Sequence[PictureAxes]) -> tuple[float, float]:
    log = axis.get("type") == "log"
    given = axis.get("range") or (None, None)
    padded = [v for panel in sharing for v in panel.pad[which]]
    held = [v for panel in sharing for v in panel.hold[which]]
    if which in sharing[0].categories:
        low, high = -0.5, len(sharing[0].categories[which]) - 0.5
    else:
        from_zero = axis.get("rangemode") == "tozero" or any(which in panel.from_zero for panel in sharing)
        low, high = _automatic_range(np.array(padded), np.array(held), log, from_zero)
    ends = [10.0**end if log and end is not None else end for end in given]
    low, high = (low if ends[0] is None else float(ends[0])), (high if ends[1] is None else float(ends[1]))
    return (high, low) if axis.get("autorange") == "reversed" else (low, high)


def _automatic_range(padded: Floats, held: Floats, log: bool, from_zero: bool) -> tuple[float, float]:
    everything = np.concatenate([padded, held])
    if log:
        everything, padded = (np.log10(v[v > 0]) for v in (everything, padded))
    if not everything.size:
        return (0.1, 10.0) if log else (-1.0, 1.0)
    from_zero = from_zero and not log
    if from_zero:
        everything = np.append(everything, 0.0)
    low, high = float(everything.min()), float(everything.max())
    if low == high:
        low, high = (low - 1, high + 1) if low == 0 or not from_zero else (min(2 * low, 0.0), max(2 * high, 0.0))
        return (10**low, 10**high) if log else (low, high)
    room = ROOM * (high - low)
    inner = padded[padded != 0.0] if from_zero else padded  # no room below bars that stand on zero
    if inner.size:
        low, high = min(low, float(inner.min()) - room), max(high, float(inner.max()) + room)
    if from_zero:
        low, high = (0.0, high) if everything.min() >= 0 else (low, 0.0) if everything.max() <= 0 else (low, high)
    return (10**low, 10**high) if log else (low, high)


def _frame(panel: PictureAxes, x: Spec, y: Spec, borrowed: bool) -> None:
    """The lines around a panel; those along the x axis are another panel's where it is ``borrowed``."""
    spines = panel.axes.spines
    right, top = y.get("side") == "right", x.get("side") == "top"
    shown = {"bottom": (x, not top), "top": (x, top), "left": (y, not right), "right": (y, right)}
    for side, (axis, own) in shown.items():
        visible = bool(axis.get("showline")) and (own or bool(axis.get("mirror"))) and axis.get("visible", True)
        visible = visible and not (borrowed and side in ("bottom", "top"))
        spines[side].set_visible(visible)
        spines[side].set_color(rgba(axis.get("linecolor", "#444444")))
        spines[side].set_linewidth(float(axis.get("linewidth", 1)) * POINTS_PER_PIXEL)
    panel.axes.set_axisbelow(True)


def _finish_axis(panel: PictureAxes, which: Which, axis: Spec, base: Spec) -> None:
    own = getattr(panel.axes, f"{which}axis")
    twin = bool(axis.get("overlaying"))
    if axis.get("visible") is False or not own.get_visible():
        own.set_visible(False)
        return
    if axis.get("side") in ("right", "top"):
        own.set_ticks_position(axis["side"])
        own.set_label_position(axis["side"])
    _place_ticks(panel, which, axis)
    if axis.get("showgrid", True) and not twin:
        own.grid(True, color=rgba(axis.get("gridcolor", "#ffffff")), linewidth=0.8 * POINTS_PER_PIXEL)
    if axis.get("zeroline"):
        draw = panel.axes.axvline if which == "x" else panel.axes.axhline
        draw(0.0, color=rgba(axis.get("zerolinecolor", "#ffffff")), linewidth=1.5 * POINTS_PER_PIXEL, zorder=0.5)
    _style_tick_labels(panel, which, axis, base)
    title = axis.get("title") or {}
    words, bold = plain_text(title if isinstance(title, str) else title.get("text") or "")
    style = font({"size": 14, **base, **({} if isinstance(title, str) else title.get("font") or {})}, bold=bold)
    own.set_label_text(words, **style)
    own.labelpad = 5


def _place_ticks(panel: PictureAxes, which: Which, axis: Spec) -> None:
    own = getattr(panel.axes, f"{which}axis")
    box = panel.axes.get_window_extent()
    length = box.width if which == "x" else box.height
    own.set_minor_locator(NullLocator())
    if which in panel.categories:
        names = [plain_text(name)[0] for name in panel.categories[which]]
        _fixed_ticks(own, list(range(len(names))), names)
    elif axis.get("tickvals") is not None:
        texts = axis.get("ticktext") or [_tick_text(axis, float(v), 1.0) for v in axis["tickvals"]]
        _fixed_ticks(own, [float(v) for v in axis["tickvals"]], [plain_text(text)[0] for text in texts])
    elif axis.get("type") == "log":
        own.set_major_locator(LogLocator(numticks=8))
        own.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(axis, value, value)))
    else:
        low, high = own.get_view_interval()
        own.set_major_locator(MultipleLocator(_tick_step(which, axis, abs(high - low), length)))
        largest = max(abs(low), abs(high))
        own.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(axis, value, largest)))


def _tick_step(which: Which, axis: Spec, span: float, length: float) -> float:
    """The distance between ticks: 2, 5 or 10 times a power of ten, for about as many ticks as plotly.js sets."""
    if axis.get("dtick") is not None:
        return float(axis["dtick"])
    most = float(axis.get("nticks") or np.clip(length / (80 if which == "x" else 40), 4, 9) + 1)
    rough = max(span / most, 1e-300)
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(factor for factor in (2, 5, 10) if rough <= factor * power * (1 + 1e-9))
    return max(step, 1.0) if axis.get("tickformat") == "d" else float(step)


def _fixed_ticks(own: Any, places: list[float], texts: list[str]) -> None:
    low, high = sorted(own.get_view_interval())
    seen = [(place, text) for place, text in zip(places, texts, strict=True) if low <= place <= high]
    own.set_major_locator(FixedLocator([place for place, _ in seen]))
    own.set_major_formatter(FuncFormatter(lambda value, i: seen[i][1] if i is not None and i < len(seen) else ""))


def _tick_text(axis: Spec, value: float, largest: float) -> str:
    """A tick's number. Without a ``tickformat``, units (k, M) once the axis reaches past ``minexponent`` digits."""
    if axis.get("tickformat"):
        text = number_text(str(axis["tickformat"]), value)
    elif largest >= 10 ** (int(axis.get("minexponent", 3)) + 1):
        text = si_number(value)
    else:
        text = f"{value:.10g}".replace("-", "−")
    return f"{axis.get('tickprefix', '')}{text}{axis.get('ticksuffix', '')}"


def _style_tick_labels(panel: PictureAxes, which: Which, axis: Spec, base: Spec) -> None:
    marks = axis.get("ticks") or ""
    panel.axes.tick_params(
        axis=which,
        which="major",
        direction="in" if marks == "inside" else "out",
        length=float(axis.get("ticklen", 5)) * POINTS_PER_PIXEL if marks else 0,
        width=float(axis.get("tickwidth", 1)) * POINTS_PER_PIXEL,
        color=rgba(axis.get("tickcolor", "#444444")),
        pad=3,
    )
    own = getattr(panel.axes, f"{which}axis")
    style = font({**base, **(axis.get("tickfont") or {})})
    labels = own.get_ticklabels()
    for label in labels:
        label.set(fontproperties=style["fontproperties"], color=style["color"], parse_math=False, usetex=False)
    if axis.get("showticklabels") is False:
        own.set_tick_params(labelbottom=False, labelleft=False, labelright=False, labeltop=False)
    elif which == "x":
        angle = axis.get("tickangle")
        _turn(labels, -float(angle) if isinstance(angle, int | float) else _automatic_angle(panel, labels))


def _automatic_angle(panel: PictureAxes, labels: Sequence[Text]) -> float:
    """0, 30 or 90 degrees: the least at which neighbouring labels do not touch."""
    canvas: Any = panel.axes.figure.canvas
    renderer = canvas.get_renderer()
    places = [panel.axes.transData.transform((label.get_position()[0], 0))[0] for label in labels]
    widths = [label.get_window_extent(renderer).width for label in labels]
    if len(labels) < 2 or not any(widths):
        return 0.0
    gaps = np.diff(places)
    needed = (np.array(widths[1:]) + np.array(widths[:-1])) / 2 + 6
    if (gaps >= needed).all():
        return 0.0
    return 30.0 if gaps.min() >= 26 else 90.0


def _turn(labels: Sequence[Text], angle: float) -> None:
    for label in labels:
        label.set_rotation(angle)
        if angle:
            label.set(
                ha="right" if angle > 0 else "left", rotation_mode="anchor", va="center" if angle == 90 else "top"
            )
