"""Algorithm 1: monotonic improvement with exact advantages, agent after agent; and what goes wrong all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.theory.evaluation import Evaluation, average_over_others, evaluate_checked
from workbench.theory.games import Agent, TabularGame
from workbench.theory.penalised_step import best_penalised_step, normalise_logs
from workbench.theory.policies import (
    Policies,
    PoliciesLike,
    PolicyHistory,
    check_floor,
    check_game,
    check_policies,
    raise_to_floor,
)
from workbench.theory.validation import FloatArray, generator_of, integer_of, short

Orders = Sequence[Agent] | Sequence[Sequence[Agent]]
_TIE = 64.0 * np.finfo(np.float64).eps  # of the largest |Q|: gains this close differ by rounding only


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened, iteration by iteration. Position m of a row belongs to agent ``orders[k, m]``.

    objectives  (iterations + 1,) J before the first iteration and after each
    policies    iterations + 1 joint policies, ``policies[k][i]`` being agent i's (S, Ai); where a function expects
                policies, all of them together stand for the last
    orders      (iterations, n) int, the permutation i1, …, in of each iteration
    penalties   (iterations,) C = 4γ·max|A| / (1 − γ)²
    kls         (iterations, n) D^max_KL(πᵏ ‖ πᵏ⁺¹) of each agent's step
    gains       (iterations, n) Σ_s ρ(s)·E[A^{im}(s, a^{i1:m−1}, a^{im})] of each agent's step, before the penalty
    """

    objectives: FloatArray
    policies: PolicyHistory
    orders: npt.NDArray[np.intp]
    penalties: FloatArray
    kls: FloatArray
    gains: FloatArray

    def __repr__(self) -> str:
        iterations = len(self.penalties)
        return f"Trace({iterations} iterations, objective {self.objectives[0]:.6g} → {self.objectives[-1]:.6g})"


def penalty_coefficient(game: TabularGame, evaluation: Evaluation) -> float:
    """C = 4γ·max|A_π(s, a)| / (1 − γ)², the weight of the KL divergence that makes every iteration an improvement."""
    largest = float(np.abs(evaluation.advantages).max())
    return 4.0 * game.discount * largest / (1.0 - game.discount) ** 2


def algorithm1(
    game: TabularGame,
    policies: PoliciesLike,
    iterations: int = 100,
    seed: int = 0,
    floor: float = 1e-3,
    *,
    orders: Orders | None = None,
    log_space: bool = False,
) -> Trace:
    """π^{im} ← argmax_π Σ_s ρ(s)·E[A^{im}(s, a^{i1:m−1}, a^{im})] − C·D^max_KL(πᵏ ‖ π), for m = 1, …, n in turn.

    The expectation is over a^{i1:m−1} from the predecessors' *new* policies and a^{im} from π; C = 4γ·max|A|/(1−γ)²
    and ρ belong to the joint policy at the start of the iteration. Each step is solved to optimality, J never falls,
    and with γ = 0 (so C = 0) it is sequential best response.

    policies    one array (S, Ai) of probabilities for every agent; a trace's policies go on where it ended
    iterations  each of them updates every agent once
    seed        of the random permutations
    floor       η: every action keeps at least this probability. Policies below are first raised to the nearest η-soft
                ones, and ``objectives[0]`` is theirs
    orders      a permutation of the agents, by index or name, for all iterations, or one for each; None draws a random
                one each time
    log_space   ``policies`` holds log-probabilities, which may be below what a float64 probability can be

    The theorem, and with it the limit at a Nash equilibrium, is stated for η-soft policies, and the floor is no
    formality. With η = 0 a deterministic policy that is *not* an equilibrium is a fixed point wherever ρ·A < C: leaving
    it costs C·KL, whose slope is 1, not 0, at an action of probability 0. Runs that come near one linger.

    Source: Kuba et al., Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning, ICLR 2022, algorithm 1,
    theorems 2 and 3.

    >>> from workbench.theory import simultaneous_game, uniform_policies
    >>> game = simultaneous_game()
    >>> algorithm1(game, uniform_policies(game), iterations=2, floor=0.0)
    Trace(2 iterations, objective 0.75 → 2)
    """
    plan = _plan_orders(game, iterations, seed, orders)
    return _run(game, policies, plan, floor, log_space, sequential=True)


def simultaneous_update(
    game: TabularGame, policies: PoliciesLike, iterations: int = 1, floor: float = 0.0, *, log_space: bool = False
) -> Trace:
    """Algorithm 1 without its sequence: every agent's step takes the others' *old* policies. J can fall.

    Arguments and trace are those of ``algorithm1``; there is no order, so ``orders`` counts from 0 to n − 1.

    >>> from workbench.theory import simultaneous_game
    >>> simultaneous_update(simultaneous_game(), ([[0.7, 0.3]], [[0.7, 0.3]])).objectives
    array([ 0.75, -1.  ])
    """
    plan = _plan_orders(game, iterations, 0, range(game.n_agents))
    return _run(game, policies, plan, floor, log_space, sequential=False)


def _run(
    game: TabularGame,
    policies: PoliciesLike,
    orders: npt.NDArray[np.intp],
    floor: float,
    log_space: bool,
    *,
    sequential: bool,
) -> Trace:
    floor = check_floor(game, floor)
    logs = _start(game, policies, floor, log_space)
    history = [tuple(np.exp(log) for log in logs)]
    evaluation = evaluate_checked(game, history[0])
    objectives, penalties = [evaluation.objective], np.zeros(len(orders))
    kls, gains = np.zeros(orders.shape), np.zeros(orders.shape)
    for k, order in enumerate(orders):
        penalties[k] = penalty_coefficient(game, evaluation)
        steps = _iteration(evaluation, logs, order, float(penalties[k]), floor, sequential)
        for m, (agent, log, gain) in enumerate(steps):
            kls[k, m] = _largest_kl(logs[agent], log)
            gains[k, m] = gain
            logs = (*logs[:agent], log, *logs[agent + 1 :])
        history.append(tuple(np.exp(log) for log in logs))
        evaluation = evaluate_checked(game, history[-1])
        objectives.append(evaluation.objective)
    return Trace(np.array(objectives), PolicyHistory(history, logs), orders, penalties, kls, gains)


def _iteration(
    evaluation: Evaluation, logs: Policies, order: npt.NDArray[np.intp], penalty: float, floor: float, sequential: bool
) -> Iterator[tuple[int, FloatArray, float]]:
    """Each agent's new log-policy and the surrogate it gained, in turn."""
    current = [np.exp(log) for log in logs]
    others = list(current)
    tie = _TIE * float(np.abs(evaluation.action_values).max())
    for agent in map(int, order):
        gains = average_over_others(evaluation.advantages, tuple(others), (agent,))
        log = best_penalised_step(logs[agent], gains, evaluation.visitation, penalty, floor, tie)
        updated = np.exp(log)
        gain = float(evaluation.visitation @ ((updated - current[agent]) * gains).sum(axis=1))
        if sequential:
            others[agent] = updated
        yield agent, log, gain


def _largest_kl(log_q: FloatArray, log_p: FloatArray) -> float:
    """max over states of KL(q ‖ p), as Σ q·(p/q − 1 − log(p/q)), whose terms are none of them negative."""
    with np.errstate(invalid="ignore", over="ignore"):
        log_ratio = np.where(np.isneginf(log_q), 0.0, log_p - log_q)
        terms = np.exp(log_q) * (np.expm1(log_ratio) - log_ratio)
        # Actions that q never takes enter Σ(p − q) = 0 with p alone.
        unseen = np.where(np.isneginf(log_q), np.exp(log_p), 0.0)
    return float((terms + unseen).sum(axis=1).max())


def _start(game: TabularGame, policies: PoliciesLike, floor: float, log_space: bool) -> Policies:
    """Checked log-policies, raised to the floor."""
    logs: Sequence[npt.ArrayLike] | None = None
    if isinstance(policies, PolicyHistory) and not log_space:
        logs = policies.last_logs
    elif log_space:
        logs = policies
    if logs is None:
        checked = check_policies(game, policies)
    else:
        try:
            arrays = [np.asarray(log, dtype=np.float64) for log in logs]
        except (TypeError, ValueError) as error:
            raise ValueError(f"policies cannot be read as arrays of log-probabilities ({error}).") from None
        checked = check_policies(game, [np.exp(log) for log in arrays], "exp(policies)")
    if floor > 0.0:
        return tuple(np.log(raise_to_floor(policy, floor)) for policy in checked)
    with np.errstate(divide="ignore"):
        exact = [np.log(policy) for policy in checked] if logs is None else arrays
    return tuple(normalise_logs(log) for log in exact)


def _plan_orders(game: TabularGame, iterations: int, seed: int, orders: Orders | None) -> npt.NDArray[np.intp]:
    """(iterations, n), every row a permutation of the agents."""
    check_game(game)
    shape = (integer_of("iterations", iterations, 0), game.n_agents)
    if orders is None:
        rng = generator_of(seed)
        return np.array([rng.permutation(game.n_agents) for _ in range(iterations)], dtype=np.intp).reshape(shape)
    if isinstance(orders, str) or not isinstance(orders, Sequence | np.ndarray):
        raise ValueError(f"orders holds {short(orders)}, expected permutations of the agents.")
    one_for_all = all(isinstance(each, str) or np.ndim(np.asarray(each, object)) == 0 for each in orders)
    rows: Sequence[Any] = [orders] * shape[0] if one_for_all else orders
    if len(rows) != shape[0]:
        raise ValueError(
            f"orders has {len(rows)} rows, expected one permutation of the agents for all iterations, or one for each "
            f"of {shape[0]}."
        )
    return np.array([_permutation(game, row) for row in rows], dtype=np.intp).reshape(shape)


def _permutation(game: TabularGame, row: Sequence[Agent]) -> tuple[int, ...]:
    """All agents of the game, each once, given by index or by name."""
    try:
        indices = game.agent_indices(row)
    except ValueError as error:
        raise ValueError(f"orders holds {short(row)}: {error}") from None
    if len(indices) < game.n_agents:
        raise ValueError(f"orders holds {short(row)}, expected every agent from 0 to {game.n_agents - 1} just once.")
    return indices
