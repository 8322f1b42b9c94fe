"""Each type of trace, drawn on matplotlib axes as plotly.js would draw it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from workbench.errors import unknown_name
from workbench.jupyter.figures.picture.style import (
    MARKERS,
    POINTS_PER_PIXEL,
    Rgba,
    colormap,
    font,
    line_style,
    number_text,
    numbers,
    one_of,
    per_point,
    plain_text,
    rgba,
)
from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.look import Spec

STEPS = {"hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid"}
BOX_WIDTH = 0.49  # where 1 is the distance to the next


@dataclass
class PictureAxes:
    """One pair of axes with the traces drawn on it.

    ``categories`` maps "x" and "y" to the names along an axis of names, in order; ``pad`` and ``hold`` collect what
    must be visible, with room to spare and exactly; ``from_zero`` the axes that start at zero.
    """

    axes: Axes
    layout: Spec
    font: Spec
    categories: dict[str, list[str]] = field(default_factory=dict)
    pad: dict[str, list[float]] = field(default_factory=lambda: {"x": [], "y": []})
    hold: dict[str, list[float]] = field(default_factory=lambda: {"x": [], "y": []})
    from_zero: set[str] = field(default_factory=set)

    def place(self, which: str, values: Iterable[object] | None, n: int = 0) -> Floats:
        """Coordinates along an axis: numbers as they are, names by their place among the categories, else counted."""
        if values is None:
            return np.arange(n, dtype=np.float64)
        if which in self.categories:
            names = self.categories[which]
            return np.array([names.index(str(value)) for value in values], dtype=np.float64)
        return numbers(values)

    def see(self, which: str, values: Floats | Sequence[float], pad: bool = True) -> None:
        """Keep values within the axis' range."""
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        if finite.size:
            (self.pad if pad else self.hold)[which] += [float(finite.min()), float(finite.max())]


def draw_trace(panel: PictureAxes, trace: Spec, slot: tuple[int, int], earlier: Spec | None) -> None:
    """Draw one trace. ``slot`` is (place, number of places) among bars side by side; ``earlier`` the trace before it,
    to which a band is filled. Raises ``ValueError`` naming the types that can be drawn for any other."""
    kind = trace["type"] if trace["type"] != "box" or trace.get("q1") is not None else "box of samples"
    if kind == "bar":
        _draw_bar(panel, trace, slot)
    elif kind in ("scatter", "scattergl"):
        _draw_scatter(panel, trace, earlier)
    elif kind in DRAWERS:
        DRAWERS[kind](panel, trace)
    else:
        advice = "Show such a figure itself: a stored picture of it cannot be drawn."
        raise unknown_name("trace type", kind, ["scatter", "scattergl", "bar", *DRAWERS], advice)


def swatch(trace: Spec) -> Artist:
    """What stands for a trace in the legend."""
    band = bool(trace.get("fill")) and (trace.get("line") or {}).get("width") == 0
    if trace["type"] != "scatter" or trace.get("mode") == "none" or band:
        return Patch(**_area_style(trace))
    mode = _mode(trace)
    style: Spec = {"linewidth": 0}
    if "lines" in mode:
        line = trace.get("line") or {}
        style = {**line_style(line), "color": rgba(line.get("color", trace["color"]))}
    if "markers" in mode:
        style.update(_marker_style(trace))
    return Line2D([], [], **style)


def _mode(trace: Spec) -> str:
    few = len(trace.get("y") or ()) < 20
    return str(trace.get("mode") or ("lines+markers" if few else "lines"))


def _draw_scatter(panel: PictureAxes, trace: Spec, earlier: Spec | None) -> None:
    y = panel.place("y", trace.get("y") or ())
    x = panel.place("x", trace.get("x"), len(y))
    line, mode = trace.get("line") or {}, _mode(trace)
    marked = (trace.get("marker") or {}).get("color")
    color = rgba(line.get("color", marked if isinstance(marked, str) else trace["color"]), trace.get("opacity", 1.0))
    _fill(panel, trace, x, y, earlier)
    if "lines" in mode and line.get("width") != 0:
        steps = STEPS.get(line.get("shape", ""), "default")
        panel.axes.plot(x, y, color=color, drawstyle=steps, solid_joinstyle="round", **line_style(line))
    if "markers" in mode:
        _draw_markers(panel, trace, x, y)
    if "text" in mode:
        _write(panel, trace, x, y, (0, 4))
    _draw_error_bars(panel, trace, x, y, color)
    panel.see("x", x, pad="markers" in mode)
    panel.see("y", y)


def _fill(panel: PictureAxes, trace: Spec, x: Floats, y: Floats, earlier: Spec | None) -> None:
    fill = trace.get("fill")
    if not fill or fill == "none":
        return
    style: Spec = {"color": rgba(_fill_color(trace), trace.get("opacity", 1.0)), "linewidth": 0}
    if fill == "tonexty" and earlier is not None:
        other_x, other_y = panel.place("x", earlier["x"]), panel.place("y", earlier["y"])
        panel.axes.fill(np.concatenate([x, other_x[::-1]]), np.concatenate([y, other_y[::-1]]), **style)
    elif fill in ("tozeroy", "tonexty"):
        panel.axes.fill_between(x, y, 0.0, **style)
        panel.from_zero.add("y")
    else:  # "toself": one outline, or several with gaps (NaN) between them
        gaps = np.flatnonzero(~np.isfinite(x) | ~np.isfinite(y))
        for part in np.split(np.arange(len(x)), gaps):
            ring = part[np.isfinite(x[part]) & np.isfinite(y[part])]
            if len(ring) > 2:
                panel.axes.fill(x[ring], y[ring], **style)


def _fill_color(trace: Spec) -> str:
    line = (trace.get("line") or {}).get("color", trace["color"])
    return str(trace.get("fillcolor") or _half(line))


def _half(color: object) -> str:
    return "rgba({:.0f},{:.0f},{:.0f},0.5)".format(*(255 * part for part in rgba(color)[:3]))


def _marker_style(trace: Spec) -> Spec:
    marker = trace.get("marker") or {}
    symbol, outline = str(marker.get("symbol", "circle")), marker.get("line") or {}
    color = one_of(marker.get("color", (trace.get("line") or {}).get("color", trace["color"])))
    opacity = float(trace.get("opacity", 1.0)) * float(one_of(marker.get("opacity", 1.0)))
    hollow = symbol.endswith("-open")
    return {
        "marker": MARKERS.get(symbol.removesuffix("-open"), "o"),
        "markersize": float(one_of(marker.get("size", 6))) * POINTS_PER_PIXEL,
        "markerfacecolor": "none" if hollow else rgba(color, opacity),
        "markeredgecolor": rgba(color if hollow else outline.get("color", color), opacity),
        "markeredgewidth": float(outline.get("width", 1.5 if hollow else 0)) * POINTS_PER_PIXEL,
    }


def _draw_markers(panel: PictureAxes, trace: Spec, x: Floats, y: Floats) -> None:
    marker = trace.get("marker") or {}
    colors, sizes = marker.get("color"), marker.get("size")
    if not isinstance(colors, list) and not isinstance(sizes, list):
        panel.axes.plot(x, y, linestyle="none", **_marker_style(trace))
        return
    default = (trace.get("line") or {}).get("color", trace["color"])
    each = zip(per_point(colors or default, len(x)), per_point(sizes or 6, len(x)), strict=True)
    for i, (color, size) in enumerate(each):
        one = {**trace, "marker": {**marker, "color": color, "size": size}}
        panel.axes.plot(x[i : i + 1], y[i : i + 1], linestyle="none", **_marker_style(one))


def _write(
    panel: PictureAxes, trace: Spec, x: Floats, y: Floats, shift: tuple[int, int], sideways: bool = False
) -> None:
    """A trace's words, each beside its point."""
    align = {"ha": "left", "va": "center"} if sideways else {"ha": "center", "va": "bottom"}
    style = font({**panel.font, **(trace.get("textfont") or {})}) | align | {"textcoords": "offset points"}
    for at, height, word in zip(x, y, per_point(trace.get("text", ""), len(y)), strict=True):
        panel.axes.annotate(plain_text(word)[0], (at, height), shift, **style)


def _draw_error_bars(panel: PictureAxes, trace: Spec, x: Floats, y: Floats, color: Rgba | str) -> None:
    for which, center in (("x", x), ("y", y)):
        error = trace.get(f"error_{which}") or {}
        if error.get("array") is None or error.get("visible") is False:
            continue
        above = numbers(error["array"])
        below = above if error.get("arrayminus") is None else numbers(error["arrayminus"])
        style: Spec = {
            f"{which}err": np.stack([below, above]),
            "ecolor": rgba(error["color"]) if error.get("color") else color,
            "elinewidth": float(error.get("thickness", 2)) * POINTS_PER_PIXEL,
            "capsize": float(error.get("width", 4)) * POINTS_PER_PIXEL,
        }
        panel.axes.errorbar(x, y, fmt="none", **style)
        panel.see(which, np.concatenate([center - below, center + above]))


def _area_style(trace: Spec, i: int = 0) -> Spec:
    """Fill and outline of the i-th bar, of a box or of a band."""
    marker, opacity = trace.get("marker") or {}, float(trace.get("opacity", 1.0))
    if trace["type"] == "scatter":
        return {"facecolor": rgba(_fill_color(trace), opacity), "linewidth": 0}
    line = (trace if trace["type"] == "box" else marker).get("line") or {}
    if trace["type"] == "box":
        edge, width = line.get("color") or marker.get("color") or trace["color"], line.get("width", 2)
        inside = trace.get("fillcolor") or _half(edge)
    else:
        inside, edge = one_of(marker.get("color", trace["color"]), i), one_of(line.get("color", "transparent"), i)
        width, opacity = line.get("width", 0), opacity * float(one_of(marker.get("opacity", 1.0), i))
    outline = rgba(edge, float(trace.get("opacity", 1.0)))
    return {"facecolor": rgba(inside, opacity), "edgecolor": outline, "linewidth": float(width) * POINTS_PER_PIXEL}


def _draw_bar(panel: PictureAxes, trace: Spec, slot: tuple[int, int]) -> None:
    sideways = trace.get("orientation") == "h"
    along, up = ("y", "x") if sideways else ("x", "y")
    heights = numbers(trace[up])
    at = panel.place(along, trace.get(along), len(heights))
    spacing = float(np.diff(np.unique(at)).min()) if len(np.unique(at)) > 1 else 1.0
    group, (place, n) = spacing * (1 - float(panel.layout.get("bargap", 0.2))), slot
    widths, left = np.full(len(at), group / n), at - group / 2 + place * group / n
    if trace.get("width") is not None:
        widths = numbers(per_point(trace["width"], len(at)))
        left = at - widths / 2
    if trace.get("offset") is not None:
        left = at + numbers(per_point(trace["offset"], len(at)))
    base = numbers(per_point(trace.get("base", 0.0), len(at))) + numbers(trace.get("stack_base", np.zeros(len(at))))
    for i in range(len(at)):
        if sideways:
            panel.axes.barh(left[i], heights[i], widths[i], base[i], align="edge", **_area_style(trace, i))
        else:
            panel.axes.bar(left[i], heights[i], widths[i], base[i], align="edge", **_area_style(trace, i))
    middle, ends = left + widths / 2, base + heights
    x, y = (ends, middle) if sideways else (middle, ends)
    if trace.get("text") is not None and trace.get("textposition") != "none":
        _write(panel, trace, x, y, (3, 0) if sideways else (0, 2), sideways)
    _draw_error_bars(panel, trace, x, y, "#444444")
    panel.see(along, np.concatenate([left, left + widths]), pad=False)
    panel.see(up, ends)
    panel.see(up, base, pad=False)
    panel.from_zero.add(up)


def _draw_box(panel: PictureAxes, trace: Spec) -> None:
    """Box, median and whiskers of quartiles that are given."""
    style, half = _area_style(trace), float(trace.get("width", BOX_WIDTH)) / 2
    places = panel.place("x", trace.get("x"), len(trace["q1"]))
    levels = (numbers(trace[name]) for name in ("lowerfence", "q1", "median", "q3", "upperfence"))
    for at, bottom, low, middle, high, top in zip(places, *levels, strict=True):
        lines = [([at - half, at + half], [middle, middle])]
        for inner, outer in ((low, bottom), (high, top)):
            lines += [([at, at], [inner, outer]), ([at - half / 2, at + half / 2], [outer, outer])]
        panel.axes.fill([at - half, at + half, at + half, at - half], [low, low, high, high], **style)
        for x, y in lines:
            panel.axes.plot(x, y, color=style["edgecolor"], linewidth=style["linewidth"])
        panel.see("y", [bottom, top])
        panel.see("x", [at - 0.5, at + 0.5], pad=False)


def _draw_heatmap(panel: PictureAxes, trace: Spec) -> None:
    z = np.array([numbers(row) for row in trace["z"]])
    edges = {}
    for which, n in (("x", z.shape[1]), ("y", z.shape[0])):
        at = panel.place(which, trace.get(which), n)
        half = np.diff(at) / 2 if n > 1 else np.full(1, 0.5)
        edges[which] = np.concatenate([[at[0] - half[0]], at[:-1] + half if n > 1 else [], [at[-1] + half[-1]]])
        panel.see(which, edges[which], pad=False)
    low, high = (trace.get(end) for end in ("zmin", "zmax"))
    low, high = (np.nanmin(z) if low is None else low), (np.nanmax(z) if high is None else high)
    if trace.get("zmid") is not None:
        reach = max(high - trace["zmid"], trace["zmid"] - low)
        low, high = trace["zmid"] - reach, trace["zmid"] + reach
    scale = colormap(trace.get("colorscale") or "Viridis")
    scale = scale.reversed() if trace.get("reversescale") else scale
    mesh = panel.axes.pcolormesh(edges["x"], edges["y"], z, cmap=scale, vmin=low, vmax=high, linewidth=0)
    if trace.get("showscale", True):
        _draw_color_bar(panel, trace.get("colorbar") or {}, mesh)
    template = str(trace.get("texttemplate") or "")
    pattern = template.partition("%{z:")[2].partition("}")[0]
    for row, column in np.argwhere(np.isfinite(z)) if template else ():
        ground = scale(mesh.norm(z[row, column]))
        dark = 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2] < 0.55
        style = font({**panel.font, **(trace.get("textfont") or {}), "color": "#ffffff" if dark else "#222222"})
        word = trace["text"][row][column] if "%{text}" in template else number_text(pattern, float(z[row, column]))
        x, y = ((edges[which][k] + edges[which][k + 1]) / 2 for which, k in (("x", column), ("y", row)))
        panel.axes.text(x, y, plain_text(word)[0], ha="center", va="center", **style)


def _draw_color_bar(panel: PictureAxes, bar: Spec, mesh: Any) -> None:
    page: Any = panel.axes.figure
    box = panel.axes.get_position()
    slim = float(bar.get("thickness", 14)) / (page.get_figwidth() * 100)
    sides = page.add_axes((box.x1 + 0.012, box.y0, slim, box.height))
    page.colorbar(mesh, cax=sides).outline.set_linewidth(0)
    ink = font({**panel.font, **(bar.get("tickfont") or {})})
    sides.tick_params(width=0.6, length=3, color=ink["color"])
    for label in sides.get_yticklabels():
        label.set(fontproperties=ink["fontproperties"], color=ink["color"])
    title = bar.get("title") or {}
    sides.set_ylabel(plain_text(title if isinstance(title, str) else title.get("text", ""))[0], **font(panel.font))


DRAWERS: dict[str, Callable[[PictureAxes, Spec], None]] = {"box": _draw_box, "heatmap": _draw_heatmap}
