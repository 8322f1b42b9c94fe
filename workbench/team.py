"""The team's policies: which agent acts by which policy, how observations become actions, many agents at once.

A *unit* is a set of agents that share one policy: every agent alone (the default), the whole team, or groups. Units are
what the sequential update orders; the name of a unit is its agents' names joined by "+".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from workbench import kernels
from workbench.distributions import Head, Parameters, head_for
from workbench.envs.base import TeamEnv
from workbench.errors import unknown_name
from workbench.graphs import replayed
from workbench.networks import Folded, Mlp, ParameterVector, stack
from workbench.randomness import Streams
from workbench.recurrent import FoldedGru, Gru, Network, Sequences, predict

SHARING = ("separate", "shared")


@dataclass(frozen=True)
class Policy:
    """The architecture of one policy π(a|o); parameters are passed in, so that equal architectures stack."""

    network: Network
    head: Head

    def distribution(
        self, values: Tensor, observations: Tensor, masks: Tensor | None = None, sequences: Sequences | None = None
    ) -> Parameters:
        """π(·|o) for ``observations`` (batch, n) under the flat parameters ``values`` (size,).

        A recurrent policy needs ``sequences``; without them every observation is taken for an episode's first.
        """
        outputs, free = predict(self.network, values, observations, sequences)
        return self.head.parameters(outputs, free, masks)

    def log_probs(self, values: Tensor, observations: Tensor, actions: Tensor, masks: Tensor | None = None) -> Tensor:
        """log π(a|o): (batch,)."""
        return self.head.log_prob(self.distribution(values, observations, masks), actions)


class Team:
    """Who acts by which policy.

    agents    names, in the environment's order
    units     {unit's name: its agents}, in the environment's order
    policies  {unit's name: ``Policy``}
    agent_id  whether agents that share a policy see their one-hot number after their observation
    """

    def __init__(
        self,
        env: TeamEnv,
        *,
        sharing: str | Sequence[Sequence[str]] = "separate",
        hidden_sizes: tuple[int, ...] = (128, 128),
        std: str = "sigmoid",
        initial_log_std: float = 1.0,
        agent_id: bool = True,
        recurrent: bool = False,
    ) -> None:
        self.agents = tuple(env.agents)
        self.units = {"+".join(group): group for group in _groups(self.agents, sharing)}
        self.agent_id = agent_id and any(len(group) > 1 for group in self.units.values())
        self.policies: dict[str, Policy] = {}
        for unit, group in self.units.items():
            _refuse_differing_spaces(env, group)
            head = head_for(env.action_spaces[group[0]], std)
            network = (Gru if recurrent else Mlp)(
                n_inputs=self.input_size(env, group[0]),
                n_outputs=head.n_outputs,
                hidden_sizes=hidden_sizes,
                n_free=head.n_free,
                free_init=initial_log_std,
            )
            self.policies[unit] = Policy(network, head)
        self.unit_of = {agent: unit for unit, group in self.units.items() for agent in group}

    def input_size(self, env: TeamEnv, agent: str) -> int:
        """Length of what the agent's policy sees."""
        shape = env.observation_spaces[agent].shape
        if shape is None or len(shape) != 1:
            raise ValueError(
                f"{agent} observes {env.observation_spaces[agent]}; expected a Box of one axis. Flatten the "
                "observation, as wb.envs.pettingzoo does."
            )
        return int(shape[0]) + (len(self.agents) if self.agent_id else 0)

    def see(self, agent: str, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """``observations`` (n, observation_dim) as the agent's policy sees them: with its number where it is shared."""
        if not self.agent_id:
            return observations
        identity = np.zeros((len(observations), len(self.agents)), observations.dtype)
        identity[:, self.agents.index(agent)] = 1
        return np.concatenate([observations, identity], 1)

    def policy(self, agent: str) -> Policy:
        """The policy by which an agent acts."""
        return self.policies[self.unit_of[agent]]

    def initial(self, streams: Streams, dtype: torch.dtype) -> dict[str, ParameterVector]:
        """Fresh parameters of every unit, each from its own stream."""
        return {
            unit: ParameterVector.of(policy.network.initial(streams.torch("policy", index=index), dtype))
            for index, (unit, policy) in enumerate(self.policies.items())
        }

    def resolve(self, who: object) -> str:
        """The unit that a name, a unit's name or an integer stands for."""
        if isinstance(who, int | np.integer) and not isinstance(who, bool) and 0 <= who < len(self.units):
            return tuple(self.units)[who]
        if isinstance(who, str) and who in self.units:
            return who
        if isinstance(who, str) and who in self.unit_of:
            return self.unit_of[who]
        raise unknown_name("agent", who, self.units, f"Integers from 0 to {len(self.units) - 1} are accepted too.")

    def actor(self, parameters: Mapping[str, ParameterVector], device: torch.device | str = "cpu") -> Actor:
        """The team ready to act, its parameters folded and stacked."""
        return Actor(self, parameters, device)


class _Stack(NamedTuple):
    policy: Policy
    agents: tuple[str, ...]
    folded: Folded | FoldedGru


class Actor:
    """The team's policies for a rollout: agents of one architecture are evaluated by one batched product.

    A 4-agent team costs one product of stacked weights instead of four modules: about a third of the time at 64
    environments. Recurrent policies remember from one call to the next: ``begin`` where an episode is taken up, and
    ``forget`` where one has ended.
    """

    def __init__(
        self, team: Team, parameters: Mapping[str, ParameterVector], device: torch.device | str = "cpu"
    ) -> None:
        by_policy: dict[Policy, list[str]] = {}
        for agent in team.agents:
            by_policy.setdefault(team.policy(agent), []).append(agent)
        self.stacks = [
            _Stack(
                policy,
                tuple(agents),
                policy.network.fold(stack([parameters[team.unit_of[agent]] for agent in agents]).to(device)),
            )
            for policy, agents in by_policy.items()
        ]
        self._team = team
        self._identity = np.eye(len(team.agents))
        self._memory: dict[tuple[str, ...], Tensor] = {}

    def begin(self, n_envs: int, memory: Mapping[str, Tensor] | None = None) -> None:
        """Take up episodes in ``n_envs`` environments with what is remembered, {agent: (n_envs, memory_size)}."""
        for policy, agents, folded in self.stacks:
            if isinstance(policy.network, Gru):
                blank = torch.zeros(n_envs, policy.network.memory_size).to(folded.weights[0])
                self._memory[agents] = torch.stack([(memory or {}).get(agent, blank) for agent in agents])

    def remembered(self, stacked: _Stack) -> Tensor | None:
        """What the agents of a stack remember (n_agents, n_envs, memory_size); None where they cannot."""
        return self._memory.get(stacked.agents)

    def forget(self, envs: npt.NDArray[np.intp]) -> None:
        """Clear the memory in environments whose episode has ended."""
        for agents, memory in self._memory.items():
            kept = torch.ones(memory.shape[1], 1, dtype=memory.dtype)
            kept[envs] = 0
            self._memory[agents] = memory * kept.to(memory.device)

    def memories(self) -> dict[str, Tensor]:
        """{agent: (n_envs, memory_size)} of those who have one."""
        return {agent: rows[i].clone() for agents, rows in self._memory.items() for i, agent in enumerate(agents)}

    def inputs(self, stacked: _Stack, observations: Mapping[str, npt.NDArray[Any]], out: npt.NDArray[Any]) -> None:
        """Write what the policies of one stack see into ``out`` (n_agents, n_envs, inputs)."""
        for row, agent in enumerate(stacked.agents):
            seen = observations[agent]
            out[row, :, : seen.shape[1]] = seen
            if self._team.agent_id:
                out[row, :, seen.shape[1] :] = self._identity[self._team.agents.index(agent)]

    def distribution(self, stacked: _Stack, inputs: Tensor, masks: Tensor | None = None) -> Parameters:
        """Parameters of the stack's distributions for inputs (n_agents, n_envs, inputs), the next step of each."""
        network, folded = stacked.policy.network, stacked.folded
        if isinstance(network, Gru) and isinstance(folded, FoldedGru):
            memory = self._memory[stacked.agents]
            outputs, self._memory[stacked.agents] = network.step(folded, inputs, memory)
        else:
            outputs = network.evaluate(folded, inputs)  # type: ignore[arg-type, union-attr]  # an Mlp's own
        limits = None if masks is None else masks.to(outputs.device)
        return stacked.policy.head.parameters(outputs, folded.free, limits)

    def sample(self, stacked: _Stack, inputs: Tensor, noise: Tensor, masks: Tensor | None = None) -> Tensor:
        """Actions of a stack's agents by their head's ``noise`` (n_agents, n_envs, …); all are in the CPU's memory."""
        (policy, _, folded), weights = stacked, stacked.folded.weights[0]
        if isinstance(folded, Folded) and not kernels.reach(weights):
            fixed = policy.network, policy.head, len(folded.weights)
            drawn: Tensor = replayed(_drawn, fixed, inputs, noise, masks, folded.free, *folded.weights, *folded.biases)[
                0
            ]
            return drawn.cpu()
        parameters = self.distribution(stacked, inputs.to(weights.device), masks)
        return policy.head.sample(parameters, noise.to(weights.device)).cpu()

    def modes(
        self, observations: Mapping[str, npt.NDArray[Any]], masks: Mapping[str, npt.NDArray[np.bool_]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Every agent's most probable action, shaped as the environment takes it."""
        return self._choose(
            observations, masks, lambda stacked, parameters, n_envs: stacked.policy.head.mode(parameters)
        )

    def samples(
        self,
        observations: Mapping[str, npt.NDArray[Any]],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        generators: Mapping[str, torch.Generator],
    ) -> dict[str, npt.NDArray[Any]]:
        """Every agent's action drawn by its own generator, shaped as the environment takes it."""

        def draw(stacked: _Stack, parameters: Parameters, n_envs: int) -> Tensor:
            head, weights = stacked.policy.head, stacked.folded.weights[0]
            noise = [head.noise((n_envs,), generators[agent], weights.dtype) for agent in stacked.agents]
            return head.sample(parameters, torch.stack(noise).to(weights.device))

        return self._choose(observations, masks, draw)

    @torch.inference_mode()
    def _choose(
        self,
        observations: Mapping[str, npt.NDArray[Any]],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        choose: Callable[[_Stack, Parameters, int], Tensor],
    ) -> dict[str, npt.NDArray[Any]]:
        actions: dict[str, npt.NDArray[Any]] = {}
        for stacked in self.stacks:
            n_envs = len(observations[stacked.agents[0]])
            weights = stacked.folded.weights[0]
            inputs = torch.empty(len(stacked.agents), n_envs, stacked.policy.network.n_inputs, dtype=weights.dtype)
            self.inputs(stacked, observations, inputs.numpy())
            mask = stack_masks(stacked.agents, masks)
            chosen = choose(stacked, self.distribution(stacked, inputs.to(weights.device), mask), n_envs).cpu()
            actions |= {agent: as_env_action(stacked.policy, chosen[i]) for i, agent in enumerate(stacked.agents)}
        return actions


def _drawn(
    network: Mlp,
    head: Head,
    n_layers: int,
    inputs: Tensor,
    noise: Tensor,
    masks: Tensor | None,
    free: Tensor,
    *layers: Tensor,
) -> tuple[Tensor]:
    outputs = network.forward(Folded(layers[:n_layers], layers[n_layers:], free), inputs)
    return (head.sample(head.parameters(outputs, free, masks), noise),)


def stack_masks(agents: Sequence[str], masks: Mapping[str, npt.NDArray[np.bool_]]) -> Tensor | None:
    """Masks of some agents as one tensor (n_agents, n_envs, n_actions), or None where none has any."""
    present = [agent for agent in agents if agent in masks]
    if not present:
        return None
    everything = np.ones_like(masks[present[0]])
    return torch.from_numpy(np.stack([masks.get(agent, everything) for agent in agents]))


def as_env_action(policy: Policy, action: Tensor) -> npt.NDArray[Any]:
    """(n_envs, k) as the environment takes it: one integer per environment has no last axis."""
    array: npt.NDArray[Any] = action.numpy()
    single_integer = policy.head.action_dtype is torch.int64 and policy.head.action_size == 1
    return array[..., 0] if single_integer else array


def _groups(agents: tuple[str, ...], sharing: str | Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    if isinstance(sharing, str):
        if sharing not in SHARING:
            raise unknown_name(
                "sharing", sharing, SHARING, "Or give groups of agents, such as [['agent_0', 'agent_1'], …]."
            )
        return [agents] if sharing == "shared" else [(agent,) for agent in agents]
    groups = [tuple(agents[who] if isinstance(who, int) else who for who in group) for group in sharing]
    if sorted(agent for group in groups for agent in group) != sorted(agents):
        raise ValueError(f"sharing is {sharing!r}; expected groups that hold each of {', '.join(agents)} exactly once.")
    return [tuple(sorted(group, key=agents.index)) for group in groups]


def _refuse_differing_spaces(env: TeamEnv, group: Sequence[str]) -> None:
    def shapes(agent: str) -> tuple[object, Head]:
        return env.observation_spaces[agent].shape, head_for(env.action_spaces[agent])

    for agent in group[1:]:
        if shapes(agent) != shapes(group[0]):
            described = (f"{who} {env.observation_spaces[who]} → {env.action_spaces[who]}" for who in (group[0], agent))
            raise ValueError(
                f"{group[0]} and {agent} cannot share a policy, their spaces differ: {'; '.join(described)}. "
                "Share among agents with equal spaces, or give each its own policy (sharing='separate')."
            )
