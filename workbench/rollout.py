"""Collecting experience: ``n_steps`` joint steps in every environment, as immutable time-major tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from workbench.envs.base import TeamEnv, TimeStep
from workbench.errors import NonFiniteError
from workbench.randomness import Streams
from workbench.team import Actor, Team, as_env_action, stack_masks


@dataclass(frozen=True, slots=True)
class Rollout:
    """Experience of one iteration; shared by forks, never written to.

    observations        {agent: (n_steps + 1, n_envs, inputs)} what its policy saw; the last row is what follows
    actions             {agent: (n_steps, n_envs, action_size)}
    states              (n_steps + 1, n_envs, state_dim)
    rewards             (n_steps, n_envs) joint reward of the step taken at t
    terminated          (n_steps, n_envs) bool
    truncated           (n_steps, n_envs) bool
    final_at            (k, 2) int, the (t, environment) of every episode's end, in order of time
    final_states        (k, state_dim), the true last states there
    final_observations  {agent: (k, inputs)}
    masks               {agent: (n_steps, n_envs, n_actions) bool}, agents whose actions are never limited are absent
    active              {agent: (n_steps, n_envs) 0 or 1}, agents that never leave are absent
    episode_returns     (k,) undiscounted return of the episodes that ended, in the order of ``final_at``
    episode_lengths     (k,)
    """

    observations: Mapping[str, Tensor]
    actions: Mapping[str, Tensor]
    states: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_at: Tensor
    final_states: Tensor
    final_observations: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    active: Mapping[str, Tensor]
    episode_returns: npt.NDArray[np.float64]
    episode_lengths: npt.NDArray[np.int64]

    @property
    def n_steps(self) -> int:
        return len(self.rewards)

    @property
    def done(self) -> Tensor:
        """(n_steps, n_envs) bool: the episode ended with this step, in either way."""
        return self.terminated | self.truncated


@dataclass(frozen=True, slots=True)
class Running:
    """What a rollout starts from: the shown observations, and the running episodes' return and length so far."""

    current: TimeStep
    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]

    @staticmethod
    def first(current: TimeStep) -> Running:
        """At the beginning of an episode in every environment."""
        n_envs = len(current.reward)
        return Running(current, np.zeros(n_envs), np.zeros(n_envs, np.int64))


class _Buffers:
    """The arrays that a rollout fills, one stack of agents at a time."""

    def __init__(self, actor: Actor, env: TeamEnv, n_steps: int, streams: Streams, iteration: int) -> None:
        self.inputs: list[Tensor] = []
        self.actions: list[Tensor] = []
        self.noise: list[Tensor] = []
        for stacked in actor.stacks:
            policy, n_agents = stacked.policy, len(stacked.agents)
            dtype = stacked.folded.weights[0].dtype
            self.inputs.append(torch.empty(n_agents, n_steps + 1, env.n_envs, policy.network.n_inputs, dtype=dtype))
            action_dtype = policy.head.action_dtype or dtype
            self.actions.append(torch.empty(n_agents, n_steps, env.n_envs, policy.head.action_size, dtype=action_dtype))
            draws = [
                policy.head.noise(
                    (n_steps, env.n_envs), streams.torch("actions", iteration, env.agents.index(agent)), dtype
                )
                for agent in stacked.agents
            ]
            self.noise.append(torch.stack(draws))


@torch.no_grad()
def collect(
    env: TeamEnv,
    team: Team,
    actor: Actor,
    running: Running,
    n_steps: int,
    streams: Streams,
    iteration: int,
) -> tuple[Rollout, Running]:
    """``n_steps`` joint steps by the team's policies from ``running`` on: what was seen, and where it led.

    All noise is drawn beforehand from streams keyed by (iteration, agent). Raises ``NonFiniteError`` naming the agent
    and the step when the environment shows NaN or inf.
    """
    dtype = actor.stacks[0].folded.weights[0].dtype
    device = actor.stacks[0].folded.weights[0].device
    buffers = _Buffers(actor, env, n_steps, streams, iteration)
    states = torch.empty(n_steps + 1, *running.current.state.shape, dtype=dtype)
    rewards = np.empty((n_steps, env.n_envs))
    terminated = np.empty((n_steps, env.n_envs), bool)
    truncated = np.empty((n_steps, env.n_envs), bool)
    masks: list[Mapping[str, npt.NDArray[np.bool_]]] = []
    active: list[Mapping[str, npt.NDArray[np.bool_]]] = []
    ends: list[tuple[int, TimeStep]] = []
    returns, lengths = running.returns.copy(), running.lengths.copy()
    episode_returns: list[float] = []
    episode_lengths: list[int] = []

    arrays = [inputs.numpy() for inputs in buffers.inputs]
    states_array = states.numpy()

    def show(t: int, step: TimeStep) -> None:
        for stacked, inputs in zip(actor.stacks, arrays, strict=True):
            actor.inputs(stacked, step.observations, inputs[:, t])
        states_array[t] = step.state

    step = running.current
    show(0, step)
    for t in range(n_steps):
        joint_action: dict[str, npt.NDArray[Any]] = {}
        for stacked, inputs, actions, noise in zip(
            actor.stacks, buffers.inputs, buffers.actions, buffers.noise, strict=True
        ):
            mask = stack_masks(stacked.agents, step.action_masks)
            with torch.inference_mode():
                parameters = actor.distribution(stacked, inputs[:, t].to(device), mask)
                chosen = stacked.policy.head.sample(parameters, noise[:, t].to(device)).cpu()
            actions[:, t] = chosen
            for row, agent in enumerate(stacked.agents):
                joint_action[agent] = as_env_action(stacked.policy, chosen[row])
        masks.append(step.action_masks)
        active.append(step.active)
        step = env.step(joint_action)
        _refuse_non_finite(env, step, t, iteration)
        show(t + 1, step)
        rewards[t], terminated[t], truncated[t] = step.reward, step.terminated, step.truncated
        returns += step.reward
        lengths += 1
        if step.final is not None:
            ends.append((t, step))
            ended = step.final.envs
            episode_returns.extend(returns[ended].tolist())
            episode_lengths.extend(lengths[ended].tolist())
            returns[ended], lengths[ended] = 0.0, 0

    by_agent = {
        agent: (inputs[row], actions[row])
        for stacked, inputs, actions in zip(actor.stacks, buffers.inputs, buffers.actions, strict=True)
        for row, agent in enumerate(stacked.agents)
    }
    final_at, final_states, final_observations = _finals(env, team, ends, states.shape[2:], dtype)
    rollout = Rollout(
        observations={agent: by_agent[agent][0].to(device) for agent in team.agents},
        actions={agent: by_agent[agent][1].to(device) for agent in team.agents},
        states=states.to(device),
        rewards=torch.from_numpy(rewards).to(device, dtype),
        terminated=torch.from_numpy(terminated).to(device),
        truncated=torch.from_numpy(truncated).to(device),
        final_at=final_at,
        final_states=final_states.to(device),
        final_observations={agent: seen.to(device) for agent, seen in final_observations.items()},
        masks={agent: array.to(device) for agent, array in _over_time(masks).items()},
        active={agent: array.to(device, dtype) for agent, array in _over_time(active).items()},
        episode_returns=np.array(episode_returns),
        episode_lengths=np.array(episode_lengths, np.int64),
    )
    return rollout, Running(step, returns, lengths)


def _finals(
    env: TeamEnv, team: Team, ends: list[tuple[int, TimeStep]], state_shape: torch.Size, dtype: torch.dtype
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Where episodes ended, and what was truly last seen there."""
    finals = [(t, step.final) for t, step in ends if step.final is not None]
    if not finals:
        none_seen = {agent: torch.empty(0, team.input_size(env, agent), dtype=dtype) for agent in team.agents}
        return torch.empty(0, 2, dtype=torch.int64), torch.empty(0, *state_shape, dtype=dtype), none_seen
    at = np.concatenate([np.stack([np.full(len(final.envs), t), final.envs], 1) for t, final in finals])
    states = np.concatenate([final.state for _, final in finals])
    observations = {}
    for index, agent in enumerate(team.agents):
        seen = np.concatenate([final.observations[agent] for _, final in finals])
        if team.agent_id:
            identity = np.zeros((len(seen), len(team.agents)), seen.dtype)
            identity[:, index] = 1
            seen = np.concatenate([seen, identity], 1)
        observations[agent] = torch.from_numpy(seen).to(dtype)
    return torch.from_numpy(at), torch.from_numpy(states).to(dtype), observations


def _over_time(steps: list[Mapping[str, npt.NDArray[np.bool_]]]) -> dict[str, Tensor]:
    """Per-step arrays as one (n_steps, …) tensor an agent; a step without the agent's entry is all True."""
    present = {agent: array for step in steps for agent, array in step.items()}
    return {
        agent: torch.from_numpy(np.stack([step.get(agent, np.ones_like(array)) for step in steps]))
        for agent, array in present.items()
    }


def _refuse_non_finite(env: TeamEnv, step: TimeStep, t: int, iteration: int) -> None:
    # A sum is finite exactly when its terms are (short of overflow, which is an error too), and costs one pass.
    if np.isfinite(step.reward.sum() + step.state.sum() + sum(seen.sum() for seen in step.observations.values())):
        return
    shown = {"reward": step.reward, "state": step.state}
    shown |= {f"observation of {agent}": step.observations[agent] for agent in env.agents}
    for what, array in shown.items():
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(1)
        if bad.any():
            raise NonFiniteError(
                f"the {what} is NaN or inf in environment {int(bad.argmax())} after step {t} of iteration {iteration}. "
                "The trainer is where it was before this collect. Look at the environment there, or for actions that "
                "grew too large."
            )
