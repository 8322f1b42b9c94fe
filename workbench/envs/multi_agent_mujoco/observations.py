"""What each agent observes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from workbench.envs.multi_agent_mujoco.engine import Floats

Singles = npt.NDArray[np.float32]


def standardise(vectors: Floats) -> Floats:
    """(x − mean(x)) / std(x) along the last axis; a constant vector becomes zeros."""
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True))
    return centred / np.where(deviation > 0, deviation, 1.0)


class StandardisedState:
    """The papers' observations: everyone sees the whole state and who they are, each vector standardised by itself.

    o_i = standardise([s, onehot(i)]),  the critic's state is standardise(s); float32.

    The observations of all agents are views of one fresh array (n_agents, n, size).
    """

    def __init__(self, state_size: int, agents: Sequence[str]) -> None:
        self._agents = tuple(agents)
        size = state_size + len(agents)
        self.observation_spaces = {agent: Box(-np.inf, np.inf, (size,), np.float32) for agent in agents}
        self.state_space = Box(-np.inf, np.inf, (state_size,), np.float32)

    def __call__(self, state: Floats) -> tuple[dict[str, Singles], Singles]:
        n, state_size = state.shape
        n_agents = len(self._agents)
        # All agents' vectors hold the same values but for where the 1 stands, so they share mean and deviation.
        shared = np.zeros((n, state_size + n_agents))
        shared[:, :state_size] = state
        shared[:, state_size] = 1.0
        shared = standardise(shared)
        stacked = np.empty((n_agents, n, state_size + n_agents), np.float32)
        stacked[:, :, :state_size] = shared[:, :state_size]
        stacked[:, :, state_size:] = shared[:, state_size + 1 : state_size + 2]
        who = np.arange(n_agents)
        stacked[who, :, state_size + who] = shared[:, state_size]
        return dict(zip(self._agents, stacked, strict=True)), standardise(state).astype(np.float32)
