"""Records: figures that stay readable in every viewer, with or without a kernel.

A record is one MIME bundle: the Plotly figure, a PNG of the same figure, and a short text that does not depend on the
machine. JupyterLab shows the figure, a code host or an exported page the picture, a terminal the text. The picture is
drawn without a browser, and the same figure always gives the same bytes (for one version of matplotlib).

    import workbench as wb
    wb.views.show(figure, "Return of four seeds")
"""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import UnknownNameError, path_of, unknown_name
from workbench.jupyter import look
from workbench.jupyter.look import Spec

if TYPE_CHECKING:
    import plotly.graph_objects as go

KINDS = ("pdf", "svg", "png", "html")
WIDTHS = {"column": 3.5, "page": 7.0}  # inches: of most journals' columns and pages
DOTS_PER_INCH = 100  # so that letters of 12 pixels have 8.6 points
LEAST_HEIGHT = 240  # pixels

PLOTLY_MIME = "application/vnd.plotly.v1+json"
SIGNIFICANT_DIGITS = 6  # more than a screen can show; keeps stored notebooks small


class Record:
    """A figure with its stored forms; the last expression of a cell shows it.

    Parameters
    ----------
    figure  a ``plotly.graph_objects.Figure``, or its plain form ``{"data": [...], "layout": {...}}``
    text    what a terminal shows in place of the figure; by default the figure's title and the names of its traces

    ``record.figure`` is the Plotly figure, ``record.png`` the picture, and ``record.save`` writes a file. Raises
    ``TypeError`` for anything else.
    """

    def __init__(self, figure: go.Figure | Mapping[str, object], text: str | None = None) -> None:
        self._stored = plain_figure(figure)
        self.text = text if text is not None else describe(self._stored)

    @property
    def _plain(self) -> Spec:
        return self._stored

    @property
    def figure(self) -> go.Figure:
        """The figure as a ``plotly.graph_objects.Figure``; changing it does not change the record."""
        import plotly.graph_objects as go

        look.register_templates()
        return go.Figure(self._plain)

    def save(self, path: str | Path, width: str | float | None = None, *, notes: bool = False) -> Path:
        """Write the figure to a .pdf, .svg, .png or .html, on a white ground; returns the path.

        ``width`` is "column" (3.5 inches), "page" (7) or a number of inches, by default that of the figure; letters
        keep their size, and panels stand as they fit. With ``notes`` the small print below the figure comes too. Text
        is text, its fonts embedded in a PDF; equal figures give equal bytes. Raises ``ValueError`` for another kind.

        >>> import tempfile
        >>> figure = {"data": [{"type": "bar", "y": [1, 2]}], "layout": {}}
        >>> Record(figure).save(tempfile.mkdtemp() + "/two.pdf", width="column").name
        'two.pdf'
        """
        place = path_of("path", path)
        kind = place.suffix.lower().removeprefix(".")
        if kind not in KINDS:
            raise ValueError(f"path is {str(place)!r}; expected the name of a file that ends in .{', .'.join(KINDS)}.")
        pixels = None if width is None else round(DOTS_PER_INCH * _inches(width))
        figure = self._sized(pixels, notes)
        if figure["layout"]["template"] == look.template("neutral"):
            figure = {**figure, "layout": {**figure["layout"], "template": look.template("light")}}
        content = _page(figure, pixels) if kind == "html" else _printed(figure, kind)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place

    def _sized(self, width: int | None, notes: bool) -> Spec:
        """The figure ``width`` pixels wide, with its small print or without."""
        layout = dict(self._plain["layout"])
        if not notes:
            layout["annotations"] = [each for each in layout.get("annotations", ()) if each.get("name") != "caption"]
        if width is not None:
            shrunk = max(layout["height"] * width / layout["width"], LEAST_HEIGHT)
            layout |= {"width": width, "height": min(layout["height"], shrunk)}
        return {**self._plain, "layout": layout}

    @cached_property
    def png(self) -> bytes:
        """The picture, as large in pixels as the figure, on a transparent ground."""
        from workbench.jupyter.figures.picture.page import png

        return png(self._plain)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Spec:
        bundle = {PLOTLY_MIME: {**self._shown(), "config": {"displaylogo": False}}, "text/plain": self.text}
        try:
            bundle["image/png"] = base64.b64encode(self.png).decode("ascii")
        except UnknownNameError as reason:  # a type of trace that pictures do not have
            warnings.warn(str(reason), stacklevel=2)
        return bundle

    def _shown(self) -> Spec:
        """The figure as a page is given it."""
        return self._plain

    def __repr__(self) -> str:
        return self.text


def _inches(width: object) -> float:
    if isinstance(width, str):
        if width not in WIDTHS:
            raise unknown_name("width", width, WIDTHS, "Or a number of inches, such as 3.5.")
        return WIDTHS[width]
    if isinstance(width, bool) or not isinstance(width, int | float) or not 1 <= width <= 100:
        raise ValueError(f"width is {width!r}; expected inches from 1 to 100, or one of {', '.join(WIDTHS)}.")
    return float(width)


def _printed(figure: Spec, kind: str) -> bytes:
    from workbench.jupyter.figures.picture.page import printed

    return printed(figure, kind)


def _page(figure: Spec, width: int | None) -> bytes:
    """A page that needs nothing else; as wide as its window where no width was asked for."""
    import plotly.graph_objects as go
    import plotly.io

    layout = {name: value for name, value in figure["layout"].items() if width is not None or name != "width"}
    drawn = go.Figure({**figure, "layout": layout})
    options = {"config": {"displaylogo": False, "responsive": width is None}, "div_id": "figure"}  # by default random
    page: str = plotly.io.to_html(drawn, include_plotlyjs=True, **options)
    return page.encode()


def show(figure: object, text: str | None = None) -> None:
    """Display a figure as a record: interactive where that is possible, a picture elsewhere, a short text at the least.

    ``figure`` is a Plotly figure, its plain form, or anything with a ``.figure``. Text as for ``Record``.
    """
    import IPython.display

    given = text is None and isinstance(figure, Record)
    record = figure if given else Record(getattr(figure, "figure", figure), text)
    IPython.display.display(record)  # type: ignore[no-untyped-call]


def plain_figure(figure: object) -> Spec:
    """A figure as plain JSON data: arrays as lists of rounded numbers, a size, and a template that reads anywhere."""
    if hasattr(figure, "to_plotly_json"):
        figure = figure.to_plotly_json()
    if not isinstance(figure, Mapping) or "data" not in figure:
        raise TypeError(
            f"expected a Plotly figure, or a mapping with 'data' and 'layout', and got {type(figure).__name__}; "
            "build one with plotly.graph_objects.Figure(...) or workbench's views."
        )
    layout = dict(figure.get("layout") or {})
    layout.setdefault("width", look.WIDTH)
    layout.setdefault("height", look.HEIGHT)
    layout["template"] = _own_template(layout.get("template"))
    return {"data": plain([dict(trace) for trace in figure["data"]]), "layout": plain(layout)}


def _own_template(given: object) -> object:
    """The template that a stored figure carries with it, since its next reader knows none of ours by name.

    Plotly puts its default template into every figure made with ``Figure()``: that is no choice, so ours replaces it.
    """
    if given is None:
        return look.template("neutral")
    import plotly.io

    look.register_templates()
    if isinstance(given, str):
        return plotly.io.templates[given].to_plotly_json()
    default = plotly.io.templates.default
    if default in plotly.io.templates and plain(given) == plain(plotly.io.templates[default].to_plotly_json()):
        return look.template("neutral")
    return given


def plain(value: object) -> Any:
    """JSON data from any value of a figure: numbers rounded to 6 significant digits, NaN and infinities as None.

    >>> plain({"y": np.array([1 / 3, np.nan]), "names": ("a", "b")})
    {'y': [0.333333, None], 'names': ['a', 'b']}
    """
    if hasattr(value, "to_plotly_json"):
        value = value.to_plotly_json()
    if isinstance(value, Mapping) and {"dtype", "bdata"} <= value.keys():  # Plotly's packed arrays
        packed = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        shape = [int(n) for n in str(value.get("shape", len(packed))).split(",")]
        return plain(packed.reshape(shape))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, pandas columns
        return plain(value.tolist())
    if isinstance(value, str | bytes | bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value)  # dates and the like: Plotly reads their text


def describe(figure: Spec) -> str:
    """One line from the words of a figure, never from its numbers: the same on every machine.

    >>> describe({"data": [{"name": "seed 0"}, {"name": "seed 1"}], "layout": {"title": {"text": "Return"}}})
    'Return: seed 0, seed 1'
    """
    layout = figure.get("layout", {})
    title = layout.get("title") or {}
    heading = title if isinstance(title, str) else title.get("text")
    panels = [note["text"] for note in layout.get("annotations", ()) if note.get("name") == "panel title"]
    names = list(dict.fromkeys(trace["name"] for trace in figure["data"] if trace.get("name")))
    if len(names) > 8:
        names = [*names[:7], f"{len(names) - 7} more"]
    subject = heading or ", ".join(panels) or "Figure"
    return f"{subject}: {', '.join(names)}" if names else str(subject)
