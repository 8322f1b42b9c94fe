"""What each agent observes, and what the critic does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from workbench.envs.base import Final
from workbench.envs.multi_agent_mujoco.joint_graphs import Features
from workbench.envs.multi_agent_mujoco.physics import ALL, Floats, PhysicsEngine, Rows, derived_size

Values = npt.NDArray[np.float32] | Floats
Views = tuple[dict[str, Values], Values]

_NO_SPREAD = np.finfo(np.float64).tiny


def standardize(vectors: Floats) -> Floats:
    """(x − mean(x)) / std(x) of each row, (n, size); rows without spread become zeros."""
    size = vectors.shape[1]
    centred: Floats = vectors - np.add.reduce(vectors, axis=1, keepdims=True) / size
    squares = np.vecdot(centred, centred)[:, None]
    centred *= np.sqrt(size / np.maximum(squares, _NO_SPREAD))
    return centred


class Readings(NamedTuple):
    """What there is to observe of n environments.

    state     (n, state size), Gymnasium's observation
    measured  (n, ...), whatever else an observer has gathered
    """

    state: Floats
    measured: Floats


class Observer(ABC):
    """Turns readings into what the agents and the critic see, in fresh memory.

    Agents whose observations are equally long share one block (agents, n, size), and each sees a view of it.

    sizes         {agent: length of its observation}
    standardized  whether every vector is standardized by itself, float32; else raw, float64
    """

    def __init__(self, sizes: Mapping[str, int], state_size: int, standardized: bool) -> None:
        dtype = np.float32 if standardized else np.float64
        self.standardized = standardized
        self.observation_spaces = {agent: Box(-np.inf, np.inf, (size,), dtype) for agent, size in sizes.items()}
        self.state_space = Box(-np.inf, np.inf, (state_size,), dtype)
        self._blocks = {size: [agent for agent in sizes if sizes[agent] == size] for size in sizes.values()}

    def gather(self, engine: PhysicsEngine, envs: Rows = ALL) -> Floats:
        """``Readings.measured`` of ``envs``."""
        return engine.motion[envs, :0]

    @abstractmethod
    def fill(self, agents: list[str], block: Values, readings: Readings) -> None:
        """Write what ``agents`` observe into ``block``."""

    def look(self, readings: Readings) -> Views:
        """{agent: (n, size)} and the state (n, state size)."""
        return self._views(self._fill(readings), self._show(readings.state), len(readings.state))

    def look_past_the_end(
        self, readings: Readings, ended: npt.NDArray[np.intp], begun: Readings
    ) -> tuple[Views, Final]:
        """What is seen where environments ``ended`` show the episodes ``begun``, and what they showed last."""
        n = len(readings.state)
        both = Readings(*(np.concatenate(pair) for pair in zip(readings, begun, strict=True)))
        blocks, state = self._fill(both), self._show(both.state)
        last = Final(ended, *self._views([block[:, ended] for block in blocks], state[ended], len(ended)))
        for block in (*blocks, state[None]):
            block[:, ended] = block[:, n:]
        return self._views(blocks, state, n), last

    def _fill(self, readings: Readings) -> list[Values]:
        blocks: list[Values] = []
        for size, agents in self._blocks.items():
            block = np.empty((len(agents), len(readings.state), size), self.state_space.dtype)
            self.fill(agents, block, readings)
            blocks.append(block)
        return blocks

    def _views(self, blocks: list[Values], state: Values, n: int) -> Views:
        """The first ``n`` rows."""
        views: dict[str, Values] = dict.fromkeys(self.observation_spaces, state)  # keeps the agents' order
        for agents, block in zip(self._blocks.values(), blocks, strict=True):
            views.update(zip(agents, block[:, :n], strict=True))
        return views, state[:n]

    def _show(self, vectors: Floats) -> Values:
        return standardize(vectors).astype(np.float32) if self.standardized else vectors.copy()


class WholeState(Observer):
    """The papers' observations: everyone sees the whole state and who they are.

    o_i = [s, onehot(i)], standardized by itself unless asked otherwise.
    """

    def __init__(self, agents: tuple[str, ...], state_size: int, standardized: bool) -> None:
        super().__init__(dict.fromkeys(agents, state_size + len(agents)), state_size, standardized)

    def fill(self, agents: list[str], block: Values, readings: Readings) -> None:
        n, size = readings.state.shape
        # Agents' vectors hold the same values, only the 1 stands elsewhere: they share one mean and one deviation.
        vector = np.zeros((n, size + len(agents)))
        vector[:, :size] = readings.state
        vector[:, size] = 1.0
        block[...] = standardize(vector) if self.standardized else vector
        block[1:, :, size] = block[0, :, -1]
        for number in range(1, len(agents)):
            block[number, :, size + number] = block[0, :, size]


class NearbyJoints(Observer):
    """Each agent sees its own joints and those at most k steps away in the robot's graph, as ``mamujoco_v1`` does."""

    def __init__(
        self, features: Mapping[str, Features], model: mujoco.MjModel, state_size: int, standardized: bool
    ) -> None:
        sizes = {agent: len(observed) for agent, observed in features.items()}
        super().__init__(sizes, state_size, standardized)
        self._derived = sorted(derived_fields(features))
        starts, end = {"qpos": 0, "qvel": model.nq}, model.nq + model.nv
        for name in self._derived:
            starts[name], end = end, end + derived_size(model, name)
        self._columns = {
            agent: np.array([starts[feature.field] + feature.element for feature in observed], np.intp)
            for agent, observed in features.items()
        }
        self._limits = {
            agent: np.array([(feature.low, feature.high) for feature in observed]).T
            for agent, observed in features.items()
            if any(np.isfinite((feature.low, feature.high)).any() for feature in observed)
        }

    def gather(self, engine: PhysicsEngine, envs: Rows = ALL) -> Floats:
        motion = engine.motion[envs]
        derived = [engine.fields[name][envs].reshape(len(motion), -1) for name in self._derived]
        return np.concatenate([motion, *derived], axis=1)

    def fill(self, agents: list[str], block: Values, readings: Readings) -> None:
        for row, agent in zip(block, agents, strict=True):
            seen = readings.measured.take(self._columns[agent], axis=1)
            if agent in self._limits:
                np.clip(seen, *self._limits[agent], out=seen)
            row[...] = standardize(seen) if self.standardized else seen


def derived_fields(features: Mapping[str, Features]) -> set[str]:
    """The ``MjData`` fields, beside positions and velocities, that ``features`` read."""
    return {feature.field for observed in features.values() for feature in observed} - {"qpos", "qvel"}
