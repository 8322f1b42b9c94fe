"""Views show what the run's tables say: right numbers, right colours, right order, whatever the run looks like."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from fakes import fake_trainer
from hypothesis import given
from hypothesis import strategies as st
from point_team import PointTeam
from scipy import stats

import workbench as wb
from workbench.errors import UnknownNameError
from workbench.jupyter import look, views
from workbench.jupyter.figures import curves, drawings, m_distributions, plots, positions
from workbench.jupyter.figures.record import PLOTLY_MIME
from workbench.jupyter.figures.run_columns import RunColumns, read

RUNS: dict[str, dict[str, Any]] = {
    "nothing yet": {"iterations": 0},
    "first advantages": {"iterations": 0, "updated": 0},
    "first agent updated": {"iterations": 0, "updated": 1},
    "one iteration": {"iterations": 1},
    "in the middle": {"iterations": 7, "updated": 2},
    "two agents": {"n_agents": 2},
    "seventeen agents": {"n_agents": 17, "iterations": 12},
    "trust region": {"max_kl": 0.007},
    "one policy for all": {"sharing": True},
    "one agent": {"n_agents": 1},
}
VIEWS = [
    "returns",
    "m_factors",
    "by_position",
    "clipped_fraction",
    "effective_sample_size",
    "m_variance",
    "kl",
    "surrogate_gain",
    "entropy",
    "value_loss",
    "explained_variance",
    "compare",
    "overview",
]


def traces_named(record: views.Record, name: str) -> list[Any]:
    return [trace for trace in record.figure.data if trace.name == name]


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_shows_every_run(view: str, kind: str) -> None:
    record = getattr(views, view)(fake_trainer(**RUNS[kind]))
    figure = record.figure  # Plotly checks every property by name and value
    assert isinstance(figure, go.Figure)
    assert len(repr(record)) < 120
    axes = [axis for axis in figure.layout if axis.startswith(("xaxis", "yaxis"))]
    for name in axes:
        axis = figure.layout[name]
        assert axis.title.text or axis.showticklabels is False, f"{name} has neither a title nor a note in its place"


@pytest.mark.parametrize("view", ["overview", "m_factors", "by_position"])
@pytest.mark.parametrize("kind", ["nothing yet", "in the middle", "seventeen agents"])
def test_pictures_are_small(view: str, kind: str) -> None:
    record = getattr(views, view)(fake_trainer(**RUNS[kind]))
    assert 1_000 < len(record.png) < 100_000


def test_text_does_not_depend_on_numbers() -> None:
    for view in VIEWS:
        assert repr(getattr(views, view)(fake_trainer(seed=1))) == repr(getattr(views, view)(fake_trainer(seed=2)))


def test_views_change_nothing() -> None:
    trainer = fake_trainer(iterations=5, updated=2)
    before = copy.deepcopy(trainer)
    for view in VIEWS:
        getattr(views, view)(trainer)
    for table in ("history", "agent_history", "evaluations"):
        pd.testing.assert_frame_equal(getattr(trainer, table), getattr(before, table))
    assert all(np.array_equal(trainer.m_factors[a], before.m_factors[a]) for a in before.m_factors)


# --- agents' colours and order --------------------------------------------------------------------------------------


def test_an_agent_has_its_colour_in_every_view() -> None:
    trainer = fake_trainer(iterations=3)
    agents = trainer.env.agents
    for view in ("kl", "surrogate_gain", "entropy", "overview"):
        for agent in agents:
            lines = [t for t in traces_named(getattr(views, view)(trainer), agent) if t.line.color]
            assert lines
            assert {t.line.color for t in lines} <= {look.agent_color(agents, agent)}
    (bars,) = (t for t in views.clipped_fraction(trainer).figure.data if t.type == "bar")
    assert list(bars.marker.line.color) == [look.agent_color(agents, agent) for agent in trainer.iteration_order]


@pytest.mark.parametrize("kind", ["violin", "box"])
def test_distributions_stand_in_update_order(kind: Any) -> None:
    trainer = fake_trainer(iterations=2)
    figure = views.m_factors(trainer, kind).figure
    first = {trace.name: np.mean(trace.x) for trace in reversed(figure.data)}
    assert sorted(first, key=lambda agent: first[agent]) == list(trainer.iteration_order)
    labels = [f"{k}<br>{agent}" for k, agent in enumerate(trainer.iteration_order, 1)]
    assert list(figure.layout.xaxis.ticktext) == labels


def test_bars_and_violins_stand_in_the_same_order() -> None:
    layout = views.overview(fake_trainer(iterations=4)).figure.layout
    assert layout.xaxis3.ticktext == layout.xaxis5.ticktext


def test_places_are_kept_for_agents_still_to_come() -> None:
    trainer = fake_trainer(n_agents=4, iterations=2, updated=1)
    figure = views.m_factors(trainer).figure
    assert {trace.name for trace in figure.data} == set(trainer.iteration_order[:2])
    assert len(figure.layout.xaxis.ticktext) == 4
    clipped = views.clipped_fraction(trainer).figure
    assert list(clipped.data[0].x) == [0], "a bar without a number is none, and plotly.js would complain of it"
    assert clipped.layout.xaxis.ticktext == figure.layout.xaxis.ticktext


def test_agents_of_one_policy_are_one_unit() -> None:
    trainer = fake_trainer(n_agents=3, iterations=3, sharing=True)
    assert len(views.m_factors(trainer).figure.layout.xaxis.ticktext) == 3
    assert [trace.name for trace in views.kl(trainer).figure.data] == ["all 3 agents"]


# --- numbers --------------------------------------------------------------------------------------------------------


def test_returns_are_the_history_without_gaps() -> None:
    trainer = fake_trainer(iterations=25)
    (line, evaluated) = views.returns(trainer).figure.data
    ended = trainer.history.dropna(subset="return")
    np.testing.assert_allclose(line.x, ended["env_steps"])
    np.testing.assert_allclose(line.y, ended["return"], rtol=1e-5)
    np.testing.assert_allclose(evaluated.y, trainer.evaluations["return"], rtol=1e-5)


@pytest.mark.parametrize("column", ["kl", "surrogate_gain", "entropy"])
def test_lines_of_agents_are_the_agent_history(column: str) -> None:
    trainer = fake_trainer(iterations=50)
    for agent in trainer.env.agents:
        line = traces_named(getattr(views, column)(trainer), agent)[0]
        rows = trainer.agent_history[trainer.agent_history["agent"] == agent]
        np.testing.assert_allclose(line.x, rows["iteration"])
        np.testing.assert_allclose(line.y, rows[column], rtol=1e-5)


def test_delta_is_drawn_into_the_divergence_of_trust_region_methods() -> None:
    (shape,) = views.kl(fake_trainer(max_kl=0.007)).figure.layout.shapes
    assert (shape.y0, shape.y1, shape.yref) == (0.007, 0.007, "y")
    assert not views.kl(fake_trainer()).figure.layout.shapes
    assert views.overview(fake_trainer(max_kl=0.007)).figure.layout.shapes[0].yref == "y7"


def test_reference_is_exp_of_minus_m_sigma_squared() -> None:
    trainer = fake_trainer(n_agents=5, iterations=1)
    trainer.agent_history["kl"] = 0.01
    reference = traces_named(views.effective_sample_size(trainer), positions.INDEPENDENT)[0]
    np.testing.assert_allclose(reference.y, np.exp(-0.02 * np.arange(5)), rtol=1e-5)


def test_reference_meets_the_measured_size_of_independent_agents() -> None:
    """The fake's log-ratios are independent N(−σ²/2, σ²) with σ² = 2·KL: the case that the reference is for."""
    run = read(fake_trainer(n_agents=8, iterations=1, n_steps=400, n_envs=250))
    at = positions.newest(run)
    expected = np.exp(-at.independent_variance())
    np.testing.assert_allclose(at.columns["effective_sample_size"], expected, rtol=0.01)
    np.testing.assert_allclose(at.columns["m_variance"], at.columns["m_variance"][0] / expected, rtol=0.05)


def test_a_method_that_does_not_clip_shows_the_sample_size_alone() -> None:
    figure = views.by_position(fake_trainer(max_kl=0.01)).figure
    assert not [trace for trace in figure.data if trace.type == "bar"]
    assert "does not clip" in views.clipped_fraction(fake_trainer(max_kl=0.01)).figure.layout.annotations[0].text


def test_density_is_the_kernel_estimate_between_the_extremes() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(3000), 0.3 * rng.standard_normal(1000) + 3, [14.0]])
    at, height = m_distributions.density(np.sort(values))
    assert (at[0], at[-1]) == (values.min(), values.max())
    quartiles = np.quantile(values, [0.25, 0.75])
    width = 0.9 * min(values.std(), np.diff(quartiles)[0] / 1.349) * len(values) ** -0.2
    exact = stats.gaussian_kde(values, width / values.std(ddof=1))(at)
    assert np.abs(height - exact).max() < 0.02 * exact.max()
    assert np.trapezoid(height, at) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("values", [np.zeros(10), np.array([2.0]), np.array([0.0] * 99 + [5.0])])
def test_density_of_degenerate_samples_is_finite(values: Any) -> None:
    at, height = m_distributions.density(values)
    assert np.isfinite(at).all()
    assert np.isfinite(height).all()
    assert height.max() > 0


@pytest.mark.parametrize("kind", m_distributions.KINDS)
def test_every_kind_reaches_from_the_least_sample_to_the_largest(kind: Any) -> None:
    trainer = fake_trainer(n_agents=2, iterations=1)
    agent = trainer.iteration_order[1]
    trainer.m_factors[agent] = trainer.m_factors[agent].copy()
    trainer.m_factors[agent][3, 4] = 25.0
    axis = "x" if kind == "histogram" else "y"
    drawn = np.concatenate(
        [
            np.ravel(trace[axis])
            for trace in traces_named(views.m_factors(trainer, kind, "linear"), agent)
            if trace[axis]
        ]
    )
    numbers = drawn.astype(float)
    assert numbers.max() == pytest.approx(25.0, rel=1e-5)
    assert (
        numbers.min() == pytest.approx(min(m.min() for m in trainer.m_factors.values()), rel=1e-3)
        or kind != "histogram"
    )


def test_long_tails_get_a_scale_on_which_the_body_is_seen() -> None:
    trainer = fake_trainer(n_agents=2, iterations=1)
    assert views.m_factors(trainer).figure.layout.yaxis.ticktext is None
    agent = trainer.iteration_order[1]
    trainer.m_factors[agent] = trainer.m_factors[agent].copy()
    trainer.m_factors[agent][3, 4] = 200.0
    axis = views.m_factors(trainer).figure.layout.yaxis
    assert {"0", "1", "−1", "10", "100"} <= set(axis.ticktext)
    assert np.diff(axis.tickvals).min() > 0
    places = dict(zip(axis.ticktext, axis.tickvals, strict=True))
    assert places["0"] == 0
    assert places["1"] > 0.05 * places["100"], "the body has room"
    outline = max((t for t in traces_named(views.m_factors(trainer), agent)), key=lambda t: len(t.y))
    assert max(outline.y) > places["100"]
    assert views.m_factors(trainer, scale="linear").figure.layout.yaxis.ticktext is None


def test_histogram_counts_every_sample() -> None:
    trainer = fake_trainer(iterations=1)
    for trace in views.m_factors(trainer, "histogram").figure.data:
        shares = np.array([y or 0 for y in trace.y[:-1]], dtype=float)
        assert shares.sum() == pytest.approx(1, rel=1e-5)


def test_an_m_factor_that_is_not_finite_is_left_out() -> None:
    trainer = fake_trainer(n_agents=2, iterations=1)
    trainer.m_factors[trainer.iteration_order[0]][0, 0] = np.inf
    assert len(views.m_factors(trainer).png) > 0


# --- several runs ---------------------------------------------------------------------------------------------------


def forked(at: int, iterations: int) -> tuple[Any, Any]:
    """A run and a fork of it that goes its own way after ``at`` iterations."""
    parent, fork = fake_trainer(iterations=30, seed=3), fake_trainer(iterations=iterations, seed=3)
    for column in ("return", "reward", "value_loss"):
        fork.history.loc[at:, column] += 1.0
    return parent, fork


def test_a_fork_is_drawn_from_where_it_parts() -> None:
    parent, fork = forked(at=20, iterations=40)
    record = views.compare({"a": parent, "b": fork}, "return")
    steps = parent.history["env_steps"]
    (line,) = traces_named(record, "b")
    assert line.x[0] == steps[19]
    assert line.y[0] == pytest.approx(parent.history["return"][19], rel=1e-5)
    assert min(traces_named(record, "b, evaluated")[0].x) > steps[19]
    assert views.compare({"a": parent, "b": fork}, "entropy").figure.data[1].x[0] == steps[19]


def test_a_run_that_has_only_begun_to_differ_is_still_seen() -> None:
    parent, fork = forked(at=30, iterations=30)
    assert curves.shared_rows(read(parent), read(fork)) == 30
    assert len(traces_named(views.compare({"a": parent, "b": fork}), "b")[0].x) == 1


def test_runs_are_named_by_key_or_by_method() -> None:
    a, b = fake_trainer(seed=1), fake_trainer(seed=2, max_kl=0.01)
    assert repr(views.returns([a, b])).endswith("HAPPO 1, HATRPO 2")
    assert repr(views.returns({"x": a, "y": b})).endswith("x, y")


def test_a_column_of_agents_is_compared_by_its_mean() -> None:
    trainer = fake_trainer(iterations=6)
    (line,) = views.compare(trainer, "surrogate_gain").figure.data
    mean = trainer.agent_history.groupby("env_steps")["surrogate_gain"].mean()
    np.testing.assert_allclose(line.y, mean, rtol=1e-5)


def test_an_unknown_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'explained_variance'"):
        views.compare(fake_trainer(), "explaned_variance")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'asinh'"):
        views.m_factors(fake_trainer(), scale="asin")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="did you mean 'violin'"):
        views.m_factors(fake_trainer(), "violins")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [3, "trainer", [1, 2]])
def test_what_is_no_trainer_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected a trainer"):
        views.returns(wrong)


# --- arrangement ----------------------------------------------------------------------------------------------------


def test_the_legend_names_an_agent_once_and_switches_it_everywhere() -> None:
    figure = views.entropy(fake_trainer()).figure
    for agent in fake_trainer().env.agents:
        of_agent = [trace for trace in figure.data if trace.name == agent]
        assert [trace.showlegend for trace in of_agent] == [True, False]
        assert {trace.legendgroup for trace in of_agent} == {agent}


@pytest.mark.parametrize("kind", ["violin", "box", "histogram"])
@pytest.mark.parametrize("updated", [None, 0, 1, 2])
@pytest.mark.parametrize("page", ["overview", "diagnostics"])
def test_the_legend_names_every_agent_from_the_beginning(page: str, updated: int | None, kind: Any) -> None:
    trainer = fake_trainer(iterations=0, updated=updated)
    options = {"kind": kind} if page == "overview" else {}
    traces = getattr(drawings, page)([read(trainer, m_factors=True)], **options).arranged({1000: 165})[1000]["data"]
    assert [trace["name"] for trace in traces if trace.get("showlegend")] == list(trainer.units)


@pytest.mark.parametrize(("n_agents", "angle"), [(4, None), (8, -35), (17, -90)])
def test_names_are_turned_as_far_as_needed(n_agents: int, angle: int | None) -> None:
    layout = views.overview(fake_trainer(n_agents, iterations=1)).figure.layout
    assert layout.xaxis3.tickangle == angle


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3)])
def test_panels_do_not_overlap(n: int, columns: int) -> None:
    plot = plots.Plot("p", [{"type": "scatter", "y": [1, 2]}])
    layout = plots.arrange([plot] * n, columns)["layout"]
    boxes = []
    for k in range(n):
        number = "" if k == 0 else str(2 * k + 1)
        boxes.append((*layout[f"xaxis{number}"]["domain"], *layout[f"yaxis{number}"]["domain"]))
    for i, (a0, a1, b0, b1) in enumerate(boxes):
        assert 0 <= a0 < a1 <= 1
        assert -1e-9 <= b0 < b1 <= 1
        for c0, c1, d0, d1 in boxes[:i]:
            assert a1 < c0 or c1 < a0 or b1 < d0 or d1 < b0


@given(st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_a_thinned_line_keeps_its_ends_and_extremes(n: int, seed: int) -> None:
    x, y = np.arange(float(n)), np.random.default_rng(seed).standard_normal(n)
    thin_x, thin_y = plots.thinned(x, y, most=100)
    assert len(thin_x) <= 100
    assert (thin_x[0], thin_x[-1]) == (x[0], x[-1])
    assert (thin_y.min(), thin_y.max()) == (y.min(), y.max())
    assert (np.diff(thin_x) > 0).all()
    assert set(zip(thin_x.tolist(), thin_y.tolist(), strict=True)) <= set(zip(x.tolist(), y.tolist(), strict=True))


def test_long_runs_stay_small() -> None:
    trainer = fake_trainer(n_agents=2, iterations=3000, n_steps=2, n_envs=2)
    bundle = views.kl(trainer)._repr_mimebundle_()
    assert len(json.dumps(bundle[PLOTLY_MIME])) < 60_000


def test_a_run_without_a_column_reads_as_gaps() -> None:
    run = RunColumns("r", ("a",), iterations={"iteration": np.arange(3)})
    assert np.isnan(run.column("iterations", "kl")).all()
    assert run.column("evaluations", "return").shape == (0,)


def test_changes_by_hand_are_marked_once_and_a_rewind_takes_them_away():
    trainer = wb.happo(PointTeam(), seed=0, n_steps=8, hidden_sizes=(8,)).run(iterations=3, progress=False)
    trainer.clip_epsilon, trainer.order = 0.05, "fixed"
    trainer.run(iterations=2, progress=False)
    fork = trainer.fork(entropy_coef=0.1).run(iterations=1, progress=False)

    def marks(record):
        return [(t.x[0], t.hovertemplate) for t in record.figure.data if t.marker.symbol == "triangle-down"]

    (mark,) = marks(views.kl(trainer))
    assert mark == (3, "clip_epsilon was 0.2, is 0.05<br>order was random, is fixed<extra></extra>")
    before, after = marks(views.compare({"a": trainer, "b": fork}))
    assert before == (96, "a: clip_epsilon was 0.2, is 0.05<br>a: order was random, is fixed<extra></extra>")
    assert after == (160, "b: entropy_coef was 0.0, is 0.1<extra></extra>")
    assert marks(views.kl(trainer.rewind(iterations=3))) == []


def test_smoothing_draws_the_moving_mean_and_the_curve_behind():
    trainer = wb.happo(PointTeam(), seed=0, n_steps=8, hidden_sizes=(8,)).run(iterations=40, progress=False)
    y = trainer.history["value_loss"].to_numpy()
    raw, mean = views.compare(trainer, "value_loss", smoothing="strong").figure.data
    np.testing.assert_allclose(raw.y, y, rtol=1e-5)
    np.testing.assert_allclose(mean.y[20], y[18:23].mean(), rtol=1e-5)
    assert (raw.showlegend, len(mean.y)) == (False, 40)
    assert len(views.compare(trainer, "value_loss", smoothing="light").figure.data) == 1  # too short for it
    with pytest.raises(ValueError, match="did you mean 'strong'"):
        views.kl(trainer, smoothing="stong")


def test_a_view_is_as_wide_as_its_place_and_its_picture_is_not():
    trainer = wb.happo(PointTeam(), seed=0, n_steps=8, hidden_sizes=(8,)).run(iterations=1, progress=False)
    layout = views.kl(trainer)._repr_mimebundle_()[PLOTLY_MIME]["layout"]
    assert ("width" in layout, layout["autosize"]) == (False, True)
    assert views.kl(trainer).figure.layout.width == look.WIDTH


def test_a_live_view_shows_its_widget_and_its_record(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *what, **how: shown.append(what[0]))
    live = views.live("returns", wb.happo(PointTeam(), seed=0, n_steps=8, hidden_sizes=(8,)))
    live._ipython_display_()
    widget, record = shown
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert widget["text/plain"] == "Live view returns of HAPPO"
    assert isinstance(record, views.Record)
    live.close()
