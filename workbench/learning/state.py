"""What a run is at one moment: an immutable ``State``, beside a ``Setup`` that stays the same.

Glossary
--------
phase            what one ``step()`` does; the cursor is (phase, position)
iteration        one walk through all phases
rollout          the experience that ``collect`` took
order            in which the units (agents, or groups that share a policy) are updated in this iteration
preceding ratio  product of the updated units' π_new/π_old, one number a sample, 1 before the first update
M-factor         preceding ratio · advantage: what multiplies an agent's own ratio in its surrogate

States are never written to: a phase that fails leaves the last good one, a snapshot is a reference, and forks share
all that has not changed since they parted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from workbench.envs.base import Array, Snapshot, SomeAgents, TeamEnv
from workbench.learning.critic import ValueNormalizer
from workbench.learning.history import Log
from workbench.learning.policy_inputs import FeatureStatistics, Transform, shown_to_network
from workbench.learning.rollout import CollectorState, NormalizedUnit, PerStep, Rollout, RolloutEnv, SomeCritics
from workbench.learning.settings import Settings
from workbench.learning.team import Actor, Team
from workbench.learning.updates import UpdateRule
from workbench.networks.gradients import torch_threads, worker_threads
from workbench.networks.gru import Network
from workbench.networks.mlp import Mlp, ParameterVector
from workbench.randomness import Streams

CENTRAL = "state"  # the name of the critic that sees the state

Unit = Annotated[str, "units"]
CriticName = Annotated[str, "critics"]


@dataclass(frozen=True)
class Method:
    """Update rule × predecessors' ratio × sharing × critic: what tells one method from another.

    name        as it is shown, such as "HAPPO"
    settings    the dataclass of its settings; ``SequentialSettings`` where M carries the predecessors' ratio
    rule        the update rule
    critic      "state": one for the team; "observation": one for each agent, on its own observations
    """

    name: str
    settings: type[Settings]
    rule: UpdateRule
    critic: str = CENTRAL


@dataclass(frozen=True)
class Setup:
    """What stays the same for a whole run, and is shared by forks."""

    method: Method
    method_name: str
    env: TeamEnv
    rollout_env: RolloutEnv
    team: Team
    critics: Mapping[str, Network]
    streams: Streams

    def critic_of(self, agent: str) -> str:
        """The name of the critic that judges an agent."""
        return CENTRAL if self.method.critic == CENTRAL else agent


@dataclass(frozen=True)
class AdvantageEstimate:
    """What the critic made of the rollout; {critic's name: (n_steps, n_envs)} each.

    predictions  the network's own, normalised values
    returns      advantages + values, the critic's targets, in units of return
    advantages   standardised where the settings say so: what the M-factors start from
    td_errors    what the advantages are discounted sums of, in their unit
    memories     {critic's name: (n_sequences, n_envs, memory_size)} what a recurrent critic remembered before each
                 ``sequence_length`` steps
    """

    predictions: Mapping[CriticName, PerStep]
    returns: Mapping[CriticName, PerStep]
    advantages: Mapping[CriticName, PerStep]
    td_errors: Mapping[CriticName, PerStep]
    memories: Mapping[SomeCritics, Annotated[Tensor, "n_sequences n_envs memory_size"]] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """Everything that determines the future, and the records of the past."""

    settings: Settings
    policies: Mapping[Unit, ParameterVector]
    critics: Mapping[CriticName, ParameterVector]
    normalizers: Mapping[CriticName, ValueNormalizer]
    observation_statistics: Mapping[NormalizedUnit, FeatureStatistics]  # of inputs; empty: not normalised
    state_statistics: FeatureStatistics | None  # of the central critic's inputs
    running: CollectorState
    env: Snapshot | None  # None where the environment cannot be copied
    phase: str = "collect"
    position: int = 0
    iteration: int = 0
    env_steps: int = 0
    order: tuple[str, ...] = ()
    manual_order: bool = False  # the order of those who are left was given by hand, and holds against an adaptive rule
    rollout: Rollout | None = None
    estimate: AdvantageEstimate | None = None
    preceding_ratio: PerStep | None = None
    m_factors: Mapping[SomeAgents, PerStep] = field(default_factory=dict)
    partial_metrics: Mapping[str, Any] = field(default_factory=dict)  # the history's next row, as far as it is known
    history: Log[dict[str, Any]] = field(default_factory=Log)
    agent_history: Log[dict[str, Any]] = field(default_factory=Log)
    evaluations: Log[dict[str, Any]] = field(default_factory=Log)
    improvements: Log[dict[str, Any]] = field(default_factory=Log)
    changes: Log[dict[str, Any]] = field(default_factory=Log)  # by hand, and not undone: what ``script()`` writes


def actor_of(setup: Setup, state: State) -> Actor:
    """The team ready to act as it does at this moment of a run."""
    return setup.team.actor(state.policies, state.observation_statistics, state.settings.device)


def state_transform(setup: Setup, state: State) -> Transform | None:
    """What the central critic's inputs go through; None where they are not normalised."""
    if state.state_statistics is None:
        return None
    one_hot = setup.env.one_hot_state
    as_it_is = np.zeros(setup.env.state_space.shape, np.bool_) if one_hot is None else one_hot
    return Transform([state.state_statistics], [as_it_is])


def critic_inputs_of(setup: Setup, state: State, actor: Actor, name: str, shown: Array) -> Tensor:
    """What a critic sees of ``shown`` (n, dim), the states or one agent's observations: (n, inputs), on the CPU."""
    if name != CENTRAL:
        return actor.inputs_of(name, shown)
    inputs = torch.empty(shown.shape, dtype=state.settings.torch_dtype)
    shown_to_network(state_transform(setup, state), shown, inputs.numpy())
    return inputs


@contextlib.contextmanager
def computing(setup: Setup, settings: Settings) -> Iterator[None]:
    """Run with the threads that the settings ask for: as worker threads of compiled passes, otherwise as torch's own.

    torch's threads wait by spinning, and bring everything to a crawl when another process wants a core.
    """
    networks = [*setup.critics.values(), *(policy.network for policy in setup.team.policies.values())]
    compiled = settings.device == "cpu" and all(isinstance(network, Mlp) for network in networks)
    with torch_threads(1 if compiled else settings.update_threads), worker_threads(settings.update_threads):
        yield
