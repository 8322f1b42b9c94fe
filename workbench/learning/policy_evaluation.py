"""Returns of whole episodes, without bias towards the short ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from workbench.envs.base import TeamEnv, TimeStep
from workbench.errors import EnvironmentFailedError
from workbench.learning.team import Actor
from workbench.networks.gradients import torch_threads

MAX_ENVS = 32
LONGEST_EPISODE = 20_000  # steps after which an episode is taken for one without an end


def evaluate(
    env: TeamEnv,
    actor: Actor,
    episodes: int,
    seed: int,
    generators: Mapping[str, torch.Generator] | None = None,
    max_steps: int | None = None,
    discount: float = 1.0,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns Σ γᵗrₜ and lengths of ``episodes`` episodes in which every agent takes its most probable action.

    Every environment plays a fixed number of episodes, decided beforehand: taking the first to finish would favour
    short ones. ``env`` is stepped from a fresh reset with ``seed``; its copies are at most as many as the episodes.
    With ``generators``, one for each agent, actions are drawn instead. γ is ``discount``, 1 for none.

    With ``max_steps`` an episode counts as it stands after so many; every copy then plays one, and after a fresh reset
    another, until there are enough. Without, an episode of ``LONGEST_EPISODE`` steps raises ``EnvironmentFailedError``.
    """
    if max_steps is not None:
        return _cut_off(env, actor, episodes, seed, generators, max_steps, discount)
    quota = np.full(env.n_envs, episodes // env.n_envs)
    quota[: episodes % env.n_envs] += 1
    returns: list[list[float]] = [[] for _ in range(env.n_envs)]
    lengths: list[list[int]] = [[] for _ in range(env.n_envs)]
    running, length = np.zeros(env.n_envs), np.zeros(env.n_envs, np.int64)
    step = env.reset(seed=seed)
    actor.begin(env.n_envs)
    with torch_threads(1):
        while any(len(returns[i]) < quota[i] for i in range(env.n_envs)):
            step = _acted(env, actor, step, generators)
            running += discount**length * step.reward
            length += 1
            ended = np.flatnonzero(step.done)
            actor.forget(ended)
            for i in ended:
                if len(returns[i]) < quota[i]:
                    returns[i].append(float(running[i]))
                    lengths[i].append(int(length[i]))
                running[i], length[i] = 0.0, 0
            if length.max() >= LONGEST_EPISODE:
                raise EnvironmentFailedError(
                    f"an episode has not ended after {LONGEST_EPISODE:,} steps of an evaluation; give the environment "
                    "an end, such as max_episode_steps=1000 where it is made, or evaluate(max_steps=1000)."
                )
    return (
        np.array([value for values in returns for value in values]),
        np.array([value for values in lengths for value in values], np.int64),
    )


def _cut_off(
    env: TeamEnv,
    actor: Actor,
    episodes: int,
    seed: int,
    generators: Mapping[str, torch.Generator] | None,
    max_steps: int,
    discount: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """``evaluate`` where an episode counts as it stands after ``max_steps``."""
    returns: list[float] = []
    lengths: list[int] = []
    with torch_threads(1):
        while len(returns) < episodes:
            step = env.reset(seed=seed + len(returns))
            actor.begin(env.n_envs)
            under_way, total, length = (
                np.ones(env.n_envs, np.bool_),
                np.zeros(env.n_envs),
                np.zeros(env.n_envs, np.int64),
            )
            for t in range(max_steps):
                step = _acted(env, actor, step, generators)
                total[under_way] += discount**t * step.reward[under_way]
                length[under_way] += 1
                actor.forget(np.flatnonzero(step.done))
                under_way &= ~step.done
                if not under_way.any():
                    break
            returns += total.tolist()
            lengths += length.tolist()
    return np.array(returns[:episodes]), np.array(lengths[:episodes], np.int64)


def _acted(env: TeamEnv, actor: Actor, step: TimeStep, generators: Mapping[str, torch.Generator] | None) -> TimeStep:
    """What the most probable actions, or drawn ones, lead to."""
    seen = step.observations, step.action_masks
    return env.step(actor.modes(*seen) if generators is None else actor.samples(*seen, generators))
