"""The team's policies: which agent acts by which policy, how observations become actions, many agents at once.

A *unit* is a set of agents that share one policy: every agent alone (the default), the whole team, or groups. Units are
what the sequential update orders; the name of a unit is its agents' names joined by "+".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from workbench.envs.base import Array, TeamEnv
from workbench.errors import unknown_name
from workbench.learning.policy_inputs import FeatureStatistics, Moments, Transform, shown_to_network
from workbench.networks import kernels
from workbench.networks.cuda_graphs import replayed
from workbench.networks.distributions import Gaussian, Head, Parameters, head_for
from workbench.networks.gradients import predict
from workbench.networks.gru import FoldedGru, Gru, Network, Sequences
from workbench.networks.mlp import Folded, Mlp, ParameterVector, stack
from workbench.randomness import Streams

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

    agents        names, in the environment's order
    units         {unit's name: its agents}, in the environment's order
    policies      {unit's name: ``Policy``}
    agent_id      whether agents that share a policy see their one-hot number after their observation
    action_scales {agent: (centre, half-width)} (dim,) each, of those whose actions are learned in units of [−1, 1] and
                  put into their ``Box`` on the way out
    """

    def __init__(
        self,
        env: TeamEnv,
        *,
        sharing: str | Sequence[Sequence[str]] = "separate",
        hidden_sizes: tuple[int, ...] = (64, 64),
        activation: str = "tanh",
        layer_norm: str | bool = False,
        std: str = "exp",
        initial_log_std: float = -0.5,
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
                activation=activation,
                layer_norm=layer_norm,
            )
            self.policies[unit] = Policy(network, head)
        self.unit_of = {agent: unit for unit, group in self.units.items() for agent in group}
        scales = {agent: _action_scale(env, agent) for agent in self.agents}
        self.action_scales = {agent: scale for agent, scale in scales.items() if scale is not None}
        self._untouched = {}
        for agent in self.agents:
            untouched = np.arange(self.input_size(env, agent)) >= self._observed_size(env, agent)
            if agent in env.one_hot_features:
                untouched[: self._observed_size(env, agent)] = env.one_hot_features[agent]
            self._untouched[agent] = untouched

    def input_size(self, env: TeamEnv, agent: str) -> int:
        """Length of what the agent's policy sees."""
        return self._observed_size(env, agent) + (len(self.agents) if self.agent_id else 0)

    @staticmethod
    def _observed_size(env: TeamEnv, agent: str) -> int:
        shape = env.observation_spaces[agent].shape
        if shape is None or len(shape) != 1:
            raise ValueError(
                f"{agent} observes {env.observation_spaces[agent]}; expected a Box of one axis. Flatten the "
                "observation, as wb.envs.pettingzoo does."
            )
        return int(shape[0])

    def transform(self, agents: Sequence[str], statistics: Mapping[str, FeatureStatistics]) -> Transform | None:
        """What the inputs of some agents go through, by the {unit: statistics}; None where there are none."""
        if not statistics:
            return None
        return Transform(
            [statistics[self.unit_of[agent]] for agent in agents], [self._untouched[agent] for agent in agents]
        )

    def number(self, agent: str) -> npt.NDArray[np.float64]:
        """The one-hot number after an agent's observation; empty where policies do not see one."""
        if not self.agent_id:
            return np.zeros(0)
        identity: npt.NDArray[np.float64] = np.eye(len(self.agents))[self.agents.index(agent)]
        return identity

    def env_action(self, agent: str, action: Array) -> Array:
        """(n_envs, k) of a policy as the environment takes it: in its units; one integer has no last axis."""
        head = self.policy(agent).head
        if agent in self.action_scales:
            centre, half_width = self.action_scales[agent]
            scaled: Array = (centre + half_width * action).astype(action.dtype)
            return scaled
        single_integer = head.action_dtype is torch.int64 and head.action_size == 1
        return action[..., 0] if single_integer else action

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

    def actor(
        self,
        parameters: Mapping[str, ParameterVector],
        statistics: Mapping[str, FeatureStatistics],
        device: torch.device | str = "cpu",
    ) -> Actor:
        """The team ready to act, its parameters stacked; ``statistics`` {unit: …} of its inputs, {} for none."""
        return Actor(self, parameters, statistics, device)


class Stack(NamedTuple):
    """Agents whose policies have one architecture, side by side.

    flats      (n_agents, size) parameters
    folded     the same ready for torch's products; None where compiled code takes ``flats``
    free       (n_agents, n_free), parameters that no observation moves
    transform  what their inputs go through
    """

    policy: Policy
    agents: tuple[str, ...]
    flats: Tensor
    folded: Folded | FoldedGru | None
    free: Tensor
    transform: Transform | None


class Actor:
    """The team's policies for a rollout: agents of one architecture are evaluated by one batched product.

    A 4-agent team costs one product of stacked weights instead of four modules: about a third of the time at 64
    environments. Recurrent policies remember from one call to the next: ``begin`` where an episode is taken up, and
    ``forget`` where one has ended.
    """

    def __init__(
        self,
        team: Team,
        parameters: Mapping[str, ParameterVector],
        statistics: Mapping[str, FeatureStatistics],
        device: torch.device | str = "cpu",
    ) -> None:
        by_policy: dict[Policy, list[str]] = {}
        for agent in team.agents:
            by_policy.setdefault(team.policy(agent), []).append(agent)
        self.team = team
        self.stacks = []
        for policy, agents in by_policy.items():
            flats = stack([parameters[team.unit_of[agent]] for agent in agents]).to(device)
            network, folded = policy.network, None
            if isinstance(network, Mlp) and kernels.on_cpu(flats):
                free = network.views(flats)[-1]
            else:
                folded = network.fold(flats)
                free = folded.free
            self.stacks.append(Stack(policy, tuple(agents), flats, folded, free, team.transform(agents, statistics)))
        self._numbers = [np.stack([team.number(agent) for agent in stacked.agents]) for stacked in self.stacks]
        self._memory: dict[tuple[str, ...], Tensor] = {}

    def begin(self, n_envs: int, memory: Mapping[str, Tensor] | None = None) -> None:
        """Take up episodes in ``n_envs`` environments with what is remembered, {agent: (n_envs, memory_size)}."""
        for stacked in self.stacks:
            network = stacked.policy.network
            if isinstance(network, Gru):
                blank = torch.zeros(n_envs, network.memory_size).to(stacked.flats)
                rows = [(memory or {}).get(agent, blank) for agent in stacked.agents]
                self._memory[stacked.agents] = torch.stack(rows)

    def remembered(self, stacked: Stack) -> Tensor | None:
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

    def inputs(
        self,
        index: int,
        observations: Mapping[str, Array],
        out: Array,
        moments: Moments | None = None,
        active: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        """Write what the policies of one stack see into ``out`` (n_agents, n, inputs), and add it to ``moments``.

        active   {agent: (n,) bool}, False where one has left, whose observation counts for nothing
        """
        stacked, numbers = self.stacks[index], self._numbers[index]
        raw = out if stacked.transform is None else np.empty(out.shape)
        for row, agent in enumerate(stacked.agents):
            seen = observations[agent]
            raw[row, :, : seen.shape[1]] = seen
            raw[row, :, seen.shape[1] :] = numbers[row]
        if stacked.transform is not None:
            present = None
            if active:
                everyone = np.ones(raw.shape[1], np.bool_)
                present = np.stack([active.get(agent, everyone) for agent in stacked.agents])
            stacked.transform(raw, out, moments, present)

    def inputs_of(self, agent: str, observations: Array) -> Tensor:
        """What the policy of one agent sees of ``observations`` (n, observation_dim): (n, inputs), on the CPU."""
        stacked = next(each for each in self.stacks if agent in each.agents)
        out = torch.empty(len(observations), stacked.policy.network.n_inputs, dtype=stacked.flats.dtype)
        numbers = np.tile(self.team.number(agent), (len(observations), 1))
        own = stacked.transform and stacked.transform.row(stacked.agents.index(agent))
        shown_to_network(own, np.concatenate([observations, numbers], 1), out.numpy())
        return out

    def distribution(self, stacked: Stack, inputs: Tensor, masks: Tensor | None = None) -> Parameters:
        """Parameters of the stack's distributions for inputs (n_agents, n_envs, inputs), the next step of each."""
        network, folded = stacked.policy.network, stacked.folded
        if folded is None:
            outputs = network.evaluate(stacked.flats, inputs)  # type: ignore[union-attr]  # an Mlp's
        elif isinstance(network, Gru) and isinstance(folded, FoldedGru):
            memory = self._memory[stacked.agents]
            outputs, self._memory[stacked.agents] = network.step(folded, inputs, memory)
        else:
            outputs = network.forward(folded, inputs)  # type: ignore[arg-type]  # an Mlp's own
        limits = None if masks is None else masks.to(outputs.device)
        return stacked.policy.head.parameters(outputs, stacked.free, limits)

    def sample(self, stacked: Stack, inputs: Tensor, noise: Tensor, masks: Tensor | None = None) -> Tensor:
        """Actions of a stack's agents by their head's ``noise`` (n_agents, n_envs, …); all are in the CPU's memory."""
        policy, network = stacked.policy, stacked.policy.network
        folded, device = stacked.folded, stacked.flats.device
        if isinstance(folded, Folded):
            fixed = network, policy.head, len(folded.weights)
            drawn: Tensor = replayed(_drawn, fixed, inputs, noise, masks, folded.free, *folded.weights, *folded.biases)[
                0
            ]
            return drawn.cpu()
        if folded is None and isinstance(network, Mlp) and isinstance(policy.head, Gaussian):
            actions, std = inputs.new_empty(noise.shape), policy.head.standard_deviation(stacked.free)
            arrays = inputs.contiguous(), std, noise, actions
            kernels.sample_stack(stacked.flats.numpy(), network.layout, *(each.numpy() for each in arrays))
            return actions
        parameters = self.distribution(stacked, inputs.to(device), masks)
        return policy.head.sample(parameters, noise.to(device)).cpu()

    def modes(self, observations: Mapping[str, Array], masks: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, Array]:
        """Every agent's most probable action, shaped as the environment takes it."""
        return self._choose(
            observations, masks, lambda stacked, parameters, n_envs: stacked.policy.head.mode(parameters)
        )

    def samples(
        self,
        observations: Mapping[str, Array],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        generators: Mapping[str, torch.Generator],
    ) -> dict[str, Array]:
        """Every agent's action drawn by its own generator, shaped as the environment takes it."""

        def draw(stacked: Stack, parameters: Parameters, n_envs: int) -> Tensor:
            head, flats = stacked.policy.head, stacked.flats
            noise = [head.noise((n_envs,), generators[agent], flats.dtype) for agent in stacked.agents]
            return head.sample(parameters, torch.stack(noise).to(flats.device))

        return self._choose(observations, masks, draw)

    @torch.inference_mode()
    def _choose(
        self,
        observations: Mapping[str, Array],
        masks: Mapping[str, npt.NDArray[np.bool_]],
        choose: Callable[[Stack, Parameters, int], Tensor],
    ) -> dict[str, Array]:
        actions: dict[str, Array] = {}
        for index, stacked in enumerate(self.stacks):
            n_envs, flats = len(observations[stacked.agents[0]]), stacked.flats
            inputs = torch.empty(len(stacked.agents), n_envs, stacked.policy.network.n_inputs, dtype=flats.dtype)
            self.inputs(index, observations, inputs.numpy())
            mask = stack_masks(stacked.agents, masks)
            chosen = choose(stacked, self.distribution(stacked, inputs.to(flats.device), mask), n_envs).cpu()
            actions |= {agent: self.team.env_action(agent, chosen[i].numpy()) for i, agent in enumerate(stacked.agents)}
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


def _action_scale(env: TeamEnv, agent: str) -> tuple[Array, Array] | None:
    """Centre and half-width of an agent's ``Box`` where it is not [−1, 1] already; components without end stay."""
    space = env.action_spaces[agent]
    if not (env.rescales_actions and isinstance(space, gymnasium.spaces.Box)):
        return None
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    finite = np.isfinite(low) & np.isfinite(high)
    centre = np.where(finite, (np.where(finite, low, 0) + np.where(finite, high, 0)) / 2, 0.0)
    half_width = np.where(finite, (np.where(finite, high, 1) - np.where(finite, low, -1)) / 2, 1.0)
    return None if (centre == 0).all() and (half_width == 1).all() else (centre, half_width)


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
