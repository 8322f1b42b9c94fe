"""The first states of episodes, drawn ahead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import workbench.envs.multi_agent_mujoco.random_states as random_states
from workbench.envs.multi_agent_mujoco.physics import BatchEngine
from workbench.envs.multi_agent_mujoco.robots import Robot

Envs = npt.NDArray[np.intp]


class Starts:
    """Each environment's next first state, drawn from its own generator.

    An environment that ends needs one forward pass of the physics, too little to hand to threads by itself. So the next
    start of each environment is computed before it is needed, together with those of all others that lack one. Nobody
    can tell: each generator makes the same draws in the same order, and ``packed`` leaves out those not used yet.

    engine, robot  show the starts, in the rows of the environments that they were taken for
    """

    def __init__(self, robot: Robot, engine: BatchEngine) -> None:
        self.engine, self.robot = engine, robot
        robot.attach(engine)
        self._ready = np.zeros(engine.n_envs, np.bool_)
        self.seed(None)

    def seed(self, seed: int | None) -> None:
        """Begin with Gymnasium's generators for ``seed + i``."""
        self._generators = random_states.seeded(seed, self.engine.n_envs)
        self._before = [generator.bit_generator.state for generator in self._generators]
        self._ready[:] = False

    def take(self, envs: Envs) -> BatchEngine:
        """The engine that shows the next starts of ``envs``, until the next call."""
        if not self._ready[envs].all():
            self._draw(np.flatnonzero(~self._ready))
        self._ready[envs] = False
        return self.engine

    def _draw(self, envs: Envs) -> None:
        chosen = [self._generators[env] for env in envs]
        for env, generator in zip(envs, chosen, strict=True):
            self._before[env] = generator.bit_generator.state
        self.engine.begin(envs, self.robot.draw(chosen))
        self._ready[envs] = True

    def packed(self) -> npt.NDArray[np.uint64]:
        """(n_envs, 6), the generators as they were before the starts that nobody has taken yet."""
        return random_states.packed(
            before if ready else generator.bit_generator.state
            for before, ready, generator in zip(self._before, self._ready, self._generators, strict=True)
        )

    def unpack(self, words: npt.NDArray[np.uint64]) -> None:
        """Go on from generators that were ``packed``."""
        random_states.unpack(words, self._generators)
        self._ready[:] = False
