"""Each type of trace, drawn on matplotlib axes as plotly.js would draw it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.cm import ScalarMappable

from workbench.errors import unknown_name
from workbench.jupyter.figures.picture.style import (
    MARKERS,
    POINTS_PER_PIXEL,
    Rgba,
    colormap,
    font,
    line_style,
    number_text,
    per_point,
    plain_text,
    rgba,
)
from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.look import Spec

Which = Literal["x", "y"]

ROOM = 0.055  # the share of its length that plotly.js leaves free at the ends of an axis
STEPS = {"hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid"}
BOX_WIDTH = 0.49  # where 1 is the distance to the next
TYPES = ("scatter", "scattergl", "bar", "box", "heatmap")


@dataclass
class PictureAxes:
    """One pair of axes with the traces drawn on it; ``gap`` is the share of a bar's place that is left free."""

    axes: Axes
    font: Spec
    gap: float

    def axis(self, which: Which) -> XAxis | YAxis:
        return self.axes.xaxis if which == "x" else self.axes.yaxis

    def place(self, which: Which, values: Iterable[object] | None, n: int = 0) -> Floats:
        """Coordinates along an axis: numbers as they are, names in the order in which they come, else counted."""
        if values is None:
            return np.arange(n, dtype=np.float64)
        values, axis = list(values), self.axis(which)
        if not axis.have_units() and not any(isinstance(value, str) for value in values):
            return floats(values)
        names = [plain_text(value)[0] for value in values]
        axis.update_units(names)  # type: ignore[no-untyped-call]
        return floats(axis.convert_units(names))  # type: ignore[no-untyped-call]


def floats(values: object) -> Floats:
    """A column of a trace, None as NaN."""
    return np.asarray(values, dtype=np.float64)


def draw_trace(panel: PictureAxes, trace: Spec, slot: tuple[int, int], earlier: Spec | None) -> list[Artist]:
    """Draw one trace; returns what stands for it in the legend.

    ``slot`` is (place, number of places) among bars side by side; ``earlier`` the trace before it, to which a band is
    filled. Raises ``ValueError`` naming the types that can be drawn for any other.
    """
    kind = trace["type"] if trace["type"] != "box" or "q1" in trace else "box of samples"
    if kind == "bar":
        return _draw_bar(panel, trace, slot)
    if kind == "box":
        return _draw_box(panel, trace)
    if kind == "heatmap":
        return _draw_heatmap(panel, trace)
    if kind in ("scatter", "scattergl"):
        return _draw_scatter(panel, trace, earlier)
    raise unknown_name("trace type", kind, TYPES, "Show such a figure itself: a stored picture of it cannot be drawn.")


def _mode(trace: Spec) -> str:
    """Of a scatter trace: "lines", "markers", "text", put together by "+"; few points are marked."""
    return str(trace.get("mode") or ("lines+markers" if len(trace.get("y", ())) < 20 else "lines"))


def _draw_scatter(panel: PictureAxes, trace: Spec, earlier: Spec | None) -> list[Artist]:
    y = panel.place("y", trace.get("y", ()))
    x = panel.place("x", trace.get("x"), len(y))
    line, mode, opacity = trace.get("line", {}), _mode(trace), trace.get("opacity", 1.0)
    marked = trace.get("marker", {}).get("color")
    stroke = line.get("color", marked if isinstance(marked, str) else trace["color"])
    drawn = _fill(panel, trace, rgba(trace.get("fillcolor", rgba_half(stroke)), opacity), x, y, earlier)
    if "lines" in mode and line.get("width") != 0:
        steps = STEPS.get(line.get("shape", ""), "default")
        style = {"color": rgba(stroke, opacity), "drawstyle": steps, **line_style(line)}
        drawn += panel.axes.plot(x, y, marker="none", solid_joinstyle="round", **style)
    if "markers" in mode:
        drawn.append(_draw_markers(panel, trace, x, y))
        panel.axes.margins(x=ROOM)  # lines alone reach to the end of the axis
    if "text" in mode:
        _write(panel, trace, x, y, (0, 4))
    _draw_error_bars(panel, trace, x, y, rgba(stroke, opacity))
    panel.axes.update_datalim(np.column_stack([x, y]))
    return drawn


def rgba_half(color: object) -> str:
    """What a colour fills with where no other is given, as CSS."""
    return "rgba({:.0f},{:.0f},{:.0f},0.5)".format(*(255 * part for part in rgba(color)[:3]))


def _fill(panel: PictureAxes, trace: Spec, color: Rgba, x: Floats, y: Floats, earlier: Spec | None) -> list[Artist]:
    fill, style = trace.get("fill", "none"), Spec(color=color, linewidth=0)
    if fill == "none":
        return []
    if fill == "tonexty" and earlier is not None:
        x = np.concatenate([x, panel.place("x", earlier["x"])[::-1]])
        y = np.concatenate([y, panel.place("y", earlier["y"])[::-1]])
    elif fill != "toself":
        area = panel.axes.fill_between(x, y, 0.0, **style)
        area.sticky_edges.y.append(0.0)
        return [area]
    # One outline, or several with gaps (NaN) between them.
    known = np.isfinite(x) & np.isfinite(y)
    rings = [part[known[part]] for part in np.split(np.arange(len(x)), np.flatnonzero(~known))]
    outlines = [end for ring in rings if len(ring) > 2 for end in (x[ring], y[ring])]
    return list(panel.axes.fill(*outlines, **style))


def _draw_markers(panel: PictureAxes, trace: Spec, x: Floats, y: Floats) -> Artist:
    marker, n = trace.get("marker", {}), max(len(x), 1)
    outline, symbol = marker.get("line", {}), str(marker.get("symbol", "circle"))
    opacity = trace.get("opacity", 1.0) * per_point(marker.get("opacity", 1.0), 1)[0]
    given = marker.get("color", trace.get("line", {}).get("color", trace["color"]))
    colors = [rgba(color, opacity) for color in per_point(given, n)]
    edges = [rgba(color, opacity) for color in per_point(outline.get("color", given), n)]
    hollow = symbol.endswith("-open")
    return panel.axes.scatter(
        x,
        y,
        s=(floats(per_point(marker.get("size", 6), n)) * POINTS_PER_PIXEL) ** 2,
        marker=MARKERS.get(symbol.removesuffix("-open"), "o"),
        facecolors="none" if hollow else colors,
        edgecolors=colors if hollow else edges,
        linewidths=outline.get("width", 1.5 if hollow else 0) * POINTS_PER_PIXEL,
        zorder=2,  # as lines
    )


def _write(
    panel: PictureAxes, trace: Spec, x: Floats, y: Floats, shift: tuple[int, int], sideways: bool = False
) -> None:
    """A trace's words, each beside its point."""
    align = {"ha": "left", "va": "center"} if sideways else {"ha": "center", "va": "bottom"}
    style = font(panel.font, trace.get("textfont", {})) | align | {"textcoords": "offset points"}
    for at, height, word in zip(x, y, per_point(trace.get("text", ""), len(y)), strict=True):
        panel.axes.annotate(plain_text(word)[0], (at, height), shift, **style)


def _draw_error_bars(panel: PictureAxes, trace: Spec, x: Floats, y: Floats, color: Rgba | str) -> None:
    for which in ("x", "y"):
        error = trace.get(f"error_{which}", {})
        if "array" in error and error.get("visible", True):
            style = {
                f"{which}err": floats([error.get("arrayminus", error["array"]), error["array"]]),
                "ecolor": rgba(error["color"]) if "color" in error else color,
                "elinewidth": error.get("thickness", 2) * POINTS_PER_PIXEL,
                "capsize": error.get("width", 4) * POINTS_PER_PIXEL,
            }
            panel.axes.errorbar(x, y, fmt="none", **style)


def _draw_bar(panel: PictureAxes, trace: Spec, slot: tuple[int, int]) -> list[Artist]:
    sideways = trace.get("orientation") == "h"
    along: Which = "y" if sideways else "x"
    heights = floats(trace["x" if sideways else "y"])
    at, n = panel.place(along, trace.get(along), len(heights)), len(heights)
    spacing = float(np.diff(np.unique(at)).min()) if len(np.unique(at)) > 1 else 1.0
    group, (place, places) = spacing * (1 - panel.gap), slot
    widths = floats(per_point(trace.get("width", group / places), n))
    left = at - widths / 2 if "width" in trace else at - group / 2 + place * group / places
    if "offset" in trace:
        left = at + floats(per_point(trace["offset"], n))
    base = floats(per_point(trace.get("base", 0.0), n)) + floats(trace.get("stack_base", [0.0] * n))
    marker, opacity = trace.get("marker", {}), trace.get("opacity", 1.0)
    line, inside = marker.get("line", {}), opacity * per_point(marker.get("opacity", 1.0), 1)[0]
    style = {
        "color": [rgba(color, inside) for color in per_point(marker.get("color", trace["color"]), n)],
        "edgecolor": [rgba(color, opacity) for color in per_point(line.get("color", "transparent"), n)],
        "linewidth": line.get("width", 0) * POINTS_PER_PIXEL,
    }
    draw = panel.axes.barh if sideways else panel.axes.bar
    if sideways:
        panel.axes.margins(x=ROOM)
    bars = draw(left, heights, widths, base, align="edge", **style)
    for bar in bars:  # no room is left below those that stand on zero
        (bar.sticky_edges.x if sideways else bar.sticky_edges.y)[:] = [0.0]
    middle, ends = left + widths / 2, base + heights
    x, y = (ends, middle) if sideways else (middle, ends)
    if "text" in trace and trace.get("textposition") != "none":
        _write(panel, trace, x, y, (3, 0) if sideways else (0, 2), sideways)
    _draw_error_bars(panel, trace, x, y, "#444444")
    return list(bars)[:1]


def _draw_box(panel: PictureAxes, trace: Spec) -> list[Artist]:
    """Box, median and whiskers of quartiles that are given."""
    line, width = trace.get("line", {}), trace.get("width", BOX_WIDTH)
    edge = line.get("color", trace.get("marker", {}).get("color", trace["color"]))
    stroke = {"color": rgba(edge), "linewidth": line.get("width", 2) * POINTS_PER_PIXEL}
    inside = rgba(trace.get("fillcolor", rgba_half(edge)), trace.get("opacity", 1.0))
    names = {"whislo": "lowerfence", "q1": "q1", "med": "median", "q3": "q3", "whishi": "upperfence"}
    places = panel.place("x", trace.get("x"), len(trace["q1"]))
    drawn = panel.axes.bxp(
        [{name: trace[given][k] for name, given in names.items()} for k in range(len(places))],
        list(places),
        widths=width,
        capwidths=width / 2,
        patch_artist=True,
        showfliers=False,
        manage_ticks=False,
        boxprops={"facecolor": inside, "edgecolor": stroke["color"], "linewidth": stroke["linewidth"]},
        medianprops=stroke,
        whiskerprops=stroke,
        capprops=stroke,
    )
    panel.axes.update_datalim([(at + side, trace["median"][0]) for at in places for side in (-0.5, 0.5)])
    return list(drawn["boxes"][:1])


def _draw_heatmap(panel: PictureAxes, trace: Spec) -> list[Artist]:
    z = floats(trace["z"])
    x, y = panel.place("x", trace.get("x"), z.shape[1]), panel.place("y", trace.get("y"), z.shape[0])
    low, high = trace.get("zmin", np.nanmin(z)), trace.get("zmax", np.nanmax(z))
    if "zmid" in trace:
        reach = max(high - trace["zmid"], trace["zmid"] - low)
        low, high = trace["zmid"] - reach, trace["zmid"] + reach
    scale = colormap(trace.get("colorscale", "Viridis"))
    scale = scale.reversed() if trace.get("reversescale") else scale
    mesh = panel.axes.pcolormesh(_edges(x), _edges(y), z, cmap=scale, vmin=low, vmax=high, linewidth=0)
    if trace.get("showscale", True):
        _draw_color_bar(panel, trace.get("colorbar", {}), mesh)
    template = str(trace.get("texttemplate", ""))
    pattern = template.partition("%{z:")[2].partition("}")[0]
    for row, column in np.argwhere(np.isfinite(z)) if template else ():
        red, green, blue, _ = scale(mesh.norm(z[row, column]))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        style = font(panel.font, trace.get("textfont", {}), {"color": "#ffffff" if dark else "#222222"})
        word = trace["text"][row][column] if "%{text}" in template else number_text(pattern, float(z[row, column]))
        panel.axes.text(x[column], y[row], plain_text(word)[0], ha="center", va="center", **style)
    return []


def _edges(middles: Floats) -> Floats:
    """The ends of cells with such middles."""
    half = np.diff(middles) / 2 if len(middles) > 1 else np.full(1, 0.5)
    return np.concatenate([middles[:1] - half[:1], middles[:-1] + half[: len(middles) - 1], middles[-1:] + half[-1:]])


def _draw_color_bar(panel: PictureAxes, bar: Spec, mesh: ScalarMappable) -> None:
    page, box = panel.axes.figure, panel.axes.get_position()
    slim = bar.get("thickness", 14) / page.bbox.width
    sides = page.add_axes((box.x1 + 0.012, box.y0, slim, box.height))
    page.colorbar(mesh, cax=sides).outline.set_linewidth(0)
    ink = font(panel.font, bar.get("tickfont", {}))
    sides.tick_params(width=0.6, length=3, color=ink["color"])
    for label in sides.get_yticklabels():
        label.set(fontproperties=ink["fontproperties"], color=ink["color"])
    sides.set_ylabel(plain_text(bar.get("title", {}).get("text", ""))[0], **font(panel.font))
