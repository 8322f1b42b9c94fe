"""Best responses and optima against brute force, and the price of sharing a policy, with its proof."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from games_to_test import draw_game, draw_policies

from workbench.theory import (
    TabularGame,
    best_joint_policy,
    best_response,
    best_shared_policy,
    deterministic_policies,
    evaluate,
    matrix_game,
    nash_gap,
    raise_to_floor,
    random_game,
    random_policies,
    sharing_game,
)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_a_best_response_beats_every_deterministic_and_every_soft_one(seed, floor):
    """Brute force: an optimum of a decision process is at a corner of the policies allowed."""
    rng = np.random.default_rng(seed)
    game = draw_game(rng, agents=(2, 3), states=(1, 3), actions=(2, 3))
    policies = draw_policies(game, rng)
    agent = int(rng.integers(game.n_agents))
    k = game.n_actions[agent]
    corners = np.full((k, k), floor) + (1.0 - k * floor) * np.eye(k)
    objectives = [
        evaluate(game, (*policies[:agent], corners[list(chosen)], *policies[agent + 1 :])).objective
        for chosen in itertools.product(range(k), repeat=game.n_states)
    ]
    found = best_response(game, policies, agent, floor)
    assert found.objective == pytest.approx(max(objectives), abs=1e-9)
    assert evaluate(game, found.policies).objective == pytest.approx(found.objective, abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_the_gap_is_the_largest_gain_of_a_lone_deviation(seed):
    rng = np.random.default_rng(seed)
    game = draw_game(rng, agents=(2, 3), states=(1, 3))
    policies = draw_policies(game, rng)
    objective = evaluate(game, policies).objective
    gains = [best_response(game, policies, i).objective - objective for i in range(game.n_agents)]
    assert nash_gap(game, policies) == pytest.approx(max(gains), abs=1e-10)
    assert nash_gap(game, policies) >= -1e-10
    soft = tuple(raise_to_floor(policy, 0.01) for policy in policies)
    assert -1e-10 <= nash_gap(game, soft, floor=0.01) <= nash_gap(game, soft) + 1e-10


@pytest.mark.parametrize("seed", range(10))
def test_the_best_joint_policy_beats_every_deterministic_one(seed):
    rng = np.random.default_rng(seed)
    game = draw_game(rng, agents=(2, 2), states=(1, 2), actions=(2, 3))
    choices = [list(itertools.product(range(k), repeat=game.n_states)) for k in game.n_actions]
    objectives = [evaluate(game, deterministic_policies(game, c)).objective for c in itertools.product(*choices)]
    best = best_joint_policy(game)
    assert best.objective == pytest.approx(max(objectives), abs=1e-9)
    assert nash_gap(game, best.policies) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("n", range(2, 13, 2))
def test_sharing_costs_all_but_two_of_two_to_the_n(n):
    """J*_share / J* = 2/2ⁿ, both sides from the game's own payoffs."""
    game = sharing_game(n)
    shared, best = best_shared_policy(game), best_joint_policy(game)
    assert shared.objective / best.objective == pytest.approx(2 / 2**n, rel=1e-10)
    assert shared.upper_bound / best.objective == pytest.approx(2 / 2**n, rel=1e-10)
    assert evaluate(game, shared.policies).objective == pytest.approx(shared.objective, rel=1e-12)
    np.testing.assert_allclose(shared.policies[0], [[0.5, 0.5]])


@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 2), (2, 3), (2, 4), (3, 2), (3, 3), (5, 2), (4, 3)])
def test_the_best_shared_policy_is_global(n, k):
    rng = np.random.default_rng(100 * n + k)
    for _ in range(3):
        game = matrix_game(rng.normal(size=(k,) * n))
        best = best_shared_policy(game)
        assert 0.0 <= best.upper_bound - best.objective <= 1e-10
        assert evaluate(game, best.policies).objective == pytest.approx(best.objective, abs=1e-12)
        joint = game.reward[0]
        tries = np.concatenate([rng.dirichlet(np.full(k, c), 4_000) for c in (0.3, 1.0, 5.0)])
        values = np.broadcast_to(joint, (len(tries), *joint.shape))
        for _ in range(n):
            values = np.einsum("b...a,ba->b...", values, tries)
        assert values.max() <= best.upper_bound + 1e-12
        assert values.max() >= best.objective - 0.05 * np.abs(joint).max()


def test_a_local_optimum_does_not_do():
    """(1 − p)ⁿ has a wide basin at 0.9, and pⁿ a narrow one at 1: nine starts in ten climb the wrong hill."""
    reward = np.zeros((2,) * 8)
    reward[(0,) * 8], reward[(1,) * 8] = 0.9, 1.0
    for joint in itertools.product(range(2), repeat=8):
        if 1 <= sum(joint) <= 6:
            reward[joint] = 0.88 - 0.1 * sum(joint)
    best = best_shared_policy(matrix_game(reward))
    assert best.objective == pytest.approx(1.0)
    np.testing.assert_allclose(best.policies[0], [[0.0, 1.0]])


def test_sharing_where_every_state_is_a_matrix_game_of_its_own():
    several = random_game(2, 3, 2, discount=0.0, seed=1)
    best = best_shared_policy(several)
    assert evaluate(several, best.policies).objective == pytest.approx(best.objective, abs=1e-12)
    drawn = [evaluate(several, (p,) * 2).objective for p in (random_policies(several, i)[0] for i in range(500))]
    assert max(drawn) <= best.upper_bound
    drifting = np.broadcast_to(np.array([[0.1, 0.9], [0.4, 0.6]])[:, None, None, :], (2, 2, 2, 2))
    game = TabularGame(np.random.default_rng(0).normal(size=(2, 2, 2)), drifting, [1.0, 0.0], 0.9)
    best = best_shared_policy(game)
    assert evaluate(game, best.policies).objective == pytest.approx(best.objective, abs=1e-10)
