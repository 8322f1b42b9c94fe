"""Returns of whole episodes, without bias towards the short ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workbench.envs.base import TeamEnv
from workbench.team import Actor

MAX_ENVS = 32


def evaluate(
    env: TeamEnv, actor: Actor, episodes: int, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Undiscounted returns and lengths of ``episodes`` episodes in which every agent takes its most probable action.

    Every environment plays a fixed number of episodes, decided beforehand: taking the first to finish would favour
    short ones. ``env`` is stepped from a fresh reset with ``seed``; its copies are at most as many as the episodes.
    """
    quota = np.full(env.n_envs, episodes // env.n_envs)
    quota[: episodes % env.n_envs] += 1
    returns: list[list[float]] = [[] for _ in range(env.n_envs)]
    lengths: list[list[int]] = [[] for _ in range(env.n_envs)]
    running, length = np.zeros(env.n_envs), np.zeros(env.n_envs, np.int64)
    step = env.reset(seed=seed)
    actor.begin(env.n_envs)
    while any(len(returns[i]) < quota[i] for i in range(env.n_envs)):
        step = env.step(actor.modes(step.observations, step.action_masks))
        running += step.reward
        length += 1
        actor.forget(np.flatnonzero(step.done))
        for i in np.flatnonzero(step.done):
            if len(returns[i]) < quota[i]:
                returns[i].append(float(running[i]))
                lengths[i].append(int(length[i]))
            running[i], length[i] = 0.0, 0
    return (
        np.array([value for values in returns for value in values]),
        np.array([value for values in lengths for value in values], np.int64),
    )
