"""PettingZoo's spaces as flat vectors for a team: observations, action masks and actions, there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from workbench.errors import WorkbenchError

Vector = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
AnySpace = gymnasium.Space[Any]


class IncompatibleEnvironmentError(WorkbenchError, ValueError):
    """A PettingZoo environment that cannot be one team's game, or does not keep PettingZoo's own contract."""


@dataclass(frozen=True)
class Observer:
    """One agent's observation, of any space that flattens to a fixed length, as a float32 vector.

    inner   the space of what is flattened: the environment's own, less an "action_mask" in it
    space   what the team sees
    masked  whether the environment's own holds a mask; alone: whether but "observation" is left beside it
    """

    agent: str
    inner: AnySpace
    space: spaces.Box
    masked: bool
    alone: bool

    @staticmethod
    def of(agent: str, given: AnySpace) -> Observer:
        inner, masked, alone = given, False, False
        if isinstance(given, spaces.Dict) and "action_mask" in given.spaces:
            rest = {key: part for key, part in given.spaces.items() if key != "action_mask"}
            masked, alone = True, list(rest) == ["observation"]
            inner = rest["observation"] if alone else spaces.Dict(rest)
        flat = spaces.flatten_space(inner) if inner.is_np_flattenable else None
        if not isinstance(flat, spaces.Box):
            raise IncompatibleEnvironmentError(
                f"the observation space of {agent!r} is {inner}, which has no fixed length; wrap the environment so "
                "that it is a Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."
            )
        # Those who have left see zeros, so zero is always among what may be seen.
        low = np.minimum(flat.low.astype(np.float32).ravel(), np.float32(0))
        high = np.maximum(flat.high.astype(np.float32).ravel(), np.float32(0))
        return Observer(agent, inner, spaces.Box(low, high, dtype=np.float32), masked, alone)

    def flat(self, given: Any) -> Vector:
        """The vector that ``given``, as the environment handed it out, flattens to."""
        if self.masked:
            rest = {key: part for key, part in given.items() if key != "action_mask"}
            given = rest["observation"] if self.alone else rest
        vector = np.asarray(spaces.flatten(self.inner, given), np.float32).ravel()
        if vector.shape != self.space.shape:
            raise IncompatibleEnvironmentError(
                f"{self.agent!r} was shown {vector.size} numbers, but its observation space {self.inner} has "
                f"{self.space.shape[0]}; correct the one or the other."
            )
        return vector


@dataclass(frozen=True)
class Actor:
    """One agent's actions: ``space`` is what the team acts in, ``back`` turns a row of it into the environment's own.

    parts   numbers of actions of a discrete space's components, or None where actions are continuous
    """

    agent: str
    space: AnySpace
    back: Callable[[npt.NDArray[Any]], Any]
    parts: tuple[int, ...] | None

    @staticmethod
    def of(agent: str, given: AnySpace, clip: bool) -> Actor:
        if isinstance(given, spaces.Box) and given.dtype is not None and given.dtype.kind == "f":
            return _continuous(agent, given, clip)
        if isinstance(given, spaces.Discrete):
            n, start = int(given.n), int(given.start)
            return Actor(agent, spaces.Discrete(n), lambda row: int(row) + start, (n,))
        if isinstance(given, spaces.MultiDiscrete):
            starts, shape, dtype = given.start, given.shape, given.dtype
            parts = tuple(int(n) for n in given.nvec.ravel())
            several = spaces.MultiDiscrete(np.array(parts))
            return Actor(agent, several, lambda row: (row.reshape(shape) + starts).astype(dtype), parts)
        if isinstance(given, spaces.MultiBinary):
            shape, parts = given.shape, (2,) * int(np.prod(given.shape))
            switches = spaces.MultiDiscrete(np.array(parts))
            return Actor(agent, switches, lambda row: row.reshape(shape).astype(np.int8), parts)
        raise IncompatibleEnvironmentError(
            f"the action space of {agent!r} is {given}; expected a Box of floats, Discrete, MultiDiscrete or "
            "MultiBinary. Wrap the environment so that it is one of these."
        )

    def mask(self, given: Any) -> Mask:
        """The mask over all components' actions, end to end, that the environment gave as one array or one for each."""
        assert self.parts is not None
        pieces = given if isinstance(given, tuple | list) and len(given) == len(self.parts) > 1 else [given]
        mask = np.concatenate([np.asarray(piece).ravel() for piece in pieces]).astype(np.bool_)
        if mask.size != sum(self.parts):
            raise IncompatibleEnvironmentError(
                f"the action mask of {self.agent!r} has {mask.size} entries; expected {sum(self.parts)}, for "
                f"{self.space}."
            )
        starts = np.cumsum((0, *self.parts[:-1]))
        if not np.logical_or.reduceat(mask, starts).all():
            raise IncompatibleEnvironmentError(
                f"the action mask of {self.agent!r} allows no action at all; leave at least one, such as 'do nothing'."
            )
        return mask

    @property
    def free(self) -> Mask:
        """The mask that forbids nothing."""
        return np.ones(sum(self.parts or ()), np.bool_)


def _continuous(agent: str, given: spaces.Box, clip: bool) -> Actor:
    low, high = (bound.astype(np.float32).ravel() for bound in (given.low, given.high))
    shape, dtype = given.shape, given.dtype

    def back(row: npt.NDArray[Any]) -> npt.NDArray[Any]:
        within = np.clip(row, low, high) if clip else row
        return within.reshape(shape).astype(dtype)

    return Actor(agent, spaces.Box(low, high, dtype=np.float32), back, None)
