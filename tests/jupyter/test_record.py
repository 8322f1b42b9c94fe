"""A record carries a figure, a picture of it, and a text: small, the same every time, readable anywhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import pytest
from PIL import Image

from workbench.errors import UnknownNameError
from workbench.jupyter import look
from workbench.jupyter.figures.picture.page import Page
from workbench.jupyter.figures.record import PLOTLY_MIME, Record, describe, plain, show

Pixels = npt.NDArray[np.int16]
AGENTS = tuple(f"agent_{i}" for i in range(4))


def figure_of(*traces: dict[str, Any], **layout: Any) -> dict[str, Any]:
    return {"data": list(traces), "layout": layout}


def pixels(record: Record, ground: str = "white") -> Pixels:
    """(height, width, 3) of the picture as it looks on a ground."""
    picture = Image.open(io.BytesIO(record.png)).convert("RGBA")
    page = Image.new("RGBA", picture.size, ground)
    page.alpha_composite(picture)
    return np.asarray(page.convert("RGB")).astype(np.int16)


def places_of(image: Pixels, color: str, tolerance: int = 24) -> npt.NDArray[np.intp]:
    """(k, 2) rows and columns of the pixels in a colour."""
    wanted = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)])
    return np.argwhere(np.abs(image - wanted).max(axis=-1) <= tolerance)


def test_bundle_holds_figure_picture_and_text() -> None:
    record = Record(figure_of({"y": [1, 3, 2], "name": "seed 0"}, title={"text": "Return"}))
    bundle = record._repr_mimebundle_()
    assert set(bundle) == {PLOTLY_MIME, "image/png", "text/plain"}
    assert bundle["text/plain"] == repr(record) == "Return: seed 0"
    assert base64.b64decode(bundle["image/png"])[:8] == b"\x89PNG\r\n\x1a\n"
    assert json.loads(json.dumps(bundle))[PLOTLY_MIME]["data"][0]["y"] == [1, 3, 2]


def test_picture_is_as_large_as_the_figure() -> None:
    for width, height in [(860, 360), (500, 300)]:
        record = Record(figure_of({"y": [1, 2]}, width=width, height=height))
        assert pixels(record).shape == (height, width, 3)


def test_figure_gets_a_size_and_a_template_of_its_own() -> None:
    layout = Record(go.Figure(go.Scatter(y=[1, 2])))._repr_mimebundle_()[PLOTLY_MIME]["layout"]
    assert (layout["width"], layout["height"]) == (look.WIDTH, look.HEIGHT)
    assert layout["template"]["layout"]["font"]["color"] == look.INKS["neutral"].text


@pytest.mark.parametrize("name", ["workbench_dark", "plotly_white", "ggplot2"])
def test_a_template_that_was_chosen_is_kept(name: str) -> None:
    import plotly.io

    layout = Record(go.Figure(layout={"template": name}))._repr_mimebundle_()[PLOTLY_MIME]["layout"]
    assert layout["template"] == plain(plotly.io.templates[name].to_plotly_json())


def test_packed_arrays_are_unpacked() -> None:
    figure = go.Figure(go.Heatmap(z=np.arange(6, dtype=np.float32).reshape(2, 3)))
    assert Record(figure)._repr_mimebundle_()[PLOTLY_MIME]["data"][0]["z"] == [[0, 1, 2], [3, 4, 5]]


def test_a_record_does_not_change_with_its_figure() -> None:
    record = Record(figure_of({"y": [1.0, 2.0]}))
    before = record._repr_mimebundle_()
    record.figure.add_scatter(y=[5, 6])
    assert record._repr_mimebundle_() == before


def test_same_figure_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from workbench.jupyter.figures.record import Record;"
        "figure = {'data': [{'y': [1, 3, 2]}, {'type': 'bar', 'y': [1, 2]}], 'layout': {}};"
        "print(hashlib.sha256(Record(figure).png).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = Record(figure_of({"y": [1, 3, 2]}, {"type": "bar", "y": [1, 2]})).png
    assert hashlib.sha256(here).hexdigest() == other


def test_matplotlib_settings_of_the_user_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    figure = figure_of({"y": [1, 3, 2], "name": "KL $x$"}, title={"text": "A"}, showlegend=True)
    before = Record(figure).png
    for key, value in {
        "lines.linewidth": 9.0,
        "font.size": 30.0,
        "axes.grid": True,
        "axes.linewidth": 5.0,
        "text.usetex": True,
        "xtick.minor.visible": True,
        "axes.facecolor": "red",
        "lines.scale_dashes": False,
        "legend.fontsize": 30.0,
        "legend.markerscale": 3.0,
        "legend.handleheight": 2.0,
        "lines.marker": "s",
    }.items():
        monkeypatch.setitem(matplotlib.rcParams, key, value)
    assert Record(figure).png == before


def test_a_large_figure_stays_below_100_kb() -> None:
    rng = np.random.default_rng(0)
    lines = [{"y": rng.normal(size=2000), "name": f"agent_{i}"} for i in range(17)]
    record = Record(figure_of(*lines, height=900))
    assert len(record.png) < 100_000
    assert len(json.dumps(record._repr_mimebundle_()[PLOTLY_MIME])) < 17 * 2000 * 12


@pytest.mark.parametrize("ground", ["white", "#111111"])
def test_bars_stand_in_agent_colours_in_the_order_given(ground: str) -> None:
    order = ("agent_2", "agent_0", "agent_3", "agent_1")
    bars = {
        "type": "bar",
        "x": order,
        "y": [4, 3, 2, 1],
        "marker": {"color": [look.agent_color(AGENTS, a) for a in order]},
    }
    image = pixels(Record(figure_of(bars)), ground)
    boxes = [places_of(image, look.agent_color(AGENTS, agent), tolerance=3) for agent in order]
    middles = [box[:, 1].mean() for box in boxes]
    heights = [int(np.ptp(box[:, 0])) + 1 for box in boxes]
    assert middles == sorted(middles)
    np.testing.assert_allclose(np.array(heights) / heights[3], [4, 3, 2, 1], rtol=0.03)


def test_line_runs_where_the_numbers_are() -> None:
    figure = figure_of(
        {"x": [0, 1], "y": [0, 1], "mode": "lines", "line": {"color": "#ff0000", "width": 2}},
        xaxis={"range": [0, 1]},
        yaxis={"range": [0, 1]},
        margin={"l": 100, "r": 100, "t": 50, "b": 50},
        width=600,
        height=300,
    )
    spots = places_of(pixels(Record(figure)), "#ff0000", tolerance=60)
    assert np.abs(spots[:, 1] - (100 + 400 * (250 - spots[:, 0]) / 200)).max() < 8
    assert (spots[:, 0].min(), spots[:, 0].max()) == pytest.approx((50, 250), abs=3)


def test_log_axis_puts_powers_of_ten_at_equal_distances() -> None:
    points = {
        "x": [0, 1, 2],
        "y": [1, 10, 100],
        "mode": "markers",
        "marker": {"color": ["#ff0000", "#00ff00", "#0000ff"], "size": 10},
    }
    image = pixels(Record(figure_of(points, yaxis={"type": "log"})))
    rows = [places_of(image, color)[:, 0].mean() for color in ("#ff0000", "#00ff00", "#0000ff")]
    assert rows[0] - rows[1] == pytest.approx(rows[1] - rows[2], abs=1.5)


def test_dashes_leave_gaps() -> None:
    def ink(dash: str) -> int:
        line = {"x": [0, 1], "y": [1, 1], "mode": "lines", "line": {"color": "#ff0000", "dash": dash, "width": 3}}
        return len(places_of(pixels(Record(figure_of(line))), "#ff0000"))

    assert ink("dash") == pytest.approx(ink("solid") / 2, rel=0.15)


def test_panels_twin_axes_shapes_and_notes_are_in_their_places() -> None:
    figure = figure_of(
        {"x": [0, 1], "y": [1, 1], "mode": "lines", "line": {"color": "#ff0000"}},
        {"x": [0, 1], "y": [5, 5], "mode": "lines", "line": {"color": "#00ff00"}, "xaxis": "x2", "yaxis": "y2"},
        {"x": [0, 1], "y": [0.1, 0.9], "mode": "lines", "line": {"color": "#ff00ff"}, "yaxis": "y3"},
        xaxis={"domain": [0, 0.45], "anchor": "y"},
        xaxis2={"domain": [0.55, 1], "anchor": "y2"},
        yaxis2={"anchor": "x2", "range": [0, 10]},
        yaxis3={"overlaying": "y", "side": "right", "range": [0, 1]},
        shapes=[
            {
                "type": "line",
                "xref": "x2 domain",
                "x0": 0,
                "x1": 1,
                "yref": "y2",
                "y0": 2,
                "y1": 2,
                "line": {"color": "#0000ff"},
            }
        ],
        annotations=[
            {"text": "██", "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "font": {"color": "#ffa500"}}
        ],
        showlegend=False,
        width=800,
    )
    image = pixels(Record(figure))
    red, green, blue, orange, purple = (
        places_of(image, c, 40) for c in ("#ff0000", "#00ff00", "#0000ff", "#ffa500", "#ff00ff")
    )
    assert red[:, 1].max() < orange[:, 1].mean() < green[:, 1].min()
    assert np.ptp(blue[:, 1]) == pytest.approx(np.ptp(green[:, 1]), abs=4)
    assert green[:, 0].mean() < blue[:, 0].mean(), "5 is above 2"
    assert np.ptp(purple[:, 0]) > 150
    assert purple[:, 1].max() < orange[:, 1].mean()


EVERY_TYPE: dict[str, dict[str, Any]] = {
    "band": {"x": [0, 1, 2], "y": [1, 2, 1], "fill": "tozeroy", "mode": "none", "fillcolor": "#ff0000"},
    "outline": {"x": [0, 1, 1, 0], "y": [0, 0, 1, 1], "fill": "toself", "fillcolor": "#ff0000", "line": {"width": 0}},
    "steps": {"x": [0, 1, 2], "y": [1, 3, 2], "line": {"shape": "hv", "color": "#ff0000"}, "mode": "lines"},
    "markers": {"y": [1, 2], "mode": "markers", "marker": {"color": "#ff0000", "symbol": "diamond", "size": 12}},
    "errors": {"y": [1, 2], "mode": "markers", "marker": {"color": "#ff0000"}, "error_y": {"array": [0.5, 0.2]}},
    "words": {
        "x": [0, 1],
        "y": [1, 2],
        "mode": "text",
        "text": ["██", "██"],
        "textfont": {"color": "#ff0000", "size": 20},
    },
    "bar": {"type": "bar", "y": [1, 2], "marker": {"color": "#ff0000"}, "text": ["1", "2"]},
    "sideways bar": {"type": "bar", "x": [1, 2], "y": ["a", "b"], "orientation": "h", "marker": {"color": "#ff0000"}},
    "quartiles": {
        "type": "box",
        "x": [0],
        "lowerfence": [0],
        "q1": [1],
        "median": [2],
        "q3": [3],
        "upperfence": [4],
        "fillcolor": "#ff0000",
    },
    "heatmap": {
        "type": "heatmap",
        "z": [[0, 1], [1, 0]],
        "colorscale": [[0, "#ffffff"], [1, "#ff0000"]],
        "texttemplate": "%{z:.2f}",
        "colorbar": {"title": {"text": "share"}},
    },
    "named heatmap": {
        "type": "heatmap",
        "z": [[0, 1], [1, None]],
        "x": ["a", "b"],
        "y": ["c", "d"],
        "zmid": 0,
        "colorscale": [[0, "#0000ff"], [1, "#ff0000"]],
        "showscale": False,
    },
}


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_every_type_leaves_ink_and_is_one_that_plotly_takes(kind: str) -> None:
    trace = EVERY_TYPE[kind]
    go.Figure(figure_of(trace))  # raises where a property is not Plotly's
    assert len(places_of(pixels(Record(figure_of(trace))), "#ff0000", 40)) > 20


def test_stacked_and_grouped_bars() -> None:
    two = [{"type": "bar", "x": ["a"], "y": [v], "marker": {"color": c}} for v, c in ((1, "#ff0000"), (2, "#0000ff"))]
    grouped = pixels(Record(figure_of(*two)))
    assert places_of(grouped, "#ff0000")[:, 1].max() <= places_of(grouped, "#0000ff")[:, 1].min() + 1
    stacked = pixels(Record(figure_of(*two, barmode="stack")))
    assert places_of(stacked, "#ff0000")[:, 0].min() >= places_of(stacked, "#0000ff")[:, 0].max() - 1


@pytest.mark.parametrize(
    ("where", "corner"), [({"x": 1, "xanchor": "right"}, "right"), ({"x": 0, "xanchor": "left"}, "left")]
)
def test_legend_stands_where_it_is_told(where: dict[str, Any], corner: str) -> None:
    lines = [
        {
            "y": [0, 1],
            "name": name,
            "line": {"color": "rgba(0,0,0,0)"},
            "fillcolor": "#ff0000",
            "fill": "tozeroy",
            "mode": "none",
        }
        for name in "ab"
    ]
    empty = [{**line, "y": [None, None]} for line in lines]
    spots = places_of(pixels(Record(figure_of(*empty, legend={**where, "y": 1, "yanchor": "top"}))), "#ff0000")
    assert len(spots)
    assert (spots[:, 1].mean() > 430) == (corner == "right")


def test_long_names_stay_on_the_sheet() -> None:
    names = [f"a rather long name of agent number {i}" for i in range(8)]
    figure = figure_of(
        {"type": "bar", "x": names, "y": [1] * 8, "marker": {"color": "#ff0000"}}, yaxis={"title": {"text": "share"}}
    )
    image = pixels(Record(figure))
    frame = np.concatenate(
        [image[:2].reshape(-1, 3), image[-2:].reshape(-1, 3), image[:, :2].reshape(-1, 3), image[:, -2:].reshape(-1, 3)]
    )
    assert (frame == 255).all(), "nothing runs over the edge"


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="unknown trace type 'scatter3d'"):
        _ = Record(figure_of({"type": "scatter3d", "x": [1], "y": [1], "z": [1]})).png
    with pytest.raises(UnknownNameError, match="unknown trace type 'box of samples'"):
        _ = Record(figure_of({"type": "box", "y": [1, 2, 3]})).png


def test_a_figure_that_has_no_picture_is_shown_without_one() -> None:
    with pytest.warns(UserWarning, match="unknown trace type 'violin'"):
        bundle = Record(figure_of({"type": "violin", "y": [1, 2, 3], "name": "a"}))._repr_mimebundle_()
    assert set(bundle) == {PLOTLY_MIME, "text/plain"}


def test_an_unknown_colour_scale_is_refused_by_name() -> None:
    figure = {"data": [{"type": "heatmap", "z": [[0, 1]], "colorscale": "nowhere"}], "layout": {}}
    with pytest.raises(UnknownNameError, match=r"unknown colour scale 'nowhere'.* Known: .*viridis"):
        _ = Record(figure).png


def test_something_else_than_a_figure_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a Plotly figure"):
        Record([1, 2, 3])  # type: ignore[arg-type]


def test_not_a_number_becomes_a_gap() -> None:
    assert plain([1.0, float("nan"), float("inf"), np.float32(2.5), True, None]) == [1.0, None, None, 2.5, True, None]
    assert len(Record(figure_of({"y": [1.0, float("nan"), 2.0]})).png) > 0


def test_text_names_panels_and_few_of_many_traces() -> None:
    figure = figure_of(*({"name": f"run {i}"} for i in range(20)))
    assert describe(figure) == "Figure: " + ", ".join(f"run {i}" for i in range(7)) + ", 13 more"


def test_show_displays_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    seen: list[Any] = []
    monkeypatch.setattr(IPython.display, "display", seen.append)
    figure = go.Figure(go.Scatter(y=[1, 2]))
    show(figure, "two points")
    record = Record(figure)
    show(record)
    assert [repr(shown) for shown in seen] == ["two points", "Figure"]
    assert seen[1] is record


@pytest.mark.parametrize("legend", [{}, {"orientation": "h", "y": -0.3, "yanchor": "top"}])
def test_the_legend_stands_beside_the_data_and_not_over_it(legend: dict[str, Any], monkeypatch: Any) -> None:
    pages: list[Page] = []
    render = Page.render
    monkeypatch.setattr(Page, "render", lambda page: pages.append(page) or render(page))
    lines = [{"x": [0, 1], "y": [i, i], "name": f"a rather long name {i}"} for i in range(4)]
    assert Record(figure_of(*lines, legend=legend, xaxis={"title": {"text": "x"}})).png
    (page,) = pages
    around = page.legend.get_window_extent(page.canvas.get_renderer())
    for axes in page.sheet.axes:
        assert not axes.get_window_extent(page.canvas.get_renderer()).overlaps(around)
