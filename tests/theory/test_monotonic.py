"""Algorithm 1: J never falls, its limit is an equilibrium, what the floor is for; and the update all at once."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from games_to_test import draw_game, draw_policies
from scipy.special import rel_entr

from workbench.theory import (
    algorithm1,
    deterministic_policies,
    evaluate,
    hatrpo_surrogate,
    matrix_game,
    nash_gap,
    penalty_coefficient,
    random_game,
    random_policies,
    simultaneous_game,
    simultaneous_update,
    uniform_policies,
)


def check_monotone(seed, iterations):
    rng = np.random.default_rng(seed)
    game = draw_game(rng, agents=(2, 4), states=(1, 5), actions=(2, 3))
    floor = float(rng.choice([0.0, 1e-3, 0.05]))
    trace = algorithm1(game, draw_policies(game, rng), iterations, seed=seed, floor=floor)
    assert np.diff(trace.objectives).min() >= -1e-10
    assert min(policy.min() for policy in trace.policies[-1]) >= floor * (1.0 - 1e-12)
    return trace


@pytest.mark.parametrize("seed", range(40))
def test_the_objective_never_falls(seed):
    check_monotone(seed, iterations=25)


@pytest.mark.stress
def test_the_objective_never_falls_in_a_thousand_iterations_of_a_hundred_games():
    for seed in range(100):
        check_monotone(1_000 + seed, iterations=1_000)


def check_reaches_equilibrium(game, policies, limit, floor=1e-3):
    """The η-soft Nash gap goes below 1e-3 within ``limit`` iterations."""
    for start in range(0, limit, 100):
        trace = algorithm1(game, policies, 100, seed=start, floor=floor)
        policies = trace.policies
        if nash_gap(game, policies, floor) < 1e-3:
            return
    assert nash_gap(game, policies, floor) < 1e-3


@pytest.mark.parametrize(("discount", "limit"), [(0.0, 100), (0.3, 600), (0.6, 1_500)])
@pytest.mark.parametrize("seed", range(4))
def test_the_floored_run_ends_at_an_equilibrium(discount, limit, seed):
    rng = np.random.default_rng(seed)
    game = draw_game(rng, agents=(2, 3), states=(1, 2), actions=(2, 3), discounts=(discount,))
    check_reaches_equilibrium(game, random_policies(game, rng), limit)


@pytest.mark.stress
def test_floored_runs_end_at_an_equilibrium_within_twenty_thousand_iterations():
    for seed in range(50):
        rng = np.random.default_rng(5_000 + seed)
        game = draw_game(rng, agents=(2, 3), states=(1, 4), actions=(2, 3), discounts=(0.0, 0.3, 0.6))
        check_reaches_equilibrium(game, random_policies(game, rng), limit=20_000)


def test_the_trace_is_what_the_method_says():
    game = random_game(3, 4, (2, 3, 2), 0.8, seed=5)
    start = random_policies(game, 6)
    trace = algorithm1(game, start, 20, seed=3, floor=0.0)
    assert trace.objectives.shape == (21,)
    assert trace.orders.shape == trace.kls.shape == trace.gains.shape == (20, 3)
    assert len({tuple(order) for order in trace.orders.tolist()}) > 1
    for k in range(20):
        before, after = trace.policies[k], trace.policies[k + 1]
        evaluation = evaluate(game, before)
        assert trace.objectives[k] == evaluation.objective
        largest = np.abs(evaluation.advantages).max()
        assert trace.penalties[k] == pytest.approx(4 * 0.8 * largest / (1 - 0.8) ** 2)
        assert trace.penalties[k] == penalty_coefficient(game, evaluation)
        expected = hatrpo_surrogate(game, before, after, trace.orders[k])
        np.testing.assert_allclose(trace.gains[k], expected, atol=1e-12)
        kls = [rel_entr(before[i], after[i]).sum(axis=1).max() for i in trace.orders[k]]
        np.testing.assert_allclose(trace.kls[k], kls, atol=1e-14)
        # The bound behind the theorem: J(π') ≥ J(π) + Σₘ (gainₘ − C·KLₘ), and every term is at least 0.
        terms = trace.gains[k] - trace.penalties[k] * trace.kls[k]
        assert terms.min() >= -1e-12
        assert trace.objectives[k + 1] - trace.objectives[k] >= terms.sum() - 1e-12


def test_orders_are_random_or_as_given():
    game = random_game(3, 2, seed=0)
    start = uniform_policies(game)
    one, same, other = (algorithm1(game, start, 12, seed=seed) for seed in (1, 1, 2))
    assert (one.orders == same.orders).all()
    assert (one.objectives == same.objectives).all()
    assert (one.orders != other.orders).any()
    fixed = algorithm1(game, start, 2, orders=(2, 0, 1))
    assert fixed.orders.tolist() == [[2, 0, 1]] * 2
    each = algorithm1(game, start, 2, orders=[(2, 0, 1), (0, 1, 2)])
    assert each.orders.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert algorithm1(game, start, 0).objectives.tolist() == [evaluate(game, start).objective]


def test_a_trace_goes_on_where_it_ended():
    game = random_game(2, 3, seed=4)
    whole = algorithm1(game, uniform_policies(game), 30, floor=0.0, orders=(0, 1))
    first = algorithm1(game, uniform_policies(game), 10, floor=0.0, orders=(0, 1))
    rest = algorithm1(game, pickle.loads(pickle.dumps(first.policies)), 20, floor=0.0, orders=(0, 1))
    np.testing.assert_array_equal(np.concatenate([first.objectives, rest.objectives[1:]]), whole.objectives)
    assert evaluate(game, whole.policies).objective == whole.objectives[-1]
    assert copy.deepcopy(first.policies).last_logs[0].shape == (3, 2)


def test_policies_below_the_floor_are_raised_first():
    game = simultaneous_game()
    trace = algorithm1(game, deterministic_policies(game, (0, 0)), 0, floor=0.01)
    np.testing.assert_allclose(trace.policies[0][0], [[0.99, 0.01]])
    assert trace.objectives[0] == evaluate(game, trace.policies[0]).objective


def lingering_game():
    """Nobody moving earns 0, either one moving earns 1. At γ = 0.21 that gain, ρ·A = 1.27, is just below C = 1.35."""
    return matrix_game([[0.0, 1.0], [1.0, 0.5]], discount=0.21)


def test_a_deterministic_policy_that_is_no_equilibrium_is_a_fixed_point_without_a_floor():
    game = lingering_game()
    stuck = deterministic_policies(game, (0, 0))
    gap = nash_gap(game, stuck)
    assert gap == pytest.approx(1.0 / (1.0 - 0.21))
    trace = algorithm1(game, stuck, 50, floor=0.0)
    assert (trace.objectives == 0.0).all()
    assert nash_gap(game, trace.policies) == gap
    floored = algorithm1(game, stuck, 60, floor=1e-3)
    assert nash_gap(game, floored.policies, floor=1e-3) < 1e-3


@pytest.mark.parametrize("log_rare", [-10.0, -100.0, -800.0])
def test_an_interior_run_lingers_as_long_as_its_probability_is_small(log_rare):
    """Every iteration multiplies a rare action's probability by C/(C − ρ·A): |log q| over the log of that, to leave."""
    game = lingering_game()
    evaluation = evaluate(game, deterministic_policies(game, (0, 0)))
    penalty = penalty_coefficient(game, evaluation)
    factor = np.log(penalty / (penalty - evaluation.visitation[0]))
    expected = -log_rare / factor
    start = (np.array([[np.log1p(-np.exp(log_rare)), log_rare]]),) * 2
    trace = algorithm1(game, start, int(expected) + 40, floor=0.0, log_space=True, seed=1)
    left = np.flatnonzero(trace.objectives > 0.5)[0]
    assert left == pytest.approx(expected, rel=0.02, abs=10)
    assert nash_gap(game, trace.policies) < 1e-3


def test_probabilities_below_what_a_float_can_hold_come_back():
    """At γ small C is small too: a bad action loses most of its probability every iteration, to far below 1e-308."""
    game = matrix_game([[3.0, 0.0], [0.0, 1.0]], discount=0.01)
    trace = algorithm1(game, ([[0.6, 0.4]], [[0.6, 0.4]]), 250, floor=0.0)
    assert trace.policies[-1][0][0, 1] == 0.0
    assert -np.inf < trace.policies.last_logs[0][0, 1] < -750.0
    turned = lingering_game()
    remembered = algorithm1(turned, trace.policies, 400, floor=0.0)
    assert remembered.objectives[-1] == pytest.approx(1.0 / (1.0 - 0.21), abs=1e-3)
    forgotten = algorithm1(turned, tuple(trace.policies[-1]), 5, floor=0.0)
    assert (forgotten.objectives == 0.0).all()


@pytest.mark.parametrize("start", [*np.random.default_rng(0).uniform(0.6001, 1.0, (20, 2)).tolist(), [0.61, 1.0]])
def test_the_simultaneous_update_falls_to_the_minimum_and_the_sequential_one_never_falls(start):
    game = simultaneous_game()
    policies = tuple(np.array([[p, 1.0 - p]]) for p in start)
    simultaneous = simultaneous_update(game, policies)
    assert simultaneous.objectives[1] == game.reward.min() == -1.0
    assert simultaneous.objectives[1] < simultaneous.objectives[0]
    for order in ((0, 1), (1, 0)):
        trace = algorithm1(game, policies, 3, floor=0.0, orders=order)
        assert np.diff(trace.objectives).min() >= 0.0
        assert trace.objectives[-1] == 2.0
        assert nash_gap(game, trace.policies) == 0.0


def test_below_the_threshold_the_simultaneous_update_does_not_fall():
    trace = simultaneous_update(simultaneous_game(), ([[0.59, 0.41]], [[0.59, 0.41]]))
    # Action 0 is each one's best response: both take it, and earn nothing.
    assert trace.policies[1][0].tolist() == [[1.0, 0.0]]
    assert trace.objectives[1] == 0.0


def test_the_simultaneous_update_takes_the_old_policies_of_the_others():
    game = random_game(3, 3, 2, 0.5, seed=8)
    start = random_policies(game, 9)
    together = simultaneous_update(game, start, floor=1e-3)
    for agent in range(3):
        alone = algorithm1(game, start, 1, floor=1e-3, orders=[agent, *(i for i in range(3) if i != agent)])
        np.testing.assert_array_equal(together.policies[1][agent], alone.policies[1][agent])
