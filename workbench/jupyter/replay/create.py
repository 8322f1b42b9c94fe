"""Replays of trainers, of their rollouts, of exported policies and of functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from workbench import envs
from workbench.envs.base import TeamEnv
from workbench.episodes import Episode, Player, RunPlayer, play, player_of, replay_rollout
from workbench.jupyter.replay.page_data import ReplayScene
from workbench.jupyter.replay.viewer import Replay, Take
from workbench.learning.state import State
from workbench.running.rewind import recorded_moments, rollout_of

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer


@dataclass(frozen=True)
class PlayOptions:
    """PlayOptions episodes are played, the same for all who play: ``replay`` explains them."""

    episodes: int
    deterministic: bool
    seed: int
    max_steps: int | None

    def play(self, env: TeamEnv, player: Player) -> tuple[Episode, ...]:
        return tuple(play(env, player, self.episodes, seed=self.seed, max_steps=self.max_steps))

    def player(self, policy: object, env: TeamEnv) -> Player:
        return player_of(policy, env, deterministic=self.deterministic, seed=self.seed)


def of_trainer(
    trainer: Trainer,
    episodes: int,
    deterministic: bool,
    *,
    seed: int,
    past: object,
    ghost: object,
    max_steps: int | None,
) -> Replay:
    """``Trainer.replay``."""
    state = trainer._state
    how = PlayOptions(episodes, deterministic, seed, max_steps)
    takes = []
    for moment in [*recorded_moments(trainer.past, past, state), state]:
        player = RunPlayer(trainer._setup, moment, deterministic=deterministic, seed=seed)
        takes.append(Take(moment_label(moment), how.play(trainer.env, player), trainer, moment))
    return _with_ghost(ReplayScene.of(trainer.env), takes, ghost, how)


def moment_label(state: State) -> str:
    """A moment in training, in words."""
    within = "" if state.phase == "collect" else f", {state.phase.replace('_', ' ')}"
    return f"iteration {state.iteration}{within} · {state.env_steps:,} env steps"


def of_rollout(trainer: Trainer, env: int, start: int, stop: int | None, iteration: int | None) -> Replay:
    """``Trainer.replay_rollout``."""
    before, rollout = rollout_of([*trainer.past, trainer._state], iteration)
    last = rollout.n_steps if stop is None else stop
    for name, value, end in (("env", env, trainer.env.n_envs - 1), ("start", start, rollout.n_steps - 1)):
        if not 0 <= value <= end:
            raise ValueError(f"{name} is {value!r}; expected 0 to {end}.")
    if not start < last <= rollout.n_steps:
        raise ValueError(f"stop is {stop!r}; expected {start + 1} to {rollout.n_steps}, the steps of a rollout.")
    pieces = replay_rollout(trainer._setup, before, rollout, env, start, last)
    label = f"rollout of iteration {before.iteration}, environment {env}"
    return Replay(ReplayScene.of(trainer.env), [Take(label, tuple(pieces), trainer, before)])


def replay(
    policy: object,
    env: TeamEnv | None = None,
    episodes: int = 1,
    deterministic: bool = True,
    *,
    seed: int = 0,
    ghost: object = None,
    max_steps: int | None = None,
) -> Replay:
    """Episodes played by ``policy`` in fresh copies of ``env``, to watch.

    policy         a trainer, what ``wb.load_policies`` returns, a function from {agent: observations (n, …)} to
                   {agent: actions (n, …)}, or {label: any of these}, which a second scrubber goes through
    env            the environment; by default the trainer's own, or that which the policies were exported with
    episodes       how many; episode k starts as every one with ``seed + k`` does
    deterministic  every agent's most probable action; else actions are drawn
    ghost          another policy, shown translucent in the same scene from the same start
    max_steps      where to stop an episode that has not ended by then

    Raises ``ValueError`` for an environment that shows nothing, and for a ghost of another scene.
    """
    several = policy if isinstance(policy, Mapping) else {_label(policy): policy}
    if not several:
        raise ValueError("policy is an empty mapping; expected {label: policy}, at least one.")
    where = env if env is not None else _env_of(next(iter(several.values())))
    how = PlayOptions(episodes, deterministic, seed, max_steps)
    takes = []
    for label, one in several.items():
        played = how.play(where, how.player(one, where))
        trainer = one if is_trainer(one) and (env is None or env is one.env) else None
        takes.append(Take(str(label), played, trainer, None if trainer is None else trainer._state))
    return _with_ghost(ReplayScene.of(where), takes, ghost, how)


def _with_ghost(scene: ReplayScene, takes: Sequence[Take], ghost: object, how: PlayOptions) -> Replay:
    if ghost is None:
        return Replay(scene, takes)
    label, policy = next(iter(ghost.items())) if isinstance(ghost, Mapping) else (_label(ghost), ghost)
    ghost_env = policy.env if is_trainer(policy) else scene.env
    ghost_scene = ReplayScene.of(ghost_env)
    if not _same_solids(scene, ghost_scene):
        raise ValueError(
            f"the ghost plays in {ghost_env!r}, which is another scene than {scene.env!r}: its solids differ."
        )
    played = how.play(ghost_env, how.player(policy, ghost_env))
    return Replay(scene, takes, Take(str(label), played), ghost_scene)


def _same_solids(scene: ReplayScene, other: ReplayScene) -> bool:
    ours, theirs = (
        each.geometry and [(solid.name, solid.shape) for solid in each.geometry.solids] for each in (scene, other)
    )
    return ours == theirs


def is_trainer(policy: object) -> TypeGuard[Trainer]:
    """Whether a run can go on from what ``policy`` plays."""
    return isinstance(getattr(policy, "_state", None), State)


def _label(policy: object) -> str:
    if is_trainer(policy):
        return f"{policy.method}, {moment_label(policy._state)}"
    about = getattr(policy, "about", None)
    if isinstance(about, Mapping):
        return f"{about['method']} after {about['env_steps']:,} env steps"
    return str(getattr(policy, "__name__", type(policy).__name__))


def _env_of(policy: object) -> TeamEnv:
    if is_trainer(policy):
        return policy.env
    about = getattr(policy, "about", None) or {}
    if about.get("env") is None:
        raise ValueError("env is missing: give the environment to play in, as in wb.replay(policy, env).")
    return envs.make(**{**about["env"], "n_envs": 1})
