"""What each agent observes, and what the critic does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from workbench.envs.multi_agent_mujoco.engine import ALL, Engine, Floats, Rows
from workbench.envs.multi_agent_mujoco.graphs import Features

Values = npt.NDArray[np.float32] | Floats


_NO_SPREAD = np.finfo(np.float64).tiny


def standardize(vectors: Floats) -> Floats:
    """(x − mean(x)) / std(x) of each row, (n, size); rows without spread become zeros."""
    size = vectors.shape[1]
    centred: Floats = vectors - np.add.reduce(vectors, axis=1, keepdims=True) / size
    squares = np.vecdot(centred, centred)[:, None]
    centred *= np.sqrt(size / np.maximum(squares, _NO_SPREAD))
    return centred


class Observer(ABC):
    """Turns Gymnasium's observation, which is the team's state, into what the agents see.

    sizes         {agent: length of its observation}
    standardized  whether every vector is standardized by itself, float32; else raw, float64
    """

    def __init__(self, sizes: Mapping[str, int], state_size: int, standardized: bool) -> None:
        dtype = np.float32 if standardized else np.float64
        self.standardized = standardized
        self.observation_spaces = {agent: Box(-np.inf, np.inf, (size,), dtype) for agent, size in sizes.items()}
        self.state_space = Box(-np.inf, np.inf, (state_size,), dtype)

    def show(self, vectors: Floats) -> Values:
        """The vectors as they are shown, in fresh memory."""
        return standardize(vectors).astype(np.float32) if self.standardized else vectors.copy()

    @abstractmethod
    def __call__(self, state: Floats, envs: Rows = ALL) -> tuple[dict[str, Values], Values]:
        """{agent: (n, size)} and the state shown (n, state size), in fresh memory.

        state  (n, state size), Gymnasium's observations of ``envs``
        """


class WholeState(Observer):
    """The papers' observations: everyone sees the whole state and who they are.

    o_i = [s, onehot(i)], standardized by itself unless asked otherwise. The observations of all agents are views of one
    array (n_agents, n, size).
    """

    def __init__(self, agents: tuple[str, ...], state_size: int, standardized: bool) -> None:
        super().__init__(dict.fromkeys(agents, state_size + len(agents)), state_size, standardized)
        self._agents = agents

    def __call__(self, state: Floats, envs: Rows = ALL) -> tuple[dict[str, Values], Values]:
        n, size = state.shape
        n_agents = len(self._agents)
        # Agents' vectors hold the same values, only the 1 stands elsewhere: they share one mean and one deviation.
        vector = np.zeros((n, size + n_agents))
        vector[:, :size] = state
        vector[:, size] = 1.0
        shown = self.show(vector)
        stacked = np.empty((n_agents, *shown.shape), shown.dtype)
        stacked[...] = shown
        stacked[1:, :, size] = shown[:, -1]
        for agent in range(1, n_agents):
            stacked[agent, :, size + agent] = shown[:, size]
        return dict(zip(self._agents, stacked, strict=True)), self.show(state)


class NearbyJoints(Observer):
    """Each agent sees its own joints and those at most k steps away in the robot's graph, as ``mamujoco_v1`` does."""

    def __init__(self, features: Mapping[str, Features], engine: Engine, state_size: int, standardized: bool) -> None:
        sizes = {agent: len(observed) for agent, observed in features.items()}
        super().__init__(sizes, state_size, standardized)
        self._engine = engine
        self._derived = sorted(derived_fields(features))
        starts, end = {"qpos": 0, "qvel": engine.model.nq}, engine.model.nq + engine.model.nv
        for name in self._derived:
            starts[name], end = end, end + engine.fields[name][0].size
        self._columns = {
            agent: np.array([starts[feature.field] + feature.element for feature in observed])
            for agent, observed in features.items()
        }
        self._limits = {
            agent: np.array([(feature.low, feature.high) for feature in observed]).T
            for agent, observed in features.items()
            if any(np.isfinite((feature.low, feature.high)).any() for feature in observed)
        }

    def __call__(self, state: Floats, envs: Rows = ALL) -> tuple[dict[str, Values], Values]:
        motion = self._engine.motion[envs]
        derived = [self._engine.fields[name][envs].reshape(len(motion), -1) for name in self._derived]
        everything = np.concatenate([motion, *derived], axis=1)
        observations: dict[str, Values] = {}
        for agent, columns in self._columns.items():
            seen = everything.take(columns, axis=1)
            if agent in self._limits:
                np.clip(seen, *self._limits[agent], out=seen)
            observations[agent] = self.show(seen) if self.standardized else seen
        return observations, self.show(state)


def derived_fields(features: Mapping[str, Features]) -> set[str]:
    """The ``MjData`` fields, beside positions and velocities, that ``features`` read."""
    return {feature.field for observed in features.values() for feature in observed} - {"qpos", "qvel"}
