"""Cooperative Markov games small enough to be written out in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from workbench.errors import unknown_name
from workbench.theory.validation import FloatArray, float_array, real_number, short

Agent = SupportsIndex | str

SUM_TOLERANCE = 1e-9  # how far a distribution handed in may be from summing to 1


@dataclass(frozen=True, eq=False, repr=False)
class TabularGame:
    """⟨N, S, A¹×…×Aⁿ, P, r, d, γ⟩: n agents, one joint reward r(s, a), next state s' ~ P(·|s, a), first state s ~ d.

    reward      (S, A1, …, An) float64, the joint reward; agents may have different numbers of actions
    transition  (S, A1, …, An, S) float64, the probability of each next state
    initial     (S,) float64, the distribution of the first state
    discount    γ, 0 ≤ γ < 1
    name        what figures and tables call it

    The arrays are copied, checked once, and can no longer be written to. A game ends in an absorbing state: one that is
    never left and whose reward is 0 (``absorbing``). Raises ``ValueError`` naming the argument, its value and the
    remedy where shapes disagree, a number is not finite, or probabilities do not make distributions.

    >>> reward = [[[0.0, 2.0], [2.0, -1.0]]]
    >>> game = TabularGame(reward, np.ones((1, 2, 2, 1)), initial=[1.0], discount=0.0)
    >>> game
    TabularGame(2 agents, 1 state, actions (2, 2), discount 0)
    """

    reward: FloatArray
    transition: FloatArray
    initial: FloatArray
    discount: float
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        reward = float_array("reward", self.reward)
        if reward.ndim < 2 or 0 in reward.shape:
            raise ValueError(
                f"reward has shape {reward.shape}, expected (S, A1, ..., An): one axis for the state and one for every "
                "agent, none of them empty. A one-state game needs a leading axis of length 1."
            )
        transition = float_array("transition", self.transition)
        if transition.shape != (*reward.shape, reward.shape[0]):
            raise ValueError(
                f"transition has shape {transition.shape}, expected {(*reward.shape, reward.shape[0])}: reward's shape "
                f"{reward.shape} and one more axis for the next state."
            )
        _check_distributions("transition", transition)
        initial = float_array("initial", self.initial)
        if initial.shape != reward.shape[:1]:
            raise ValueError(
                f"initial has shape {initial.shape}, expected {reward.shape[:1]}: one probability per state."
            )
        _check_distributions("initial", initial)
        for name, array in (("reward", reward), ("transition", transition), ("initial", initial)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "discount", _check_discount(self.discount))
        object.__setattr__(self, "name", str(self.name))

    @property
    def n_states(self) -> int:
        """S, the number of states."""
        return int(self.reward.shape[0])

    @property
    def n_agents(self) -> int:
        """n, the number of agents."""
        return self.reward.ndim - 1

    @property
    def n_actions(self) -> tuple[int, ...]:
        """(A1, …, An), each agent's number of actions."""
        return tuple(self.reward.shape[1:])

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents' names, ``agent_0`` to ``agent_{n-1}``."""
        return tuple(f"agent_{i}" for i in range(self.n_agents))

    @property
    def absorbing(self) -> npt.NDArray[np.bool_]:
        """(S,) bool: states that no joint action leaves or draws a reward from: the game has ended there."""
        stays = np.array([self.transition[s, ..., s].min() >= 1.0 - SUM_TOLERANCE for s in range(self.n_states)])
        return stays & ~self.reward.reshape(self.n_states, -1).any(axis=1)

    def agent_index(self, agent: Agent) -> int:
        """The index of an agent given by index or by name; refuses any other, naming those there are."""
        if isinstance(agent, str):
            if agent not in self.agents:
                raise unknown_name("agent", agent, self.agents)
            return self.agents.index(agent)
        known = not isinstance(agent, bool | np.bool_) and isinstance(agent, SupportsIndex)
        if not known or not 0 <= agent.__index__() < self.n_agents:
            raise ValueError(f"agent {short(agent)} is not in this game: its agents are 0 to {self.n_agents - 1}.")
        return agent.__index__()

    def agent_indices(self, agents: Sequence[Agent] | Agent) -> tuple[int, ...]:
        """Indices of different agents, in the order given; one agent alone stands for a sequence of one."""
        several = (agents,) if isinstance(agents, str) or not isinstance(agents, (Sequence, np.ndarray)) else agents
        indices = tuple(self.agent_index(agent) for agent in several)
        if len(set(indices)) < len(indices):
            raise ValueError(f"agents {indices} name one agent twice; each may appear once.")
        return indices

    def __repr__(self) -> str:
        states = "1 state" if self.n_states == 1 else f"{self.n_states} states"
        agents = "1 agent" if self.n_agents == 1 else f"{self.n_agents} agents"
        name = f"{self.name!r}, " if self.name else ""
        return f"TabularGame({name}{agents}, {states}, actions {self.n_actions}, discount {self.discount:g})"

    def _repr_html_(self) -> str:
        from workbench.theory.display import game_to_html

        return game_to_html(self)


def _check_distributions(name: str, array: FloatArray) -> None:
    """The last axis holds probabilities that are not negative and sum to 1."""
    if array.min() < 0.0:
        where = tuple(int(i) for i in np.unravel_index(array.argmin(), array.shape))
        raise ValueError(f"{name}{list(where)} is {array[where]:g}, expected a probability, at least 0.")
    sums = np.atleast_1d(array.sum(axis=-1))
    worst = np.unravel_index(np.abs(sums - 1.0).argmax(), sums.shape)
    if abs(sums[worst] - 1.0) > SUM_TOLERANCE:
        row = f"{name}{[int(i) for i in worst]}" if array.ndim > 1 else name
        raise ValueError(f"{row} sums to {sums[worst]:.12g}, expected 1: divide it by its sum if it holds weights.")


def _check_discount(discount: float) -> float:
    value = real_number("discount", discount, "a number with 0 <= discount < 1")
    if not 0.0 <= value < 1.0:
        raise ValueError(f"discount is {value:g}, expected 0 <= discount < 1, so that returns are finite.")
    return value
