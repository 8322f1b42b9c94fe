"""A game that is written out in full, sampled: what exact theory and sampled training can be compared on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from workbench.envs.arguments import (
    checked_actions,
    checked_snapshot,
    chosen_envs,
    environment_seeds,
    positive_integer,
)
from workbench.envs.base import Actions, BoolArray, Final, FloatArray, Snapshot, TeamEnv, TimeStep
from workbench.theory import TabularGame

NEGLECTED = 1e-3  # the share of a discounted return, γ^T, that lies beyond the default episode length T

Indices = npt.NDArray[np.intp]


class SampledGame(TeamEnv):
    """s₀ ~ d, s_{t+1} ~ P(·|s_t, a_t), reward r(s_t, a_t): ``n_envs`` plays of a ``theory.TabularGame`` side by side.

    Every agent and the critic see the state, one-hot (S,) float32. Agent i's action is ``Discrete(Aᵢ)``.

    game                ``theory.TabularGame``
    n_envs              number of plays side by side
    max_episode_steps   an episode is truncated after so many steps. None: ⌈log 10⁻³ / log γ⌉, beyond which less than a
                        thousandth of the discounted return lies
    end_at_absorbing    whether an episode is terminated on entering a state that is never left and never rewarded

    With γ = 0 and ``max_episode_steps=None`` every step is an episode of its own and *terminated*: what follows is
    worth γ·V = 0 exactly, whatever discount the learner itself uses. A one-state game with γ > 0 is the game repeated,
    as it is for the theory, and *truncated* like any other: the clock ends it, and what follows is worth V.

    Draws invert the distribution function, so an outcome of probability 0 never comes up. Environment i has a stream of
    its own, which ``reset(seed)`` starts from ``seed + i`` alone.

    >>> from workbench.theory import TabularGame
    >>> game = TabularGame([[[0, 2], [2, -1]]], np.ones((1, 2, 2, 1)), initial=[1], discount=0)
    >>> env = SampledGame(game, n_envs=2)
    >>> first = env.reset(seed=0)
    >>> step = env.step({"agent_0": np.array([0, 1]), "agent_1": np.array([1, 1])})
    >>> step.reward, step.terminated
    (array([ 2., -1.]), array([ True,  True]))
    """

    generator_rows: ClassVar[tuple[str, ...]] = ("streams",)

    def __init__(
        self,
        game: TabularGame,
        n_envs: int = 64,
        *,
        max_episode_steps: int | None = None,
        end_at_absorbing: bool = True,
    ) -> None:
        if not isinstance(game, TabularGame):
            raise TypeError(f"game is a {type(game).__name__}; expected a workbench.theory.TabularGame.")
        self.game = game
        self.n_envs = positive_integer("n_envs", n_envs)
        self.agents = game.agents
        if max_episode_steps is not None:
            max_episode_steps = positive_integer("max_episode_steps", max_episode_steps)
        self.max_episode_steps = max_episode_steps
        self.end_at_absorbing = bool(end_at_absorbing)
        self._one_shot = max_episode_steps is None and game.discount == 0.0
        self._horizon = max_episode_steps or default_horizon(game.discount)

        one_hot = gymnasium.spaces.Box(0.0, 1.0, (game.n_states,), np.float32)
        self.state_space = one_hot
        self.observation_spaces = dict.fromkeys(self.agents, one_hot)
        self.action_spaces = {
            agent: gymnasium.spaces.Discrete(n) for agent, n in zip(self.agents, game.n_actions, strict=True)
        }
        self._one_hot = np.eye(game.n_states, dtype=np.float32)
        self._rewards = game.reward.ravel()
        self._next_state = distribution_functions(game.transition).reshape(-1, game.n_states)
        self._first_state = distribution_functions(game.initial)
        self._ends = game.absorbing & self.end_at_absorbing

        self._elapsed = np.zeros(self.n_envs, np.int64)
        self._streams = _stream_starts(np.random.SeedSequence().generate_state(self.n_envs, np.uint64))
        self._states = self._begin(np.arange(self.n_envs))
        self._reached = self._states.copy()

    @property
    def one_hot_features(self) -> dict[str, BoolArray]:
        return dict.fromkeys(self.agents, self.one_hot_state)

    @property
    def one_hot_state(self) -> BoolArray:
        return np.ones(self.game.n_states, np.bool_)

    def reset(self, seed: int | None = None) -> TimeStep:
        if seed is not None:
            self._streams = _stream_starts(environment_seeds(seed, self.n_envs))
        self._states = self._begin(np.arange(self.n_envs))
        self._reached = self._states.copy()
        none = np.zeros(self.n_envs, np.bool_)
        return self._seen(np.zeros(self.n_envs), none, none.copy(), None)

    def step(self, actions: Actions) -> TimeStep:
        joint_action = checked_actions(actions, self.action_spaces, self.n_envs)
        rows = np.ravel_multi_index((self._states, *joint_action.values()), self.game.reward.shape)
        reward = self._rewards[rows]
        self._states = self._draw(np.arange(self.n_envs), self._next_state[rows])
        self._reached = self._states.copy()
        self._elapsed += 1
        terminated = self._ends[self._states] | self._one_shot
        truncated = (self._elapsed >= self._horizon) & ~terminated
        final = None
        ended = np.flatnonzero(terminated | truncated)
        if ended.size:
            last = self._states[ended]
            final = Final(ended, dict.fromkeys(self.agents, self._one_hot[last]), self._one_hot[last])
            self._states[ended] = self._begin(ended)
        return self._seen(reward, terminated, truncated, final)

    def _begin(self, envs: Indices) -> Indices:
        self._elapsed[envs] = 0
        return self._draw(envs, self._first_state)

    def _draw(self, envs: Indices, functions: FloatArray) -> Indices:
        """One outcome each for ``envs``, from their own streams."""
        self._streams[envs] += _GOLDEN_GAMMA
        # 53 bits make every multiple of 2⁻⁵³ in [0, 1) equally likely.
        uniform = (_mixed(self._streams[envs]) >> np.uint64(11)) * 2.0**-53
        return outcomes(uniform, functions)

    def _seen(
        self, reward: npt.NDArray[np.float64], terminated: BoolArray, truncated: BoolArray, final: Final | None
    ) -> TimeStep:
        observations = dict.fromkeys(self.agents, self._one_hot[self._states])
        return TimeStep(observations, self._one_hot[self._states], reward, terminated, truncated, final)

    def snapshot(self) -> Snapshot:
        return {"states": self._states.copy(), "elapsed": self._elapsed.copy(), "streams": self._streams.copy()}

    def select(self, snapshot: Snapshot, envs: Sequence[int]) -> Snapshot:
        chosen = chosen_envs(envs, len(checked_snapshot(snapshot)["states"]))
        return {name: rows[chosen] for name, rows in snapshot.items()}

    def render_state(self) -> Indices:
        """(n_envs,) the state; of episodes that just ended, that in which they ended."""
        return self._reached

    def restore(self, snapshot: Snapshot) -> None:
        taken = len(checked_snapshot(snapshot).get("states", ()))
        if taken != self.n_envs:
            raise ValueError(
                f"the snapshot is of {taken} environments, this is of {self.n_envs}; make one with n_envs={taken}."
            )
        for name, own in self.snapshot().items():
            given = np.shape(np.asarray(snapshot.get(name)))
            if given != own.shape:
                raise ValueError(f"{name} of the snapshot has shape {given}, expected {own.shape}.")
        if not np.isin(snapshot["states"], range(self.game.n_states)).all() or np.min(snapshot["elapsed"]) < 0:
            raise ValueError(f"the snapshot is of a state that this game of {self.game.n_states} states does not have.")
        self._states = np.array(snapshot["states"], np.intp)
        self._reached = self._states.copy()
        self._elapsed = np.array(snapshot["elapsed"], np.int64)
        self._streams = np.array(snapshot["streams"], np.uint64)

    @property
    def description(self) -> dict[str, Any]:
        game: dict[str, Any] = {
            "reward": self.game.reward.tolist(),
            "transition": self.game.transition.tolist(),
            "initial": self.game.initial.tolist(),
            "discount": self.game.discount,
            "name": self.game.name,
        }
        return {
            "kind": "tabular",
            "game": game,
            "n_envs": self.n_envs,
            "max_episode_steps": self.max_episode_steps,
            "end_at_absorbing": self.end_at_absorbing,
        }

    def remake(self, n_envs: int) -> SampledGame:
        return SampledGame(
            self.game, n_envs, max_episode_steps=self.max_episode_steps, end_at_absorbing=self.end_at_absorbing
        )

    def __repr__(self) -> str:
        return f"SampledGame({self.game!r}, n_envs={self.n_envs})"


def described_game(game: dict[str, Any], **options: Any) -> SampledGame:
    """The sampled game that a ``description`` describes."""
    return SampledGame(TabularGame(**game), **options)


def default_horizon(discount: float) -> int:
    """⌈log 10⁻³ / log γ⌉: the first number of steps after which γ^T ≤ 10⁻³; 1 for γ = 0.

    >>> [default_horizon(discount) for discount in (0.0, 0.5, 0.9, 0.99)]
    [1, 10, 66, 688]
    """
    return 1 if discount == 0.0 else max(1, math.ceil(math.log(NEGLECTED) / math.log(discount)))


def outcomes(uniform: FloatArray, distribution_functions: FloatArray) -> Indices:
    """min {k : u < F(k)} for u (n,) in [0, 1) and F (n, K) or (K,): an outcome of probability 0 never comes up."""
    passed: Indices = (uniform[:, None] >= distribution_functions).sum(axis=-1)
    return passed


def distribution_functions(probabilities: FloatArray) -> FloatArray:
    """F(k) = Σ_{j≤k} p(j) along the last axis, exactly 1 from the last possible outcome on."""
    cumulative = np.cumsum(probabilities, axis=-1)
    # Rounding may leave the sum just off 1; dividing by it makes the tail x/x = 1, and u < 1 never passes that.
    return cumulative / cumulative[..., -1:]


# SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): one 64-bit word per
# environment is the whole generator, so all environments draw in one array operation and a snapshot is one array.
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _stream_starts(seeds: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Where the streams of these seeds begin: far apart for neighbouring seeds."""
    return _mixed(_mixed(np.asarray(seeds, np.uint64) + _GOLDEN_GAMMA))
