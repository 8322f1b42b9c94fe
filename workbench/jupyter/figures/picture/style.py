"""From Plotly's words to matplotlib's: layouts with their template, colours, dashes, markers, text and numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgba
from matplotlib.font_manager import FontProperties

from workbench.jupyter.figures.plots import Floats
from workbench.jupyter.look import Spec

POINTS_PER_PIXEL = 0.72  # pictures are drawn at 100 pixels to the inch
COLORWAY = (  # Plotly's own
    *("#636efa", "#ef553b", "#00cc96", "#ab63fa", "#ffa15a"),
    *("#19d3f3", "#ff6692", "#b6e880", "#ff97ff", "#fecb52"),
)

Rgba = tuple[float, float, float, float]

MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "cross": "P",
    "x": "X",
    "triangle-up": "^",
    "triangle-down": "v",
    "star": "*",
}
# Lengths of dash and gap in line widths, as plotly.js draws them (for widths below 3 px it takes 3 px).
DASH_LENGTHS = {"dot": (1, 1), "dash": (3, 3), "longdash": (5, 5), "dashdot": (3, 1, 1, 1), "longdashdot": (5, 2, 1, 2)}
SUPERSCRIPTS = str.maketrans("0123456789+-−=()nim", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱᵐ")
SUBSCRIPTS = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")


def with_template(figure: Spec) -> tuple[list[Spec], Spec]:
    """Traces and layout with everything filled in that the template says about them."""
    given = dict(figure.get("layout") or {})
    template = given.pop("template", None) or {}
    base = dict(template.get("layout") or {})
    defaults = {kind: dict(base.pop(f"{kind}defaults", {})) for kind in ("annotation", "shape")}
    axes = {kind: dict(base.get(kind) or {}) for kind in ("xaxis", "yaxis")}
    layout = merged(base, given)
    for key in given:
        kind = key[:5]
        if kind in axes:
            layout[key] = merged(axes[kind], given[key])
    layout["annotations"] = [merged(defaults["annotation"], note) for note in given.get("annotations") or ()]
    layout["shapes"] = [merged(defaults["shape"], shape) for shape in given.get("shapes") or ()]
    if isinstance(layout.get("title"), str):
        layout["title"] = merged(base.get("title") or {}, {"text": layout["title"]})
    styles = template.get("data") or {}
    colorway = layout.get("colorway") or COLORWAY
    traces = []
    for i, trace in enumerate(figure["data"]):
        kind = trace.get("type", "scatter")
        style = (styles.get(kind) or [{}])[0]
        traces.append({**merged(style, trace), "type": kind, "color": colorway[i % len(colorway)]})
    return traces, layout


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Spec:
    """``above`` laid over ``below``, mapping by mapping.

    >>> merged({"font": {"size": 9, "color": "red"}}, {"font": {"size": 12}})
    {'font': {'size': 12, 'color': 'red'}}
    """
    result = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        elif value is not None:
            result[key] = value
    return result


def rgba(color: object, opacity: float = 1.0) -> Rgba:
    """A CSS colour as matplotlib's tuple.

    >>> rgba("rgba(255,0,0,0.5)", 0.5)
    (1.0, 0.0, 0.0, 0.25)
    """
    text = str(color).strip().lower()
    numbers = re.fullmatch(r"rgba?\(([^)]*)\)", text)
    if numbers:
        parts = [float(part) for part in numbers[1].split(",")]
        red, green, blue = (part / 255 for part in parts[:3])
        alpha = parts[3] if len(parts) > 3 else 1.0
    else:
        red, green, blue, alpha = to_rgba("none" if text == "transparent" else text)
    return red, green, blue, alpha * opacity


def line_style(line: Spec) -> Spec:
    """Width and dash of a Plotly ``line`` as keywords of a matplotlib artist."""
    width = float(line.get("width", 2))
    dash = line.get("dash") or "solid"
    style: Any = "solid"
    if dash in DASH_LENGTHS and width > 0:
        unit = max(width, 3.0) / width  # matplotlib counts in line widths
        style = (0, tuple(length * unit for length in DASH_LENGTHS[dash]))
    return {"linewidth": width * POINTS_PER_PIXEL, "linestyle": style}


def font(given: Spec, size: float = 12.0, bold: bool = False) -> Spec:
    """A Plotly ``font`` as keywords of a matplotlib text. Always DejaVu Sans: it comes with matplotlib, so that the
    same figure gives the same picture everywhere."""
    points = float(given.get("size", size)) * POINTS_PER_PIXEL
    heavy = bold or given.get("weight") in ("bold", 700)
    return {
        "fontproperties": FontProperties(family="DejaVu Sans", size=points, weight="bold" if heavy else "normal"),
        "color": rgba(given.get("color", "#444444")),
        "parse_math": False,
        "usetex": False,
    }


def plain_text(text: object) -> tuple[str, bool]:
    """Plotly's HTML as (characters with line breaks, whether it is all bold).

    >>> plain_text("<b>KL</b>"), plain_text("e<sup>−2</sup><br>nats")
    (('KL', True), ('e⁻²\\nnats', False))
    """
    words = str(text)
    bold = bool(re.fullmatch(r"\s*<b>.*</b>\s*", words, flags=re.DOTALL))
    words = re.sub(r"<br\s*/?>", "\n", words)
    words = re.sub(r"<sup>(.*?)</sup>", lambda m: m[1].translate(SUPERSCRIPTS), words)
    words = re.sub(r"<sub>(.*?)</sub>", lambda m: m[1].translate(SUBSCRIPTS), words)
    return html.unescape(re.sub(r"<[^>]+>", "", words)), bold


def colormap(scale: str | Sequence[tuple[float, str]]) -> Colormap:
    """A Plotly colour scale, by name or as [[position, colour], …]. The names are matplotlib's but for their case."""
    if isinstance(scale, str):
        import matplotlib

        reverse = "_r" if scale.endswith("_r") else ""
        known = {name.lower(): name for name in matplotlib.colormaps}
        name = known.get(scale.removesuffix("_r").lower())
        if name is None:
            raise ValueError(f"unknown colour scale {scale!r}; give a name that matplotlib knows too, or a list.")
        return matplotlib.colormaps[name + reverse]
    stops = [(float(position), rgba(color)) for position, color in scale]
    return LinearSegmentedColormap.from_list("given", stops)


def numbers(values: Iterable[Any]) -> Floats:
    """A column of a trace as floats, None as NaN."""
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def per_point(value: Any, n: int) -> list[Any]:
    """A property given once for all points, or once for each."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [value] * n


def one_of(value: Any, i: int = 0) -> Any:
    """A property of the i-th point, given once for all points or once for each."""
    return value[i % len(value)] if isinstance(value, list | tuple) else value


def number_text(pattern: str, value: float) -> str:
    """A number as d3's format writes it, for the patterns in use: ``~%``, ``.2f``, ``~g``, ``~s`` and so on.

    >>> number_text(".0%", 0.25), number_text("~%", 0.125), number_text("~s", 50_000), number_text(".2f", 0.5)
    ('25%', '12.5%', '50k', '0.50')
    """
    if pattern == "~%":
        return f"{100 * value:.6g}%".replace("-", "−")
    if pattern.endswith("s"):
        return si_number(value)
    code = pattern.replace("~", "")
    if code == "d":
        return f"{round(value):d}"
    written = format(value, code) if code else f"{value:g}"
    return written.replace("-", "−")


def si_number(value: float) -> str:
    """50,000 as 50k.

    >>> [si_number(x) for x in (0, 500, 1500, 2e6, 3e9)]
    ['0', '500', '1.5k', '2M', '3G']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}".replace("-", "−")
    return f"{value:g}".replace("-", "−")
