"""M and the surrogates of HAPPO and HATRPO on a tabular game, exactly: what sampled ones are held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workbench.theory.evaluation import Evaluation, evaluate_checked, evaluation_of, joint_policy
from workbench.theory.games import Agent, TabularGame
from workbench.theory.policies import PoliciesLike, check_policies
from workbench.theory.validation import FloatArray, float_array, real_number


def m_factor(
    game: TabularGame,
    policies: PoliciesLike,
    new_policies: PoliciesLike,
    preceding: Sequence[Agent] | Agent,
    *,
    evaluation: Evaluation | None = None,
) -> FloatArray:
    """M(s, a) = Π_j π_new^j(a^j|s)/π^j(a^j|s) · A_π(s, a) over the agents j that have been updated. (S, A1, …, An).

    preceding   the agents updated so far, in any order; with none, M = A_π
    evaluation  what ``evaluate(game, policies)`` returned, where it is at hand

    Where π^j(a^j|s) = 0 the action is never sampled, and M is 0 there. Source: Kuba et al., ICLR 2022, proposition 4.
    """
    old, new = check_policies(game, policies), check_policies(game, new_policies, "new_policies")
    factor = evaluation_of(game, old, evaluation).advantages
    for agent in game.agent_indices(preceding):
        factor = factor * _along(_ratio(old[agent], new[agent]), agent, game.n_agents)
    return factor


def hatrpo_surrogate(
    game: TabularGame,
    policies: PoliciesLike,
    new_policies: PoliciesLike,
    order: Sequence[Agent],
    *,
    state_weights: npt.ArrayLike | None = None,
) -> FloatArray:
    """L_m = E[(r_m − 1)·M^{i1:m}], r_m = π_new^{im}/π^{im}, for every position m of the order: (n,) float64.

    The expectation is over a ~ π and over states weighted by ρ, or by ``state_weights`` (S,) where given: sampled
    states follow their own frequencies. For policies that give every action some probability, L_m = Σ_s ρ(s)·E[A^{im}]
    under the new policies of i1, …, im, the surrogate of Algorithm 1, and Σₘ L_m = Σ_s ρ(s)·E_{a ~ π_new}[A_π(s, a)].
    """
    return _surrogates(game, policies, new_policies, order, state_weights, clip_epsilon=None)


def happo_surrogate(
    game: TabularGame,
    policies: PoliciesLike,
    new_policies: PoliciesLike,
    order: Sequence[Agent],
    clip_epsilon: float = 0.2,
    *,
    state_weights: npt.ArrayLike | None = None,
) -> FloatArray:
    """L_m = E[min(r_m·M^{i1:m}, clip(r_m, 1 ± ε)·M^{i1:m})] for every position m of the order: (n,) float64.

    The expectation is as in ``hatrpo_surrogate``. At π_new = π it is E[M] = 0 for the first agent and so for all.
    """
    epsilon = real_number("clip_epsilon", clip_epsilon, "a number above 0")
    if not epsilon > 0.0:
        raise ValueError(f"clip_epsilon is {epsilon:g}, expected a number above 0.")
    return _surrogates(game, policies, new_policies, order, state_weights, clip_epsilon=epsilon)


def _surrogates(
    game: TabularGame,
    policies: PoliciesLike,
    new_policies: PoliciesLike,
    order: Sequence[Agent],
    state_weights: npt.ArrayLike | None,
    clip_epsilon: float | None,
) -> FloatArray:
    old, new = check_policies(game, policies), check_policies(game, new_policies, "new_policies")
    agents = game.agent_indices(order)
    evaluation = evaluate_checked(game, old)
    weights = evaluation.visitation if state_weights is None else _check_weights(game, state_weights)
    measure = weights.reshape(-1, *(1,) * game.n_agents) * joint_policy(old)
    factor, surrogates = evaluation.advantages, np.zeros(len(agents))
    for position, agent in enumerate(agents):
        ratio = _along(_ratio(old[agent], new[agent]), agent, game.n_agents)
        if clip_epsilon is None:
            term = (ratio - 1.0) * factor
        else:
            term = np.minimum(ratio * factor, np.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon) * factor)
        surrogates[position] = (measure * term).sum()
        factor = factor * ratio
    return surrogates


def _check_weights(game: TabularGame, state_weights: npt.ArrayLike) -> FloatArray:
    weights = float_array("state_weights", state_weights)
    if weights.shape != (game.n_states,) or weights.min() < 0.0:
        raise ValueError(f"state_weights is {weights}, expected {game.n_states} finite numbers, none of them negative.")
    return weights


def _ratio(old: FloatArray, new: FloatArray) -> FloatArray:
    return np.divide(new, old, out=np.zeros_like(old), where=old > 0.0)


def _along(ratio: FloatArray, agent: int, n_agents: int) -> FloatArray:
    """An (S, Ai) array with axes that broadcast against (S, A1, …, An)."""
    return ratio.reshape(ratio.shape[0], *(ratio.shape[1] if j == agent else 1 for j in range(n_agents)))
