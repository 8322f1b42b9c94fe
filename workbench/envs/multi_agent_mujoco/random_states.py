"""Random generators seeded as Gymnasium seeds them, their states as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.envs.arguments import environment_seeds

State = Mapping[str, Any]
_LOW = 2**64 - 1


def seeded(seed: int | None, n_envs: int) -> list[np.random.Generator]:
    """Generator i is Gymnasium's for ``seed + i``; without a seed, all are drawn from the operating system."""
    seeds = [None] * n_envs if seed is None else environment_seeds(seed, n_envs)
    return [np.random.Generator(np.random.PCG64(np.random.SeedSequence(each))) for each in seeds]


def packed(states: Iterable[State]) -> npt.NDArray[np.uint64]:
    """(n, 6) uint64: the states that PCG64 generators give."""
    return np.array([_words(state) for state in states], np.uint64)


def _words(state: State) -> tuple[int, ...]:
    value, increment = state["state"]["state"], state["state"]["inc"]
    halves = (value >> 64, value & _LOW, increment >> 64, increment & _LOW)
    return (*halves, state["has_uint32"], state["uinteger"])


def unpack(words: npt.NDArray[np.uint64], generators: Sequence[np.random.Generator]) -> None:
    """Put ``generators`` into the states that were ``packed``."""
    for row, generator in zip(words.tolist(), generators, strict=True):
        generator.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": row[0] << 64 | row[1], "inc": row[2] << 64 | row[3]},
            "has_uint32": row[4],
            "uinteger": row[5],
        }
