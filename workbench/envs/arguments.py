"""The checks at the door that environments share: joint actions, seeds and counts."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import gymnasium
import numpy as np

from workbench.envs.base import Array
from workbench.errors import unknown_name

AnySpace = gymnasium.Space[Any]


def checked_actions(actions: object, spaces: Mapping[str, AnySpace], n_envs: int) -> dict[str, Array]:
    """The joint action as one array per agent, in the order of ``spaces``.

    Raises ``ValueError`` naming the agent that is missing, unknown, or whose array has the wrong shape or dtype, holds
    NaN or inf (``Box``), or an action that the space does not have (``Discrete``, ``MultiDiscrete``).
    """
    if not isinstance(actions, Mapping):
        raise ValueError(f"actions is {_short(actions)}; expected a mapping from each of {list(spaces)} to an array.")
    for agent in actions:
        if agent not in spaces:
            raise unknown_name("agent in actions:", agent, spaces)
    if missing := [agent for agent in spaces if agent not in actions]:
        raise ValueError(f"actions has none for {missing[0]!r}; give one array for each of {list(spaces)}.")
    return {agent: _checked(agent, actions[agent], space, n_envs) for agent, space in spaces.items()}


def _checked(agent: str, given: object, space: AnySpace, n_envs: int) -> Array:
    action = np.asarray(given)
    expected = (n_envs, *(space.shape or ()))
    if action.shape != expected:
        raise ValueError(f"the action of {agent!r} has shape {action.shape}; expected {expected}, for {space}.")
    if isinstance(space, gymnasium.spaces.Box):
        if action.dtype.kind not in "fiu":
            raise ValueError(f"the action of {agent!r} has dtype {action.dtype}; expected numbers, for {space}.")
        if not np.isfinite(action).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(action))[0])
            raise ValueError(
                f"the action of {agent!r} is {action[where]} in environment {where[0]}; expected a number."
            )
        return action
    sizes = space.nvec if isinstance(space, gymnasium.spaces.MultiDiscrete) else np.asarray(_size(space))
    if action.dtype.kind not in "iu":
        raise ValueError(f"the action of {agent!r} has dtype {action.dtype}; expected integers, for {space}.")
    if ((action < 0) | (action >= sizes)).any():
        where = tuple(int(i) for i in np.argwhere((action < 0) | (action >= sizes))[0])
        size = int(np.broadcast_to(sizes, action.shape)[where])
        raise ValueError(
            f"the action of {agent!r} is {action[where]} in environment {where[0]}; expected 0 to {size - 1}."
        )
    return action


def _size(space: AnySpace) -> int:
    assert isinstance(space, gymnasium.spaces.Discrete)
    return int(space.n)


def environment_seeds(seed: object, n_envs: int) -> list[int]:
    """``seed + i`` for environment i, as Gymnasium's vector environments count them."""
    if isinstance(seed, bool) or not isinstance(seed, SupportsIndex) or seed.__index__() < 0:
        raise ValueError(f"seed is {_short(seed)}; expected an integer ≥ 0, such as seed=0.")
    return [seed.__index__() + i for i in range(n_envs)]


def positive_integer(name: str, value: object, least: int = 1) -> int:
    """``value`` as an int of at least ``least``, or a ``ValueError`` naming the argument."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or value.__index__() < least:
        raise ValueError(f"{name} is {_short(value)}; expected an integer ≥ {least}.")
    return value.__index__()


def checked_observations(observations: object, spaces: Mapping[str, AnySpace]) -> dict[str, Array]:
    """{agent: (n, observation_dim)} as arrays; ``ValueError`` naming the agent that is missing or has another shape."""
    if not isinstance(observations, Mapping):
        raise ValueError(f"observations is {_short(observations)}; expected a mapping from each of {list(spaces)}.")
    if missing := [agent for agent in spaces if agent not in observations]:
        raise ValueError(f"observations has none for {missing[0]!r}; give one array for each of {list(spaces)}.")
    found = {agent: np.asarray(observations[agent]) for agent in spaces}
    for agent, seen in found.items():
        size = (spaces[agent].shape or ())[-1]
        if seen.ndim != 2 or seen.shape[1] != size or seen.dtype.kind not in "biuf":
            raise ValueError(
                f"the observations of {agent!r} have shape {seen.shape} and dtype {seen.dtype}; expected numbers, "
                f"(n, {size}): a row for each of n observations."
            )
    return found


def checked_snapshot(snapshot: object) -> Mapping[str, Any]:
    """``snapshot`` if it is a mapping at all."""
    if not isinstance(snapshot, Mapping):
        raise ValueError(f"snapshot is {_short(snapshot)}; expected what snapshot() of such an environment returned.")
    return snapshot


def chosen_envs(envs: Sequence[int], n_envs: int) -> list[int]:
    """The numbers of environments to take out of a snapshot of ``n_envs``, or a ``ValueError``."""
    try:
        chosen = [operator.index(i) for i in envs]
    except TypeError:
        chosen = []
    if not chosen or min(chosen) < 0 or max(chosen) >= n_envs:
        raise ValueError(f"envs is {_short(envs)}; expected numbers of environments, from 0 to {n_envs - 1}.")
    return chosen


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
