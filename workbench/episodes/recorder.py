"""Playing episodes and keeping what a viewer needs: sights, rewards, actions, and the way back to every frame."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workbench.envs.arguments import environment_seeds, positive_integer
from workbench.envs.base import Array, TeamEnv, TimeStep
from workbench.episodes.players import JointAction, Player
from workbench.episodes.starting import EpisodeSnapshot, RecurrentMemories
from workbench.errors import SnapshotUnsupported
from workbench.learning.rollout import Rollout
from workbench.learning.state import Setup, State

LONGEST = 10_000  # steps, where an environment sets no end
MANY = 32  # environments stepped together


@dataclass(frozen=True, eq=False)
class Episode:
    """One environment's way through an episode, or through a stretch of one.

    sights    (steps + 1, …), what a viewer is shown: frame 0 before the first step, frame t after step t
    rewards   (steps,), of the step that led to frame t, at t − 1
    terms     {name: (steps,)}, what the environment says of each step, such as the terms of its reward
    actions   {agent: (steps, …)}, as the environment took them
    end       "terminated", "truncated", or "" where the stretch ends before its episode
    before    steps of the episode before frame 0; ``returned`` the sum of their rewards
    place     where the environment stood in frame 0; None where it cannot be copied
    """

    sights: Array
    rewards: npt.NDArray[np.float64]
    terms: Mapping[str, npt.NDArray[np.float64]]
    actions: Mapping[str, Array]
    end: str
    before: int = 0
    returned: float = 0.0
    place: EpisodeSnapshot | None = None

    def __len__(self) -> int:
        """The number of steps, one less than of frames."""
        return len(self.rewards)

    @property
    def total(self) -> float:
        """The undiscounted return up to the last frame."""
        return self.returned + float(self.rewards.sum())

    def actions_before(self, frame: int) -> list[dict[str, Array]]:
        """The joint actions that lead from frame 0 to a frame, as an environment of one copy takes them."""
        return [{agent: taken[t : t + 1] for agent, taken in self.actions.items()} for t in range(frame)]


class EpisodeRecorder:
    """Keeps what one environment shows, step by step, until its episode ends."""

    def __init__(self, sight: Array, place: EpisodeSnapshot | None, before: int = 0, returned: float = 0.0) -> None:
        self.sights = [sight]
        self.steps: list[tuple[float, dict[str, float], dict[str, Array]]] = []
        self.place, self.before, self.returned = place, before, returned
        self.end = ""

    def add(self, step: TimeStep, actions: JointAction, sight: Array, env: int) -> None:
        terms = {name: float(values[env]) for name, values in step.info.items() if _is_term(values)}
        self.steps.append((float(step.reward[env]), terms, {agent: taken[env] for agent, taken in actions.items()}))
        self.sights.append(sight)
        self.end = "terminated" if step.terminated[env] else "truncated" if step.truncated[env] else ""

    def episode(self) -> Episode:
        rewards, terms, actions = zip(*self.steps, strict=True)
        return Episode(
            sights=np.stack(self.sights),
            rewards=np.array(rewards, np.float64),
            terms={name: np.array([row[name] for row in terms]) for name in terms[0]},
            actions={agent: np.stack([row[agent] for row in actions]) for agent in actions[0]},
            end=self.end,
            before=self.before,
            returned=self.returned,
            place=self.place,
        )


def _is_term(values: Array) -> bool:
    return values.ndim == 1 and values.dtype.kind in "fiub"


def play(
    env: TeamEnv, player: Player, episodes: int = 1, *, seed: int = 0, max_steps: int | None = None
) -> list[Episode]:
    """Whole episodes in fresh copies of ``env``, which is left alone: episode k starts as one with ``seed + k`` does.

    max_steps   where to stop an episode that has not ended by then
    """
    for name, value in (("episodes", episodes), ("max_steps", max_steps)):
        if value is not None:
            positive_integer(name, value)
    (seed,) = environment_seeds(seed, 1)
    played: list[Episode] = []
    while len(played) < episodes:
        with closing(env.remake(min(MANY, episodes - len(played)))) as copies:
            played += _play_together(copies, player, seed + len(played), max_steps or LONGEST)
    return played


def _play_together(env: TeamEnv, player: Player, seed: int, max_steps: int) -> list[Episode]:
    step = env.reset(seed=seed)
    player.begin(env.n_envs)
    sights = seen(env)
    recorders = [EpisodeRecorder(sights[i], place) for i, place in enumerate(_places(env, step))]
    going = np.ones(env.n_envs, np.bool_)
    for _ in range(max_steps):
        actions = player.act(step)
        step = env.step(actions)
        sights = seen(env)
        for i in np.flatnonzero(going):
            recorders[i].add(step, actions, sights[i], int(i))
        player.forget(np.flatnonzero(step.done))
        going &= ~step.done
        if not going.any():
            break
    return [recorder.episode() for recorder in recorders]


def _places(env: TeamEnv, step: TimeStep) -> list[EpisodeSnapshot | None]:
    """Where each environment stands at the beginning of an episode."""
    if not env.can_snapshot:
        return [None] * env.n_envs
    together = env.snapshot()
    try:
        return [EpisodeSnapshot(env.select(together, [i]), step.select([i])) for i in range(env.n_envs)]
    except SnapshotUnsupported:
        return [None] * env.n_envs


def seen(env: TeamEnv) -> Array:
    """``env.render_state()``, or an error with the remedy where there is nothing to see."""
    sight = env.render_state()
    if sight is None:
        raise ValueError(
            f"{env!r} shows nothing that could be replayed. Make a PettingZoo environment with "
            'render_mode="rgb_array"; give one of your own a render_state() that returns pictures (n_envs, height, '
            "width, 3)."
        )
    return sight


def replay_rollout(setup: Setup, before: State, rollout: Rollout, env: int, first: int, last: int) -> list[Episode]:
    """Steps ``first`` to ``last`` of one environment in a training rollout, taken again: one piece for each episode.

    before   the run's state before the ``collect`` that took ``rollout``
    """
    if before.env is None:
        raise SnapshotUnsupported(f"{type(setup.env).__name__} cannot be copied, so no rollout of it can be replayed.")
    spaces, running = setup.env.action_spaces, before.running
    taken = {agent: actions[:, env].cpu().numpy() for agent, actions in rollout.actions.items()}
    taken = {agent: actions.reshape(len(actions), *(spaces[agent].shape or ())) for agent, actions in taken.items()}
    memories = [
        {name: rows[env : env + 1] for name, rows in part.items()} for part in (running.memory, running.critic_memory)
    ]
    length, returned = int(running.lengths[env]), float(running.returns[env])
    with closing(setup.env.remake(1)) as alone:
        alone.restore(alone.select(before.env, [env]))
        remembering = RecurrentMemories(setup, before, *memories)
        step = running.current.select([env])
        pieces: list[Episode] = []
        recorder: EpisodeRecorder | None = None
        for t in range(last):
            if t >= first and recorder is None:
                place = EpisodeSnapshot(alone.snapshot(), step, length, returned, *remembering.memories)
                # Restored, it shows the beginning of this episode, no longer the end of the one before.
                alone.restore(place.snapshot)
                recorder = EpisodeRecorder(seen(alone)[0], place, length, returned)
            remembering.look(step)
            actions = {agent: rows[t : t + 1] for agent, rows in taken.items()}
            step = alone.step(actions)
            length, returned = length + 1, returned + float(step.reward[0])
            if recorder is not None:
                recorder.add(step, actions, seen(alone)[0], 0)
            if step.done[0]:
                length, returned = 0, 0.0
                remembering.forget()
                pieces += [] if recorder is None else [recorder.episode()]
                recorder = None
    return pieces if recorder is None else [*pieces, recorder.episode()]
