"""Each statistic equals what another derivation, or another's implementation, gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from workbench.statistics import (
    bootstrap,
    bootstrap_improvement,
    interquartile_mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

# Six runs on four tasks, two methods. What rliable 1.2.0 (github.com/google-research/rliable; NumPy 1.26, SciPy 1.13,
# arch 7.0) says of them stands beside each test: 50,000 resamples, of the profile and the improvement 2,000.
M = np.array(
    [
        [0.12, 0.98, 1.43, 0.55],
        [0.31, 0.77, 1.60, 0.61],
        [0.25, 0.85, 1.19, 0.49],
        [0.44, 1.01, 1.71, 0.72],
        [0.19, 0.64, 1.28, 0.58],
        [0.38, 0.92, 1.50, 0.66],
    ]
)
N = np.array(
    [
        [0.20, 1.10, 1.40, 0.50],
        [0.15, 0.80, 1.55, 0.64],
        [0.33, 0.88, 1.31, 0.47],
        [0.28, 0.95, 1.66, 0.70],
        [0.41, 0.99, 1.37, 0.53],
        [0.22, 1.05, 1.49, 0.60],
    ]
)
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


def by_task(matrix):
    return {f"task {k}": column for k, column in enumerate(matrix.T)}


def ends(estimate):
    return [float(estimate.low), float(estimate.high)]


# --- interquartile mean ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 2.0, 6.0], 3.0),  # k = ⌊3/4⌋ = 0: the mean
        ([10.0, 1.0, 4.0, 2.0], 3.0),  # 1 | 2 4 | 10
        ([9.0, 1.0, 2.0, 3.0, 4.0], 3.0),  # k = 1: 2 3 4
        ([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 100.0], 2.0),  # k = 1: 0 1 2 3 4
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4.5),  # k = 2: 3 4 5 6
    ],
)
def test_interquartile_mean_by_hand(scores, expected):
    assert interquartile_mean(scores) == pytest.approx(expected, abs=1e-15)


@given(st.lists(NUMBERS, min_size=1, max_size=60))
def test_interquartile_mean_is_the_mean_of_the_sorted_middle_and_scipys_trimmed_mean(scores):
    cut = len(scores) // 4
    middle = np.mean(sorted(scores)[cut : len(scores) - cut])
    assert interquartile_mean(scores) == pytest.approx(middle, rel=1e-12, abs=1e-6)
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-12, abs=1e-6)


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.floats(0.1, 10), NUMBERS, st.randoms(use_true_random=False))
def test_interquartile_mean_moves_with_the_scores_and_not_with_their_order(scores, factor, shift, random):
    scaled = [factor * x + shift for x in scores]
    random.shuffle(scaled)
    assert interquartile_mean(scaled) == pytest.approx(factor * interquartile_mean(scores) + shift, rel=1e-9, abs=1e-4)
    assert min(scores) - 1e-6 <= interquartile_mean(scores) <= max(scores) + 1e-6


@given(st.lists(NUMBERS, min_size=4, max_size=40))
def test_one_run_gone_astray_among_four_or_more_cannot_carry_the_mean_away(scores):
    astray = [*sorted(scores)[:-1], 1e12]
    assert interquartile_mean(astray) <= max(scores) + 1e-6


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "statistic", "value", "interval"),
    [
        (M, interquartile_mean, 0.7316666666666666, [0.6708, 0.7883]),
        (M, lambda x: x.mean(-1), 0.7991666666666667, [0.7471, 0.8500]),
        (M, optimality_gap, 0.3141666666666666, [0.2783, 0.3512]),
        (N, interquartile_mean, 0.7675, [0.7158, 0.8192]),
        (N, lambda x: x.mean(-1), 0.8158333333333333, [0.7771, 0.8554]),
        (N, optimality_gap, 0.30625, [0.2779, 0.3342]),
    ],
)
def test_estimates_equal_rliables(matrix, statistic, value, interval):
    estimate = bootstrap(by_task(matrix), statistic)
    assert estimate.value == pytest.approx(value, abs=1e-12)
    assert ends(estimate) == pytest.approx(interval, abs=0.003)  # either is within 0.002 of the limit of many resamples


def test_profile_equals_rliables():
    tau = np.array([0.25, 0.5, 0.75, 1.0, 1.5])
    estimate = bootstrap(by_task(M), lambda x: performance_profile(x, tau))
    assert estimate.value == pytest.approx([21 / 24, 17 / 24, 11 / 24, 7 / 24, 2 / 24])
    # Shares of 24 runs: the ends of two bootstraps can differ by one of them.
    assert estimate.low == pytest.approx([0.7917, 0.6250, 0.3750, 0.2500, 0.0000], abs=1.01 / 24)
    assert estimate.high == pytest.approx([0.9583, 0.7500, 0.5000, 0.3750, 0.1667], abs=1.01 / 24)


def test_improvement_equals_rliables():
    estimate = bootstrap_improvement(by_task(M), by_task(N), resamples=20_000)
    assert estimate.value == pytest.approx(0.4791666666666667)
    assert ends(estimate) == pytest.approx([0.3194, 0.6458], abs=0.01)


def every_resample(scores):
    """All nⁿ equally likely draws from each task, all of them with all of the others: the bootstrap without chance."""
    by_tasks = [list(itertools.product(own, repeat=len(own))) for own in scores.values()]
    return np.array([np.concatenate(parts) for parts in itertools.product(*by_tasks)])


@pytest.mark.parametrize(
    "scores",
    [
        {"a": np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])},  # 46,656 resamples
        {"a": np.array([0.1, 0.5, 0.9]), "b": np.array([3.0, 1.0, 2.5])},  # 27 × 27
        {"a": np.array([0.1, 0.5, 0.9, 0.2]), "b": np.array([3.0, 1.0])},  # 256 × 4: tasks need not have as many runs
    ],
)
def test_interval_converges_to_that_of_all_resamples(scores):
    exact = np.sort([np.mean(np.sort(row)[len(row) // 4 : len(row) - len(row) // 4]) for row in every_resample(scores)])
    found = ends(bootstrap(scores, resamples=200_000))
    # The share of all resamples below either end is 2.5 %, ties and all.
    for end, share in zip(found, (0.025, 0.975), strict=True):
        assert np.mean(exact < end - 1e-9) - 0.002 <= share <= np.mean(exact <= end + 1e-9) + 0.002


def test_interval_equals_scipys_for_one_task():
    scores = np.random.default_rng(0).normal(size=12)
    theirs = stats.bootstrap(
        (scores,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", n_resamples=50_000, rng=1
    ).confidence_interval
    assert ends(bootstrap({"a": scores})) == pytest.approx([theirs.low, theirs.high], abs=0.02)


def test_strata_are_drawn_apart():
    """Two tasks far apart without any spread: drawn together they would mix, and the mean would vary."""
    estimate = bootstrap({"low": np.zeros(5), "high": np.full(5, 100.0)}, lambda x: x.mean(-1))
    assert [float(x) for x in estimate] == [50.0, 50.0, 50.0]


def test_interval_is_for_the_confidence_asked_for():
    scores = {"a": np.random.default_rng(3).normal(size=200)}
    low, high = ends(bootstrap(scores, lambda x: x.mean(-1), confidence=0.5))
    assert high - low == pytest.approx(2 * stats.norm.ppf(0.75) / np.sqrt(200) * scores["a"].std(), rel=0.05)


def test_draws_depend_on_the_seed_and_the_task_alone():
    scores = by_task(M)
    assert ends(bootstrap(scores, seed=1)) == ends(bootstrap(scores, seed=1))
    assert ends(bootstrap(scores, seed=1)) != ends(bootstrap(scores, seed=2))
    backwards = dict(reversed(scores.items()))
    assert ends(bootstrap(backwards)) == pytest.approx(ends(bootstrap(scores)), abs=1e-12)
    one = {"task 0": scores["task 0"]}
    assert ends(bootstrap(one)) == ends(bootstrap({"task 0": M[:, 0]}))


def test_many_runs_are_drawn_in_parts_of_the_same_stream(monkeypatch):
    whole = ends(bootstrap(by_task(M), resamples=1_000))
    monkeypatch.setattr("workbench.statistics.estimates._AT_ONCE", 24 * 64)
    assert ends(bootstrap(by_task(M), resamples=1_000)) == pytest.approx(whole, abs=0.02)


def test_of_curves_whole_runs_are_drawn():
    """A curve whose points are the same numbers has the same interval everywhere, the one of those numbers."""
    curve = np.repeat(M[:, :1], 3, axis=1)
    estimate = bootstrap({"a": curve}, resamples=5_000)
    assert estimate.value.shape == estimate.low.shape == (3,)
    assert np.ptp(estimate.low) == 0
    assert [float(estimate.low[0]), float(estimate.high[0])] == ends(bootstrap({"a": M[:, 0]}, resamples=5_000))


def test_a_single_run_has_no_interval():
    estimate = bootstrap({"a": np.array([1.0, 2.0, 3.0]), "b": np.array([2.0])})
    assert float(estimate.value) == 2.0
    assert np.isnan(ends(estimate)).all()
    assert np.isnan(ends(bootstrap_improvement({"a": np.array([1.0])}, {"a": np.array([2.0, 3.0])}))).all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "at least one seed"),
        ({"a": np.array([])}, "at least one seed"),
        ({"a": np.zeros((2, 2, 2))}, "at least one seed"),
        ({"a": np.array([1.0, np.nan])}, "task 'a' is not finite"),
    ],
)
def test_what_is_no_table_of_scores_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(scores)


# --- improvement, profiles, gap -------------------------------------------------------------------------------------


@given(
    arrays(np.float64, st.integers(1, 12), elements=st.integers(-5, 5).map(float)),
    arrays(np.float64, st.integers(1, 12), elements=st.integers(-5, 5).map(float)),
)
def test_improvement_is_mann_and_whitneys_u(x, y):
    u = stats.mannwhitneyu(x, y, alternative="greater", method="asymptotic").statistic
    assert probability_of_improvement({"a": x}, {"a": y}) == pytest.approx(u / (len(x) * len(y)))
    total = probability_of_improvement({"a": x}, {"a": y}) + probability_of_improvement({"a": y}, {"a": x})
    assert total == pytest.approx(1)


def test_improvement_by_hand():
    x = {"a": np.array([1.0, 3.0]), "b": np.array([5.0, 5.0, 7.0])}
    y = {"a": np.array([2.0, 0.0]), "b": np.array([5.0])}
    # Task a: 1 > 0, 3 > 2, 3 > 0 of four pairs. Task b: two ties and a win of three.
    assert probability_of_improvement(x, y) == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_improvement_interval_equals_that_of_all_resamples():
    x, y = {"a": np.array([1.0, 3.0, 4.0])}, {"a": np.array([2.0, 0.0, 3.5])}
    exact = [
        probability_of_improvement({"a": np.array(i)}, {"a": np.array(j)})
        for i in itertools.product(x["a"], repeat=3)
        for j in itertools.product(y["a"], repeat=3)
    ]
    low, high = ends(bootstrap_improvement(x, y, resamples=100_000))
    assert np.mean(np.array(exact) < low - 1e-9) <= 0.03
    assert np.mean(np.array(exact) <= low + 1e-9) >= 0.02
    assert np.mean(np.array(exact) > high + 1e-9) <= 0.03


def test_improvement_needs_the_same_tasks():
    with pytest.raises(ValueError, match="have other tasks"):
        probability_of_improvement({"a": np.ones(2)}, {"b": np.ones(2)})


@given(arrays(np.float64, st.integers(1, 30), elements=st.integers(-3, 3).map(float)))
def test_profile_falls_from_one_to_zero_and_its_area_is_the_mean(scores):
    tau = np.linspace(-4, 4, 801)
    shares = performance_profile(scores, tau)
    assert shares[0] == 1
    assert shares[-1] == 0
    assert (np.diff(shares) <= 0).all()
    assert -4 + shares.mean() * 8 == pytest.approx(scores.mean(), abs=0.01)  # E[X] = lowest + ∫ P(X > τ) dτ
    np.testing.assert_array_equal(performance_profile(np.stack([scores, scores]), tau), [shares, shares])


@given(st.lists(st.floats(-2, 3), min_size=1, max_size=30))
def test_gap_is_the_area_between_the_profile_and_one(scores):
    tau = np.linspace(-2.5, 1, 7001)
    assert optimality_gap(scores) == pytest.approx((1 - performance_profile(scores, tau)).mean() * 3.5, abs=0.002)
