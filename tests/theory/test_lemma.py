"""Exact values, the multi-agent Q and A, and the lemma that decomposes them, on random games of every shape."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from games_to_test import games_with_policies
from hypothesis import HealthCheck, given, settings

from workbench.theory import evaluate, multi_agent_action_value, multi_agent_advantage, random_game, random_policies

TOLERANCE = 1e-10
SAMPLE = settings(max_examples=60, deadline=None, derandomize=True)
MANY = settings(max_examples=1_000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def spread(array, axes, n_agents):
    """An array (S, A_i...) with one axis of length 1 for every agent that is not among ``axes``."""
    shape = [array.shape[0], *(1,) * n_agents]
    order = np.argsort(axes)
    for position in order:
        shape[1 + axes[position]] = array.shape[1 + position]
    return array.transpose(0, *(1 + order)).reshape(shape)


def check_lemma(game, policies):
    evaluation = evaluate(game, policies)
    n = game.n_agents
    for order in itertools.permutations(range(n)):
        total = sum(
            spread(
                multi_agent_advantage(game, policies, order[:m], [order[m]], evaluation=evaluation), order[: m + 1], n
            )
            for m in range(n)
        )
        assert np.abs(total - evaluation.advantages).max() <= TOLERANCE, order


def check_subsets(game, policies, rng):
    """A^{i1:m}(s, a^{j1:k}, a^{i1:m}) = Σ_l A^{il}(s, a^{j1:k, i1:l−1}, a^{il}) for disjoint ordered subsets."""
    order = [int(i) for i in rng.permutation(game.n_agents)]
    k = int(rng.integers(0, game.n_agents))
    m = int(rng.integers(1, game.n_agents - k + 1))
    given, agents = order[:k], order[k : k + m]
    evaluation = evaluate(game, policies)
    whole = multi_agent_advantage(game, policies, given, agents, evaluation=evaluation)
    total = np.zeros_like(whole)
    for position, agent in enumerate(agents):
        part = multi_agent_advantage(game, policies, given + agents[:position], [agent], evaluation=evaluation)
        total += part.reshape(*part.shape, *(1,) * (m - position - 1))
    assert np.abs(whole - total).max() <= TOLERANCE


@SAMPLE
@given(games_with_policies())
def test_the_lemma_holds_for_every_permutation(drawn):
    game, policies, _, rng = drawn
    check_lemma(game, policies)
    check_subsets(game, policies, rng)


@pytest.mark.stress
@MANY
@given(games_with_policies())
def test_the_lemma_holds_for_every_permutation_of_a_thousand_games(drawn):
    game, policies, _, rng = drawn
    check_lemma(game, policies)
    check_subsets(game, policies, rng)


@SAMPLE
@given(games_with_policies(agents=(2, 3), states=(1, 4)))
def test_action_values_are_expectations_over_the_other_agents(drawn):
    game, policies, _, rng = drawn
    agents = [int(i) for i in rng.permutation(game.n_agents)[: rng.integers(0, game.n_agents + 1)]]
    found = multi_agent_action_value(game, policies, agents)
    values = evaluate(game, policies).action_values
    expected = np.zeros((game.n_states, *(game.n_actions[i] for i in agents)))
    for actions in itertools.product(*map(range, game.n_actions)):
        others = [i for i in range(game.n_agents) if i not in agents]
        weight = np.prod([policies[i][:, actions[i]] for i in others], axis=0)
        expected[(slice(None), *(actions[i] for i in agents))] += weight * values[(slice(None), *actions)]
    assert np.abs(found - expected).max() <= TOLERANCE


@SAMPLE
@given(games_with_policies(agents=(1, 3), states=(1, 5)))
def test_evaluation_agrees_with_the_sum_over_time(drawn):
    """Two derivations: linear solves, and Σ γᵗ rolled out with one transition matrix after another."""
    game, policies, _, _ = drawn
    evaluation = evaluate(game, policies)
    joint = np.ones((game.n_states, 1))
    for policy in policies:
        joint = np.einsum("sa,sb->sab", joint, policy).reshape(game.n_states, -1)
    rewards = (joint * game.reward.reshape(game.n_states, -1)).sum(axis=1)
    transitions = np.einsum("sa,sat->st", joint, game.transition.reshape(game.n_states, -1, game.n_states))
    states, objective, visitation = game.initial, 0.0, np.zeros(game.n_states)
    for _ in range(4_000 if game.discount > 0.9 else 400):
        objective += states @ rewards
        visitation += states
        states = game.discount * (states @ transitions)
    assert evaluation.objective == pytest.approx(objective, abs=1e-9)
    np.testing.assert_allclose(evaluation.visitation, visitation, atol=1e-9)
    assert evaluation.visitation.sum() == pytest.approx(1.0 / (1.0 - game.discount), rel=1e-10)
    np.testing.assert_allclose(multi_agent_action_value(game, policies, []), evaluation.values, atol=TOLERANCE)


@SAMPLE
@given(games_with_policies(agents=(1, 3), states=(1, 5)))
def test_performance_difference(drawn):
    """J(π') − J(π) = Σ_s ρ_π'(s)·E_{a ~ π'}[A_π(s, a)] (Kakade & Langford 2002)."""
    game, policies, others, _ = drawn
    before, after = evaluate(game, policies), evaluate(game, others)
    expected = before.advantages
    for policy in others:
        expected = np.einsum("sa...,sa->s...", expected, policy)
    assert after.objective - before.objective == pytest.approx(after.visitation @ expected, abs=1e-9)


def test_axes_follow_the_order_of_the_agents():
    game = random_game(3, 2, (2, 3, 4), seed=1)
    policies = random_policies(game, 2)
    value = multi_agent_action_value(game, policies, [2, 0])
    assert value.shape == (2, 4, 2)
    np.testing.assert_array_equal(value, multi_agent_action_value(game, policies, [0, 2]).swapaxes(1, 2))
    advantage = multi_agent_advantage(game, policies, ["agent_2"], ["agent_1", "agent_0"])
    assert advantage.shape == (2, 4, 3, 2)


def test_disjoint_means_disjoint():
    game = random_game(3, seed=0)
    policies = random_policies(game)
    with pytest.raises(ValueError, match=r"agents \[1\] are in given and in agents"):
        multi_agent_advantage(game, policies, [0, 1], [1, 2])
    with pytest.raises(ValueError, match="one agent twice"):
        multi_agent_action_value(game, policies, [0, 0])
    with pytest.raises(ValueError, match="agent 3 is not in this game"):
        multi_agent_action_value(game, policies, [3])
    with pytest.raises(ValueError, match="did you mean 'agent_1'"):
        multi_agent_action_value(game, policies, ["agent1"])
