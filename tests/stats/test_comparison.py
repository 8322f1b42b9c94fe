"""Comparisons take the right numbers from a table, leave out what they must, and say what they did."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from point_team import PointTeam
from run_tables import sweep_table

import workbench as wb
from workbench.errors import UnknownNameError
from workbench.statistics import (
    COOPERATIVE,
    Normalisation,
    Series,
    bootstrap,
    compare,
    interquartile_mean,
    probability_of_improvement,
    published,
)
from workbench.statistics.comparison import COVERAGE, common_steps

QUICK = {"resamples": 500}


def last_values(table, method, task="HalfCheetah"):
    rows = table[(table["method"] == method) & (table["scenario"] == task)]
    return rows[rows["env_steps"] == rows["env_steps"].max()].sort_values("seed")["return"].to_numpy()


# --- the summary ----------------------------------------------------------------------------------------------------


def test_summary_is_the_statistic_of_the_last_values():
    table = sweep_table(seeds=7)
    summary = compare(table).summary().table
    assert summary["method"].tolist() == ["happo", "mappo"]
    assert summary["runs"].tolist() == [7, 7]
    for row in summary.itertuples():
        values = last_values(table, row.method)
        expected = bootstrap({"HalfCheetah 2x3": values})
        assert (row.iqm, row.low, row.high) == tuple(map(float, expected))
        assert row.mean == pytest.approx(values.mean())
        assert row.std == pytest.approx(values.std(ddof=1))


def test_rows_in_any_order_give_the_same_numbers():
    table = sweep_table(("a", "b"), ("Ant 4x2", "Ant 2x4"), seeds=4)
    shuffled = table.sample(frac=1, random_state=0)
    first, second = (
        compare(t, normalise="d4rl", **QUICK).summary().table.sort_values(["task", "method"], ignore_index=True)
        for t in (table, shuffled)
    )
    pd.testing.assert_frame_equal(first, second, rtol=1e-12)


def test_another_method_moves_no_number_of_those_that_were_there():
    three = sweep_table(("a", "b", "c"), ("Ant 4x2", "Ant 2x4"), seeds=4)
    two = three[three["method"] != "c"]
    more, fewer = (compare(t, normalise="d4rl", **QUICK).summary().table for t in (three, two))
    pd.testing.assert_frame_equal(more[more["method"] != "c"].reset_index(drop=True), fewer)


def test_the_seed_is_the_unit_and_not_the_point():
    """Ten times as many points of the same runs make no interval narrower."""
    few, many = (sweep_table(("a",), seeds=4, points=points, interval=240_000 // points) for points in (12, 120))
    many = many[many["env_steps"] != 240_000]
    many = pd.concat([many, few[few["env_steps"] == 240_000]])
    assert compare(many).summary().table.equals(compare(few).summary().table)


def test_runs_of_one_seed_are_averaged_and_not_counted_twice():
    table = sweep_table(("a",), seeds=4)
    twice = pd.concat([table.assign(order="fixed"), table.assign(order="random", run=table["run"] + "-random")])
    twice.loc[twice["order"] == "random", "return"] += 100
    report = compare(twice, **QUICK).summary()
    assert report.table["runs"].tolist() == [4]
    np.testing.assert_allclose(report.table["iqm"], interquartile_mean(last_values(table, "a")) + 50)
    assert any("mean of up to 2 runs" in line for line in report.how)
    assert compare(twice, by=("method", "order"), **QUICK).groups == ("a, fixed", "a, random")


def test_rows_that_cannot_be_told_apart_are_refused():
    table = sweep_table(("a",), seeds=2).drop(columns="run")
    with pytest.raises(ValueError, match=r"several rows at 20,000 env steps.*column 'run'"):
        compare(pd.concat([table, table.assign(order="random")]))


# --- what is left out -----------------------------------------------------------------------------------------------


def troubled():
    table = sweep_table(("a", "b"), seeds=6)
    table.loc[table["run"] == "a-0-0", "status"] = "failed"
    table.loc[table["run"] == "a-0-1", "status"] = "running"
    table.loc[table["run"] == "b-0-2", "status"] = "running"
    table.loc[table["run"] == "b-0-3", "steered"] = True
    table.loc[table["run"] == "b-0-4", "return"] = np.nan
    return table


def test_what_is_no_sample_of_its_method_is_left_out_and_counted():
    report = compare(troubled(), **QUICK).summary()
    assert report.table["runs"].tolist() == [4, 3]
    line = "left out: 1 run failed, 2 runs running, 1 run steered by hand, 1 run without any return"
    assert line in report.how
    assert line in repr(report)
    assert line in report._repr_html_()


def test_what_is_asked_for_is_kept():
    table = troubled()
    assert compare(table, steered=True, **QUICK).summary().table["runs"].tolist() == [4, 4]
    assert compare(table, unfinished=True, **QUICK).summary().table["runs"].tolist() == [6, 4]
    assert "left out: nothing" in compare(sweep_table(), **QUICK).how


def test_unfinished_runs_are_compared_as_far_as_the_shortest_came():
    table = sweep_table(("a",), seeds=3)
    short = (table["run"] == "a-0-1") & (table["env_steps"] > 60_000)
    table.loc[table["run"] == "a-0-1", "status"] = "running"
    comparison = compare(table[~short], unfinished=True, **QUICK)
    at_60 = table[table["env_steps"] == 60_000]["return"]
    assert comparison.summary().table["mean"].iloc[0] == pytest.approx(at_60.mean())
    assert "return at 60,000 env steps: 1 group on 1 task, 3 seeds each" in comparison.how


def test_a_group_without_finished_runs_is_no_error_as_long_as_another_has_some():
    table = sweep_table(("a", "b"), seeds=3)
    table.loc[table["method"] == "a", "status"] = "running"
    comparison = compare(table, **QUICK)
    assert comparison.groups == ("b",)
    assert comparison.selection.groups == ("a", "b")  # so that b keeps its colour when a comes
    with pytest.raises(ValueError, match="no run to compare; left out: 6 runs running"):
        compare(table.assign(status="running"))


# --- where runs are compared ----------------------------------------------------------------------------------------


def test_scores_are_taken_where_asked_for():
    table = sweep_table(("a",), seeds=3)
    at = compare(table, at=100_000, **QUICK).scores["a"]["HalfCheetah 2x3"]
    np.testing.assert_array_equal(at, table[table["env_steps"] == 100_000]["return"])
    between = compare(table, at=110_000, **QUICK).scores["a"]["HalfCheetah 2x3"]
    np.testing.assert_allclose(between, (at + table[table["env_steps"] == 120_000]["return"].to_numpy()) / 2)
    best = compare(table, at="absolute", **QUICK)
    np.testing.assert_array_equal(best.scores["a"]["HalfCheetah 2x3"], table.groupby("seed")["absolute_return"].first())
    assert best.how[0] == "return of the best policy: 1 group on 1 task, 3 seeds each"


def test_scores_that_are_not_there_are_refused():
    table = sweep_table(("a",), seeds=3, absolute=False)
    with pytest.raises(ValueError, match="3 of 3 runs of HalfCheetah 2x3 did not reach 900,000"):
        compare(table, at=900_000).summary()
    with pytest.raises(ValueError, match=r"no score there for the seeds \[0, 1, 2\].*absolute_metric"):
        compare(table, at="absolute").summary()
    with pytest.raises(UnknownNameError, match="did you mean 'absolute'"):
        compare(table, at="absolut")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "retrun"}, "unknown column 'retrun'; did you mean 'return'"),
        ({"by": "algorithm"}, "unknown column 'algorithm'"),
        ({"task": "scenaro"}, "did you mean 'scenario'"),
    ],
)
def test_unknown_columns_are_refused(change, message):
    with pytest.raises(UnknownNameError, match=message):
        compare(sweep_table(seeds=2), **change)


def test_a_table_needs_seeds():
    with pytest.raises(UnknownNameError, match="'seed'"):
        compare(sweep_table(seeds=2).drop(columns="seed"))
    with pytest.raises(ValueError, match="without a seed"):
        compare(sweep_table(seeds=2).assign(seed=None))


def test_a_table_without_steps_has_one_value_a_run():
    table = pd.DataFrame({"order": [(0, 1), (1, 0)] * 3, "seed": [0, 0, 1, 1, 2, 2], "gain": [1.0, 2, 3, 5, 6, 9]})
    comparison = compare(table, "gain", by="order", **QUICK)
    assert comparison.groups == ("0 → 1", "1 → 0")
    assert comparison.summary().table.columns[0] == "order"  # no column for a task that there is not
    paired = comparison.paired("0 → 1").table
    assert (paired["iqm"].iloc[0], paired["share_better"].iloc[0]) == (2.0, 1.0)


# --- several tasks --------------------------------------------------------------------------------------------------

TASKS = ("HalfCheetah 2x3", "Walker2d 6x1")


def test_tasks_are_taken_together_only_where_scores_are_normalised():
    table = sweep_table(tasks=TASKS, seeds=4)
    assert compare(table, **QUICK).panels == TASKS
    comparison = compare(table, normalise={"HalfCheetah 2x3": (0, 1000), "Walker2d": (500, 1500)}, **QUICK)
    assert comparison.panels == ("all tasks", *TASKS)
    row = comparison.summary().table.iloc[0]
    cheetah, walker = last_values(table, "happo") / 1000, (last_values(table, "happo", "Walker2d") - 500) / 1000
    together = np.concatenate([cheetah, walker])
    assert (row["task"], row["runs"]) == ("all tasks", 8)
    assert row["iqm"] == pytest.approx(interquartile_mean(together))
    assert row["optimality_gap"] == pytest.approx(1 - np.minimum(together, 1).mean())
    assert any(line.startswith("normalised, (x − low)/(high − low)") for line in comparison.how)


def test_constants_are_fixed_and_complete():
    assert published("d4rl").of("Ant 8x1") == (-325.6, 3879.7)
    with pytest.raises(UnknownNameError, match=r"unknown task with constants 'Ant 4x2'.*never from these runs"):
        compare(sweep_table(tasks=("Ant 4x2",), seeds=2), normalise={"Walker2d": (0, 1)})
    with pytest.raises(UnknownNameError, match="did you mean 'd4rl'"):
        compare(sweep_table(seeds=2), normalise="d4r")
    for ends in ((1, 1), (0,), (0, float("nan"))):
        with pytest.raises(ValueError, match="expected two different numbers"):
            compare(sweep_table(seeds=2), normalise={"HalfCheetah": ends})
    assert isinstance(published("d4rl"), Normalisation)


def test_improvement_is_over_the_tasks_that_both_have():
    table = sweep_table(("a", "b", "c"), TASKS, seeds=4)
    table = table[~((table["method"] == "b") & (table["scenario"] == "Walker2d"))]
    comparison = compare(table, **QUICK)
    improvement = comparison.improvement().table
    assert improvement[["x", "y", "tasks"]].to_numpy().tolist() == [["a", "b", 1], ["a", "c", 2], ["b", "c", 1]]
    a, c = comparison.scores["a"], comparison.scores["c"]
    assert improvement["probability"].iloc[1] == pytest.approx(probability_of_improvement(a, c))
    (only,) = comparison.improvement([("c", "a")]).table.itertuples()
    assert only.probability == pytest.approx(1 - probability_of_improvement(a, c))
    with pytest.raises(UnknownNameError, match="unknown group 'd'"):
        comparison.improvement([("a", "d")])


def test_groups_without_a_task_in_common_cannot_be_compared():
    table = sweep_table(("a", "b"), TASKS, seeds=2)
    of_one_task = table[(table["method"] == "a") == (table["scenario"] == "Walker2d")]
    with pytest.raises(ValueError, match="a and b have no task in common"):
        compare(of_one_task, **QUICK).improvement()


def test_profiles_are_the_shares_above_each_threshold():
    comparison = compare(sweep_table(seeds=4), **QUICK)
    scores = comparison.scores["mappo"]["HalfCheetah 2x3"]
    tau = [scores.min() - 1, np.median(scores), scores.max()]
    (_, mappo) = comparison.profiles(tau)
    assert mappo.estimate.value.tolist() == [1.0, 0.5, 0.0]
    assert (mappo.estimate.low <= mappo.estimate.value).all()
    default = comparison.profiles()[0]
    assert len(default.thresholds) == 201
    assert default.thresholds[-1] == max(s.max() for own in comparison.scores.values() for s in own.values())


# --- curves ---------------------------------------------------------------------------------------------------------


def test_a_curve_is_the_interquartile_mean_at_each_common_step():
    table = sweep_table(("a",), seeds=8)
    (curve,) = compare(table, **QUICK).curves()
    by_steps = table.pivot_table(index="env_steps", columns="seed", values="return")
    np.testing.assert_array_equal(curve.steps, by_steps.index)
    np.testing.assert_allclose(curve.estimate.value, interquartile_mean(by_steps.to_numpy()))
    assert (curve.estimate.low < curve.estimate.value).all()
    assert (curve.estimate.value < curve.estimate.high).all()
    assert len(curve.runs) == 8


def test_runs_evaluated_at_other_steps_are_aligned_within_the_reach_of_all():
    rows = [(0, 10, 0.0), (0, 30, 2.0), (1, 20, 10.0), (1, 40, 30.0), (1, 50, np.nan)]
    table = pd.DataFrame(rows, columns=["seed", "env_steps", "return"]).assign(method="a")
    (curve,) = compare(table, **QUICK).curves()
    assert curve.steps.tolist() == [20, 30]
    assert curve.estimate.value.tolist() == [(1 + 10) / 2, (2 + 20) / 2]
    tidy = compare(table, **QUICK).curve_table()
    assert tidy.table.columns.tolist() == ["method", "env_steps", "iqm", "low", "high"]
    assert any("linearly interpolated" in line for line in tidy.how)


def test_a_run_whose_last_iterations_ended_no_episode_keeps_its_last_value():
    rows = [(0, 10, 1.0), (0, 20, 3.0), (0, 30, np.nan), (1, 10, 1.0), (1, 20, 5.0), (1, 30, 7.0)]
    table = pd.DataFrame(rows, columns=["seed", "env_steps", "return"]).assign(method="a")
    assert compare(table, **QUICK).scores["a"]["all runs"].tolist() == [3.0, 7.0]


def test_runs_of_one_seed_without_common_steps_have_no_mean():
    rows = {"run": ["p", "q"], "seed": 0, "env_steps": [10, 20], "return": [1.0, 2.0], "method": "a"}
    with pytest.raises(ValueError, match="the runs of seed 0 have no env steps in common, and so no mean"):
        compare(pd.DataFrame(rows), **QUICK).summary()


def test_runs_without_common_steps_are_refused():
    table = pd.DataFrame({"seed": [0, 1], "env_steps": [10, 20], "return": [1.0, 2.0], "method": "a"})
    with pytest.raises(ValueError, match="no env steps in common: one begins at 20, another ended at 10"):
        compare(table, **QUICK).curves()


@given(st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=300, unique=True), min_size=1, max_size=5))
def test_common_steps_are_few_and_lie_within_every_run(lists):
    runs = [
        Series(k, np.sort(np.array(steps, float)), np.zeros(len(steps)), max(steps)) for k, steps in enumerate(lists)
    ]
    first, last = max(map(min, lists)), min(map(max, lists))
    if first > last:
        with pytest.raises(ValueError, match="no env steps in common"):
            common_steps(runs)
        return
    steps = common_steps(runs, most=50)
    assert 1 <= len(steps) <= 50
    assert first <= steps[0] <= steps[-1] <= last
    assert (np.diff(steps) > 0).all()
    assert set(steps) <= {step for own in lists for step in own}


# --- pairs ----------------------------------------------------------------------------------------------------------


def test_paired_differences_are_taken_seed_by_seed():
    """Forks of parents that differ much, each a little better than its parent: only pairs can show that."""
    rng = np.random.default_rng(0)
    parents = rng.normal(0, 1000, 8)
    rows = [("parent", k, p) for k, p in enumerate(parents)] + [("fork", k, p + 10 + k) for k, p in enumerate(parents)]
    table = pd.DataFrame([*rows, ("fork", 99, 0.0)], columns=["method", "seed", "return"])
    comparison = compare(table)
    report = comparison.paired("parent")
    (row,) = report.table.itertuples()
    assert (row.method, row.pairs) == ("fork", 8)
    assert row.iqm == pytest.approx(interquartile_mean(10 + np.arange(8.0)))
    assert row.mean == pytest.approx(13.5)
    assert row.share_better == 1
    assert 10 <= row.low < row.high <= 17
    assert "differences to parent, seed by seed; 1 seed without a partner" in report.how
    assert comparison.improvement().table["low"].iloc[0] < 0.5  # unpaired, nothing can be told
    with pytest.raises(UnknownNameError, match="unknown group 'parents'"):
        comparison.paired("parents")


# --- the standardised protocol --------------------------------------------------------------------------------------


def test_protocol_is_met_by_what_meets_it():
    report = compare(sweep_table(seeds=10), **QUICK).protocol()
    assert report.table["met"].all()
    assert report.table.columns.tolist() == ["task", "method", "met", "runs", "interval", "episodes", "absolute metric"]
    assert report.table.iloc[0].tolist()[3:] == [
        "✓ 10 runs",
        "✓ evaluated every 20,000 env steps",
        "✓ 32 episodes",
        "✓ absolute metric on 320 episodes",
    ]
    assert report.how == ("standard protocol (arXiv 2209.10485): met",)
    assert (COOPERATIVE.runs, COOPERATIVE.episodes, COOPERATIVE.absolute_episodes) == (10, 32, 320)


@pytest.mark.parametrize(
    ("change", "wanting"),
    [
        (lambda t: t[t["seed"] < 3], "3 of 10 runs"),
        (lambda t: t[~((t["seed"] > 2) & (t["method"] == "happo"))], "3 to 10 of 10 runs"),
        (lambda t: t.assign(episodes=10), "10 of 32 episodes"),
        (lambda t: t.drop(columns="episodes"), "number of episodes unknown"),
        (lambda t: t.assign(explained_variance=0.9), "training episodes instead of evaluations"),
        (lambda t: t[t["env_steps"] != 40_000], "evaluated every 20,000 to 40,000 env steps"),
        (lambda t: t[t["env_steps"] == 40_000], "one evaluation a run"),
        (lambda t: t.drop(columns="absolute_return"), "no absolute metric in any of 20 runs"),
        (lambda t: t.assign(absolute_episodes=32), "absolute metric on 32 of 320 episodes"),
    ],
)
def test_protocol_names_what_is_wanting(change, wanting):
    comparison = compare(change(sweep_table(seeds=10)), **QUICK)
    assert f"standard protocol (arXiv 2209.10485): not met: {wanting}" in comparison.how
    table = comparison.protocol().table
    assert not table["met"].all()
    assert table.map(lambda cell: str(cell).startswith("✗")).any(axis=1).equals(~table["met"])
    assert wanting in comparison.summary().how[-1]


def test_returns_of_training_are_called_so():
    table = sweep_table(seeds=3).assign(explained_variance=0.9)
    assert compare(table).how[0].startswith("return in training at 240,000 env steps")
    assert compare(table.assign(return_std=1.0)).how[0].startswith("return at 240,000 env steps")


@pytest.mark.parametrize("seeds", COVERAGE)
def test_intervals_from_few_seeds_hold_as_seldom_as_is_said(seeds):
    """4,000 tables of normal scores at once, as the points of a curve."""
    scores = np.random.default_rng(1).normal(size=(seeds, 4000))
    estimate = bootstrap({"a": scores}, resamples=1000)
    held = np.mean((estimate.low <= 0) & (estimate.high >= 0))
    assert 100 * held == pytest.approx(COVERAGE[seeds], abs=2.5)
    few = [line for line in compare(sweep_table(("a",), seeds=seeds), **QUICK).how if line.startswith("few seeds")]
    assert few == [f"few seeds: with {seeds}, some {COVERAGE[seeds]} % of 95 % intervals hold the true value"]


def test_every_report_says_how_it_was_made():
    comparison = compare(sweep_table(seeds=3), **QUICK)
    for report in (
        comparison.summary(),
        comparison.curve_table(),
        comparison.improvement(),
        comparison.paired("happo"),
    ):
        text = " ".join(report.how)
        for word in ("3 seeds each", "500 resamples", "stratified bootstrap over seeds", "left out", "protocol", "few"):
            assert word in text
        assert all(line in repr(report) for line in report.how)


def test_a_report_is_plain_numbers():
    json.dumps(compare(sweep_table(seeds=3), **QUICK).summary().table.to_dict("records"))


def trainer(method: str, seed: int, **run: Any) -> Any:
    made = getattr(wb, method)(PointTeam(), seed=seed, n_steps=8, hidden_sizes=(8,))
    return made.run(iterations=4, progress=False, **run)


def test_trainers_studies_and_groups_of_them_compare_as_their_tables_do() -> None:
    happo, mappo = ([trainer(name, seed) for seed in (0, 1, 2)] for name in ("happo", "mappo"))
    named = [("a", each) for each in happo] + [("b", each) for each in mappo]
    rows = [each.history.assign(method=name, seed=each.seed) for name, each in named]
    by_hand = compare(pd.concat(rows), **QUICK)
    grouped = compare({"a": happo, "b": mappo}, **QUICK)
    pd.testing.assert_frame_equal(grouped.summary().table, by_hand.summary().table)
    assert grouped.selection.trained
    assert compare([*happo, *mappo], **QUICK).groups == ("happo", "mappo")
    assert compare([*happo, *mappo], by="n_steps", **QUICK).groups == ("n_steps = 8",)
    table = sweep_table(seeds=3)
    mixed = compare({"x": table[table["method"] == "happo"], "y": SimpleNamespace(table=lambda: table)}, **QUICK)
    assert mixed.groups == ("x", "y")
    happo[0].clip_epsilon = 0.1
    assert compare({"a": happo}, **QUICK).selection.left_out == ("1 run steered by hand",)
    assert len(wb.views.learning_curves({"a": happo, "b": mappo}, **QUICK).png) > 5_000


def test_trainers_give_their_evaluations_where_all_have_some_and_never_both() -> None:
    evaluated = [trainer("happo", seed, evaluate_every=2, evaluate_episodes=3) for seed in (0, 1)]
    found = compare({"a": evaluated}, **QUICK).selection
    assert not found.trained
    assert found.runs["a", "all runs"][0].steps.tolist() == [64, 128]
    assert compare({"a": evaluated}, "kl", **QUICK).selection.trained
    assert compare({"a": evaluated, "b": [trainer("mappo", 0)]}, **QUICK).selection.trained
    table = sweep_table(seeds=2).assign(return_std=1.0)
    with pytest.raises(ValueError, match="of evaluations and others of training episodes"):
        compare({"a": table, "b": [trainer("mappo", 0)]}, **QUICK)
    with pytest.raises(TypeError, match="the table of runs is a int; expected a pandas DataFrame"):
        compare({"a": [3]})
