"""Collecting experience: ``n_steps`` joint steps in every environment, as immutable time-major tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from workbench.envs.base import Agent, Array, Final, Snapshot, SomeAgents, TeamEnv, TimeStep
from workbench.errors import NonFiniteError
from workbench.learning.policy_inputs import FeatureStatistics, Moments, Transform, shown_to_network
from workbench.learning.settings import Settings
from workbench.learning.team import Actor, Team, stack_masks
from workbench.randomness import Streams

# By which files are checked, as in ``envs.base``; after the shape the dtype, where it is not the learner's.
NormalizedUnit = Annotated[str, "normalized"]
SomeCritics = Annotated[str, "critics", "some"]
SQUARED = 1e4  # a reward's square, summed over many steps, must be a number too
PerStep = Annotated[Tensor, "n_steps n_envs"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """Experience of one iteration; shared by forks, never written to.

    observations        {agent: (n_steps + 1, n_envs, inputs)} what its policy saw, normalised where the settings say
                        so; the last row is what follows
    actions             {agent: (n_steps, n_envs, action_size)} in the policy's units
    states              (n_steps + 1, n_envs, state_dim) what a central critic sees
    rewards             (n_steps, n_envs) joint reward of the step taken at t
    terminated          (n_steps, n_envs) bool
    truncated           (n_steps, n_envs) bool
    final_at            (k, 2) int, the (t, environment) of every episode's end, in order of time
    final_states        (k, state_dim), the true last states there
    final_observations  {agent: (k, inputs)}
    masks               {agent: (n_steps, n_envs, n_actions) bool}, agents whose actions are never limited are absent
    active              {agent: (n_steps, n_envs) 0 or 1}, agents that never leave are absent
    memories            {agent: (n_sequences, n_envs, memory_size)} what a recurrent policy remembered before each
                        ``sequence_length`` steps; agents without a memory are absent
    episode_returns     (k,) undiscounted return of the episodes that ended, in the order of ``final_at``
    episode_lengths     (k,)
    seen                {unit: statistics of what the policies of its agents were shown}, before it was normalised
    seen_states         the same of the states; None, as ``seen`` is empty, where nothing is normalised
    """

    observations: Mapping[Agent, Annotated[Tensor, "n_steps+1 n_envs inputs"]]
    actions: Mapping[Agent, Annotated[Tensor, "n_steps n_envs action_size", "action"]]
    states: Annotated[Tensor, "n_steps+1 n_envs state"]
    rewards: PerStep
    terminated: Annotated[Tensor, "n_steps n_envs", "bool"]
    truncated: Annotated[Tensor, "n_steps n_envs", "bool"]
    final_at: Annotated[Tensor, "n_ended 2", "int64"]
    final_states: Annotated[Tensor, "n_ended state"]
    final_observations: Mapping[Agent, Annotated[Tensor, "n_ended inputs"]]
    masks: Mapping[SomeAgents, Annotated[Tensor, "n_steps n_envs n_actions", "bool"]]
    active: Mapping[SomeAgents, PerStep]
    episode_returns: Annotated[npt.NDArray[np.float64], "n_ended"]
    episode_lengths: Annotated[npt.NDArray[np.int64], "n_ended"]
    memories: Mapping[SomeAgents, Annotated[Tensor, "n_sequences n_envs memory_size"]] = field(default_factory=dict)
    seen: Mapping[NormalizedUnit, FeatureStatistics] = field(default_factory=dict)
    seen_states: FeatureStatistics | None = None

    @property
    def n_steps(self) -> int:
        return len(self.rewards)

    @property
    def done(self) -> Tensor:
        """(n_steps, n_envs) bool: the episode ended with this step, in either way."""
        return self.terminated | self.truncated

    @property
    def starts(self) -> Tensor:
        """(n_steps, n_envs) bool: the episode before ended, within this rollout, with the step before."""
        return torch.cat([torch.zeros_like(self.terminated[:1]), self.done[:-1]])


@dataclass(frozen=True, slots=True)
class CollectorState:
    """What a rollout starts from: the shown observations, and the running episodes' return and length so far.

    memory         {agent: (n_envs, memory_size)} what recurrent policies remember; an absent agent remembers nothing
    critic_memory  {critic's name: (n_envs, memory_size)}
    """

    current: TimeStep
    returns: Annotated[npt.NDArray[np.float64], "n_envs"]
    lengths: Annotated[npt.NDArray[np.int64], "n_envs"]
    memory: Mapping[SomeAgents, Annotated[Tensor, "n_envs memory_size"]] = field(default_factory=dict)
    critic_memory: Mapping[SomeCritics, Annotated[Tensor, "n_envs memory_size"]] = field(default_factory=dict)

    @staticmethod
    def first(current: TimeStep) -> CollectorState:
        """At the beginning of an episode in every environment."""
        n_envs = len(current.reward)
        return CollectorState(current.shown(), np.zeros(n_envs), np.zeros(n_envs, np.int64))


class RolloutEnv:
    """What rollouts step, put before each to where its run stands.

    env  the run's environment; of one that cannot be restored a copy of the run's own, so that what others do to
         theirs never enters a rollout
    """

    def __init__(self, env: TeamEnv) -> None:
        self.env = env
        self._shown: TimeStep | None = None  # what it showed last to a run
        if not env.can_snapshot:
            try:
                self.env = env.remake(env.n_envs)
            except NotImplementedError:
                warnings.warn(
                    f"{type(env).__name__} can be neither restored nor made anew, so that what others do to it enters "
                    "the rollouts. Give it snapshot() and restore(), or remake(), and do not step it meanwhile.",
                    stacklevel=5,
                )

    def begin(self, seed: int) -> CollectorState:
        """New episodes in every environment."""
        return self.left(CollectorState.first(self.env.reset(seed=seed)))

    def left(self, running: CollectorState) -> CollectorState:
        """A rollout has ended here."""
        self._shown = running.current
        return running

    def stand(self, running: CollectorState, snapshot: Snapshot | None, seed: int) -> CollectorState:
        """Where a rollout starts: at ``running``, or in new episodes where the environment is there no more."""
        if snapshot is not None:
            # Always from the run's own snapshot: forks share one environment, whoever stepped it last.
            self.env.restore(snapshot)
        elif self._shown is not running.current:
            warnings.warn(
                f"the last rollout failed in the midst of episodes of {type(self.env).__name__}, which cannot be "
                "restored: its episodes begin anew. Give it snapshot() and restore() to change that.",
                stacklevel=4,
            )
            return self.begin(seed)
        self._shown = None
        return running


def refuse_unfit_rollout(env: TeamEnv, team: Team, settings: Settings) -> None:
    """Refuse rollouts of one sample, of which there is no deviation, and those that memory cannot hold."""
    samples = settings.n_steps * env.n_envs
    if samples == 1:
        raise ValueError(
            "n_steps is 1 and so is n_envs; expected rollouts of more than one sample: the advantages of one have no "
            "deviation, and nothing would be learned. Take more steps or environments."
        )
    policies = [team.policy(agent) for agent in team.agents]
    numbers = sum(policy.network.n_inputs + 2 * policy.head.action_size for policy in policies)  # actions, and noise
    needed = samples * (numbers + env.state_space.shape[0]) * settings.torch_dtype.itemsize
    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"a rollout of {settings.n_steps} steps in {env.n_envs} environments takes {needed / 1e9:.1f} GB at least, "
            f"and {free / 1e9:.1f} GB of memory are available; take fewer steps or environments, or smaller "
            "observations."
        )


class _RolloutBuffer:
    """A rollout in the making: buffers that are filled step by step, one stack of agents at a time."""

    def __init__(
        self,
        env: TeamEnv,
        team: Team,
        actor: Actor,
        state_transform: Transform | None,
        running: CollectorState,
        n_steps: int,
        streams: Streams,
        iteration: int,
        sequence_length: int,
    ) -> None:
        self.team, self.actor, self.env, self.n_steps = team, actor, env, n_steps
        self.state_transform, self.seen_states = state_transform, Moments(1, env.state_space.shape[0])
        self.seen = [Moments(len(each.agents), each.policy.network.n_inputs) for each in actor.stacks]
        self.sequence_length = sequence_length
        self.memories: list[list[Tensor]] = [[] for _ in actor.stacks]
        actor.begin(env.n_envs, running.memory)
        self.dtype, self.device = actor.stacks[0].flats.dtype, actor.stacks[0].flats.device
        self.inputs, self.actions, self.noise = [], [], []
        shape = (n_steps, env.n_envs)
        for agents, policy in ((stacked.agents, stacked.policy) for stacked in actor.stacks):
            inputs = torch.empty(len(agents), n_steps + 1, env.n_envs, policy.network.n_inputs, dtype=self.dtype)
            actions_dtype = policy.head.action_dtype or self.dtype
            self.inputs.append(inputs)
            self.actions.append(torch.empty(len(agents), *shape, policy.head.action_size, dtype=actions_dtype))
            generators = [streams.torch("actions", iteration, env.agents.index(agent)) for agent in agents]
            self.noise.append(torch.stack([policy.head.noise(shape, rng, self.dtype) for rng in generators]))
        self.states = torch.empty(n_steps + 1, *running.current.state.shape, dtype=self.dtype)
        self.rewards, self.terminated, self.truncated = np.empty(shape), np.empty(shape, bool), np.empty(shape, bool)
        self.masks: list[Mapping[str, npt.NDArray[np.bool_]]] = []
        self.active: list[Mapping[str, npt.NDArray[np.bool_]]] = []
        self.ends: list[tuple[int, Final]] = []
        self.returns, self.lengths = running.returns.copy(), running.lengths.copy()
        self.episode_returns: list[float] = []
        self.episode_lengths: list[int] = []

    def show(self, t: int, step: TimeStep) -> None:
        """What policies and critic see at t."""
        acted_upon = t < self.n_steps
        for index, inputs in enumerate(self.inputs):
            moments = self.seen[index] if acted_upon else None
            self.actor.inputs(index, step.observations, inputs.numpy()[:, t], moments, step.active)
        counted = self.seen_states if acted_upon else None
        shown_to_network(self.state_transform, step.state, self.states.numpy()[t], counted)

    def act(self, t: int, step: TimeStep) -> dict[str, Array]:
        """Every agent's action on what was shown at t."""
        self.masks.append(step.action_masks)
        self.active.append(step.active)
        joint_action: dict[str, Array] = {}
        for index, stacked in enumerate(self.actor.stacks):
            mask = stack_masks(stacked.agents, step.action_masks)
            memory = self.actor.remembered(stacked)
            if memory is not None and t % self.sequence_length == 0:
                self.memories[index].append(memory)
            chosen = self.actor.sample(stacked, self.inputs[index][:, t], self.noise[index][:, t], mask)
            self.actions[index][:, t] = chosen
            for row, agent in enumerate(stacked.agents):
                joint_action[agent] = self.team.env_action(agent, chosen[row].numpy())
        return joint_action

    def outcome(self, t: int, step: TimeStep) -> None:
        """What the actions at t led to."""
        self.rewards[t], self.terminated[t], self.truncated[t] = step.reward, step.terminated, step.truncated
        self.returns += step.reward
        self.lengths += 1
        if step.final is not None:
            ended = step.final.envs
            self.ends.append((t, step.final))
            self.episode_returns.extend(self.returns[ended].tolist())
            self.episode_lengths.extend(self.lengths[ended].tolist())
            self.returns[ended], self.lengths[ended] = 0.0, 0
            self.actor.forget(ended)

    def finished(self) -> Rollout:
        """The rollout, on the learner's device."""
        device, dtype = self.device, self.dtype
        rows = {
            agent: (i, row) for i, stacked in enumerate(self.actor.stacks) for row, agent in enumerate(stacked.agents)
        }
        at = {agent: rows[agent] for agent in self.team.agents}  # in the environment's order
        final_at, final_states, final_observations = self._finals()
        normalized = self.state_transform is not None
        seen_by = {agent: self.seen[i].of(row) for agent, (i, row) in at.items()}
        return Rollout(
            observations={agent: self.inputs[i][row].to(device) for agent, (i, row) in at.items()},
            actions={agent: self.actions[i][row].to(device) for agent, (i, row) in at.items()},
            states=self.states.to(device),
            rewards=torch.from_numpy(self.rewards).to(device, dtype),
            terminated=torch.from_numpy(self.terminated).to(device),
            truncated=torch.from_numpy(self.truncated).to(device),
            final_at=final_at,
            final_states=final_states.to(device),
            final_observations={agent: seen.to(device) for agent, seen in final_observations.items()},
            masks={agent: array.to(device) for agent, array in _over_time(self.masks).items()},
            active={agent: array.to(device, dtype) for agent, array in _over_time(self.active).items()},
            episode_returns=np.array(self.episode_returns),
            episode_lengths=np.array(self.episode_lengths, np.int64),
            memories={
                agent: torch.stack([memory[row] for memory in self.memories[i]])
                for agent, (i, row) in at.items()
                if self.memories[i]
            },
            seen={unit: _merged([seen_by[a] for a in group]) for unit, group in self.team.units.items() if normalized},
            seen_states=self.seen_states.of(0) if normalized else None,
        )

    def _finals(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Where episodes ended (k, 2), and what was truly last seen there."""
        finals, agents = self.ends, self.team.agents
        none = [np.empty((0, 2), np.int64)]
        at = np.concatenate(none + [np.stack([np.full(len(final.envs), t), final.envs], 1) for t, final in finals])
        states = torch.empty(len(at), *self.states.shape[2:], dtype=self.dtype)
        seen = {a: [self._no_observations(a), *(final.observations[a] for _, final in finals)] for a in agents}
        if finals:
            raw = np.concatenate([final.state for _, final in finals])
            shown_to_network(self.state_transform, raw, states.numpy())
        observations = {agent: self.actor.inputs_of(agent, np.concatenate(seen[agent])) for agent in agents}
        return torch.from_numpy(at.astype(np.int64)), states, observations

    def _no_observations(self, agent: str) -> Array:
        """No observations of an agent, (0, observation_dim)."""
        return np.empty((0, *(self.env.observation_spaces[agent].shape or ())))


def _merged(parts: list[FeatureStatistics]) -> FeatureStatistics:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merged(part)
    return whole


@torch.no_grad()
def collect(
    env: TeamEnv,
    team: Team,
    actor: Actor,
    running: CollectorState,
    n_steps: int,
    streams: Streams,
    iteration: int,
    *,
    state_transform: Transform | None = None,
    sequence_length: int = 1,
) -> tuple[Rollout, CollectorState]:
    """``n_steps`` joint steps by the team's policies from ``running`` on: what was seen, and where it led.

    All noise is drawn beforehand from streams keyed by (iteration, agent). What recurrent policies remember is kept
    before each ``sequence_length`` steps. With a ``state_transform`` states go through it, as observations go through
    the actor's, and what was seen is counted. Raises ``NonFiniteError`` naming the agent and the step when the
    environment shows NaN or inf.
    """
    recording = _RolloutBuffer(env, team, actor, state_transform, running, n_steps, streams, iteration, sequence_length)
    step = running.current
    _refuse_non_finite(env, step, None, iteration, recording.dtype)
    recording.show(0, step)
    for t in range(n_steps):
        step = env.step(recording.act(t, step))
        _refuse_non_finite(env, step, t, iteration, recording.dtype)
        recording.show(t + 1, step)
        recording.outcome(t, step)
    return recording.finished(), CollectorState(
        step.shown(), recording.returns, recording.lengths, actor.memories(), running.critic_memory
    )


def _over_time(steps: list[Mapping[str, npt.NDArray[np.bool_]]]) -> dict[str, Tensor]:
    """Per-step arrays as one (n_steps, …) tensor an agent; a step without the agent's entry is all True."""
    present = {agent: array for step in steps for agent, array in step.items()}
    return {
        agent: torch.from_numpy(np.stack([step.get(agent, np.ones_like(array)) for step in steps]))
        for agent, array in present.items()
    }


def _refuse_non_finite(env: TeamEnv, step: TimeStep, t: int | None, iteration: int, dtype: torch.dtype) -> None:
    """Refuse what no learner of this precision can go on from, naming the agent and the step (None: none yet)."""
    most = torch.finfo(dtype).max
    limits = {"reward": math.sqrt(most) / SQUARED, "state": most}
    shown = {"reward": step.reward, "state": step.state}
    shown |= {f"observation of {agent}": step.observations[agent] for agent in env.agents}
    last, ended = {}, step.final
    if ended is not None and (cut := step.truncated[ended.envs]).any():  # of what terminated nothing follows
        last["true last state"] = ended.state[cut]
        last |= {f"true last observation of {agent}": ended.observations[agent][cut] for agent in env.agents}
    small = np.dtype(str(dtype)[6:])
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite exactly when its terms are, short of an overflow, and costs one pass.
        squares = np.square(SQUARED * step.reward.astype(small)).sum()
        rest = (array.astype(small, copy=False).sum() for what, array in (shown | last).items() if what != "reward")
        if np.isfinite(squares + sum(rest)):
            return
    for what, array in (shown | last).items():
        limit = limits.get(what, most)
        bad = ~(np.abs(array.reshape(len(array), -1)) <= limit).all(1)
        if not bad.any():
            continue
        told = (
            "NaN or inf"
            if not np.isfinite(array[bad]).all()
            else f"beyond {limit:.1g}, too large for {str(dtype)[6:]},"
        )
        where = int(bad.argmax() if what not in last or ended is None else ended.envs[cut][bad.argmax()])
        begun = what != "reward" and what not in last and (t is None or step.done[where])
        when = f"after step {t} of iteration {iteration}" if t is not None else f"before iteration {iteration}"
        raise NonFiniteError(
            f"the {what} is {told} in environment {where} {when}{', as reset() showed it' * bool(begun)}. "
            "The trainer is where it was before this collect. Look at the environment there, or for actions that "
            "grew too large."
        )
