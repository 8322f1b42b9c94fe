"""PettingZoo environments for the tests, in a file of their own so that worker processes can import them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from pettingzoo import ParallelEnv

import workbench as wb
from workbench.envs.parallel import PettingZooTeamEnv
from workbench.errors import NonFiniteError

Leaving = Mapping[str, tuple[int, str]]


class Scripted(ParallelEnv):
    """Each agent leaves at the step and in the way its script says; agent k sees (t, k, its last action).

    What it was given is kept in ``received`` and ``seeds``. Rewards, spaces and masks are as told.
    """

    metadata = {"name": "scripted"}  # noqa: RUF012 - PettingZoo's own attribute

    def __init__(
        self,
        leaving: Leaving | None = None,
        reward: Callable[[str, int], float] = lambda agent, t: float(t),
        action_space: gymnasium.Space[Any] | None = None,
        mask: Callable[[str, int], Any] | None = None,
        mask_in: str = "infos",
        fail_at: tuple[int, Callable[[], Any]] | None = None,
        keeps_agents: bool = False,
    ) -> None:
        self.leaving = dict(leaving or {"a": (3, "truncated"), "b": (3, "truncated")})
        self.possible_agents = list(self.leaving)
        self.reward, self.mask, self.mask_in, self.fail_at = reward, mask, mask_in, fail_at
        self.keeps_agents = keeps_agents  # those who have left stay among ``agents``, flagged once only
        self.own_action_space = spaces.Discrete(3) if action_space is None else action_space
        self.received: list[dict[str, Any]] = []
        self.seeds: list[int | None] = []

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        return self.own_action_space

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        vector = spaces.Box(-10, 1000, (3,))
        if self.mask is None or self.mask_in == "infos":
            return vector
        n = int(np.asarray(self.mask(agent, 0)).size)
        return spaces.Dict({"observation": vector, "action_mask": spaces.MultiBinary(n)})

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.seeds.append(seed)
        self.agents = list(self.possible_agents)
        self.t = 0
        self.last = dict.fromkeys(self.agents, -1.0)
        return self._observations(), self._infos()

    def step(self, actions: dict[str, Any]) -> Any:
        self.received.append(dict(actions))
        self.t += 1
        if self.fail_at is not None and self.t == self.fail_at[0]:
            self.fail_at[1]()
        for agent, action in actions.items():
            self.last[agent] = float(np.asarray(action, float).sum())
        acting = list(self.agents)
        flags = {
            way: {agent: self.leaving[agent] in ((self.t, way), (self.t, "both")) for agent in acting}
            for way in ("terminated", "truncated")
        }
        observations, infos = self._observations(), self._infos()
        if not self.keeps_agents:
            self.agents = [agent for agent in acting if self.t < self.leaving[agent][0]]
        rewards = {agent: self.reward(agent, self.t) for agent in acting}
        return observations, rewards, flags["terminated"], flags["truncated"], infos

    def _observations(self) -> dict[str, Any]:
        seen = {}
        for agent in self.agents:
            vector = np.array([self.t, self.possible_agents.index(agent), self.last[agent]], np.float32)
            seen[agent] = vector
            if self.mask is not None and self.mask_in == "observations":
                seen[agent] = {"observation": vector, "action_mask": np.asarray(self.mask(agent, self.t), np.int8)}
        return seen

    def _infos(self) -> dict[str, Any]:
        if self.mask is None or self.mask_in == "observations":
            return {agent: {} for agent in self.agents}
        masks = {agent: self.mask(agent, self.t) for agent in self.agents}
        return {agent: {} if mask is None else {"action_mask": mask} for agent, mask in masks.items()}


class Walk(ParallelEnv):
    """Two agents push a random walk with a generator of its own; an episode ends when it leaves [−3, 3], or after 20
    steps. It can copy itself."""

    metadata = {"name": "walk"}  # noqa: RUF012 - PettingZoo's own attribute

    def __init__(self) -> None:
        self.possible_agents = ["left", "right"]
        self.rng = np.random.default_rng()

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        return spaces.Box(-10, 10, (2,))

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        return spaces.Box(-1, 1, (1,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.t, self.x = 0, np.array([self.rng.uniform(-1, 1)])
        return self._observations(), {agent: {} for agent in self.agents}

    def _observations(self) -> dict[str, Any]:
        return {agent: np.array([self.x[0], self.t / 20], np.float32) for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        self.t += 1
        self.x += self.rng.normal() + float(actions["right"][0]) - float(actions["left"][0])  # in place, as many do
        fell, late = bool(abs(self.x[0]) > 3), self.t == 20
        observations = self._observations()
        given = [dict.fromkeys(self.agents, value) for value in (float(-abs(self.x[0])), fell, late and not fell)]
        infos: dict[str, Any] = {agent: {} for agent in self.agents}
        if fell or late:
            self.agents = []
        return observations, *given, infos

    def get_state(self) -> dict[str, Any]:
        return {"x": self.x, "t": self.t, "generator": self.rng.bit_generator.state, "agents": self.agents}

    def set_state(self, state: dict[str, Any]) -> None:
        self.x, self.t, self.agents = state["x"], state["t"], list(state["agents"])
        self.rng.bit_generator.state = state["generator"]


class Opaque(Walk):
    """The walk, of which no copy can be made."""

    get_state = None  # type: ignore[assignment]
    set_state = None  # type: ignore[assignment]


class Carrying(Walk):
    """The walk, but each episode begins near where the last one ended, whatever the seed."""

    x = np.zeros(1)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        last = self.x / 10
        _, infos = super().reset(seed)
        self.x = self.x + last
        return self._observations(), infos


class Fragile(Walk):
    """The walk, but a large push by "left" breaks it, in the way of ``WAYS[push − 10]``."""

    def step(self, actions: dict[str, Any]) -> Any:
        if (push := round(float(actions["left"][0]))) >= 10:
            list(WAYS.values())[push - 10]()
        return super().step(actions)


class Foraging(ParallelEnv):
    """Level-based foraging (a Gymnasium environment with tuples) through PettingZoo's API."""

    metadata = {"name": "foraging"}  # noqa: RUF012 - PettingZoo's own attribute

    def __init__(self, task: str = "Foraging-5x5-2p-1f-coop-v3") -> None:
        import lbforaging  # noqa: F401 - registers the tasks

        self.env = gymnasium.make(task, disable_env_checker=True)
        inner: Any = self.env.observation_space
        self.possible_agents = [f"player_{i}" for i in range(len(inner.spaces))]

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        inner: Any = self.env.observation_space
        space: gymnasium.Space[Any] = inner[self.possible_agents.index(agent)]
        return space

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        inner: Any = self.env.action_space
        space: gymnasium.Space[Any] = inner[self.possible_agents.index(agent)]
        return space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        inner: Any = self.env.unwrapped
        for player in inner.players:
            player.position = None  # else the last episode's places are taken, and the seed is not all that counts
        observations, _ = self.env.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._by_agent(observations), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        observations, rewards, terminated, truncated, _ = self.env.step(tuple(actions[a] for a in self.agents))
        acting = self.agents
        if terminated or truncated:
            self.agents = []
        flags = (dict.fromkeys(acting, bool(flag)) for flag in (terminated, truncated))
        return self._by_agent(observations), self._by_agent(rewards), *flags, {agent: {} for agent in acting}

    def _by_agent(self, values: Any) -> dict[str, Any]:
        return dict(zip(self.possible_agents, values, strict=True))

    def close(self) -> None:
        self.env.close()


# ---- what the tests share ----


def one(make: Callable[[], Any], **options: Any) -> tuple[PettingZooTeamEnv, wb.envs.TimeStep]:
    """One copy and its first sight."""
    env = wb.envs.pettingzoo(make, n_envs=1, **options)
    return env, env.reset(seed=0)


def actions_for(env: wb.envs.TeamEnv, rng: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    """Random actions, continuous ones also outside the bounds."""

    def draw(space: Any) -> npt.NDArray[Any]:
        if isinstance(space, spaces.Box):
            return rng.normal(size=(env.n_envs, *space.shape)).astype(np.float32)
        if isinstance(space, spaces.MultiDiscrete):
            return rng.integers(space.nvec, size=(env.n_envs, len(space.nvec)))
        return rng.integers(space.n, size=env.n_envs)

    return {agent: draw(env.action_spaces[agent]) for agent in env.agents}


def same(a: wb.envs.TimeStep, b: wb.envs.TimeStep) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("state", "reward", "terminated", "truncated")]
    pairs += [(a.observations[agent], b.observations[agent]) for agent in a.observations]
    if (a.final is None) != (b.final is None):
        return False
    if a.final is not None and b.final is not None:
        pairs += [(a.final.state, b.final.state), (a.final.envs, b.final.envs)]
    return all(np.array_equal(x, y) for x, y in pairs)


# ---- ways to fail ----


def raise_error() -> None:
    raise KeyError("the key was lost")


def leave() -> None:
    os._exit(3)


def crash() -> None:
    ctypes.string_at(0)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt_the_parent() -> None:
    os.kill(os.getppid(), signal.SIGINT)
    signal.pause()


def show_nan() -> None:
    raise NonFiniteError("the reward of 'left' is nan")


WAYS = {way.__name__: way for way in (raise_error, leave, crash, be_killed, interrupt_the_parent, show_nan)}
