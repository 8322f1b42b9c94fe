"""Gymnasium's robots, batched: what they observe, what they are paid, when they fall, to the last bit.

Every computation keeps the order of operations and the dtypes of Gymnasium's environment of the same name, so that the
results are equal and not only close. ``v5`` is Gymnasium's current version; ``v4`` differs in that a robot that falls
is still paid for being healthy in that step, Ant and Humanoid pay nothing for contacts, and Walker2d's right foot has
the friction it had in ``v2``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import mujoco
import numpy as np
import numpy.typing as npt

from workbench.envs.base import Array
from workbench.envs.multi_agent_mujoco.keywords import Keywords
from workbench.envs.multi_agent_mujoco.physics import ALL, CONTACT_FORCES, Floats, PhysicsEngine, Rows
from workbench.errors import unknown_name

Bools = npt.NDArray[np.bool_]
Terms = dict[str, Floats]
Verdict = tuple[Floats, Bools, Terms]
Limits = tuple[float, float]
_WHEREABOUTS = (("x_position", "x_velocity"), ("y_position", "y_velocity"))


class Look(NamedTuple):
    """What n simulations show: fresh arrays, some of them views of others.

    motion       (n, nq + nv), positions and velocities
    place        (n, 1 or 2), where the robot is, as its velocity is measured
    observation  (n, observation size), Gymnasium's
    """

    motion: Floats
    place: Floats
    observation: Floats


def _squares(rows: Array) -> Array:
    """Σ x² of each row, in the rows' dtype and in the order in which NumPy adds up one such row."""
    total: Array = np.add.reduce(np.square(rows), axis=1)
    return total


def clipped(values: Floats, limits: Limits) -> Floats:
    """``np.clip``, without what it costs to call."""
    low, high = limits
    inside: Floats = np.minimum(np.maximum(values, low), high)
    return inside


class Robot(ABC):
    """One scenario's rules over all simulations of an engine.

    skipped            how many positions are left out of the observation by default: the robot's place in the world
    velocity_limit     joint velocities are clipped to ± this in the observation, or None
    normal_velocities  whether episodes start with normally, rather than uniformly, distributed velocities
    observed           (field, first row observed, limits) of what is observed beyond positions and velocities
    contact_priced     whether the forces of contacts have a price in the reward
    """

    skipped: ClassVar[int] = 1
    velocity_limit: ClassVar[float | None] = None
    normal_velocities: ClassVar[bool] = False
    contact_priced: bool = False

    def __init__(self, version: str, options: Keywords) -> None:
        self.version = version
        self.options = options
        self.observed: list[tuple[str, int, Limits | None]] = []
        self._first_position = self.skipped * bool(options.get("exclude_current_positions_from_observation", True))

    @property
    def needed_fields(self) -> set[str]:
        """The derived ``MjData`` fields that observation and reward read."""
        return {field for field, _, _ in self.observed} | ({CONTACT_FORCES} if self.contact_priced else set())

    def attach(self, engine: PhysicsEngine) -> None:
        """Read from ``engine`` from now on."""
        self.engine = engine
        self.model: mujoco.MjModel = engine.model
        self.dt: float = self.model.opt.timestep * engine.frame_skip
        initial = mujoco.MjData(self.model)
        self._initial_motion: Floats = np.concatenate([initial.qpos, initial.qvel])
        self._spans: list[tuple[Floats, slice, Limits | None]] = []
        end = self.model.nq + self.model.nv - self._first_position
        for name, first, limits in self.observed:
            field = engine.fields[name][:, first:]
            start, end = end, end + field[0].size
            self._spans.append((field, slice(start, end), limits))
        self.observation_size = end

    def look(self, envs: Rows = ALL) -> Look:
        """What ``envs`` show now."""
        motion = np.array(self.engine.motion[envs])
        return Look(motion, self.place(envs, motion), self._observation(envs, motion))

    def _observation(self, envs: Rows, motion: Floats) -> Floats:
        moving = motion[:, self._first_position :]
        if self.velocity_limit is None and not self._spans:
            return moving
        observation = np.empty((len(motion), self.observation_size))
        observation[:, : moving.shape[1]] = moving
        if self.velocity_limit is not None:
            limits = (-self.velocity_limit, self.velocity_limit)
            observation[:, moving.shape[1] - self.model.nv :] = clipped(motion[:, self.model.nq :], limits)
        for field, span, limits_of_field in self._spans:
            values = field[envs]
            target = observation[:, span].reshape(values.shape)
            target[...] = values if limits_of_field is None else clipped(values, limits_of_field)
        return observation

    def place(self, envs: Rows, motion: Floats) -> Floats:
        """(n, 1 or 2), where ``envs`` are, as their velocity is measured."""
        return motion[:, : self.skipped]

    def draw(self, generators: Sequence[np.random.Generator]) -> Floats:
        """(n, nq + nv), the positions and velocities that episodes start from, one of each generator."""
        noise, nq = self.options["reset_noise_scale"], self.model.nq
        motion = np.empty((len(generators), len(self._initial_motion)))
        for row, generator in zip(motion, generators, strict=True):
            if self.normal_velocities:
                row[:nq] = generator.uniform(-noise, noise, nq)
                row[nq:] = noise * generator.standard_normal(self.model.nv)
            else:
                row[:] = generator.uniform(-noise, noise, len(row))
        motion += self._initial_motion
        return motion

    @abstractmethod
    def reward_and_termination(self, actions: Array, before: Floats, after: Look) -> Verdict:
        """Reward (n_envs,), terminated (n_envs,) and the reward's terms, from the place before and the look after."""

    def _never(self) -> Bools:
        return np.zeros(self.engine.n_envs, np.bool_)


class Runner(Robot):
    """Robots paid for their velocity along x: r = (w_f ẋ + w_h [healthy]) − (w_c |a|² + contact cost)."""

    def healthy(self, motion: Floats) -> Bools | None:
        """(n_envs,) bool, which robots have not fallen; None where that is neither paid nor the end."""
        return None

    def control_cost(self, actions: Array) -> Array:
        """(n_envs,) in the actions' dtype, as Gymnasium has it."""
        cost: Array = self.options["ctrl_cost_weight"] * _squares(actions)
        return cost

    def contact_cost(self) -> Floats | None:
        """(n_envs,), or None where contacts have no price."""
        return None

    def reward_and_termination(self, actions: Array, before: Floats, after: Look) -> Verdict:
        velocity = (after.place - before) / self.dt
        income = velocity[:, 0] * self.options.get("forward_reward_weight", 1.0)
        costs = self.control_cost(actions)
        terms: Terms = {"reward_forward": income, "reward_ctrl": -costs}
        terminated = None
        if (healthy := self.healthy(after.motion)) is not None:
            ends = self.options["terminate_when_unhealthy"]
            paid = np.ones_like(healthy) if ends and self.version == "v4" else healthy
            terms["reward_survive"] = paid * self.options["healthy_reward"]
            income = income + terms["reward_survive"]
            if ends:
                terminated = ~healthy
        if (contact_cost := self.contact_cost()) is not None:
            terms["reward_contact"] = -contact_cost
            costs = costs + contact_cost
        for i, (position, speed) in enumerate(_WHEREABOUTS[: self.skipped]):
            terms[position] = after.motion[:, i]
            terms[speed] = velocity[:, i]
        return income - costs, self._never() if terminated is None else terminated, terms


class HalfCheetah(Runner):
    """Never falls."""

    normal_velocities = True


class Swimmer(Runner):
    """Never falls."""

    skipped = 2


class Walker2d(Runner):
    """Healthy while its height and its angle are within their ranges."""

    velocity_limit = 10.0

    def healthy(self, motion: Floats) -> Bools:
        height, angle = motion[:, 1], motion[:, 2]
        low, high = self.options["healthy_z_range"]
        left, right = self.options["healthy_angle_range"]
        upright: Bools = (low < height) & (height < high) & (left < angle) & (angle < right)
        return upright


class Hopper(Walker2d):
    """Healthy while, besides, every other position and velocity is within its range."""

    def healthy(self, motion: Floats) -> Bools:
        low, high = self.options["healthy_state_range"]
        state = motion[:, 2:]
        sane: Bools = ((low < state) & (state < high)).all(axis=1)
        return sane & super().healthy(motion)


class Ant(Runner):
    """Healthy while its height is within its range and all positions and velocities are finite."""

    skipped = 2
    normal_velocities = True

    def __init__(self, version: str, options: Keywords) -> None:
        super().__init__(version, options)
        if version == "v4":
            observes_contacts = self.contact_priced = options["use_contact_forces"]
        else:
            observes_contacts = options["include_cfrc_ext_in_observation"]
            self.contact_priced = options["contact_cost_weight"] != 0
        if observes_contacts:
            # v4 observes the force on the world too.
            first_body = 0 if version == "v4" else 1
            self.observed.append((CONTACT_FORCES, first_body, options["contact_force_range"]))

    @property
    def needed_fields(self) -> set[str]:
        return super().needed_fields | {"xpos"}

    def attach(self, engine: PhysicsEngine) -> None:
        super().attach(engine)
        body = self.options.get("main_body", "torso")
        bodies = {self.model.body(i).name: i for i in range(self.model.nbody)}
        if body not in bodies and body not in range(self.model.nbody):
            raise unknown_name("main_body", body, filter(None, bodies), f"Or a number below {self.model.nbody}.")
        self._main_body = bodies[body] if body in bodies else int(body)

    def place(self, envs: Rows, motion: Floats) -> Floats:
        # Not from the positions: under RK4 a body's place belongs to the last of the four stages.
        return np.array(self.engine.fields["xpos"][envs, self._main_body, :2])

    def healthy(self, motion: Floats) -> Bools:
        low, high = self.options["healthy_z_range"]
        height = motion[:, 2]
        # A sum is finite if and only if all its terms are, short of an overflow that MuJoCo never lets happen.
        finite = np.isfinite(np.add.reduce(motion, axis=1))
        healthy: Bools = finite & (low <= height) & (height <= high)
        return healthy

    def contact_cost(self) -> Floats | None:
        if not self.contact_priced:
            return None
        forces = clipped(self.engine.fields[CONTACT_FORCES], self.options["contact_force_range"])
        cost: Floats = self.options["contact_cost_weight"] * _squares(forces.reshape(len(forces), -1))
        return cost


class _Humanlike(Robot):
    """What Humanoid and HumanoidStandup share: the observation, and costs of controls and contacts."""

    skipped = 2

    def __init__(self, version: str, options: Keywords) -> None:
        super().__init__(version, options)
        # v5 leaves out the world's body and the root's six forces, which are constant.
        first = {"cinert": 1, "cvel": 1, "qfrc_actuator": 6, CONTACT_FORCES: 1}
        self.observed = [
            (field, 0 if version == "v4" else start, None)
            for field, start in first.items()
            if options.get(f"include_{field}_in_observation", True)
        ]

    def control_cost(self, actions: Array) -> Array:
        """(n_envs,) float64: of the simulation's controls, not of the action."""
        cost: Floats = self.options.get("ctrl_cost_weight", 0.1) * _squares(self.engine.ctrl)
        return cost

    def _priced_contacts(self, weight: float, limits: Limits) -> Floats:
        forces = self.engine.fields[CONTACT_FORCES]
        return clipped(weight * _squares(forces.reshape(len(forces), -1)), limits)


class Humanoid(_Humanlike, Runner):
    """Healthy while its height is within its range."""

    def __init__(self, version: str, options: Keywords) -> None:
        super().__init__(version, options)
        self.contact_priced = version != "v4"

    @property
    def needed_fields(self) -> set[str]:
        return super().needed_fields | {"xipos"}

    def attach(self, engine: PhysicsEngine) -> None:
        super().attach(engine)
        self._mass = self.model.body_mass.copy()
        self._total_mass = self._mass.sum()

    def place(self, envs: Rows, motion: Floats) -> Floats:
        weighted = np.einsum("b,nbj->nj", self._mass, self.engine.fields["xipos"][envs])
        centre: Floats = (weighted / self._total_mass)[:, :2]
        return centre

    def healthy(self, motion: Floats) -> Bools:
        low, high = self.options["healthy_z_range"]
        height = motion[:, 2]
        healthy: Bools = (low < height) & (height < high)
        return healthy

    def contact_cost(self) -> Floats | None:
        if not self.contact_priced:
            return None
        return self._priced_contacts(self.options["contact_cost_weight"], self.options["contact_cost_range"])


class HumanoidStandup(_Humanlike):
    """Paid for its height: r = z / Δt − w_c |u|² − impact cost + 1. Never falls."""

    contact_priced = True

    def reward_and_termination(self, actions: Array, before: Floats, after: Look) -> Verdict:
        rise = after.motion[:, 2] / self.model.opt.timestep
        control_cost = self.control_cost(actions)
        impact_cost = self._priced_contacts(
            self.options.get("impact_cost_weight", 0.5e-6), self.options.get("impact_cost_range", (-np.inf, 10.0))
        )
        terms = {"reward_linup": rise, "reward_quadctrl": -control_cost, "reward_impact": -impact_cost}
        terms |= {position: after.motion[:, i] for i, (position, _) in enumerate(_WHEREABOUTS)}
        return rise - control_cost - impact_cost + 1, self._never(), terms
