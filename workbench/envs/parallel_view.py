"""``env.as_parallel_env()``: one copy of a team's environment as PettingZoo has it, for other libraries to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

if TYPE_CHECKING:
    from workbench.envs.base import Array, TeamEnv, TimeStep

PerAgent = dict[str, Any]


class ParallelView(ParallelEnv[str, Any, Any]):  # type: ignore[misc] # published without types
    """A ``TeamEnv`` of one copy as a PettingZoo ``ParallelEnv``.

    Every agent is paid the joint reward. The observations of an episode's last step are its true last ones; all agents
    have left then, and ``reset()`` goes on to the episode that the environment has begun. An agent's info holds its
    ``action_mask`` where it has one, as PettingZoo names it. ``state()`` is what a central critic sees.
    """

    metadata: dict[str, Any] = {"name": "workbench_team", "is_parallelizable": True}  # noqa: RUF012 - PettingZoo's own
    render_mode = None

    def __init__(self, env: TeamEnv) -> None:
        if env.n_envs != 1:
            raise ValueError(f"a ParallelEnv is one environment, this has n_envs={env.n_envs}: pass env.remake(1).")
        self.team_env = env
        self.possible_agents = list(env.agents)
        self.agents: list[str] = []
        self._begun: TimeStep | None = None
        self._state: Array = np.zeros(env.state_space.shape, env.state_space.dtype)
        self._idle = {agent: _idle(space) for agent, space in env.action_spaces.items()}

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        return self.team_env.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        return self.team_env.action_spaces[agent]

    def reset(self, seed: int | None = None, options: PerAgent | None = None) -> tuple[PerAgent, PerAgent]:
        """Begin an episode: observations and infos of all agents. ``options`` are not used."""
        begun, self._begun = self._begun, None
        step = begun if begun is not None and seed is None else self.team_env.reset(seed)
        self.agents = self._present(step)
        self._state = step.state[0]
        return {agent: step.observations[agent][0] for agent in self.agents}, self._infos(self.agents, step)

    def step(self, actions: PerAgent) -> tuple[PerAgent, PerAgent, PerAgent, PerAgent, PerAgent]:
        """Take one joint step: observations, rewards, terminations, truncations and infos of ``agents``.

        ``actions`` has one for each of ``agents``; ``ValueError`` names the agent where one is missing or unfit.
        """
        asked = self.agents
        absent = [agent for agent in self.possible_agents if agent not in asked]
        joint_action = {agent: np.asarray(action)[None] for agent, action in actions.items()}
        step = self.team_env.step(joint_action | {agent: self._idle[agent] for agent in absent})
        ended = step.final is not None
        self.agents = [] if ended else self._present(step)
        self._begun = step if ended else None
        observations, self._state = step.observations, step.state[0]
        if step.final is not None:
            observations, self._state = step.final.observations, step.final.state[0]
        truncated = bool(step.truncated[0])
        return (
            {agent: observations[agent][0] for agent in asked},
            {agent: float(step.reward[0]) for agent in asked},
            {agent: agent not in self.agents and not truncated for agent in asked},
            dict.fromkeys(asked, truncated),
            self._infos(asked, step),
        )

    def state(self) -> Array:
        """(state_dim,), what a central critic sees now; after an episode's last step, its final state."""
        return self._state

    def close(self) -> None:
        """Close the team's environment."""
        self.team_env.close()

    def _present(self, step: TimeStep) -> list[str]:
        return [agent for agent in self.possible_agents if agent not in step.active or step.active[agent][0]]

    def _infos(self, agents: list[str], step: TimeStep) -> PerAgent:
        common = {name: values[0] for name, values in step.info.items()}
        masks = {agent: {"action_mask": mask[0]} for agent, mask in step.action_masks.items()}
        return {agent: common | masks.get(agent, {}) for agent in agents}


def _idle(space: gymnasium.Space[object]) -> Array:
    """An action, of no consequence, for an agent that has left: (1, ...)."""
    if isinstance(space, gymnasium.spaces.Box):
        nearest: Array = np.clip(np.zeros((1, *space.shape), space.dtype), space.low, space.high)
        return nearest
    assert isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete)
    return np.zeros((1, *(space.shape or ())), np.int64) + space.start
