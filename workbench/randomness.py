"""Random streams keyed by what they are for, never by the order in which they are drawn.

A stream is the function of (seed, purpose, iteration, index) alone. Permuting the agents reshuffles nobody's
minibatches, a plot or an evaluation in between moves nothing, and two forks differ only in what was changed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Streams:
    """All the random streams of one run.

    >>> streams = Streams(seed=0)
    >>> first = streams.numpy("order", iteration=3).permutation(4)
    >>> bool((first == streams.numpy("order", iteration=3).permutation(4)).all())
    True
    """

    seed: int

    def __post_init__(self) -> None:
        # NumPy integers are what a sweep over np.arange hands out; bool is an int that nobody means as a seed.
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; expected an integer ≥ 0, such as seed=0.")
        object.__setattr__(self, "seed", int(self.seed))

    def _sequence(self, purpose: str, iteration: int, index: int) -> np.random.SeedSequence:
        # crc32 rather than hash(): the latter changes from process to process.
        return np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(purpose.encode()), iteration, index))

    def numpy(self, purpose: str, iteration: int = 0, index: int = 0) -> np.random.Generator:
        """A fresh NumPy generator at the beginning of this stream; ``index`` is an agent's or critic's number."""
        return np.random.Generator(np.random.PCG64(self._sequence(purpose, iteration, index)))

    def torch(self, purpose: str, iteration: int = 0, index: int = 0) -> torch.Generator:
        """A fresh CPU torch generator at the beginning of this stream: the same numbers whatever the device."""
        generator = torch.Generator()
        generator.manual_seed(int(self._sequence(purpose, iteration, index).generate_state(1, np.uint64)[0] >> 1))
        return generator

    def integer(self, purpose: str, iteration: int = 0, index: int = 0) -> int:
        """One integer below 2³¹ from this stream, for what wants a seed of its own."""
        return int(self._sequence(purpose, iteration, index).generate_state(1)[0] >> 1)
