"""Exact values, advantages and visitation, and the multi-agent Q and A that the lemma decomposes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.theory.games import Agent, TabularGame
from workbench.theory.policies import Policies, PoliciesLike, check_policies
from workbench.theory.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What joint policy π is worth in a game, exactly.

    objective      J = E[Σ γᵗ r(sₜ, aₜ)], with s₀ ~ d
    values         (S,) V(s), the same from state s
    action_values  (S, A1, …, An) Q(s, a), with a taken first
    advantages     (S, A1, …, An) A(s, a) = Q(s, a) − V(s)
    visitation     (S,) ρ(s) = Σ γᵗ P(sₜ = s), not normalised: it sums to 1/(1 − γ)
    """

    objective: float
    values: FloatArray
    action_values: FloatArray
    advantages: FloatArray
    visitation: FloatArray

    def __repr__(self) -> str:
        return f"Evaluation(objective={self.objective:.10g}, action_values of shape {self.action_values.shape})"


def joint_policy(policies: Policies) -> FloatArray:
    """π(a|s) = Πᵢ πⁱ(aⁱ|s), shape (S, A1, …, An)."""
    n_states = policies[0].shape[0]
    joint = np.ones((n_states, 1))
    for policy in policies:
        joint = (joint[:, :, None] * policy[:, None, :]).reshape(n_states, -1)
    return joint.reshape(n_states, *(policy.shape[1] for policy in policies))


def evaluate(game: TabularGame, policies: PoliciesLike) -> Evaluation:
    """V = (I − γP_π)⁻¹ r_π, Q = r + γPV, A = Q − V, ρ = (I − γP_π)⁻ᵀ d, J = d·V, by linear solves.

    policies  one array (S, Ai) of probabilities for every agent

    The transition tensor is read twice and never copied. Raises ``ValueError`` for policies that do not fit the game.

    >>> from workbench.theory import simultaneous_game, uniform_policies
    >>> game = simultaneous_game()
    >>> evaluate(game, uniform_policies(game)).objective
    0.75
    """
    return evaluate_checked(game, check_policies(game, policies))


def evaluate_checked(game: TabularGame, policies: Policies) -> Evaluation:
    """``evaluate`` for policies that have been checked already."""
    n_states = game.n_states
    weights = joint_policy(policies).reshape(n_states, 1, -1)
    rewards = (weights[:, 0] * game.reward.reshape(n_states, -1)).sum(axis=1)
    transitions = np.matmul(weights, game.transition.reshape(n_states, -1, n_states))[:, 0]
    system = np.eye(n_states) - game.discount * transitions
    values = np.linalg.solve(system, rewards)
    # The inverse has no negative entry; rounding may leave a state that is never visited at −1e-20.
    visitation = np.maximum(np.linalg.solve(system.T, game.initial), 0.0)
    action_values = game.reward + game.discount * (game.transition @ values)
    return Evaluation(
        objective=float(game.initial @ values),
        values=values,
        action_values=action_values,
        advantages=action_values - values.reshape(-1, *(1,) * game.n_agents),
        visitation=visitation,
    )


def average_over_others(tensor: FloatArray, policies: Policies, keep: Collection[int]) -> FloatArray:
    """E[f(s, a)] over the actions of the agents that are not in ``keep``; those kept stay axes, in ascending order.

    ``tensor`` is (S, A1, …, An), with any further axes behind, which stay.
    """
    averaged = tensor
    # From the last agent to the first, so that the axes of agents still to come keep their places.
    for agent in reversed(range(len(policies))):
        if agent not in keep:
            shape = averaged.shape
            before, after = math.prod(shape[1 : agent + 1]), math.prod(shape[agent + 2 :])
            blocks = averaged.reshape(shape[0], before, shape[agent + 1], after)
            averaged = np.einsum("sbax,sa->sbx", blocks, policies[agent])
            averaged = averaged.reshape(*shape[: agent + 1], *shape[agent + 2 :])
    return averaged


def multi_agent_action_value(
    game: TabularGame, policies: PoliciesLike, agents: Sequence[Agent] | Agent, *, evaluation: Evaluation | None = None
) -> FloatArray:
    """Q^{i1:m}(s, a^{i1:m}) = E[Q(s, a)] over the actions of all agents but i1, …, im.

    agents      the agents whose actions are given, by index or name; none leaves V(s), all leave Q(s, a)
    evaluation  what ``evaluate(game, policies)`` returned, where it is at hand

    Returns an array (S, A_i1, …, A_im), its axes in the order of ``agents``. Source: Kuba et al., Trust Region Policy
    Optimisation in Multi-Agent Reinforcement Learning, ICLR 2022, definition 1.
    """
    return _action_value(game, *_inputs(game, policies, evaluation), game.agent_indices(agents))


def multi_agent_advantage(
    game: TabularGame,
    policies: PoliciesLike,
    given: Sequence[Agent] | Agent,
    agents: Sequence[Agent] | Agent,
    *,
    evaluation: Evaluation | None = None,
) -> FloatArray:
    """A^{i1:m}(s, a^{j1:k}, a^{i1:m}) = Q^{j1:k,i1:m}(s, a^{j1:k}, a^{i1:m}) − Q^{j1:k}(s, a^{j1:k}).

    given       j1, …, jk, the agents who have acted
    agents      i1, …, im, the agents whose choice is held against the others' average; none of them in ``given``
    evaluation  what ``evaluate(game, policies)`` returned, where it is at hand

    Returns an array (S, A_j1, …, A_jk, A_i1, …, A_im). The lemma says that for every order i1, …, in of all agents
    A^{i1:n}(s, a) = Σₘ A^{im}(s, a^{i1:m−1}, a^{im}). Source: Kuba et al., ICLR 2022, definition 1 and lemma 1.

    >>> from workbench.theory import simultaneous_game, uniform_policies
    >>> game = simultaneous_game()
    >>> multi_agent_advantage(game, uniform_policies(game), given=[0], agents=[1])
    array([[[-1. ,  1. ],
            [ 1.5, -1.5]]])
    """
    before, after = game.agent_indices(given), game.agent_indices(agents)
    if shared := set(before) & set(after):
        raise ValueError(f"agents {sorted(shared)} are in given and in agents; an agent can be in one of them only.")
    inputs = _inputs(game, policies, evaluation)
    baseline = _action_value(game, *inputs, before)
    return _action_value(game, *inputs, (*before, *after)) - baseline.reshape(*baseline.shape, *(1,) * len(after))


def _inputs(game: TabularGame, policies: PoliciesLike, evaluation: Evaluation | None) -> tuple[Policies, FloatArray]:
    checked = check_policies(game, policies)
    return checked, evaluation_of(game, checked, evaluation).action_values


def evaluation_of(game: TabularGame, policies: Policies, at_hand: Evaluation | None) -> Evaluation:
    """The evaluation at hand, if it is of this game's shape; a fresh one where there is none."""
    if at_hand is not None and at_hand.action_values.shape != game.reward.shape:
        raise ValueError(
            f"evaluation has action values of shape {at_hand.action_values.shape}, expected {game.reward.shape}: it is "
            "of another game. Leave it out, or pass what evaluate(game, policies) returned."
        )
    return at_hand or evaluate_checked(game, policies)


def _action_value(game: TabularGame, policies: Policies, values: FloatArray, agents: tuple[int, ...]) -> FloatArray:
    averaged = average_over_others(values, policies, agents)
    kept = sorted(agents)
    return averaged.transpose(0, *(1 + kept.index(agent) for agent in agents))
