"""What the environment shows, as the networks get it: the one way from an observation to a network's input.

    x_j = clip((o_j − μ_j)/σ_j, ±10),   μ, σ of each feature over all that was seen in the iterations before

A robot's features have scales that differ by hundreds; each in its own unit, the fast ones do not drown the slow. The
statistics are frozen while an iteration lasts, so that ratios, KL and M compare policies of one and the same input, and
merged with the rollout's own when it ends. As they are stay: parts of one-hot codes, the agents' numbers, and features
that never changed.

Source of the merge: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
COMPSTAT 1982.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from workbench.envs.base import Array
from workbench.networks.kernels import compiled

LIMIT = 10.0  # deviations from the mean that a network is shown at most
NEGLIGIBLE = 1e-12  # of the mean: a deviation that is rounding alone

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureStatistics:
    """Mean and variance of every feature over what was seen; never written to.

    count    how many vectors were seen
    mean     (n,) float64
    squares  (n,) float64, Σ(x − mean)²
    """

    count: float
    mean: Annotated[Floats, "features"]
    squares: Annotated[Floats, "features"]

    @staticmethod
    def none(n: int) -> FeatureStatistics:
        """Nothing seen yet, of ``n`` features."""
        return FeatureStatistics(0.0, np.zeros(n), np.zeros(n))

    @property
    def variance(self) -> Floats:
        """(n,), as ``np.var`` has it; 0 before anything was seen."""
        return self.squares / max(self.count, 1.0)

    def merged(self, other: FeatureStatistics) -> FeatureStatistics:
        """The statistics of all that either has seen."""
        if not (self.count and other.count):
            return other if other.count else self
        total, off = self.count + other.count, other.mean - self.mean
        return FeatureStatistics(
            total,
            self.mean + off * (other.count / total),
            self.squares + other.squares + off * off * (self.count * other.count / total),
        )


class Moments:
    """Statistics in the making: of several agents side by side, row by row of (n_agents, n)."""

    def __init__(self, n_agents: int, n: int) -> None:
        self.count, self.mean, self.squares = np.zeros(n_agents), np.zeros((n_agents, n)), np.zeros((n_agents, n))

    def of(self, row: int) -> FeatureStatistics:
        """What one agent has seen."""
        return FeatureStatistics(float(self.count[row]), self.mean[row].copy(), self.squares[row].copy())


class Transform:
    """x = clip((o − μ)/σ, ±10) for several agents side by side, by the statistics of each.

    statistics  of each agent's inputs (n,)
    as_they_are of each agent (n,) bool: features that are not touched
    """

    def __init__(self, statistics: Sequence[FeatureStatistics], as_they_are: Sequence[npt.NDArray[np.bool_]]) -> None:
        deviation = [np.sqrt(each.variance) for each in statistics]
        kept = [
            fixed | ~(sigma > NEGLIGIBLE * np.abs(each.mean))
            for each, sigma, fixed in zip(statistics, deviation, as_they_are, strict=True)
        ]
        pairs = list(zip(statistics, deviation, kept, strict=True))
        self.mean = np.stack([np.where(fixed, 0.0, each.mean) for each, _, fixed in pairs])
        self.scale = np.stack([np.where(fixed, 1.0, sigma) for _, sigma, fixed in pairs])
        self.limit = np.stack([np.where(fixed, np.inf, LIMIT) for fixed in kept])

    def row(self, index: int) -> Transform:
        """That of one agent."""
        one = Transform.__new__(Transform)
        one.mean, one.scale, one.limit = (each[index : index + 1] for each in (self.mean, self.scale, self.limit))
        return one

    def __call__(self, raw: Array, out: Array, moments: Moments | None = None, present: Array | None = None) -> None:
        """Write what (n_agents, rows, n) ``raw`` is to the networks into ``out``, and add it to ``moments``.

        present   (n_agents, rows) bool, who is there to see it; None: all
        """
        if moments is not None:
            there = np.ones(raw.shape[:2], np.bool_) if present is None else present
            add_rows(raw, there, moments.count, moments.mean, moments.squares)
        standardize_features(raw, self.mean, self.scale, self.limit, out)


def shown_to_network(transform: Transform | None, raw: Array, out: Array, moments: Moments | None = None) -> None:
    """One agent's rows (rows, n), or the states, through its ``transform`` into ``out``; None: as they are."""
    if transform is None:
        out[...] = raw
    else:
        transform(raw[None], out[None], moments)


@compiled
def standardize_features(raw: Any, mean: Any, scale: Any, limit: Any, out: Any) -> None:
    """x = clip((o − μ)/σ, ±limit) of every agent's rows: (n_agents, rows, n), with (n_agents, n) statistics."""
    for a in range(raw.shape[0]):
        for i in range(raw.shape[1]):
            for j in range(raw.shape[2]):
                x = (np.float64(raw[a, i, j]) - mean[a, j]) / scale[a, j]
                x = limit[a, j] if x > limit[a, j] else x
                out[a, i, j] = -limit[a, j] if x < -limit[a, j] else x


@compiled
def add_rows(raw: Any, present: Any, count: Any, mean: Any, squares: Any) -> None:
    """Merge every agent's rows (n_agents, rows, n), those it was present at, into count, mean and Σ(x − mean)²."""
    for a in range(raw.shape[0]):
        first, n = -1, 0.0
        for i in range(raw.shape[1]):
            if present[a, i]:
                n += 1.0
                first = i if first < 0 else first
        if first < 0:
            continue
        total = count[a] + n
        for j in range(raw.shape[2]):
            # Around the first row, so that a feature that never changes has a variance of exactly 0.
            origin = np.float64(raw[a, first, j])
            shift, own = 0.0, 0.0
            for i in range(raw.shape[1]):
                if present[a, i]:
                    shift += np.float64(raw[a, i, j]) - origin
            average = origin + shift / n
            for i in range(raw.shape[1]):
                if present[a, i]:
                    own += (np.float64(raw[a, i, j]) - average) ** 2
            if count[a] == 0.0:
                mean[a, j], squares[a, j] = average, own
            else:
                off = average - mean[a, j]
                mean[a, j] += off * n / total
                squares[a, j] += own + off * off * count[a] * n / total
        count[a] = total
