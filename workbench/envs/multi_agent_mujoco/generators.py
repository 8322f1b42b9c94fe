"""One random generator for each environment, seeded as Gymnasium seeds it, and saved as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.envs.arguments import environment_seeds

_LOW = 2**64 - 1
WORDS = 6


def seeded(seed: int | None, n_envs: int) -> list[np.random.Generator]:
    """Generator i is Gymnasium's for ``seed + i``; without a seed, all are drawn from the operating system."""
    seeds = [None] * n_envs if seed is None else environment_seeds(seed, n_envs)
    return [np.random.Generator(np.random.PCG64(np.random.SeedSequence(each))) for each in seeds]


def packed(generators: Sequence[np.random.Generator]) -> npt.NDArray[np.uint64]:
    """(n, 6) uint64, everything that determines what the generators draw next."""
    words = np.empty((len(generators), WORDS), np.uint64)
    for row, generator in zip(words, generators, strict=True):
        saved: Any = generator.bit_generator.state
        state, increment = saved["state"]["state"], saved["state"]["inc"]
        halves = (state >> 64, state & _LOW, increment >> 64, increment & _LOW)
        row[:] = (*halves, saved["has_uint32"], saved["uinteger"])
    return words


def unpack(words: npt.NDArray[np.uint64], generators: Sequence[np.random.Generator]) -> None:
    """Put ``generators`` into the states that ``packed`` saved."""
    for row, generator in zip(words.tolist(), generators, strict=True):
        generator.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": row[0] << 64 | row[1], "inc": row[2] << 64 | row[3]},
            "has_uint32": row[4],
            "uinteger": row[5],
        }
