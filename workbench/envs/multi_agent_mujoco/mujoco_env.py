"""``MujocoTeamEnv``: one robot's joints shared out among a team of agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workbench.envs.arguments import checked_snapshot, chosen_envs
from workbench.envs.base import Actions, Array, BoolArray, Snapshot, TeamEnv, TimeStep
from workbench.envs.multi_agent_mujoco.actions import ActuatorControls
from workbench.envs.multi_agent_mujoco.design import Design, Factorization
from workbench.envs.multi_agent_mujoco.observations import NearbyJoints, Observer, Readings, WholeState
from workbench.envs.multi_agent_mujoco.partitions import OwnedActuator, owned_actuator
from workbench.envs.multi_agent_mujoco.physics import Floats
from workbench.envs.multi_agent_mujoco.robot_scene import MujocoScene


class MujocoTeamEnv(TeamEnv):
    """``n_envs`` copies of a MuJoCo robot, its joints shared out among agents who are paid together.

    Observations, rewards, ends of episodes and resets equal Gymnasium's environment of the same name to the last bit:
    environment i is Gymnasium's, seeded with ``seed + i`` and reset whenever an episode ends.

    Parameters
    ----------
    scenario             Ant, HalfCheetah, Hopper, Humanoid, HumanoidStandup, Swimmer, Walker2d, ManySegmentAnt (or
                         ManyAgentAnt) or ManySegmentSwimmer (or ManyAgentSwimmer)
    agent_conf           who moves which joints, such as "4x2", four agents with two joints each; None: one moves all
    n_envs               number of copies, stepped together; 16 by default
    agent_obsk           None: as in the papers, every agent observes the whole state and its own number. k ≥ 0: its own
                         joints and those at most k steps away, as ``mamujoco_v1`` of gymnasium-robotics computes it
    standardize          True, as in the papers: (x − mean) / std of each vector, observations and state, as float32.
                         By default raw, as float64: learners standardize each feature (``normalize_observations``)
    agent_factorization  your own partition: {agent: joints}, or a sequence of joints for each agent, joints by name or
                         actuators by name or number, or as ``partition`` has them; or the mapping that
                         gymnasium-robotics takes under this name
    local_categories     for k ≥ 0, what is observed of joints 0, 1 … steps away, the last also of those beyond; by
                         default as in ``mamujoco_v1``, without what the keywords below leave out
    global_categories    for k ≥ 0, what every agent observes of the root: "qpos", "qvel"
    max_episode_steps    episodes are truncated after as many steps; 1000 by default, None: never
    version              "v5", or "v4" for Gymnasium's older rules
    n_threads            threads that step the copies; by default one for each usable CPU. Changes no result
    contact_forces       how forces of contacts are computed where Ant or Humanoid needs them: "native", on MuJoCo's
                         threads, "portable", on Python's, or "auto": native if it passes its test here. Same results
    keywords             those of Gymnasium's environment, such as ``ctrl_cost_weight``, with Gymnasium's defaults

    ``TimeStep.info`` holds Gymnasium's own ``observation`` (n_envs, size) float64, the true last one where an episode
    ended, and, after a step, ``x_position``, ``x_velocity`` and the terms of the reward as Gymnasium's v5 names them.
    Observations that are equally long are views of one array.

    Raises ``UnknownNameError`` for unknown names and ``ValueError`` for values of no use.

    >>> env = MujocoTeamEnv("Ant", "4x2", n_envs=3)
    >>> env
    MujocoTeamEnv('Ant', '4x2', n_envs=3): 4 agents, observations (109,), actions (2,), state (105,)
    >>> [owned.joint for owned in env.partition["agent_0"]]
    ['hip_1', 'ankle_1']
    >>> step = env.reset(seed=0)
    >>> step = env.step({agent: np.zeros((3, 2), np.float32) for agent in env.agents})
    >>> step.reward.shape, step.info["reward_forward"].shape, step.info["observation"].shape
    ((3,), (3,), (3, 105))
    """

    generator_rows: ClassVar[tuple[str, ...]] = ("generators",)
    rescales_actions: ClassVar[bool] = False  # the papers' policies act in the robot's own units

    def __init__(
        self,
        scenario: str,
        agent_conf: str | None = None,
        *,
        n_envs: int = 16,
        agent_obsk: int | None = None,
        standardize: bool = False,
        agent_factorization: Factorization | None = None,
        local_categories: Sequence[Sequence[str]] | None = None,
        global_categories: Sequence[str] | None = None,
        max_episode_steps: int | None = 1000,
        version: str = "v5",
        n_threads: int | None = None,
        contact_forces: str = "auto",
        **keywords: Any,
    ) -> None:
        self._design = design = Design(
            scenario=scenario,
            agent_conf=agent_conf,
            n_envs=n_envs,
            agent_obsk=agent_obsk,
            standardize=standardize,
            agent_factorization=agent_factorization,
            local_categories=local_categories,
            global_categories=global_categories,
            max_episode_steps=max_episode_steps,
            version=version,
            n_threads=n_threads,
            contact_forces=contact_forces,
            keywords=keywords,
        )
        self.scenario = design.rules.name
        self.n_envs = design.n_envs
        self.max_episode_steps = design.max_episode_steps
        self.model = design.model()
        self._shares = design.shares(self.model)
        self.agents = tuple(self._shares)
        self.robot = design.robot()
        features = design.features(self.model, self.robot, self._shares)
        self.engine = design.engine(self.model, self.robot, features)
        self.robot.attach(self.engine)
        self._starts = design.starts(self.model, self.engine)
        self._actuator_controls = ActuatorControls(self.model, self._shares, self.n_envs)
        state_size = self.robot.observation_size
        self._observer: Observer = (
            WholeState(self.agents, state_size, design.standardized)
            if features is None
            else NearbyJoints(features, self.model, state_size, design.standardized)
        )
        self.action_spaces = self._actuator_controls.action_spaces
        self.observation_spaces = self._observer.observation_spaces
        self.state_space = self._observer.state_space
        self._elapsed = np.zeros(self.n_envs, np.int64)
        self._steps_left = 0  # at least so many before any episode is truncated
        self._place = self.robot.look().place
        self._reached = self.engine.motion.copy()
        self._ready = False

    @property
    def one_hot_features(self) -> dict[str, BoolArray]:
        if self._design.agent_obsk is not None:
            return {}
        size, n = self.robot.observation_size, len(self.agents)
        return dict.fromkeys(self.agents, np.arange(size + n) >= size)

    def reset(self, seed: int | None = None) -> TimeStep:
        if seed is not None:
            self._starts.seed(seed)
        begun = self._begin(np.arange(self.n_envs))
        self._reached = self.engine.motion.copy()
        self._ready = True
        never = np.zeros(self.n_envs, np.bool_)
        info = {"observation": begun.state}
        return TimeStep(*self._observer.look(begun), np.zeros(self.n_envs), never, never.copy(), info=info)

    def _begin(self, envs: npt.NDArray[np.intp]) -> Readings:
        """Begin a new episode in ``envs``; what it shows."""
        starts = self._starts.take(envs)
        self.engine.load(starts.state[envs], envs)
        look = self._starts.robot.look(envs)
        self._place = self._place.copy()
        self._place[envs] = look.place
        self._elapsed[envs] = 0
        return Readings(look.observation, self._observer.gather(starts, envs))

    def step(self, actions: Actions) -> TimeStep:
        joint_action = self._actuator_controls(actions)
        if not self._ready:
            raise RuntimeError("step() on an environment that was closed or never reset: call reset() first.")
        self.engine.ctrl[:] = joint_action
        self.engine.step()
        look = self.robot.look()
        reward, terminated, terms = self.robot.reward_and_termination(joint_action, self._place, look)
        self._place, self._reached = look.place, look.motion
        truncated = self._count_step(terminated)
        readings = Readings(look.observation, self._observer.gather(self.engine))
        info = {"observation": look.observation, **terms}
        ended = (terminated | truncated).nonzero()[0]
        if not ended.size:
            return TimeStep(*self._observer.look(readings), reward, terminated, truncated, info=info)
        views, final = self._observer.look_past_the_end(readings, ended, self._begin(ended))
        return TimeStep(*views, reward, terminated, truncated, final, info=info)

    def _count_step(self, terminated: BoolArray) -> BoolArray:
        """(n_envs,), which episodes have lasted as long as they may, and were not over anyway."""
        self._elapsed += 1
        self._steps_left -= 1
        if self._steps_left > 0 or self.max_episode_steps is None:
            return np.zeros(self.n_envs, np.bool_)
        self._steps_left = self.max_episode_steps - int(self._elapsed.max())
        return (self._elapsed >= self.max_episode_steps) & ~terminated

    def snapshot(self) -> Snapshot:
        return {
            "physics": self.engine.save(),
            "place": self._place.copy(),
            "elapsed": self._elapsed.copy(),
            "generators": self._starts.packed(),
            "ready": np.array([self._ready]),
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a ``snapshot()``, of this or of another environment of the same kind, on any number of threads.

        Raises ``ValueError`` for what is no snapshot of such an environment, and changes nothing then.
        """
        checked_snapshot(snapshot)
        for name, own in self.snapshot().items():
            given = snapshot.get(name)
            if given is None or np.shape(given) != own.shape:
                found = "is missing" if given is None else f"has shape {np.shape(given)}"
                raise ValueError(
                    f"no snapshot of {self!r}: {name!r} {found}, expected shape {own.shape}. "
                    "Restore into an environment made with the same arguments."
                )
        self.engine.load(np.asarray(snapshot["physics"]))
        self._reached = self.engine.motion.copy()
        self._place = np.array(snapshot["place"])
        self._elapsed = np.array(snapshot["elapsed"])
        self._steps_left = 0
        self._starts.unpack(np.asarray(snapshot["generators"]))
        self._ready = bool(np.all(snapshot["ready"]))

    def select(self, snapshot: Snapshot, envs: Sequence[int]) -> Snapshot:
        chosen = chosen_envs(envs, len(checked_snapshot(snapshot)["physics"]))
        return {name: rows if name == "ready" else rows[chosen] for name, rows in snapshot.items()}

    def controls(self, actions: Actions) -> Array:
        """(n_envs, n_actuators), the controls that a joint action stands for; raises as ``step`` does."""
        return self._actuator_controls(actions)

    def render_state(self) -> Floats:
        """(n_envs, nq) float64, generalised positions; of episodes that just ended, those in which they ended."""
        return self._reached[:, : self.model.nq]

    def scene(self) -> MujocoScene:
        return MujocoScene(self.model, self.partition, self.seconds_per_step)

    @property
    def description(self) -> dict[str, Any] | None:
        return self._design.description

    def remake(self, n_envs: int) -> MujocoTeamEnv:
        return MujocoTeamEnv(**{**self._design.arguments, "n_envs": n_envs})

    @property
    def partition(self) -> dict[str, tuple[OwnedActuator, ...]]:
        """{agent: what it moves}, in the order of its action: number of the actuator, name of the joint, body moved."""
        return {
            agent: tuple(owned_actuator(self.model, actuator) for actuator in actuators)
            for agent, actuators in self._shares.items()
        }

    @property
    def positions(self) -> Floats:
        """(n_envs, nq) float64, every copy's generalised positions now, as a viewer of ``model`` wants them. A copy."""
        return self.engine.qpos.copy()

    @property
    def seconds_per_step(self) -> float:
        """Simulated time of one step."""
        return self.robot.dt

    def close(self) -> None:
        self._ready = False
        self.engine.close()

    def __repr__(self) -> str:
        conf = "" if self._design.agent_conf is None else f", {self._design.agent_conf!r}"
        observations = _shapes(self.observation_spaces)
        actions = _shapes(self.action_spaces)
        return (
            f"MujocoTeamEnv({self.scenario!r}{conf}, n_envs={self.n_envs}): {len(self.agents)} agents, "
            f"observations {observations}, actions {actions}, state {self.state_space.shape}"
        )


def _shapes(spaces: Mapping[str, Any]) -> str:
    return " or ".join(dict.fromkeys(str(space.shape) for space in spaces.values()))
