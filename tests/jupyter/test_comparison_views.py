"""The views that compare groups of runs show what the statistics say, and say what they rest on."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_tables import sweep_table

from workbench.errors import UnknownNameError
from workbench.jupyter import look, views
from workbench.jupyter.figures import comparisons
from workbench.jupyter.figures.record import PLOTLY_MIME
from workbench.statistics import Comparison, compare

TASKS = ("HalfCheetah 2x3", "Walker2d 6x1")
QUICK = {"resamples": 300}
TABLES = {
    "one task": (sweep_table(seeds=4), {}),
    "one group": (sweep_table(("happo",), seeds=3), {}),
    "a seed each": (sweep_table(seeds=1), {}),
    "two tasks": (sweep_table(tasks=TASKS, seeds=3), {}),
    "normalised": (sweep_table(("happo", "hatrpo", "mappo"), TASKS, seeds=3), {"normalise": "d4rl"}),
    "eight groups": (sweep_table([f"method {k}" for k in range(8)], seeds=2), {}),
    "no steps": (sweep_table(seeds=3, points=1).drop(columns=["env_steps", "scenario", "agent_conf"]), {}),
}
VIEWS = {
    "learning_curves": views.learning_curves,
    "performance_profiles": views.performance_profiles,
    "intervals": views.intervals,
    "probability_of_improvement": views.probability_of_improvement,
    "paired_differences": lambda table, **options: views.paired_differences(table, groups(table)[-1], **options),
}


def groups(table: Any) -> list[str]:
    return list(table["method"].unique())


def comparison(name: str = "normalised") -> Comparison:
    table, options = TABLES[name]
    return compare(table, **options, **QUICK)


def caption(record: views.Record) -> str:
    (note,) = (note for note in record.figure.layout.annotations if note.name == "caption")
    return str(note.text).replace("<br>", " ").replace("&nbsp;", "")


@pytest.mark.parametrize("kind", ["pdf", "svg", "png", "html"])
def test_a_saved_figure_is_text_of_the_asked_width_and_always_the_same(kind: str, tmp_path: Path) -> None:
    record = views.learning_curves(comparison("two tasks"))
    first = record.save(tmp_path / f"a.{kind}", width="column")
    content = first.read_bytes()
    assert views.learning_curves(comparison("two tasks")).save(tmp_path / f"b.{kind}", 3.5).read_bytes() == content
    with_notes = record.save(tmp_path / f"notes.{kind}", "column", notes=True).read_bytes()
    told = "points:"
    if kind == "pdf":
        assert b"/FontFile2" in content
        assert re.search(rb"/MediaBox \[ 0 0 252 \d", content)  # 3.5 inches of 72 points
        assert not re.search(rb"Date|Type3|Producer", content)
    elif kind == "svg":
        assert b'width="252pt"' in content
        assert b">environment steps</text>" in content
        assert not re.search(rb"<dc:date>|20\d\d-\d\d", content)
        assert told.encode() in with_notes
        assert told.encode() not in content
    elif kind == "png":
        sizes = [Image.open(io.BytesIO(each)).size for each in (content, with_notes)]
        assert sizes[0][0] == sizes[1][0] == 1050
        assert sizes[0][1] < sizes[1][1]
    else:
        assert not re.search(rb"<(script|link)[^>]*(src|href)=", content)
        assert told.encode() in with_notes
        assert told.encode() not in content.partition(b"Plotly.newPlot")[2]


def test_a_plain_figure_is_saved_too_and_what_cannot_be_is_told(tmp_path: Path) -> None:
    record = views.Record({"data": [{"type": "bar", "y": [1, 2]}], "layout": {"width": 800, "height": 400}})
    assert Image.open(record.save(tmp_path / "new" / "a.png", width=4)).size == (1200, 720)
    assert Image.open(record.save(tmp_path / "a.png")).size == (2400, 1200)
    for path, width, message in (
        ("a.eps", None, "ends in .pdf, .svg, .png, .html"),
        ("a.pdf", "colum", "did you mean 'column'"),
        ("a.pdf", 0.2, "expected inches from 1 to 100"),
        ("a.pdf", True, "expected inches"),
    ):
        with pytest.raises(ValueError, match=message):
            record.save(tmp_path / path, width)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_shows_every_table(view: str, name: str) -> None:
    table, options = TABLES[name]
    record = VIEWS[view](table, **options, **QUICK)
    layout = record.figure.layout  # Plotly checks every property by name and value
    for axis in (layout[key] for key in layout if key.startswith(("xaxis", "yaxis"))):
        assert axis.title.text or axis.showticklabels is False or axis.ticktext
    assert 1_000 < len(record.png) < 100_000
    assert len(json.dumps(record._repr_mimebundle_()[PLOTLY_MIME])) < 250_000
    assert len(repr(record)) < 160


@pytest.mark.parametrize("view", VIEWS)
def test_every_figure_says_what_it_rests_on(view: str) -> None:
    table = sweep_table(seeds=3)
    table.loc[table["run"] == "happo-0-1", "steered"] = True
    words = caption(VIEWS[view](table, **QUICK))
    for part in (
        "2 to 3 seeds each",
        "300 resamples",
        "1 run steered by hand",
        "not met: 2 to 3 of 10 runs",
        "few seeds",
    ):
        assert part in words


def test_small_print_stands_below_everything_and_within_the_sheet() -> None:
    for view in VIEWS.values():
        figure = view(sweep_table(seeds=2), **QUICK).figure
        (note,) = (note for note in figure.layout.annotations if note.name == "caption")
        lines = str(note.text).split("<br>")
        assert max(map(len, lines)) * 5.8 < figure.layout.width
        assert -note.yshift + 15 * len(lines) < figure.layout.margin.b
        assert figure.layout.margin.b < figure.layout.height - 80


def test_the_line_is_the_interquartile_mean_the_area_its_interval_and_the_faint_lines_the_runs() -> None:
    table = sweep_table(seeds=4)
    first, *_ = compare(table, **QUICK).curves()
    traces = [trace for trace in views.learning_curves(table, **QUICK).figure.data if trace.name == "happo"]
    (band,) = (trace for trace in traces if trace.fill == "toself")
    (line,) = (trace for trace in traces if trace.showlegend)
    runs = [trace for trace in traces if trace is not line and trace is not band]
    np.testing.assert_allclose(line.x, first.steps)
    np.testing.assert_allclose(line.y, first.estimate.value, rtol=1e-5)
    np.testing.assert_allclose(band.y, [*first.estimate.low, *first.estimate.high[::-1]], rtol=1e-5)
    for run, (_, rows) in zip(runs, table[table["method"] == "happo"].groupby("seed"), strict=True):
        np.testing.assert_allclose(run.y, rows["return"], rtol=1e-5)
        assert run.line.width < line.line.width


def test_many_runs_are_not_drawn_one_by_one() -> None:
    table = sweep_table(("a", "b"), seeds=comparisons.MOST_RUNS // 2 + 1, points=2)
    assert len(views.learning_curves(table, **QUICK).figure.data) == 4  # two areas, two lines


def test_runs_are_drawn_as_far_as_all_reach() -> None:
    table = sweep_table(("a",), seeds=2)
    table = table[~((table["seed"] == 1) & (table["env_steps"] > 100_000))]
    for trace in views.learning_curves(table, **QUICK).figure.data:
        assert max(trace.x) == 100_000


def test_points_and_bars_are_the_estimates_and_dots_the_seeds() -> None:
    held = comparison("one task")
    figure = views.intervals(held).figure
    for k, group in enumerate(held.groups):
        value, low, high = map(float, held.estimate(group, "HalfCheetah 2x3"))
        dots, bar, point = (trace for trace in figure.data if trace.name == group)
        assert (point.x[0], point.y[0]) == (pytest.approx(value, rel=1e-5), k)
        assert bar.x == pytest.approx((low, high), rel=1e-5)
        np.testing.assert_allclose(dots.x, held.scores[group]["HalfCheetah 2x3"], rtol=1e-5)
        for trace in (dots, bar, point):
            assert figure.layout.xaxis.range[0] < min(trace.x) <= max(trace.x) < figure.layout.xaxis.range[1]
    assert list(figure.layout.yaxis.ticktext) == list(held.groups)
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1], "the first stands on top"


def test_normalised_scores_come_together_and_with_their_gap() -> None:
    titles = [note.text for note in views.intervals(comparison()).figure.layout.annotations]
    assert titles[:2] == ["<b>Return, all tasks</b>", "<b>Optimality gap, all tasks</b>"]
    assert "D4RL" in caption(views.intervals(comparison()))
    gap = comparison().estimate("mappo", "all tasks", gap=True)
    points = [t for t in views.intervals(comparison()).figure.data if t.name == "mappo" and t.marker.size == 9]
    assert points[1].x[0] == pytest.approx(float(gap.value), rel=1e-5)


def test_a_single_seed_has_no_bar_and_says_so() -> None:
    figure = views.intervals(TABLES["a seed each"][0], **QUICK).figure
    assert not [trace for trace in figure.data if trace.mode == "lines"]
    assert "no interval from a single seed" in figure.data[-1].hovertemplate


def test_profiles_are_shares_from_all_to_none() -> None:
    held = comparison("one task")
    lines = [trace for trace in views.performance_profiles(held).figure.data if trace.showlegend]
    for trace, profile in zip(lines, held.profiles(), strict=True):
        np.testing.assert_allclose(trace.y, profile.estimate.value, rtol=1e-5)
        assert trace.mode == "lines"
    few = views.performance_profiles(held, thresholds=[0.0, 500.0, 1e6]).figure.data
    assert list(few[-1].x) == [0, 500, 1e6]
    assert (few[-1].y[0], few[-1].y[-1]) == (1, 0)


def test_improvement_stands_against_one_half() -> None:
    figure = views.probability_of_improvement(comparison()).figure
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1) == (0.5, 0.5)
    assert list(figure.layout.yaxis.ticktext) == ["happo over hatrpo", "happo over mappo", "hatrpo over mappo"]
    table = comparison().improvement().table
    points = [trace.x[0] for trace in figure.data if trace.marker.size == 9]
    np.testing.assert_allclose(points, table["probability"], rtol=1e-5)
    one = views.probability_of_improvement(comparison(), pairs=[("mappo", "happo")]).figure
    assert one.data[-1].x[0] == pytest.approx(1 - table["probability"][1], rel=1e-5)


def test_paired_differences_stand_against_zero() -> None:
    held = comparison("one task")
    figure = views.paired_differences(held, "mappo").figure
    dots = figure.data[0]
    np.testing.assert_allclose(dots.x, held.differences("happo", "mappo", "HalfCheetah 2x3"), rtol=1e-5)
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1) == (0, 0)
    with pytest.raises(UnknownNameError, match="did you mean 'mappo'"):
        views.paired_differences(held, "mapo")


@pytest.mark.parametrize("view", VIEWS)
def test_a_group_has_its_colour_in_every_view_and_before_the_others_have_runs(view: str) -> None:
    table = sweep_table(("a", "b", "c"), seeds=3)
    table.loc[table["method"] == "b", "status"] = "running"
    record = VIEWS[view](table, **QUICK)
    colors = {str(t.marker.color or t.line.color) for t in record.figure.data if str(t.name).startswith("c")}
    expected = {"learning_curves", "performance_profiles", "intervals"}
    if view in expected:
        assert look.run_style(3).color in colors
    assert look.PALETTE[1] not in json.dumps(record._repr_mimebundle_()[PLOTLY_MIME]["data"])


def test_an_entry_of_the_legend_switches_its_group_in_all_panels() -> None:
    figure = views.learning_curves(comparison()).figure
    assert {trace.legendgroup for trace in figure.data} == {"happo", "hatrpo", "mappo"}
    assert [trace.name for trace in figure.data if trace.showlegend] == ["happo", "hatrpo", "mappo"]


def test_a_comparison_is_made_once() -> None:
    with pytest.raises(TypeError, match="at: a comparison is made already"):
        views.intervals(comparison(), at="absolute")
