"""Gymnasium's robots, batched: what they observe, what they are paid, when they fall, to the last bit.

Every computation keeps the order of operations and the dtypes of Gymnasium's environment of the same name, so that the
results are equal and not only close. ``v5`` is Gymnasium's current version; ``v4`` differs in that a robot that falls
is still paid for being healthy in that step, Ant and Humanoid pay nothing for contacts, and Walker2d's right foot has
the friction it had in ``v2``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import mujoco
import numpy as np
import numpy.typing as npt

from workbench.envs.multi_agent_mujoco.engine import ALL, CONTACT_FORCES, Engine, Floats, Rows

Terms = dict[str, Floats]
Verdict = tuple[Floats, npt.NDArray[np.bool_], Terms]
Keywords = dict[str, Any]


class Robot(ABC):
    """One scenario's rules over all simulations of an engine.

    Class attributes
    ----------------
    keywords        {version: {keyword: default}}, those of Gymnasium's environment
    xml_files       {version: file among Gymnasium's assets}
    skipped         how many positions are left out of the observation by default (the robot's place in the world)
    velocity_limit  joint velocities are clipped to ± this in the observation, or None
    """

    keywords: ClassVar[Mapping[str, Keywords]]
    xml_files: ClassVar[Mapping[str, str]]
    skipped: ClassVar[int] = 1
    velocity_limit: ClassVar[float | None] = None

    def __init__(self, version: str, options: Keywords) -> None:
        self.version = version
        self.options = options
        # (field, first row observed, limits): what is observed beyond positions and velocities, in order.
        self.observed: list[tuple[str, int, tuple[float, float] | None]] = []
        self.first_position = self.skipped * bool(options.get("exclude_current_positions_from_observation", True))

    @property
    def needed_fields(self) -> set[str]:
        """The derived ``MjData`` fields that observation and reward read."""
        return {field for field, _, _ in self.observed}

    def attach(self, engine: Engine) -> None:
        """Read from ``engine`` from now on."""
        self.engine = engine
        self.model: mujoco.MjModel = engine.model
        self.dt = self.model.opt.timestep * engine.frame_skip
        initial = mujoco.MjData(self.model)
        self.initial_qpos: Floats = initial.qpos.copy()
        self.initial_qvel: Floats = initial.qvel.copy()
        self._spans = []
        end = self.model.nq + self.model.nv - self.first_position
        for field, first, limits in self.observed:
            start, end = end, end + engine.fields[field][0, first:].size
            self._spans.append((engine.fields[field], slice(start, end), first, limits))
        self.observation_size = end

    def observe(self, envs: Rows = ALL) -> Floats:
        """(n, observation_size) float64, Gymnasium's observation of ``envs``. Fresh memory."""
        motion = self.engine.motion[envs]
        observation = np.empty((len(motion), self.observation_size))
        end = motion.shape[1] - self.first_position
        observation[:, :end] = motion[:, self.first_position :]
        if self.velocity_limit is not None:
            velocities = observation[:, self.model.nq - self.first_position : end]
            np.clip(velocities, -self.velocity_limit, self.velocity_limit, out=velocities)
        for field, span, first, limits in self._spans:
            values = field[envs][:, first:].reshape(len(motion), -1)
            if limits is None:
                observation[:, span] = values
            else:
                np.clip(values, *limits, out=observation[:, span])
        return observation

    def draw(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """The positions and velocities that an episode starts from."""
        noise = self.options["reset_noise_scale"]
        qpos = self.initial_qpos + generator.uniform(low=-noise, high=noise, size=self.model.nq)
        return qpos, self.initial_qvel + self._draw_velocities(generator, noise)

    def _draw_velocities(self, generator: np.random.Generator, noise: float) -> Floats:
        return generator.uniform(low=-noise, high=noise, size=self.model.nv)

    @abstractmethod
    def place(self, envs: Rows = ALL) -> Floats:
        """(n, 1 or 2) float64, where ``envs`` are, as their velocity is measured. Fresh memory."""

    @abstractmethod
    def judge(self, actions: npt.NDArray[Any], before: Floats, after: Floats) -> Verdict:
        """Reward (n_envs,), terminated (n_envs,) and the reward's terms, from the places before and after a step."""


class Runner(Robot):
    """Robots paid for their velocity along x, r = w_f ẋ + [healthy] w_h − w_c |a|² (− contact cost)."""

    paid_for_health: ClassVar[bool] = True

    def place(self, envs: Rows = ALL) -> Floats:
        return self.engine.qpos[envs, :1].copy()

    def healthy(self) -> npt.NDArray[np.bool_]:
        """(n_envs,) bool, which robots have not fallen."""
        raise NotImplementedError

    def control_cost(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(n_envs,) in the actions' dtype, as Gymnasium computes it."""
        cost: npt.NDArray[Any] = self.options["ctrl_cost_weight"] * np.square(actions).sum(axis=1)
        return cost

    def contact_cost(self) -> Floats | None:
        """(n_envs,) or None where contacts cost nothing."""
        return None

    def judge(self, actions: npt.NDArray[Any], before: Floats, after: Floats) -> Verdict:
        velocity = (after - before) / self.dt
        forward = velocity[:, 0] * self.options.get("forward_reward_weight", 1.0)
        control_cost = self.control_cost(actions)
        contact_cost = self.contact_cost()
        terms: Terms = {"reward_forward": forward, "reward_ctrl": -control_cost}
        income, costs = forward, control_cost
        terminated = np.zeros(self.engine.n_envs, np.bool_)
        if self.paid_for_health:
            healthy = self.healthy()
            if self.options["terminate_when_unhealthy"]:
                terminated = ~healthy
            still_paid = self.version == "v4" and self.options["terminate_when_unhealthy"]
            survive = (np.ones_like(healthy) if still_paid else healthy) * float(self.options["healthy_reward"])
            terms["reward_survive"] = survive
            income = income + survive
        if contact_cost is not None:
            terms["reward_contact"] = -contact_cost
            costs = costs + contact_cost
        terms["x_velocity"] = velocity[:, 0]
        terms["x_position"] = self.engine.qpos[:, 0].copy()
        if velocity.shape[1] > 1:
            terms["y_velocity"] = velocity[:, 1]
            terms["y_position"] = self.engine.qpos[:, 1].copy()
        return income - costs, terminated, terms


class Ant(Runner):
    skipped = 2
    xml_files: ClassVar = {"v5": "ant.xml", "v4": "ant.xml"}
    keywords: ClassVar = {
        "v5": {
            "frame_skip": 5,
            "forward_reward_weight": 1.0,
            "ctrl_cost_weight": 0.5,
            "contact_cost_weight": 5e-4,
            "healthy_reward": 1.0,
            "main_body": 1,
            "terminate_when_unhealthy": True,
            "healthy_z_range": (0.2, 1.0),
            "contact_force_range": (-1.0, 1.0),
            "reset_noise_scale": 0.1,
            "exclude_current_positions_from_observation": True,
            "include_cfrc_ext_in_observation": True,
        },
        "v4": {
            "ctrl_cost_weight": 0.5,
            "use_contact_forces": False,
            "contact_cost_weight": 5e-4,
            "healthy_reward": 1.0,
            "terminate_when_unhealthy": True,
            "healthy_z_range": (0.2, 1.0),
            "contact_force_range": (-1.0, 1.0),
            "reset_noise_scale": 0.1,
            "exclude_current_positions_from_observation": True,
        },
    }

    def __init__(self, version: str, options: Keywords) -> None:
        super().__init__(version, options)
        if version == "v4":
            self._pays_for_contacts = options["use_contact_forces"]
            observes_contacts, first_body = options["use_contact_forces"], 0
        else:
            self._pays_for_contacts = options["contact_cost_weight"] != 0
            observes_contacts, first_body = options["include_cfrc_ext_in_observation"], 1
        if observes_contacts:
            self.observed.append((CONTACT_FORCES, first_body, options["contact_force_range"]))

    @property
    def needed_fields(self) -> set[str]:
        contacts = {CONTACT_FORCES} if self._pays_for_contacts else set()
        return super().needed_fields | contacts | {"xpos"}

    def attach(self, engine: Engine) -> None:
        super().attach(engine)
        self._main_body = self.model.body(self.options.get("main_body", "torso")).id

    def _draw_velocities(self, generator: np.random.Generator, noise: float) -> Floats:
        return noise * generator.standard_normal(self.model.nv)

    def place(self, envs: Rows = ALL) -> Floats:
        # Not from qpos: under RK4 a body's position belongs to the last of the four stages.
        return self.engine.fields["xpos"][envs, self._main_body, :2].copy()

    def healthy(self) -> npt.NDArray[np.bool_]:
        low, high = self.options["healthy_z_range"]
        z = self.engine.qpos[:, 2]
        healthy: npt.NDArray[np.bool_] = np.isfinite(self.engine.motion).all(axis=1) & (low <= z) & (z <= high)
        return healthy

    def contact_cost(self) -> Floats | None:
        if not self._pays_for_contacts:
            return None
        forces = np.clip(self.engine.fields[CONTACT_FORCES], *self.options["contact_force_range"])
        cost: Floats = self.options["contact_cost_weight"] * np.square(forces).reshape(len(forces), -1).sum(axis=1)
        return cost


ROBOTS: dict[str, type[Robot]] = {"Ant": Ant}
