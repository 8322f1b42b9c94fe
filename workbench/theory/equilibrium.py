"""Best responses, the Nash gap, and the best that a team could do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.theory.evaluation import average_over_others, evaluate_checked
from workbench.theory.games import Agent, TabularGame
from workbench.theory.policies import Policies, PoliciesLike, check_floor, check_game, check_policies
from workbench.theory.validation import FloatArray

_SWEEPS = 1_000  # policy iteration takes a handful; no finite process takes more than its number of policies


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best of a class of joint policies.

    objective    J of ``policies``
    policies     one array (S, Ai) for every agent, as every function of the theory takes them
    upper_bound  proven: no policy of the class has a higher J
    """

    objective: float
    policies: Policies
    upper_bound: float

    def __repr__(self) -> str:
        gap = max(self.upper_bound - self.objective, 0.0)
        return f"Optimum(objective={self.objective:.10g}, proven to within {gap:.1g})"


def best_response(game: TabularGame, policies: PoliciesLike, agent: Agent, floor: float = 0.0) -> Optimum:
    """max over πⁱ of J(πⁱ, π^{−i}), by policy iteration on the decision process that the other agents leave to agent i.

    floor  η: the response keeps every action's probability at or above it

    ``Optimum.policies`` are the policies given with the agent's own replaced by its best response.
    """
    return _best_response(game, check_policies(game, policies), game.agent_index(agent), check_floor(game, floor))


def nash_gap(game: TabularGame, policies: PoliciesLike, floor: float = 0.0) -> float:
    """maxᵢ max over πⁱ of J(πⁱ, π^{−i}) − J(π): what the agent with most to gain gains by deviating alone.

    floor  η: deviations are over all policies (0), or over those that keep every action's probability at η or above.
           Where a policy given is itself below η, the gap over η-soft deviations can be negative

    0 means that the policies are a Nash equilibrium (an equilibrium among η-soft policies where ``floor`` is η).

    >>> from workbench.theory import deterministic_policies, simultaneous_game
    >>> game = simultaneous_game()
    >>> [nash_gap(game, deterministic_policies(game, actions)) for actions in ((0, 1), (0, 0), (1, 1))]
    [0.0, 2.0, 3.0]
    """
    checked, floor = check_policies(game, policies), check_floor(game, floor)
    objective = evaluate_checked(game, checked).objective
    best = max(_best_response(game, checked, agent, floor).objective for agent in range(game.n_agents))
    return best - objective


def best_joint_policy(game: TabularGame) -> Optimum:
    """J* = max over joint policies of J: policy iteration on joint actions. A deterministic team reaches it.

    >>> from workbench.theory import sharing_game
    >>> best_joint_policy(sharing_game(4)).objective
    1.0
    """
    check_game(game)
    n_states = game.n_states
    reward = game.reward.reshape(n_states, -1)
    transition = game.transition.reshape(n_states, -1, n_states)
    chosen, objective = _policy_iteration(reward, transition, game, 0.0)
    actions = np.stack(np.unravel_index(chosen.argmax(axis=1), game.n_actions), axis=1)
    policies = tuple(np.eye(k)[actions[:, agent]] for agent, k in enumerate(game.n_actions))
    return Optimum(objective, policies, objective)


def _best_response(game: TabularGame, policies: Policies, agent: int, floor: float) -> Optimum:
    reward = average_over_others(game.reward, policies, (agent,))
    transition = average_over_others(game.transition, policies, (agent,))
    response, objective = _policy_iteration(reward, transition, game, floor)
    replaced = (*policies[:agent], response, *policies[agent + 1 :])
    return Optimum(objective, replaced, objective)


def _policy_iteration(
    reward: FloatArray, transition: FloatArray, game: TabularGame, floor: float
) -> tuple[FloatArray, float]:
    """The best η-soft policy (S, A) of one decision maker with (S, A) rewards and (S, A, S) transitions, and its J."""
    n_states, n_actions = reward.shape
    states = np.arange(n_states)
    chosen = reward.argmax(axis=1)
    for _ in range(_SWEEPS):
        policy = np.full((n_states, n_actions), floor)
        policy[states, chosen] = 1.0 - floor * (n_actions - 1)
        system = np.eye(n_states) - game.discount * np.einsum("sa,sat->st", policy, transition)
        values = np.linalg.solve(system, (policy * reward).sum(axis=1))
        action_values = reward + game.discount * (transition @ values)
        # A choice changes only where the gain is more than rounding, so that ties cannot go round in circles.
        rounding = 1e-13 * (1.0 + np.abs(action_values).max())
        better = action_values.max(axis=1) > action_values[states, chosen] + rounding
        if not better.any():
            break
        chosen = np.where(better, action_values.argmax(axis=1), chosen)
    return policy, float(game.initial @ values)
