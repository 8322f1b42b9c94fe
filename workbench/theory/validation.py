"""The checks at the door that the theory's functions share: numbers, integers, seeds and arrays."""

from __future__ import annotations

import numbers
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Seed = int | np.random.Generator


def real_number(name: str, value: object, expected: str) -> float:
    """``value`` as a float, NaN included, which no comparison lets through; what is no number is refused."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} is {short(value)}, expected {expected}.")
    return float(value)


def integer_of(name: str, value: object, least: int) -> int:
    """``value`` as an int of at least ``least``; NumPy's integers are integers, 2.0 and True are none."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, SupportsIndex):
        raise ValueError(f"{name} is {short(value)}, expected an integer, {least} or more.")
    if value.__index__() < least:
        raise ValueError(f"{name} is {value.__index__()}, expected {least} or more.")
    return value.__index__()


def generator_of(seed: Seed) -> np.random.Generator:
    """The generator that a seed starts, or the one given."""
    return seed if isinstance(seed, np.random.Generator) else np.random.default_rng(integer_of("seed", seed, 0))


def float_array(name: str, values: npt.ArrayLike) -> FloatArray:
    """A fresh float64 copy of what was handed in, all of it finite."""
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biufO":
            raise TypeError(f"its entries are of type {given.dtype}")
        # What was no array before is a copy already.
        array = given.astype(np.float64, order="C", copy=not isinstance(values, list | tuple))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be read as an array of numbers ({error}). Give a rectangular array."
        ) from error
    # The extremes are NaN or infinite if any entry is, and cost no array of the game's size.
    if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}{list(where)} is {array[where]}, expected a finite number.")
    return array


def short(value: object) -> str:
    """A value as an error shows it, in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
