"""Policies of a tabular game: what they look like, how they are checked, and a few to start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from workbench.theory.games import SUM_TOLERANCE, TabularGame
from workbench.theory.validation import FloatArray, Seed, generator_of, real_number, short

Policies = tuple[FloatArray, ...]
PoliciesLike = Sequence[npt.ArrayLike]


class PolicyHistory(tuple[Policies, ...]):
    """The policies after every iteration, ``history[k][i]`` being agent i's (S, Ai) after k iterations.

    Where a function expects policies, a history stands for its last. The last is also kept as logarithms
    (``last_logs``), so that a run goes on exactly where probabilities have become too small for a float64.
    """

    last_logs: Policies

    def __new__(cls, policies: Iterable[Policies], last_logs: Policies | None = None) -> PolicyHistory:
        history = super().__new__(cls, policies)
        if last_logs is None:
            with np.errstate(divide="ignore"):
                last_logs = tuple(np.log(policy) for policy in history[-1])
        history.last_logs = last_logs
        return history


def check_game(game: object, hint: str = ", such as wb.theory.sharing_game(4)") -> None:
    """``TypeError`` for what is no game."""
    if not isinstance(game, TabularGame):
        raise TypeError(f"game is {short(game)}, expected a TabularGame{hint}.")


def check_policies(game: TabularGame, policies: PoliciesLike, name: str = "policies") -> Policies:
    """One float64 array (S, Ai) of probabilities per agent; else ``ValueError`` says whose is not, and why."""
    check_game(game, ": it comes first, the policies after it")
    given = policies[-1] if isinstance(policies, PolicyHistory) else policies
    if not isinstance(given, Sequence | np.ndarray) or isinstance(given, str):
        raise ValueError(
            f"{name} is {short(given)}, expected {game.n_agents} arrays (S, Ai), one for every agent; those of a trace "
            "are trace.policies."
        )
    if len(given) != game.n_agents:
        raise ValueError(
            f"{name} has {len(given)} entries, expected {game.n_agents}: one array (S, Ai) for every agent of {game}."
        )
    return tuple(_check_policy(game, i, policy, f"{name}[{i}]") for i, policy in enumerate(given))


def _check_policy(game: TabularGame, agent: int, policy: npt.ArrayLike, name: str) -> FloatArray:
    shape = (game.n_states, game.n_actions[agent])
    try:
        array = np.asarray(policy, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as an array of numbers ({error}), expected shape {shape}.") from error
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}: (states, actions of agent {agent}).")
    sums = array.sum(axis=1)
    # Written so that NaN fails as well.
    wrong = ~((np.abs(sums - 1.0) <= SUM_TOLERANCE) & (array.min(axis=1) >= 0.0))
    if wrong.any():
        state = int(np.flatnonzero(wrong)[0])
        row = np.array2string(array[state], threshold=8, precision=6)
        raise ValueError(f"{name}[{state}] is {row}, expected probabilities: none negative, their sum 1.")
    return array


def check_floor(game: TabularGame, floor: float) -> float:
    """η as a float: at least 0, and small enough that every agent keeps a choice (η·Ai < 1, or Ai = 1)."""
    return _check_floor(floor, max(game.n_actions))


def _check_floor(floor: float, widest: int) -> float:
    value = real_number("floor", floor, f"a number with 0 <= floor < 1/{widest}")
    if not 0.0 <= value * widest < 1.0:
        raise ValueError(
            f"floor is {value:g}, expected 0 <= floor < 1/{widest}: each of an agent's up to {widest} actions keeps "
            "at least this probability."
        )
    return value


def raise_to_floor(policy: FloatArray, floor: float) -> FloatArray:
    """The η-soft policy p nearest to q, argmin KL(q(·|s) ‖ p(·|s)) over p ≥ η: p = max(η, q/α), α so that Σp = 1."""
    policy = np.asarray(policy, dtype=np.float64)
    floor = _check_floor(floor, policy.shape[1])
    raised = np.zeros(policy.shape, dtype=bool)
    for _ in range(policy.shape[1]):
        scale = (1.0 - floor * raised.sum(axis=1)) / np.where(raised, 0.0, policy).sum(axis=1)
        low = ~raised & (policy * scale[:, None] < floor)
        if not low.any():
            break
        raised |= low
    return np.where(raised, floor, policy * scale[:, None])


def uniform_policies(game: TabularGame) -> Policies:
    """Every action of every agent equally likely in every state."""
    check_game(game)
    return tuple(np.full((game.n_states, k), 1.0 / k) for k in game.n_actions)


def random_policies(game: TabularGame, seed: Seed = 0, concentration: float = 1.0) -> Policies:
    """Each π(·|s) drawn from a symmetric Dirichlet distribution; a low ``concentration`` gives extreme ones."""
    check_game(game)
    concentration, rng = check_concentration(concentration), generator_of(seed)
    return tuple(rng.dirichlet(np.full(k, concentration), size=game.n_states) for k in game.n_actions)


def check_concentration(concentration: float) -> float:
    """α of a symmetric Dirichlet distribution as a float: above 0 and finite."""
    value = real_number("concentration", concentration, "a number above 0")
    if not 0.0 < value < np.inf:
        raise ValueError(f"concentration is {value:g}, expected a number above 0.")
    return value


def deterministic_policies(game: TabularGame, actions: Sequence[npt.ArrayLike]) -> Policies:
    """Policies that always take ``actions[i]``: for each agent one action, or (S,) of them, one for every state.

    >>> from workbench.theory import simultaneous_game
    >>> deterministic_policies(simultaneous_game(), (0, 1))
    (array([[1., 0.]]), array([[0., 1.]]))
    """
    check_game(game)
    if not isinstance(actions, Sequence | np.ndarray):
        raise ValueError(f"actions is {short(actions)}, expected {game.n_agents} entries: one for every agent.")
    if len(actions) != game.n_agents:
        raise ValueError(f"actions has {len(actions)} entries, expected {game.n_agents}: one for every agent.")
    policies = []
    for agent, (chosen, k) in enumerate(zip(actions, game.n_actions, strict=True)):
        indices = np.asarray(chosen)
        if indices.dtype.kind not in "iu" or indices.shape not in ((), (game.n_states,)):
            raise ValueError(f"actions[{agent}] is {chosen!r}, expected one integer or one for each of the states.")
        if indices.min() < 0 or indices.max() >= k:
            raise ValueError(f"actions[{agent}] is {chosen!r}, expected actions from 0 to {k - 1}.")
        policies.append(np.eye(k)[np.broadcast_to(indices, game.n_states)])
    return tuple(policies)
