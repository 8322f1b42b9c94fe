"""One agent's step: against a general-purpose convex solver, against a dual bound, and where numbers are tiny."""

from __future__ import annotations

import numpy as np
import pytest
from convex_solver import dual_bound, penalised_optimum

from workbench.theory import penalised_step, raise_to_floor
from workbench.theory.penalised_step import best_penalised_step


def value(policy, log_updated, gains, weights, penalty):
    """Σ w p·g − C max KL(q ‖ p), with p as logarithms."""
    gained = (weights[:, None] * np.exp(log_updated) * gains).sum()
    if penalty == 0.0:
        return gained
    log_q = np.log(np.where(policy > 0.0, policy, 1.0))
    with np.errstate(invalid="ignore"):
        divergence = np.where(policy > 0.0, policy * (log_q - log_updated), 0.0).sum(axis=1)
    return gained - penalty * divergence.max()


def draw_problem(rng, penalties):
    """Policies from uniform to deterministic, some with actions of probability 0; tied gains; unvisited states."""
    n_states, n_actions = rng.integers(1, 7), rng.integers(2, 6)
    floor = float(rng.choice([0.0, 1e-3, 1e-2, 0.1]))
    policy = rng.dirichlet(np.full(n_actions, rng.choice([0.02, 0.2, 1.0, 5.0])), size=n_states)
    if floor == 0.0 and rng.random() < 0.3:
        policy = np.eye(n_actions)[rng.integers(0, n_actions, n_states)]
    if floor == 0.0 and rng.random() < 0.3:
        policy = policy * (rng.random(policy.shape) < 0.6)
    policy[policy < 1e-9] = 0.0
    policy[policy.sum(axis=1) == 0.0, 0] = 1.0
    policy /= policy.sum(axis=1, keepdims=True)
    if floor > 0.0:
        policy = raise_to_floor(policy, floor)
    gains = rng.normal(size=policy.shape) * rng.choice([1e-3, 1.0, 30.0])
    if rng.random() < 0.2:
        gains = np.round(gains)
    weights = rng.dirichlet(np.ones(n_states)) * rng.choice([1.0, 10.0])
    if rng.random() < 0.2:
        weights[rng.integers(n_states)] = 0.0
    penalty = float(rng.choice(penalties) * np.abs(gains).max())
    return policy, gains, weights, penalty, floor


def solve(policy, gains, weights, penalty, floor):
    with np.errstate(divide="ignore"):
        log_updated = best_penalised_step(np.log(policy), gains, weights, penalty, floor)
    updated = np.exp(log_updated)
    np.testing.assert_allclose(updated.sum(axis=1), 1.0, atol=1e-12)
    assert updated.min() >= floor * (1.0 - 1e-12)
    return log_updated


def check_against_the_solver(rng):
    # Up to C = |g|: beyond, the solver's own tolerance in KL, times C, is more than what is to be shown.
    policy, gains, weights, penalty, floor = draw_problem(rng, [0.0, 1e-3, 0.1, 0.3, 1.0])
    log_updated = solve(policy, gains, weights, penalty, floor)
    best = penalised_optimum(policy, gains, weights, penalty, floor)
    scale = max(1.0, np.abs(gains).max() * weights.sum())
    assert value(policy, log_updated, gains, weights, penalty) == pytest.approx(best, abs=1e-8 * scale)


def check_against_the_dual(rng):
    problem = draw_problem(rng, [0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e5])
    policy, gains, weights, penalty, floor = problem
    log_updated = solve(*problem)
    bound = dual_bound(policy, np.exp(log_updated), gains, weights, penalty, floor)
    found = value(policy, log_updated, gains, weights, penalty)
    scale = max(1.0, np.abs(gains).max() * weights.sum())
    assert abs(bound - found) <= 1e-8 * scale


@pytest.mark.parametrize("seed", range(60))
def test_the_step_is_as_good_as_a_general_convex_solver_s(seed):
    check_against_the_solver(np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(150))
def test_the_step_reaches_its_dual_bound(seed):
    check_against_the_dual(np.random.default_rng(1_000 + seed))


@pytest.mark.stress
def test_thousands_of_steps_are_optimal():
    for seed in range(1_000):
        check_against_the_solver(np.random.default_rng(10_000 + seed))
    for seed in range(10_000):
        check_against_the_dual(np.random.default_rng(20_000 + seed))


def test_the_sure_search_finds_what_newton_s_method_finds(monkeypatch):
    rng = np.random.default_rng(7)
    problems = [draw_problem(rng, [1e-3, 0.1, 10.0]) for _ in range(40)]
    found = [solve(*problem) for problem in problems]
    monkeypatch.setattr(penalised_step, "_newton", lambda states, penalty, log_d, ends: (None, log_d, False))
    for problem, first in zip(problems, found, strict=True):
        np.testing.assert_allclose(np.exp(solve(*problem)), np.exp(first), atol=1e-7)


def test_without_a_penalty_the_step_is_the_best_response():
    log_q = np.log([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2]])
    gains = np.array([[0.0, 1.0, 0.5], [2.0, 2.0, 0.0]])
    step = np.exp(best_penalised_step(log_q, gains, np.ones(2), penalty=0.0))
    # Tied best actions keep their proportions.
    np.testing.assert_allclose(step, [[0.0, 1.0, 0.0], [0.25, 0.75, 0.0]], atol=1e-15)
    floored = np.exp(best_penalised_step(log_q, gains, np.ones(2), penalty=0.0, floor=0.1))
    np.testing.assert_allclose(floored, [[0.1, 0.8, 0.1], [0.225, 0.675, 0.1]], atol=1e-15)


def test_nothing_moves_where_nothing_can_be_gained():
    rng = np.random.default_rng(0)
    log_q = np.log(rng.dirichlet(np.ones(3), size=3))
    gains = rng.normal(size=(3, 3))
    gains[1] = 0.7
    step = best_penalised_step(log_q, gains, np.array([1.0, 1.0, 0.0]), penalty=2.0)
    assert (step[1:] == log_q[1:]).all()
    assert (step[0] != log_q[0]).all()


@pytest.mark.parametrize("log_rare", [-20.0, -300.0, -2_000.0, -1e5])
def test_a_rare_better_action_grows_by_the_factor_that_theory_gives(log_rare):
    """One state, weight w: near a deterministic policy log p − log q → log C/(C − w·Δ), however small q is."""
    penalty, weight, gap = 10.0, 2.0, 1.5
    log_q = np.array([[0.0, log_rare]])
    step = best_penalised_step(log_q, np.array([[0.0, gap]]), np.array([weight]), penalty)
    expected = np.log(penalty / (penalty - weight * gap))
    assert step[0, 1] - log_rare == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("log_rare", [-20.0, -300.0, -2_000.0, -1e5])
def test_a_rare_worse_action_shrinks_by_the_factor_that_theory_gives(log_rare):
    penalty, weight, gap = 10.0, 2.0, 1.5
    log_q = np.array([[0.0, log_rare]])
    step = best_penalised_step(log_q, np.array([[gap, 0.0]]), np.array([weight]), penalty)
    assert step[0, 1] - log_rare == pytest.approx(-np.log(1.0 + weight * gap / penalty), abs=1e-8)


def test_a_deterministic_policy_moves_only_where_the_gain_outweighs_the_slope_of_kl():
    """At probability 0, KL has slope 1: the action is taken up where w·Δ > C, and then p(old) = C/(w·Δ)."""
    log_q = np.array([[0.0, -np.inf]])
    gains = np.array([[0.0, 1.0]])
    stays = best_penalised_step(log_q, gains, np.array([2.0]), penalty=2.001)
    assert (stays == log_q).all()
    leaves = np.exp(best_penalised_step(log_q, gains, np.array([2.0]), penalty=1.5))
    np.testing.assert_allclose(leaves, [[0.75, 0.25]], atol=1e-12)


def test_states_share_one_budget():
    """KL is the same in every state that moves, since only the largest is paid for."""
    rng = np.random.default_rng(3)
    policy, gains = rng.dirichlet(np.ones(4), size=6), rng.normal(size=(6, 4))
    step = best_penalised_step(np.log(policy), gains, rng.uniform(0.1, 1.0, 6), penalty=5.0)
    divergence = (policy * (np.log(policy) - step)).sum(axis=1)
    np.testing.assert_allclose(divergence, divergence.mean(), rtol=1e-8)
