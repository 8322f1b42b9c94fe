"""Each type of trace, drawn on matplotlib axes as plotly.js would draw it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from workbench.errors import unknown_name
from workbench.jupyter.figures.picture.style import (
    MARKERS,
    POINTS_PER_PIXEL,
    colormap,
    font,
    line_style,
    number_text,
    numbers,
    per_point,
    plain_text,
    rgba,
)
from workbench.jupyter.figures.plots import Floats

Trace = Mapping[str, Any]
GROUP_WIDTH = 0.49  # of a box or violin, where 1 is the distance to the next


@dataclass
class PictureAxes:
    """One pair of axes with the traces drawn on it.

    ``categories`` maps "x" and "y" to the names along an axis of names, in order; ``limits`` collects what must be
    visible (``pad``: with room to spare, ``hold``: exactly); ``from_zero`` the axes that start at zero.
    """

    axes: Any  # matplotlib
    layout: Mapping[str, Any]
    font: Mapping[str, Any]
    categories: dict[str, list[str]] = field(default_factory=dict)
    pad: dict[str, list[float]] = field(default_factory=lambda: {"x": [], "y": []})
    hold: dict[str, list[float]] = field(default_factory=lambda: {"x": [], "y": []})
    from_zero: set[str] = field(default_factory=set)

    def place(self, which: str, values: Any) -> Floats:
        """Coordinates along an axis: numbers as they are, names by their place among the categories."""
        if which in self.categories:
            names = self.categories[which]
            return np.array([names.index(str(value)) for value in values], dtype=np.float64)
        return numbers(values)

    def see(self, which: str, values: Any, pad: bool = True) -> None:
        """Keep values within the axis' range."""
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        if finite.size:
            (self.pad if pad else self.hold)[which] += [float(finite.min()), float(finite.max())]


def draw_trace(panel: PictureAxes, trace: Trace, slot: tuple[int, int], earlier: Trace | None) -> None:
    """Draw one trace. ``slot`` is (place, number of places) among bars side by side; ``earlier`` the trace before it,
    to which a band is filled. Raises ``ValueError`` naming the types that can be drawn for any other."""
    draw = DRAWERS.get(trace["type"])
    if draw is None:
        raise unknown_name(
            "trace type", trace["type"], DRAWERS, "Show such a figure itself: a stored picture of it cannot be drawn."
        )
    draw(panel, trace, slot, earlier)


def swatch(trace: Trace) -> Any:
    """What stands for a trace in the legend."""
    from matplotlib.lines import Line2D

    if trace["type"] != "scatter" or (trace.get("mode") == "none" or _fill_only(trace)):
        return Patch(**_area_style(trace))
    mode = _mode(trace)
    style: dict[str, Any] = {"linewidth": 0}
    if "lines" in mode:
        line = trace.get("line") or {}
        style = {**line_style(line), "color": rgba(line.get("color", trace["color"]))}
    if "markers" in mode:
        style.update(_marker_style(trace))
    return Line2D([], [], **style)


def _mode(trace: Trace) -> str:
    few = len(trace.get("y") or ()) < 20
    return str(trace.get("mode") or ("lines+markers" if few else "lines"))


def _fill_only(trace: Trace) -> bool:
    return bool(trace.get("fill")) and (trace.get("line") or {}).get("width") == 0


def _draw_scatter(panel: PictureAxes, trace: Trace, slot: tuple[int, int], earlier: Trace | None) -> None:
    y = panel.place("y", trace.get("y") or ())
    x = panel.place("x", trace["x"]) if trace.get("x") is not None else np.arange(len(y), dtype=np.float64)
    line, mode = trace.get("line") or {}, _mode(trace)
    opacity = float(trace.get("opacity", 1.0))
    marked = (trace.get("marker") or {}).get("color")
    color = rgba(line.get("color", marked if isinstance(marked, str) else trace["color"]), opacity)
    steps = {"hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid"}.get(line.get("shape", ""), "default")
    _fill(panel, trace, x, y, earlier)
    if "lines" in mode and line.get("width") != 0:
        panel.axes.plot(x, y, color=color, drawstyle=steps, solid_joinstyle="round", **line_style(line))
    if "markers" in mode:
        _draw_markers(panel, trace, x, y)
    if "text" in mode:
        words = per_point(trace.get("text", ""), len(y))
        style = font({**panel.font, **(trace.get("textfont") or {})})
        for at, height, word in zip(x, y, words, strict=True):
            panel.axes.annotate(
                plain_text(word)[0], (at, height), (0, 4), textcoords="offset points", ha="center", va="bottom", **style
            )
    _draw_error_bars(panel, trace, x, y, color)
    panel.see("x", x, pad="markers" in mode)
    panel.see("y", y)


def _fill(panel: PictureAxes, trace: Trace, x: Floats, y: Floats, earlier: Trace | None) -> None:
    fill = trace.get("fill")
    if not fill or fill == "none":
        return
    style = {"color": rgba(_fill_color(trace), float(trace.get("opacity", 1.0))), "linewidth": 0}
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


def _fill_color(trace: Trace) -> Any:
    line = (trace.get("line") or {}).get("color", trace["color"])
    return trace.get("fillcolor") or "rgba({:.0f},{:.0f},{:.0f},0.5)".format(*(255 * part for part in rgba(line)[:3]))


def _marker_style(trace: Trace) -> dict[str, Any]:
    marker = trace.get("marker") or {}
    symbol = str(marker.get("symbol", "circle"))
    outline = marker.get("line") or {}
    color = per_point(marker.get("color", (trace.get("line") or {}).get("color", trace["color"])), 1)[0]
    opacity = float(trace.get("opacity", 1.0)) * float(per_point(marker.get("opacity", 1.0), 1)[0])
    shape = MARKERS.get(symbol.removesuffix("-open"), "o")
    hollow = symbol.endswith("-open")
    thin = hollow or shape in ("_", "|")
    return {
        "marker": shape,
        "markersize": float(per_point(marker.get("size", 6), 1)[0]) * POINTS_PER_PIXEL,
        "markerfacecolor": "none" if hollow else rgba(color, opacity),
        "markeredgecolor": rgba(color if thin else outline.get("color", color), opacity),
        "markeredgewidth": float(outline.get("width", 1.5 if thin else 0)) * POINTS_PER_PIXEL,
    }


def _draw_markers(panel: PictureAxes, trace: Trace, x: Floats, y: Floats) -> None:
    marker = trace.get("marker") or {}
    colors, sizes = marker.get("color"), marker.get("size")
    if not isinstance(colors, list) and not isinstance(sizes, list):
        panel.axes.plot(x, y, linestyle="none", **_marker_style(trace))
        return
    default = (trace.get("line") or {}).get("color", trace["color"])
    for i, (color, size) in enumerate(
        zip(per_point(colors or default, len(x)), per_point(sizes or 6, len(x)), strict=True)
    ):
        one = {**trace, "marker": {**marker, "color": color, "size": size}}
        panel.axes.plot(x[i : i + 1], y[i : i + 1], linestyle="none", **_marker_style(one))


def _draw_error_bars(panel: PictureAxes, trace: Trace, x: Floats, y: Floats, color: Any) -> None:
    for which in ("x", "y"):
        error = trace.get(f"error_{which}") or {}
        if error.get("array") is None or error.get("visible") is False:
            continue
        above = numbers(error["array"])
        below = above if error.get("arrayminus") is None else numbers(error["arrayminus"])
        panel.axes.errorbar(
            x,
            y,
            **{f"{which}err": np.stack([below, above])},
            fmt="none",
            ecolor=rgba(error["color"]) if error.get("color") else color,
            elinewidth=float(error.get("thickness", 2)) * POINTS_PER_PIXEL,
            capsize=float(error.get("width", 4)) * POINTS_PER_PIXEL,
        )
        center = x if which == "x" else y
        panel.see(which, np.concatenate([center - below, center + above]))


def _area_style(trace: Trace, i: int = 0) -> dict[str, Any]:
    """Fill and outline of a bar, box, violin or band."""
    marker = trace.get("marker") or {}
    outline = marker.get("line") or {}
    opacity = float(trace.get("opacity", 1.0))
    if trace["type"] in ("violin", "box"):
        edge = (trace.get("line") or {}).get("color") or marker.get("color") or trace["color"]
        width = float((trace.get("line") or {}).get("width", 2))
        inside = trace.get("fillcolor") or "rgba({:.0f},{:.0f},{:.0f},0.5)".format(*(255 * c for c in rgba(edge)[:3]))
        return {
            "facecolor": rgba(inside, opacity),
            "edgecolor": rgba(edge, opacity),
            "linewidth": width * POINTS_PER_PIXEL,
        }
    if trace["type"] == "scatter":
        return {"facecolor": rgba(_fill_color(trace), opacity), "linewidth": 0}
    colors = per_point(marker.get("color", trace["color"]), i + 1)
    edges = per_point(outline.get("color", "rgba(0,0,0,0)"), i + 1)
    opacities = per_point(marker.get("opacity", 1.0), i + 1)
    pattern = (marker.get("pattern") or {}).get("shape") or ""
    return {
        "facecolor": rgba(colors[i % len(colors)], opacity * float(opacities[i % len(opacities)])),
        "edgecolor": rgba(edges[i % len(edges)], opacity),
        "linewidth": float(outline.get("width", 0)) * POINTS_PER_PIXEL,
        "hatch": {"/": "///", "\\": "\\\\\\", "x": "xxx", ".": "...", "-": "---", "|": "|||", "+": "+++"}.get(pattern),
    }


def _slots(panel: PictureAxes, at: Floats, slot: tuple[int, int], gap: float) -> tuple[Floats, float]:
    """Left edges and width of bars that stand side by side at ``at``."""
    spacing = float(np.diff(np.unique(at)).min()) if len(np.unique(at)) > 1 else 1.0
    place, n = slot
    width = spacing * (1 - gap) / n
    return at - spacing * (1 - gap) / 2 + place * width, width


def _draw_bar(panel: PictureAxes, trace: Trace, slot: tuple[int, int], earlier: Trace | None) -> None:
    sideways = trace.get("orientation") == "h"
    along, up = ("y", "x") if sideways else ("x", "y")
    heights = numbers(trace[up])
    at = panel.place(along, trace[along]) if trace.get(along) is not None else np.arange(len(heights), dtype=np.float64)
    left, width = _slots(panel, at, slot, float(panel.layout.get("bargap", 0.2)))
    widths = np.full(len(at), width)
    if trace.get("width") is not None:
        widths = numbers(per_point(trace["width"], len(at)))
        left = at - widths / 2
    if trace.get("offset") is not None:
        left = at + numbers(per_point(trace["offset"], len(at)))
    base = numbers(per_point(trace.get("base", 0.0), len(at)))
    if "stack_base" in trace:
        base = base + numbers(trace["stack_base"])
    draw = panel.axes.barh if sideways else panel.axes.bar
    sizes = ("height", "width") if sideways else ("width", "height")
    for i in range(len(at)):
        shape = {sizes[0]: widths[i], sizes[1]: heights[i], ("left" if sideways else "bottom"): base[i]}
        draw(left[i], align="edge", **shape, **_area_style(trace, i))
    _label_bars(panel, trace, left + widths / 2, base + heights, sideways)
    middle = left + widths / 2
    _draw_error_bars(panel, trace, *((base + heights, middle) if sideways else (middle, base + heights)), "#444444")
    panel.see(along, np.concatenate([left, left + widths]), pad=False)
    panel.see(up, base + heights)
    panel.see(up, base, pad=False)
    panel.from_zero.add(up)


def _label_bars(panel: PictureAxes, trace: Trace, middle: Floats, ends: Floats, sideways: bool) -> None:
    if trace.get("text") is None or trace.get("textposition") == "none":
        return
    style = font({**panel.font, **(trace.get("textfont") or {})})
    for at, end, word in zip(middle, ends, per_point(trace["text"], len(middle)), strict=True):
        spot, shift = ((end, at), (3, 0)) if sideways else ((at, end), (0, 2))
        align = {"ha": "left", "va": "center"} if sideways else {"ha": "center", "va": "bottom"}
        panel.axes.annotate(plain_text(word)[0], spot, shift, textcoords="offset points", **align, **style)


def _draw_histogram(panel: PictureAxes, trace: Trace, slot: tuple[int, int], earlier: Trace | None) -> None:
    sideways = trace.get("x") is None
    values = numbers(trace["y" if sideways else "x"])
    values = values[np.isfinite(values)]
    bins = trace.get("ybins" if sideways else "xbins") or {}
    if {"start", "end", "size"} <= bins.keys():
        edges = np.arange(float(bins["start"]), float(bins["end"]) + float(bins["size"]) / 2, float(bins["size"]))
    else:
        edges = _nice_edges(values, int(trace.get("nbinsy" if sideways else "nbinsx") or max(10, len(values) ** 0.5)))
    counts = np.histogram(values, edges)[0].astype(np.float64)
    norm = trace.get("histnorm") or ""
    if norm in ("probability", "probability density", "percent"):
        counts *= (100 if norm == "percent" else 1) / max(counts.sum(), 1)
    if "density" in norm:
        counts /= np.diff(edges)
    bar = {**trace, "type": "bar", "width": np.diff(edges).tolist(), "text": None}
    along, up = ("y", "x") if sideways else ("x", "y")
    bar |= {
        along: ((edges[:-1] + edges[1:]) / 2).tolist(),
        up: counts.tolist(),
        "orientation": "h" if sideways else "v",
    }
    _draw_bar(panel, bar, (0, 1), None)


def _nice_edges(values: Floats, most: int) -> Floats:
    """At most ``most`` bins of a round width (1, 2 or 5 times a power of ten) that hold all values."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    least = max((high - low) / most, 1e-12)
    power = 10 ** np.floor(np.log10(least))
    size = float(power * min(step for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9)))
    first = np.floor(low / size)
    return np.asarray(size * np.arange(first, np.floor(high / size) + 2))


def _groups(panel: PictureAxes, trace: Trace) -> tuple[bool, list[tuple[float, Floats]]]:
    """Samples of a violin or box trace by their place along the axis: (sideways, [(place, values), …])."""
    sideways = trace.get("y") is None and trace.get("x") is not None
    along, up = ("y", "x") if sideways else ("x", "y")
    values = numbers(trace[up])
    if trace.get(along) is None:
        own = trace.get(f"{along}0", trace.get("name", ""))
        return sideways, [(float(panel.place(along, [own])[0]), values[np.isfinite(values)])]
    places = panel.place(along, trace[along])
    return sideways, [(float(at), values[(places == at) & np.isfinite(values)]) for at in np.unique(places)]


def _draw_violin(panel: PictureAxes, trace: Trace, slot: tuple[int, int], earlier: Trace | None) -> None:
    sideways, groups = _groups(panel, trace)
    style = _area_style(trace)
    half = float(trace.get("width", GROUP_WIDTH)) / 2
    fill = panel.axes.fill_between if sideways else panel.axes.fill_betweenx
    for at, values in groups:
        if not len(values):
            continue
        grid, density = kernel_density(values, hard=trace.get("spanmode") == "hard")
        spread = half * density / density.max()
        left = at if trace.get("side") == "positive" else at - spread
        right = at if trace.get("side") == "negative" else at + spread
        fill(grid, left, right, **style)
        if (trace.get("meanline") or {}).get("visible"):
            reach = half * float(np.interp(values.mean(), grid, density) / density.max())
            ends, level = [at - reach, at + reach], [values.mean()] * 2
            panel.axes.plot(
                *((level, ends) if sideways else (ends, level)),
                color=style["edgecolor"],
                **line_style({"width": 2, "dash": "dash"}),
            )
        if (trace.get("box") or {}).get("visible"):
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            _draw_box_shape(panel, sideways, at, half / 4, (low, low, middle, high, high), style)
        panel.see("x" if sideways else "y", grid)
        panel.see("y" if sideways else "x", [at - 0.5, at + 0.5], pad=False)


def kernel_density(values: Floats, hard: bool = False, points: int = 128) -> tuple[Floats, Floats]:
    """Gaussian kernel density with the bandwidth plotly.js takes, 1.059·min(σ, IQR/1.349)·N^(−1/5).

    Returns (places, density at them), both (points,); from two bandwidths below the least value to two above the
    largest, or, ``hard``, between those two values.
    """
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(values.std(ddof=1) if len(values) > 1 else 0.0, (quartiles[1] - quartiles[0]) / 1.349)
    width = max(1.059 * spread * len(values) ** -0.2, (values.max() - values.min()) / 100, 1e-12)
    reach = 0.0 if hard else 2 * width
    grid = np.linspace(values.min() - reach, values.max() + reach, points)
    distance = (grid[:, None] - values[None, :]) / width
    density = np.exp(-0.5 * distance**2).sum(axis=1) / (len(values) * width * np.sqrt(2 * np.pi))
    return grid, density


def _draw_box(panel: PictureAxes, trace: Trace, slot: tuple[int, int], earlier: Trace | None) -> None:
    style = _area_style(trace)
    half = float(trace.get("width", GROUP_WIDTH)) / 2
    if trace.get("q1") is not None:
        places = panel.place("x", trace["x"]) if trace.get("x") is not None else np.arange(len(trace["q1"]))
        columns = [numbers(trace[key]) for key in ("lowerfence", "q1", "median", "q3", "upperfence")]
        for at, *levels in zip(places, *columns, strict=True):
            _draw_box_shape(panel, False, float(at), half, tuple(levels), style)
        return
    sideways, groups = _groups(panel, trace)
    for at, values in groups:
        if not len(values):
            continue
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        inside = values[(values >= low - 1.5 * (high - low)) & (values <= high + 1.5 * (high - low))]
        _draw_box_shape(panel, sideways, at, half, (inside.min(), low, middle, high, inside.max()), style)
        outside = np.setdiff1d(values, inside)
        if len(outside) and trace.get("boxpoints", "outliers") is not False:
            spots = np.full(len(outside), at)
            panel.axes.plot(
                *((outside, spots) if sideways else (spots, outside)), "o", markersize=3, color=style["edgecolor"]
            )
            panel.see("x" if sideways else "y", outside)


def _draw_box_shape(
    panel: PictureAxes, sideways: bool, at: float, half: float, levels: tuple[float, ...], style: dict[str, Any]
) -> None:
    """Box, median and whiskers at the levels (lower fence, q1, median, q3, upper fence)."""
    bottom, low, middle, high, top = levels
    ring_along, ring_up = [at - half, at + half, at + half, at - half], [low, low, high, high]
    lines = [([at - half, at + half], [middle, middle])]
    for inner, outer in ((low, bottom), (high, top)):
        lines += [([at, at], [inner, outer]), ([at - half / 2, at + half / 2], [outer, outer])]
    panel.axes.fill(*((ring_up, ring_along) if sideways else (ring_along, ring_up)), **style)
    for along, up in lines:
        panel.axes.plot(
            *((up, along) if sideways else (along, up)), color=style["edgecolor"], linewidth=style["linewidth"]
        )
    panel.see("x" if sideways else "y", [bottom, top])
    panel.see("y" if sideways else "x", [at - 0.5, at + 0.5], pad=False)


def _draw_heatmap(panel: PictureAxes, trace: Trace, slot: tuple[int, int], earlier: Trace | None) -> None:
    z = np.array([numbers(row) for row in trace["z"]])
    edges = {}
    for which, n in (("x", z.shape[1]), ("y", z.shape[0])):
        at = panel.place(which, trace[which]) if trace.get(which) is not None else np.arange(n, dtype=np.float64)
        steps = np.diff(at) if n > 1 else np.ones(1)
        edges[which] = np.concatenate(
            [[at[0] - steps[0] / 2], at[:-1] + steps / 2 if n > 1 else [], [at[-1] + steps[-1] / 2]]
        )
        panel.see(which, edges[which], pad=False)
    low, high = trace.get("zmin"), trace.get("zmax")
    low, high = (np.nanmin(z) if low is None else low), (np.nanmax(z) if high is None else high)
    if trace.get("zmid") is not None:
        reach = max(high - trace["zmid"], trace["zmid"] - low)
        low, high = trace["zmid"] - reach, trace["zmid"] + reach
    scale = colormap(trace.get("colorscale") or "Viridis")
    scale = scale.reversed() if trace.get("reversescale") else scale
    mesh = panel.axes.pcolormesh(edges["x"], edges["y"], z, cmap=scale, vmin=low, vmax=high, linewidth=0)
    if trace.get("showscale", True):
        _draw_color_bar(panel, trace, mesh)
    _label_cells(panel, trace, z, mesh)


def _draw_color_bar(panel: PictureAxes, trace: Trace, mesh: Any) -> None:
    bar = trace.get("colorbar") or {}
    page = panel.axes.figure
    box = panel.axes.get_position()
    slim = float(bar.get("thickness", 14)) / (page.get_figwidth() * 100)
    sides = page.add_axes((box.x1 + 0.012, box.y0, slim, box.height))
    drawn = page.colorbar(mesh, cax=sides)
    drawn.outline.set_linewidth(0)
    ink = font({**panel.font, **(bar.get("tickfont") or {})})
    sides.tick_params(width=0.6, length=3, color=ink["color"])
    for label in sides.get_yticklabels():
        label.set(fontproperties=ink["fontproperties"], color=ink["color"])
    title = bar.get("title") or {}
    words = title if isinstance(title, str) else title.get("text", "")
    sides.set_ylabel(plain_text(words)[0], **font(panel.font))


def _label_cells(panel: PictureAxes, trace: Trace, z: Floats, mesh: Any) -> None:
    """The numbers or words in a heatmap's cells (``texttemplate`` "%{z:.2f}" or "%{text}")."""
    template = str(trace.get("texttemplate") or "")
    if not template:
        return
    middle = [(edges[:-1] + edges[1:]) / 2 for edges in (mesh._coordinates[0, :, 0], mesh._coordinates[:, 0, 1])]
    pattern = template.partition("%{z:")[2].partition("}")[0]
    for row, column in np.ndindex(z.shape):
        if not np.isfinite(z[row, column]):
            continue
        word = trace["text"][row][column] if "%{text}" in template else number_text(pattern, float(z[row, column]))
        ground = mesh.cmap(mesh.norm(z[row, column]))
        dark = 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2] < 0.55
        style = font({**panel.font, **(trace.get("textfont") or {}), "color": "#ffffff" if dark else "#222222"})
        panel.axes.text(middle[0][column], middle[1][row], plain_text(word)[0], ha="center", va="center", **style)


DRAWERS: dict[str, Callable[[PictureAxes, Trace, tuple[int, int], Trace | None], None]] = {
    "scatter": _draw_scatter,
    "scattergl": _draw_scatter,
    "bar": _draw_bar,
    "histogram": _draw_histogram,
    "violin": _draw_violin,
    "box": _draw_box,
    "heatmap": _draw_heatmap,
}
