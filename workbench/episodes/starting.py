"""Going on from a frame: every environment of a run put where the frame was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from workbench.envs.base import Snapshot, TimeStep
from workbench.episodes.players import JointAction
from workbench.errors import SnapshotUnsupported
from workbench.learning.rollout import CollectorState
from workbench.learning.state import CENTRAL, Setup, State, actor_of, critic_inputs_of
from workbench.networks.gru import Gru

Memories = Mapping[str, Tensor]


@dataclass(frozen=True)
class EpisodeSnapshot:
    """Where one environment stands, and how far its episode has come: all that is needed to go on from there.

    snapshot                the environment's own
    shown                   what it shows, one row
    length, returned        steps and rewards of the episode before
    memory, critic_memory   what recurrent networks remember, one row each; empty at the beginning of an episode
    """

    snapshot: Snapshot
    shown: TimeStep
    length: int = 0
    returned: float = 0.0
    memory: Memories = field(default_factory=dict)
    critic_memory: Memories = field(default_factory=dict)


class RecurrentMemories:
    """The recurrent networks' memories while one environment is stepped; empty for other networks."""

    def __init__(self, setup: Setup, state: State, memory: Memories, critic_memory: Memories) -> None:
        self._setup, self._state = setup, state
        self._actor = actor_of(setup, state)
        self._actor.begin(1, memory)
        self._critics = {name: network for name, network in setup.critics.items() if isinstance(network, Gru)}
        self._critic_memory = dict(critic_memory)

    @torch.inference_mode()
    def look(self, step: TimeStep) -> None:
        """The environment shows this, and will be stepped."""
        if not self._critics:
            return
        self._actor.modes(step.observations, step.action_masks)
        settings = self._state.settings
        for name, network in self._critics.items():
            shown = step.state if name == CENTRAL else step.observations[name]
            inputs = critic_inputs_of(self._setup, self._state, self._actor, name, shown).to(settings.device)
            blank = inputs.new_zeros(1, network.memory_size)
            folded = network.fold(self._state.critics[name].values)
            memory = self._critic_memory.get(name, blank)
            self._critic_memory[name] = network.step(folded, inputs, memory)[1]

    def forget(self) -> None:
        """The episode has ended."""
        self._actor.forget(np.array([0]))
        self._critic_memory.clear()

    @property
    def memories(self) -> tuple[Memories, Memories]:
        """Of the policies, and of the critics."""
        return self._actor.memories(), dict(self._critic_memory)


def at_beginning(state: State) -> State:
    """``state`` at the beginning of an iteration: one that is under way is left out, its updates are kept."""
    if state.phase == "collect":
        return state
    return replace(
        state,
        phase="collect",
        iteration=state.iteration + 1,
        position=0,
        order=(),
        manual_order=False,
        rollout=None,
        estimate=None,
        preceding_ratio=None,
        m_factors={},
        partial_metrics={},
    )


def standing_at(setup: Setup, state: State, place: EpisodeSnapshot, actions: Sequence[JointAction]) -> State:
    """``state``, at the beginning of an iteration, with every environment where ``actions`` lead to from ``place``.

    The first environment goes on as the one of the frame would, with its random generator; the others are in the same
    state with their own generators, where the environment keeps those apart.
    """
    env = setup.env
    if state.env is None:
        raise SnapshotUnsupported(f"{type(env).__name__} cannot be copied, so no frame can be returned to.")
    with closing(env.remake(1)) as alone:
        alone.restore(place.snapshot)
        step, returned = place.shown, place.returned
        remembering = RecurrentMemories(setup, state, place.memory, place.critic_memory)
        for joint_action in actions:
            remembering.look(step)
            step = alone.step(joint_action)
            returned += float(step.reward[0])
        reached = alone.snapshot()
        everywhere = [0] * env.n_envs
        snapshot = dict(alone.select(reached, everywhere))
    for name in env.generator_rows:
        snapshot[name][1:] = state.env[name][1:]
    n = env.n_envs
    memory, critic_memory = ({name: rows.repeat(n, 1) for name, rows in part.items()} for part in remembering.memories)
    running = CollectorState(
        step.select(everywhere).shown(),
        np.full(n, returned),
        np.full(n, place.length + len(actions), np.int64),
        memory,
        critic_memory,
    )
    return replace(state, env=snapshot, running=running)
