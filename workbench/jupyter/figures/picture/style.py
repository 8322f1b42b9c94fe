"""From Plotly's words to matplotlib's: layouts with their template, colours, dashes, markers, text and numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgba
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import EngFormatter

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.look import Spec

POINTS_PER_PIXEL = 0.72  # pictures are drawn at 100 pixels to the inch

Rgba = tuple[float, float, float, float]
Value = TypeVar("Value")

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
SI_NUMBER = EngFormatter(sep="", usetex=False, useMathText=False)


def with_template(figure: Spec) -> tuple[list[Spec], Spec]:
    """Traces and layout with everything filled in that the template says about them, in the form of ``merged``."""
    given = dict(figure["layout"])
    template = given.pop("template", None) or {}
    base = template.get("layout") or {}
    layout = merged(base, given)
    for key in given:
        if key.startswith(("xaxis", "yaxis")):
            layout[key] = merged(base.get(key[:5]) or {}, given[key])
    for kind in ("annotation", "shape"):
        defaults = base.get(f"{kind}defaults") or {}
        layout[f"{kind}s"] = [merged(defaults, thing) for thing in given.get(f"{kind}s") or ()]
    styles, colors = template.get("data") or {}, layout.get("colorway") or look.PALETTE
    traces = []
    for i, trace in enumerate(figure["data"]):
        kind = trace.get("type", "scatter")
        style = (styles.get(kind) or [{}])[0]
        traces.append(merged({**style, "type": kind, "color": colors[i % len(colors)]}, trace))
    return traces, layout


def merged(below: Spec, above: Spec) -> Spec:
    """``above`` laid over ``below``, mapping by mapping, without what is None; a title is always {"text": …}.

    >>> merged({"font": {"size": 9, "color": "red"}}, {"font": {"size": 12, "family": None}, "title": "KL"})
    {'font': {'size': 12, 'color': 'red'}, 'title': {'text': 'KL'}}
    """
    result = dict(below)
    for key, value in above.items():
        if key == "title" and isinstance(value, str):
            value = {"text": value}
        if isinstance(value, Mapping):
            held = result.get(key)
            result[key] = merged(held if isinstance(held, dict) else {}, dict(value))
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
        red, green, blue, *rest = map(float, numbers[1].split(","))
        return red / 255, green / 255, blue / 255, opacity * (rest[0] if rest else 1.0)
    red, green, blue, alpha = to_rgba("none" if text == "transparent" else text)
    return red, green, blue, opacity * alpha


def line_style(line: Spec) -> Spec:
    """Width and dash of a Plotly ``line`` as keywords of a matplotlib artist."""
    width = float(line.get("width", 2))
    lengths = DASH_LENGTHS.get(line.get("dash", "solid")) if width > 0 else None
    unit = max(width, 3.0) / max(width, 1e-9)  # matplotlib counts in line widths
    dashes = (0, tuple(length * unit for length in lengths)) if lengths else "solid"
    return {"linewidth": width * POINTS_PER_PIXEL, "linestyle": dashes}


def font(*given: Spec, bold: bool = False) -> Spec:
    """Plotly's ``font``, the later over the earlier, as keywords of a matplotlib text.

    Always DejaVu Sans: it comes with matplotlib, so that the same figure gives the same picture everywhere.
    """
    style: Spec = {"size": 12, "color": "#444444"}
    for each in given:
        style |= each
    weight = "bold" if bold or style.get("weight") in ("bold", 700) else "normal"
    size = float(style["size"]) * POINTS_PER_PIXEL
    return {
        "fontproperties": FontProperties(family="DejaVu Sans", size=size, weight=weight),
        "color": rgba(style["color"]),
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
    """A Plotly colour scale, by name or as [[position, colour], …]; raises ``UnknownNameError`` for other names."""
    from plotly.colors import get_colorscale, named_colorscales
    from plotly.exceptions import PlotlyError

    try:
        stops = get_colorscale(scale) if isinstance(scale, str) else scale
    except PlotlyError as error:
        raise unknown_name("colour scale", scale, named_colorscales()) from error
    return LinearSegmentedColormap.from_list("given", [(float(position), rgba(color)) for position, color in stops])


def per_point(value: Value | Sequence[Value], n: int) -> list[Value]:
    """A property given once for all points, or once for each."""
    return list(value) if isinstance(value, list | tuple) else [value] * n  # type: ignore[list-item]


def number_text(pattern: str, value: float) -> str:
    """A number as d3's format writes it, for the patterns in use: ``~%``, ``.2f``, ``~g``, ``~s`` and so on.

    >>> number_text(".0%", 0.25), number_text("~%", 0.125), number_text("~s", -50_000), number_text(".2f", 0.5)
    ('25%', '12.5%', '−50k', '0.50')
    """
    code = pattern.replace("~", "")
    if pattern == "~%":
        text = f"{100 * value:.6g}%"
    elif code.endswith("s"):
        text = SI_NUMBER(value)
    else:
        text = format(round(value) if code == "d" else value, code or "g")
    return text.replace("-", "−")
