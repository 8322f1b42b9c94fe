"""M and the surrogates of HAPPO and HATRPO: against sums written out, against Algorithm 1's, and against the lemma."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from workbench.theory import (
    evaluate,
    happo_surrogate,
    hatrpo_surrogate,
    m_factor,
    multi_agent_advantage,
    random_game,
    random_policies,
)


@pytest.fixture(params=range(4))
def problem(request):
    rng = np.random.default_rng(request.param)
    game = random_game(3, 3, (2, 3, 2), 0.7, seed=rng)
    return game, random_policies(game, rng), random_policies(game, rng), tuple(rng.permutation(3).tolist())


def expectation(game, policies, order, term):
    """Σ_s ρ(s) Σ_a π(a|s)·term(s, a, position), one joint action at a time."""
    visitation = evaluate(game, policies).visitation
    totals = np.zeros(len(order))
    for state in range(game.n_states):
        for actions in itertools.product(*map(range, game.n_actions)):
            probability = np.prod([policies[i][state, a] for i, a in enumerate(actions)])
            for position in range(len(order)):
                totals[position] += visitation[state] * probability * term(state, actions, position)
    return totals


def written_out(game, old, new, order):
    """(M, r) of a state, joint action and position."""
    advantages = evaluate(game, old).advantages

    def ratio(agent, state, actions):
        return new[agent][state, actions[agent]] / old[agent][state, actions[agent]]

    def factor(state, actions, position):
        preceding = np.prod([ratio(agent, state, actions) for agent in order[:position]])
        return preceding * advantages[(state, *actions)], ratio(order[position], state, actions)

    return factor


def test_surrogates_are_their_equations(problem):
    game, old, new, order = problem
    factor = written_out(game, old, new, order)

    def hatrpo(state, actions, position):
        m, r = factor(state, actions, position)
        return (r - 1.0) * m

    def happo(state, actions, position):
        m, r = factor(state, actions, position)
        return min(r * m, min(max(r, 0.9), 1.1) * m)

    np.testing.assert_allclose(
        hatrpo_surrogate(game, old, new, order), expectation(game, old, order, hatrpo), atol=1e-12
    )
    found = happo_surrogate(game, old, new, order, clip_epsilon=0.1)
    np.testing.assert_allclose(found, expectation(game, old, order, happo), atol=1e-12)


def test_m_is_the_preceding_ratio_times_the_advantage(problem):
    game, old, new, order = problem
    factor = written_out(game, old, new, order)
    for position in range(3):
        found = m_factor(game, old, new, order[:position])
        for state, *actions in itertools.product(range(game.n_states), *map(range, game.n_actions)):
            assert found[(state, *actions)] == pytest.approx(factor(state, actions, position)[0], abs=1e-12)


def test_the_surrogate_is_the_expected_multi_agent_advantage(problem):
    """E[(r − 1)·M] = Σ_s ρ(s)·E[A^{im}(s, a^{i1:m−1}, a^{im})] under the new policies, and the sum telescopes."""
    game, old, new, order = problem
    evaluation = evaluate(game, old)
    found = hatrpo_surrogate(game, old, new, order)
    for position, agent in enumerate(order):
        advantage = multi_agent_advantage(game, old, order[:position], [agent])
        for acting in order[: position + 1]:
            advantage = np.einsum("sa...,sa->s...", advantage, new[acting])
        assert found[position] == pytest.approx(evaluation.visitation @ advantage, abs=1e-12)
    total = evaluation.advantages
    for policy in new:
        total = np.einsum("sa...,sa->s...", total, policy)
    assert found.sum() == pytest.approx(evaluation.visitation @ total, abs=1e-12)


def test_a_wide_clip_leaves_the_plain_surrogate_and_old_policies_leave_nothing(problem):
    game, old, new, order = problem
    plain = hatrpo_surrogate(game, old, new, order)
    # min(r·M, clip(r)·M) = r·M where nothing is clipped, and E[M] is what the predecessors have gained already.
    wide = happo_surrogate(game, old, new, order, clip_epsilon=1e12)
    np.testing.assert_allclose(wide, np.cumsum(plain), atol=1e-12)
    np.testing.assert_allclose(happo_surrogate(game, old, old, order), 0.0, atol=1e-12)
    np.testing.assert_allclose(hatrpo_surrogate(game, old, old, order), 0.0, atol=1e-12)


def test_states_can_have_the_weights_that_were_sampled(problem):
    game, old, new, order = problem
    visitation = evaluate(game, old).visitation
    each = [hatrpo_surrogate(game, old, new, order, state_weights=row) for row in np.eye(game.n_states)]
    np.testing.assert_allclose(visitation @ np.array(each), hatrpo_surrogate(game, old, new, order), atol=1e-12)


def test_actions_that_are_never_sampled_do_not_count():
    game = random_game(2, 1, 2, 0.0, seed=0)
    old = (np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    new = (np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]))
    assert (m_factor(game, old, new, [0])[0, 1] == 0.0).all()
    assert np.isfinite(hatrpo_surrogate(game, old, new, (0, 1))).all()
