"""PettingZoo's spaces as flat vectors for a team: observations, action masks and actions, there and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from workbench.envs.base import Array
from workbench.errors import NonFiniteError, WorkbenchError

Vector = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
AnySpace = gymnasium.Space[Any]
Encoder = Callable[[Any], Array]

# What masks are called, PettingZoo's own name first; and names of what is here a mask and there a list of numbers.
MASK_NAMES = ("action_mask", "action_masks", "available_actions", "avail_actions", "legal_action_mask")
UNCLEAR_NAMES = ("legal_actions", "legal_moves", "valid_actions", "valid_moves")


class IncompatibleEnvironmentError(WorkbenchError, ValueError):
    """A PettingZoo environment that cannot be one team's game, or does not keep PettingZoo's own contract."""


class _Unfit(Exception):  # noqa: N818 - never leaves this file
    """Why a value is none of its space."""


def short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class ObservationCoder:
    """One agent's observation, of any space that flattens to a fixed length, as a float32 vector.

    inner     the space of what is flattened: the environment's own, less the mask in it
    space     what the team sees
    mask_key  where in the environment's own space the mask lies, if there
    alone     the one part beside the mask, where there is but one
    """

    agent: str
    inner: AnySpace
    space: spaces.Box
    mask_key: str | None
    alone: str | None
    encode: Encoder

    @staticmethod
    def of(agent: str, given: AnySpace) -> ObservationCoder:
        inner, mask_key, alone = given, None, None
        if isinstance(given, spaces.Dict):
            mask_key = next((name for name in MASK_NAMES if name in given.spaces and len(given.spaces) > 1), None)
            if mask_key is not None:
                rest = {key: part for key, part in given.spaces.items() if key != mask_key}
                alone = next(iter(rest)) if len(rest) == 1 else None
                inner = spaces.Dict(rest) if alone is None else rest[alone]
        flat = spaces.flatten_space(inner) if inner.is_np_flattenable else None
        if not isinstance(flat, spaces.Box) or flat.shape == (0,):
            raise IncompatibleEnvironmentError(
                f"the observation space of {agent!r} is {inner}, which has no fixed length of at least 1; wrap the "
                "environment so that it is a Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."
            )
        # Those who have left see zeros, so zero is always among what may be seen.
        low = np.minimum(flat.low.astype(np.float32).ravel(), np.float32(0))
        high = np.maximum(flat.high.astype(np.float32).ravel(), np.float32(0))
        seen = spaces.Box(low, high, dtype=np.float32)
        return ObservationCoder(agent, inner, seen, mask_key, alone, _encoder(inner))

    def split(self, given: Any) -> tuple[Any, Any]:
        """What the environment handed out as (observation, mask), the mask None where there is none in it."""
        # PettingZoo's own tutorial hands out a mask that its space does not declare.
        if self.mask_key is None and (not isinstance(given, Mapping) or _of_this_form(self.inner, given)):
            return given, None
        key = self.mask_key or next((name for name in MASK_NAMES if name in given), None)
        if not isinstance(given, Mapping) or key not in given:
            raise IncompatibleEnvironmentError(
                f"{self.agent!r} was shown {short(given)}; expected {self.inner}"
                + (f" and {self.mask_key!r} beside it, as its observation space says." if self.mask_key else ".")
            )
        rest = {name: part for name, part in given.items() if name != key}
        if isinstance(self.inner, spaces.Dict) and self.alone is None:
            return rest, given[key]
        if len(rest) != 1 or (self.alone is not None and self.alone not in rest):
            raise IncompatibleEnvironmentError(
                f"{self.agent!r} was shown {list(given)}, but one observation of {self.inner} is expected beside "
                f"{key!r}; declare Dict(observation=…, {key}=…) as its observation space."
            )
        return next(iter(rest.values())), given[key]

    def flat(self, given: object) -> Vector:
        """The vector that an observation flattens to, each part of it held against its space."""
        try:
            vector: Vector = self.encode(given).astype(np.float32, copy=False)
        except _Unfit as unfit:
            raise IncompatibleEnvironmentError(
                f"{self.agent!r} was shown {unfit}. Correct what is shown, or its observation space {self.inner}."
            ) from None
        if not np.isfinite(vector).all():
            raise NonFiniteError(
                f"the observation of {self.agent!r} holds NaN or inf; the environment must show finite numbers."
            )
        return vector


def _of_this_form(space: AnySpace, given: Mapping[object, object]) -> bool:
    """Whether a mapping needs no mask taken out of it."""
    return isinstance(space, spaces.Dict) and not any(name in given and name not in space.spaces for name in MASK_NAMES)


def _encoder(space: AnySpace) -> Encoder:
    """Values of ``space`` to flat vectors, as ``gymnasium.spaces.flatten`` does, but for raising ``_Unfit``."""
    if isinstance(space, spaces.Dict):
        by_key = {key: _encoder(part) for key, part in space.spaces.items()}
        return lambda value: np.concatenate(
            [_part(encode, value[key], key) for key, encode in _same_keys(by_key, value).items()]
        )
    if isinstance(space, spaces.Tuple):
        by_place = dict(enumerate(_encoder(part) for part in space.spaces))
        return lambda value: np.concatenate(
            [_part(encode, value[place], place) for place, encode in _same_places(by_place, value).items()]
        )
    if isinstance(space, spaces.Box):
        return lambda value: _in_box(space, value)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        start = np.asarray(space.start).ravel()
        sizes = np.asarray(space.n if isinstance(space, spaces.Discrete) else space.nvec).ravel()
        first = np.cumsum(sizes) - sizes

        def one_hot(value: object) -> Array:
            places = _whole_numbers(space, value) - start
            if ((places < 0) | (places >= sizes)).any():
                raise _Unfit(f"{short(value)}, outside {space}")
            vector = np.zeros(int(sizes.sum()), np.float32)
            vector[first + places] = 1
            return vector

        return one_hot
    if isinstance(space, spaces.MultiBinary):
        return lambda value: _bits(space, value)
    return lambda value: _flattened(space, value)


def one_hot_part(space: AnySpace) -> Mask:
    """Which features of a flattened ``space`` say that something is so or not, rather than how much: (n,) bool."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return np.concatenate([one_hot_part(part) for part in parts])
    coded = isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    return np.full(spaces.flatdim(space), coded)


def _part(encode: Encoder, value: object, key: object) -> Array:
    try:
        return encode(value)
    except _Unfit as unfit:
        raise _Unfit(f"{unfit} in its part {key!r}") from None


def _same_keys(parts: dict[str, Encoder], value: object) -> dict[str, Encoder]:
    if not isinstance(value, Mapping) or value.keys() != parts.keys():
        found = f"the parts {list(value)}" if isinstance(value, Mapping) else short(value)
        raise _Unfit(f"{found}, not a dict of {list(parts)}")
    return parts


def _same_places(parts: dict[int, Encoder], value: object) -> dict[int, Encoder]:
    if not isinstance(value, tuple | list | np.ndarray) or np.ndim(value[:0]) < 1 or len(value) != len(parts):
        raise _Unfit(f"{short(value)}, not {len(parts)} parts in a tuple")
    return parts


def _numbers(space: AnySpace, value: object) -> Array:
    """``value`` as numbers of the space's shape; axes of length one may be there or not."""
    try:
        array = np.asarray(value)
    except Exception:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise _Unfit(f"{short(value)}, not numbers of {space}")
    if array.shape != space.shape and [n for n in array.shape if n != 1] != [n for n in space.shape or () if n != 1]:
        raise _Unfit(f"an array of shape {array.shape}, while {space} has shape {space.shape}")
    return array.ravel()


def _whole_numbers(space: AnySpace, value: object) -> npt.NDArray[np.int64]:
    array = _numbers(space, value)
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.rint(array))).all():
        raise _Unfit(f"{short(value)}, not whole numbers of {space}")
    return array.astype(np.int64)


def _in_box(space: spaces.Box, value: object) -> Array:
    """Bounds are held at the door where numbers are whole, since others would wrap; else ``wb.envs.check`` does it."""
    if space.dtype.kind == "f":
        return _numbers(space, value)
    whole = _whole_numbers(space, value)
    if ((whole < space.low.ravel()) | (whole > space.high.ravel())).any():
        raise _Unfit(f"{short(value)}, outside {space}")
    return whole


def _bits(space: AnySpace, value: object) -> Array:
    bits = _whole_numbers(space, value)
    if ((bits != 0) & (bits != 1)).any():
        raise _Unfit(f"{short(value)}, not zeros and ones of {space}")
    return bits


def _flattened(space: AnySpace, value: object) -> Array:
    if not space.contains(value):
        raise _Unfit(f"{short(value)}, not in {space}")
    return np.asarray(spaces.flatten(space, value)).ravel()


@dataclass(frozen=True)
class ActionCoder:
    """One agent's actions: ``space`` is what the team acts in, ``back`` turns a row of it into the environment's own.

    parts   numbers of actions of a discrete space's components, or None where actions are continuous
    """

    agent: str
    space: AnySpace
    back: Callable[[Array], Any]
    parts: tuple[int, ...] | None

    @staticmethod
    def of(agent: str, given: AnySpace, clip: bool) -> ActionCoder:
        if isinstance(given, spaces.Box) and given.dtype.kind == "f" and given.low.size:
            return _continuous(agent, given, clip)
        if isinstance(given, spaces.Discrete):
            n, start = int(given.n), int(given.start)
            return ActionCoder(agent, spaces.Discrete(n), lambda row: int(row) + start, (n,))
        if isinstance(given, spaces.MultiDiscrete) and given.nvec.size:
            starts, shape, dtype = given.start, given.shape, given.dtype
            parts = tuple(int(n) for n in given.nvec.ravel())
            several = spaces.MultiDiscrete(np.array(parts))
            return ActionCoder(agent, several, lambda row: (row.reshape(shape) + starts).astype(dtype), parts)
        if isinstance(given, spaces.MultiBinary) and np.prod(given.shape) > 0:
            shape, parts = given.shape, (2,) * int(np.prod(given.shape))
            switches = spaces.MultiDiscrete(np.array(parts))
            return ActionCoder(agent, switches, lambda row: row.reshape(shape).astype(np.int8), parts)
        raise IncompatibleEnvironmentError(
            f"the action space of {agent!r} is {given}; expected a Box of floats, Discrete, MultiDiscrete or "
            "MultiBinary, of at least one number. Wrap the environment so that it is one of these."
        )

    def mask(self, given: object) -> Mask | None:
        """The mask over all components' actions, end to end, that the environment gave as one array or one for each.

        None where nothing at all is allowed: the agent has no choice now.
        """
        assert self.parts is not None
        pieces = given if isinstance(given, tuple | list) and len(given) == len(self.parts) > 1 else [given]
        try:
            values = np.concatenate([np.asarray(piece).ravel() for piece in pieces])
        except Exception:
            values = np.empty(0, object)
        if values.dtype.kind not in "biuf" or not ((values == 0) | (values == 1)).all():
            raise IncompatibleEnvironmentError(
                f"the action mask of {self.agent!r} is {short(given)}; expected 1 for each action that it may take and "
                "0 for each that it may not, or booleans."
            )
        mask: Mask = values.astype(np.bool_)
        if mask.size != sum(self.parts):
            raise IncompatibleEnvironmentError(
                f"the action mask of {self.agent!r} has {mask.size} entries; expected {sum(self.parts)}, for "
                f"{self.space}."
            )
        if not mask.any():
            return None
        if not np.logical_or.reduceat(mask, self._starts).all():
            raise IncompatibleEnvironmentError(
                f"the action mask of {self.agent!r} allows no action at all in one component of {self.space}; leave at "
                "least one there, or none anywhere where it has no choice."
            )
        return mask

    @property
    def _starts(self) -> npt.NDArray[np.intp]:
        return np.cumsum((0, *(self.parts or ())[:-1]))

    @property
    def free(self) -> Mask:
        """The mask that forbids nothing."""
        return np.ones(sum(self.parts or ()), np.bool_)

    @property
    def no_choice(self) -> Mask:
        """The mask of one who waits: one action, of no consequence."""
        mask = ~self.free
        mask[self._starts] = True
        return mask


def _continuous(agent: str, given: spaces.Box, clip: bool) -> ActionCoder:
    low, high = (bound.astype(np.float32).ravel() for bound in (given.low, given.high))
    shape, dtype = given.shape, given.dtype

    def back(row: Array) -> Array:
        within = np.clip(row, low, high) if clip else row
        return within.reshape(shape).astype(dtype)

    return ActionCoder(agent, spaces.Box(low, high, dtype=np.float32), back, None)
