"""Ranges, ticks, grids and titles of a picture's axes, as plotly.js would choose them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator

from workbench.jupyter.figures.picture.style import POINTS_PER_PIXEL, SI_NUMBER, font, number_text, plain_text, rgba
from workbench.jupyter.figures.picture.traces import PictureAxes, Which
from workbench.jupyter.look import Spec


def set_range(panel: PictureAxes, which: Which, axis: Spec) -> None:
    """Set an axis' range, and that of all that share it: what is given of it, else what holds everything drawn."""
    axes, log = panel.axes, axis.get("type") == "log"
    sharing = getattr(axes, f"get_shared_{which}_axes")().get_siblings(axes)
    getattr(axes, f"set_{which}margin")(max(getattr(each, f"get_{which}margin")() for each in sharing))
    low, high = getattr(axes, f"get_{which}lim")()
    ends = [getattr(each.dataLim, f"interval{which}") for each in sharing]
    least, most = float(np.min(ends)), float(np.max(ends))
    if panel.axis(which).have_units():
        names = panel.axis(which).get_major_locator()()
        low, high = min(names) - 0.5, max(names) + 0.5
    elif least == most:
        low, high = (least / 10, least * 10) if log else (least - 1, least + 1)
    elif axis.get("rangemode") == "tozero" and not log:
        low, high = (0.0 if least >= 0 else low), (0.0 if most <= 0 else high)
    ends = [10.0**end if log and end is not None else end for end in axis.get("range", (None, None))]
    low, high = (low if ends[0] is None else float(ends[0])), (high if ends[1] is None else float(ends[1]))
    getattr(axes, f"set_{which}lim")(*((high, low) if axis.get("autorange") == "reversed" else (low, high)))


def finish_axes(panel: PictureAxes, x: Spec, y: Spec, base: Spec, borrowed: bool) -> None:
    """Draw lines, ticks, grid and titles; along the x axis they are another panel's where it is ``borrowed``."""
    panel.axes.set_axisbelow(True)
    for axis, near, far in ((x, "bottom", "top"), (y, "left", "right")):
        own = axis.get("side", near)
        for side in (near, far):
            visible = axis.get("showline", False) and axis.get("visible", True) and (side == own or "mirror" in axis)
            spine = panel.axes.spines[side]
            spine.set_visible(visible and not (borrowed and axis is x))
            spine.set_color(rgba(axis.get("linecolor", "#444444")))
            spine.set_linewidth(axis.get("linewidth", 1) * POINTS_PER_PIXEL)
    panel.axes.xaxis.set_visible(not borrowed and x.get("visible", True))
    panel.axes.yaxis.set_visible(y.get("visible", True))
    _finish_axis(panel, "x", x, base)
    _finish_axis(panel, "y", y, base)


def _finish_axis(panel: PictureAxes, which: Which, axis: Spec, base: Spec) -> None:
    own = panel.axis(which)
    if not own.get_visible():
        return
    if axis.get("side") in ("right", "top"):
        own.set_ticks_position(axis["side"])
        own.set_label_position(axis["side"])
    _place_ticks(panel, which, axis)
    if axis.get("showgrid", True) and "overlaying" not in axis:
        own.grid(True, color=rgba(axis.get("gridcolor", "#ffffff")), linewidth=0.8 * POINTS_PER_PIXEL)
    if axis.get("zeroline"):
        draw = panel.axes.axvline if which == "x" else panel.axes.axhline
        draw(0.0, color=rgba(axis.get("zerolinecolor", "#ffffff")), linewidth=1.5 * POINTS_PER_PIXEL, zorder=0.5)
    _style_tick_labels(panel, which, axis, base)
    title = axis.get("title", {})
    words, bold = plain_text(title.get("text", ""))
    own.set_label_text(words, **font({"size": 14}, base, title.get("font", {}), bold=bold))
    own.labelpad = 5


def _place_ticks(panel: PictureAxes, which: Which, axis: Spec) -> None:
    own = panel.axis(which)
    box = panel.axes.get_window_extent()
    low, high = sorted(own.get_view_interval())
    own.set_minor_locator(NullLocator())
    if "tickvals" in axis:
        texts = axis.get("ticktext") or [_tick_text(axis, float(value), 1.0) for value in axis["tickvals"]]
        ticks = zip(panel.place(which, axis["tickvals"]), texts, strict=True)
        seen = {float(at): plain_text(text)[0] for at, text in ticks if low <= at <= high}
        own.set_major_locator(FixedLocator(list(seen)))
        own.set_major_formatter(FuncFormatter(lambda value, _: seen.get(value, "")))
    elif axis.get("type") == "log":
        own.set_major_locator(LogLocator(numticks=8))
        own.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(axis, value, value)))
    elif not own.have_units():
        # 1, 2 or 5 times a power of ten apart, about as many as plotly.js sets.
        many = np.clip(box.width / 80 if which == "x" else box.height / 40, 4, 9) + 1
        whole = axis.get("tickformat") == "d"
        several = MaxNLocator(axis.get("nticks", many), steps=[1, 2, 5, 10], min_n_ticks=1, integer=whole)
        own.set_major_locator(MultipleLocator(float(axis["dtick"])) if "dtick" in axis else several)
        own.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(axis, value, max(abs(low), abs(high)))))


def _tick_text(axis: Spec, value: float, largest: float) -> str:
    """A tick's number. Without a ``tickformat``, units (k, M) once the axis reaches past ``minexponent`` digits."""
    if "tickformat" in axis:
        text = number_text(str(axis["tickformat"]), value)
    elif largest >= 10 ** (int(axis.get("minexponent", 3)) + 1):
        text = SI_NUMBER(value).replace("-", "−")
    else:
        text = number_text(".10g", value)
    return f"{axis.get('tickprefix', '')}{text}{axis.get('ticksuffix', '')}"


def _style_tick_labels(panel: PictureAxes, which: Which, axis: Spec, base: Spec) -> None:
    marks = axis.get("ticks")
    panel.axes.tick_params(
        axis=which,
        direction="in" if marks == "inside" else "out",
        length=axis.get("ticklen", 5) * POINTS_PER_PIXEL if marks else 0,
        width=axis.get("tickwidth", 1) * POINTS_PER_PIXEL,
        color=rgba(axis.get("tickcolor", "#444444")),
        pad=3,
    )
    labels = panel.axis(which).get_ticklabels()
    for label in labels:
        label.set(**font(base, axis.get("tickfont", {})))
    if axis.get("showticklabels") is False:
        panel.axes.tick_params(axis=which, labelbottom=False, labelleft=False, labelright=False, labeltop=False)
    elif which == "x":
        angle = axis.get("tickangle")
        _turn(labels, -float(angle) if isinstance(angle, int | float) else _automatic_angle(panel, labels))


def _automatic_angle(panel: PictureAxes, labels: Sequence[Text]) -> float:
    """0, 30 or 90 degrees: the least at which neighbouring labels do not touch."""
    gaps = np.diff([panel.axes.transData.transform((label.get_position()[0], 0))[0] for label in labels])
    widths = np.array([label.get_window_extent().width for label in labels])
    if len(labels) < 2 or not widths.any() or (gaps >= (widths[1:] + widths[:-1]) / 2 + 6).all():
        return 0.0
    return 30.0 if gaps.min() >= 26 else 90.0


def _turn(labels: Sequence[Text], angle: float) -> None:
    across = {"ha": "right" if angle > 0 else "left", "va": "center" if angle == 90 else "top"} if angle else {}
    for label in labels:
        label.set(rotation=angle, rotation_mode="anchor" if angle else "default", **across)
