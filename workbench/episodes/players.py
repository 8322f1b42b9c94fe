"""Who acts in an episode: a run's policies, exported ones, or any function of the observations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.envs.base import TeamEnv, TimeStep
from workbench.learning.state import Setup, State, actor_of
from workbench.networks.gradients import torch_threads
from workbench.randomness import Streams

Array = npt.NDArray[np.generic]
JointAction = Mapping[str, Array]


class Player(ABC):
    """Acts for all agents in ``n_envs`` environments, episode after episode."""

    @abstractmethod
    def begin(self, n_envs: int) -> None:
        """Episodes begin in ``n_envs`` environments."""

    @abstractmethod
    def act(self, step: TimeStep) -> JointAction:
        """Every agent's action on what is shown, as the environment takes it."""

    def forget(self, envs: npt.NDArray[np.intp]) -> None:  # noqa: B027 - most remember nothing
        """Episodes have ended in ``envs``, and others begin there."""


class RunPlayer(Player):
    """The policies of a run at one moment: the most probable actions, or actions drawn from ``seed`` and nothing else.

    Every agent draws from a stream of its own, as it does in training.
    """

    def __init__(self, setup: Setup, state: State, *, deterministic: bool = True, seed: int = 0) -> None:
        self.setup, self.state = setup, state
        self._actor = actor_of(setup, state)
        self._deterministic, self._seed = deterministic, seed

    def begin(self, n_envs: int) -> None:
        self._actor.begin(n_envs)
        streams = Streams(self._seed)
        self._generators = {
            agent: streams.torch("replay", index=index) for index, agent in enumerate(self.setup.team.agents)
        }

    def act(self, step: TimeStep) -> JointAction:
        with torch_threads(1):  # as in training: small products gain nothing from a second one
            if self._deterministic:
                return self._actor.modes(step.observations, step.action_masks)
            return self._actor.samples(step.observations, step.action_masks, self._generators)

    def forget(self, envs: npt.NDArray[np.intp]) -> None:
        self._actor.forget(envs)


class FunctionPlayer(Player):
    """``act(observations)``, {agent: (n, observation_dim)} to {agent: actions}; exported policies take masks too."""

    def __init__(self, policy: Any, *, deterministic: bool = True, seed: int = 0) -> None:
        self._policy, self._seed = policy, None if deterministic else seed
        self._exported = hasattr(policy, "act")

    def begin(self, n_envs: int) -> None:
        self._rng = None if self._seed is None else Streams(self._seed).numpy("replay")

    def act(self, step: TimeStep) -> JointAction:
        if self._exported:
            actions: JointAction = self._policy.act(step.observations, step.action_masks, self._rng)
            return actions
        chosen: JointAction = self._policy(step.observations)
        return chosen


def player_of(policy: Any, env: TeamEnv, *, deterministic: bool = True, seed: int = 0) -> Player:
    """The player for a trainer, exported policies, or a function; refuses what cannot play in ``env``."""
    if isinstance(policy, Player):
        return policy
    setup, state = getattr(policy, "_setup", None), getattr(policy, "_state", None)
    own = setup.team.agents if isinstance(setup, Setup) else getattr(policy, "agents", env.agents)
    if tuple(own) != tuple(env.agents):
        raise ValueError(
            f"the policies are of {', '.join(own)}, the environment's agents are {', '.join(env.agents)}: replay them "
            "in an environment of their own kind."
        )
    if isinstance(setup, Setup) and isinstance(state, State):
        return RunPlayer(setup, state, deterministic=deterministic, seed=seed)
    if callable(policy) and not deterministic and not hasattr(policy, "act"):
        raise ValueError("a function acts as it does: leave deterministic out, and draw within the function.")
    if callable(policy) or hasattr(policy, "act"):
        return FunctionPlayer(policy, deterministic=deterministic, seed=seed)
    raise TypeError(
        f"policy is a {type(policy).__name__}; expected a trainer, what wb.load_policies returns, or a function from "
        "{agent: observations} to {agent: actions}."
    )
