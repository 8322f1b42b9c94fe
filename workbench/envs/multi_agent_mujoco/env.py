"""``MujocoTeamEnv``: one robot's joints shared out among a team of agents."""

from __future__ import annotations

from importlib import resources
from typing import Any

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from workbench.envs.base import Actions, Final, Snapshot, TeamEnv, TimeStep
from workbench.envs.multi_agent_mujoco.engine import (
    CONTACT_FORCES,
    BatchEngine,
    Engine,
    ThreadedEngine,
    usable_cpus,
    without_idle_features,
)
from workbench.envs.multi_agent_mujoco.observations import StandardisedState
from workbench.envs.multi_agent_mujoco.partitions import PARTITIONS
from workbench.envs.multi_agent_mujoco.robots import ROBOTS
from workbench.errors import unknown_name

_ASSETS = resources.files("gymnasium") / "envs" / "mujoco" / "assets"


class MujocoTeamEnv(TeamEnv):
    """A batch of ``n_envs`` copies of one robot, stepped on ``n_threads`` threads."""

    def __init__(
        self,
        scenario: str,
        agent_conf: str | None = None,
        *,
        n_envs: int = 20,
        agent_obsk: int | None = None,
        max_episode_steps: int | None = 1000,
        n_threads: int | None = None,
        version: str = "v5",
        **keywords: Any,
    ) -> None:
        if scenario not in ROBOTS:
            raise unknown_name("scenario", scenario, ROBOTS)
        if agent_conf not in PARTITIONS[scenario]:
            raise unknown_name(f"partition of {scenario}", agent_conf, PARTITIONS[scenario])
        defaults = ROBOTS[scenario].keywords[version]
        for keyword in keywords:
            if keyword not in defaults:
                raise unknown_name(f"keyword of {scenario}", keyword, [*defaults, "max_episode_steps"])
        self.scenario, self.agent_conf, self.n_envs = scenario, agent_conf, n_envs
        self._max_episode_steps = max_episode_steps
        options = defaults | keywords
        self.robot = ROBOTS[scenario](version, options)
        model = mujoco.MjModel.from_xml_path(str(_ASSETS / ROBOTS[scenario].xml_files[version]))
        model = without_idle_features(model)
        fields = self.robot.needed_fields
        kind = ThreadedEngine if CONTACT_FORCES in fields else BatchEngine
        self.engine: Engine = kind(model, n_envs, n_threads or usable_cpus(), options.get("frame_skip", 5), fields)
        self.robot.attach(self.engine)
        self._share(model, PARTITIONS[scenario][agent_conf])
        self._observer = StandardisedState(self.robot.observation_size, self.agents)
        self.observation_spaces = self._observer.observation_spaces
        self.state_space = self._observer.state_space
        self._generators = [np.random.default_rng() for _ in range(n_envs)]
        self._elapsed = np.zeros(n_envs, np.int64)

    def _share(self, model: mujoco.MjModel, parts: tuple[tuple[str, ...], ...]) -> None:
        actuator_of = {model.joint(int(model.actuator_trnid[i, 0])).name: i for i in range(model.nu)}
        self.agents = tuple(f"agent_{i}" for i in range(len(parts)))
        self._columns = {
            agent: np.array([actuator_of[joint] for joint in part])
            for agent, part in zip(self.agents, parts, strict=True)
        }
        low, high = model.actuator_ctrlrange.astype(np.float32).T
        self.action_spaces = {
            agent: gymnasium.spaces.Box(low[columns], high[columns], dtype=np.float32)
            for agent, columns in self._columns.items()
        }

    def reset(self, seed: int | None = None) -> TimeStep:
        if seed is not None:
            self._generators = [
                np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed + i))) for i in range(self.n_envs)
            ]
        self._before = np.empty_like(self.robot.place())
        self._begin(np.arange(self.n_envs))
        raw = self.robot.observe()
        observations, state = self._observer(raw)
        none = np.zeros(self.n_envs, np.bool_)
        return TimeStep(observations, state, np.zeros(self.n_envs), none, none.copy(), info={"observation": raw})

    def _begin(self, envs: npt.NDArray[np.intp]) -> None:
        starts = [self.robot.draw(self._generators[env]) for env in envs]
        qpos, qvel = (np.stack(parts) for parts in zip(*starts, strict=True))
        self.engine.reset(envs, qpos, qvel)
        self._before[envs] = self.robot.place(envs)
        self._elapsed[envs] = 0

    def step(self, actions: Actions) -> TimeStep:
        joint_action = self._joint_action(actions)
        self.engine.ctrl[:] = joint_action
        self.engine.step()
        self._elapsed += 1
        after = self.robot.place()
        reward, terminated, terms = self.robot.judge(joint_action, self._before, after)
        self._before = after
        truncated = (self._elapsed >= self._max_episode_steps) & ~terminated
        raw = self.robot.observe()
        info = {"observation": raw, **terms}
        final = None
        ended = np.flatnonzero(terminated | truncated)
        if ended.size:
            final = Final(ended, *self._observer(raw[ended]))
            self._begin(ended)
            raw = raw.copy()
            raw[ended] = self.robot.observe(ended)
        observations, state = self._observer(raw)
        return TimeStep(observations, state, reward, terminated, truncated, final, info=info)

    def _joint_action(self, actions: Actions) -> npt.NDArray[Any]:
        given = [np.asarray(actions[agent]) for agent in self.agents]
        single = all(action.dtype == np.float32 for action in given)
        joint_action = np.empty((self.n_envs, self.engine.model.nu), np.float32 if single else np.float64)
        for agent, action in zip(self.agents, given, strict=True):
            expected = (self.n_envs, len(self._columns[agent]))
            if action.shape != expected:
                raise ValueError(f"the action of {agent!r} has shape {action.shape}, not {expected}")
            joint_action[:, self._columns[agent]] = action
        if not np.isfinite(joint_action).all():
            raise ValueError("an action is not finite")
        return joint_action

    def snapshot(self) -> Snapshot:
        words = np.empty((self.n_envs, 6), np.uint64)
        for row, generator in zip(words, self._generators, strict=True):
            pcg: Any = generator.bit_generator.state
            state, increment = pcg["state"]["state"], pcg["state"]["inc"]
            row[:] = (
                *(state >> 64, state & (2**64 - 1), increment >> 64, increment & (2**64 - 1)),
                *(pcg["has_uint32"], pcg["uinteger"]),
            )
        return {
            "physics": self.engine.save(),
            "before": self._before.copy(),
            "elapsed": self._elapsed.copy(),
            "generators": words,
        }

    def restore(self, snapshot: Snapshot) -> None:
        self.engine.load(snapshot["physics"])
        self._before = np.array(snapshot["before"])
        self._elapsed = np.array(snapshot["elapsed"])
        for generator, row in zip(self._generators, snapshot["generators"].tolist(), strict=True):
            generator.bit_generator.state = {
                "bit_generator": "PCG64",
                "state": {"state": row[0] << 64 | row[1], "inc": row[2] << 64 | row[3]},
                "has_uint32": row[4],
                "uinteger": row[5],
            }

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "mujoco", "scenario": self.scenario, "agent_conf": self.agent_conf, "n_envs": self.n_envs}

    def close(self) -> None:
        self.engine.close()
