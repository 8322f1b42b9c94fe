"""Statistics of scores over seeds: one equation, one pure function.

Scores are held by task: ``{task: (n_seeds,)}``, or ``(n_seeds, n_points)`` for whole curves. A score is one number of
one run, such as the mean of its evaluation episodes. The unit is the run, told apart by its seed, never the episode:
episodes of one run share its policy, and to count them as samples makes every interval far too narrow.

Source: Agarwal, Schwarzer, Castro, Courville and Bellemare, *Deep Reinforcement Learning at the Edge of the Statistical
Precipice*, NeurIPS 2021 (arXiv 2108.13264).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workbench.envs.arguments import positive_integer
from workbench.randomness import Streams

Floats = npt.NDArray[np.float64]
Scores = Mapping[str, Floats]
Statistic = Callable[[Floats], Floats]  # (…, n) -> (…) or (…, k)

RESAMPLES = 50_000  # for a number; bands of curves and profiles, which nobody reads to the third digit, take fewer
BAND_RESAMPLES = 2_000
CONFIDENCE = 0.95
_AT_ONCE = 4_000_000  # numbers drawn at once, so that many resamples of many runs need no more memory


@dataclass(frozen=True)
class Estimate:
    """A statistic (arrays of one shape, () for a number) and the ends of its interval; NaN where there is none."""

    value: Floats
    low: Floats
    high: Floats

    def __iter__(self) -> Iterator[Floats]:
        return iter((self.value, self.low, self.high))


def interquartile_mean(scores: npt.ArrayLike) -> Floats:
    """IQM = mean of x₍ₖ₊₁₎ … x₍ₙ₋ₖ₎ with k = ⌊n/4⌋, the scores in ascending order: (…, n) -> (…).

    The mean of the middle half, as robust against single runs as the median of many and much less noisy. Where n is no
    multiple of 4, k is rounded down, so that more than half is kept; below 4 scores it is the mean.

    >>> float(interquartile_mean([100.0, 1.0, 2.0, 3.0, -50.0]))
    2.0
    """
    x = np.asarray(scores, np.float64)
    if x.ndim == 0 or not x.shape[-1]:
        raise ValueError(f"scores has shape {x.shape}; expected (…, n) with at least one score.")
    n = x.shape[-1]
    cut = n // 4
    if cut == 0:
        return np.asarray(x.mean(-1))
    return np.asarray(np.partition(x, (cut, n - cut - 1), axis=-1)[..., cut : n - cut].mean(-1))


def optimality_gap(scores: npt.ArrayLike, target: float = 1.0) -> Floats:
    """γ − mean(min(x, γ)): how far the scores fall short of γ on average; more than γ earns nothing. (…, n) -> (…).

    >>> float(optimality_gap([0.5, 0.75, 3.0]))
    0.25
    """
    return np.asarray(target - np.minimum(np.asarray(scores, np.float64), target).mean(-1))


def performance_profile(scores: npt.ArrayLike, thresholds: npt.ArrayLike) -> Floats:
    """F(τ) = share of scores > τ, for each threshold: (…, n), (k,) -> (…, k).

    >>> performance_profile([0.2, 0.6, 0.6, 1.1], [0.0, 0.6, 1.0]).tolist()
    [1.0, 0.25, 0.25]
    """
    x = np.asarray(scores, np.float64)
    return np.stack([(x > threshold).mean(-1) for threshold in np.asarray(thresholds, np.float64)], axis=-1)


def improvement_table(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """1 where xᵢ > yⱼ, ½ where they are equal, 0 where xᵢ < yⱼ: (n,), (m,) -> (n, m)."""
    a, b = np.asarray(x, np.float64)[:, None], np.asarray(y, np.float64)[None, :]
    return np.asarray(np.where(a == b, 0.5, a > b))


def probability_of_improvement(x: Scores, y: Scores) -> float:
    """P(X > Y) = mean over tasks of Σᵢⱼ ([xᵢ > yⱼ] + ½[xᵢ = yⱼ]) / (n·m), Mann and Whitney's U over n·m.

    The chance that a run of X beats a run of Y on a task drawn at random. It says how often, not by how much.

    >>> probability_of_improvement({"a": np.array([1.0, 3.0])}, {"a": np.array([2.0, 2.0])})
    0.5
    """
    x, y = _checked(x), _checked(y)
    if set(x) != set(y):
        raise ValueError(f"the two have other tasks: {sorted(x)} and {sorted(y)}; compare them on those they share.")
    return float(np.mean([improvement_table(x[task], y[task]).mean() for task in x]))


def bootstrap(
    scores: Scores,
    statistic: Statistic = interquartile_mean,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """A statistic over the runs of all tasks, and its percentile interval by the stratified bootstrap.

    Each resample draws, within every task, as many runs with replacement as the task has; the interval reaches from the
    (1 − c)/2 to the (1 + c)/2 quantile of the statistic over the resamples. Of curves, whole runs are drawn, and the
    interval holds for each point by itself. A task with a single run tells nothing about the spread of seeds: then the
    ends are NaN. The draws depend on ``seed`` and the tasks' names alone.
    """
    check_bootstrap(resamples, confidence)
    held = _checked(scores)
    pooled = np.concatenate(list(held.values()))
    points = np.atleast_2d(pooled.T)
    value = np.stack([statistic(column) for column in points])
    low = high = np.full_like(value, np.nan)
    sizes = {task: len(own) for task, own in held.items()}
    if min(sizes.values()) > 1:
        parts = [[statistic(column[drawn]) for column in points] for drawn in _draws(sizes, resamples, seed)]
        low, high = _ends(np.concatenate(parts, axis=1), confidence)
    chosen = 0 if pooled.ndim == 1 else slice(None)
    return Estimate(*(np.asarray(each[chosen]) for each in (value, low, high)))


def bootstrap_improvement(
    x: Scores,
    y: Scores,
    *,
    resamples: int = BAND_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """P(X > Y) and its percentile interval; the runs of X and of Y are drawn independently, within every task."""
    check_bootstrap(resamples, confidence)
    value = np.asarray(probability_of_improvement(x, y))
    x, y = _checked(x), _checked(y)
    if min(len(scores[task]) for scores in (x, y) for task in scores) < 2:
        return Estimate(value, np.asarray(np.nan), np.asarray(np.nan))
    replicates = np.zeros(resamples)
    for task in x:
        table = improvement_table(x[task], y[task])
        ours, theirs = (
            Streams(seed).numpy(f"bootstrap {task}", index=side).integers(n, size=(resamples, n))
            for side, n in enumerate(table.shape)
        )
        replicates += table[ours[:, :, None], theirs[:, None, :]].mean((1, 2))
    return Estimate(value, *map(np.asarray, _ends(replicates[None] / len(x), confidence)[:, 0]))


def _draws(sizes: Mapping[str, int], resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices into the pooled runs, (some resamples, all runs) at a time, drawn within each task."""
    generators = {task: Streams(seed).numpy(f"bootstrap {task}") for task in sizes}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    at_once = max(1, _AT_ONCE // sum(sizes.values()))
    for done in range(0, resamples, at_once):
        some = min(at_once, resamples - done)
        drawn = [starts[task] + generators[task].integers(n, size=(some, n)) for task, n in sizes.items()]
        yield np.concatenate(drawn, axis=1)


def _ends(replicates: Floats, confidence: float) -> Floats:
    """The ends of the interval: (points, resamples, …) -> (2, points, …)."""
    return np.asarray(np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1))


def _checked(scores: Scores) -> dict[str, Floats]:
    """The scores as arrays; no task, no run, and numbers that are not finite are refused."""
    if not isinstance(scores, Mapping):
        raise TypeError(f"the scores are {scores!r}; expected {{task: (n_seeds,)}}, such as {{'Ant 4x2': [1.0, 2.0]}}.")
    held = {task: np.asarray(own, np.float64) for task, own in scores.items()}
    if not held or not all(own.ndim in (1, 2) and own.size for own in held.values()):
        shapes = {task: own.shape for task, own in held.items()}
        raise ValueError(f"the scores have the shapes {shapes}; expected {{task: (n_seeds,)}} with at least one seed.")
    for task, own in held.items():
        if not np.isfinite(own).all():
            raise ValueError(f"a score of the task {task!r} is not finite: {own}; leave such runs out, and say so.")
    return held


def check_bootstrap(resamples: object, confidence: object) -> None:
    """``ValueError`` for what no bootstrap can be made with."""
    positive_integer("resamples", resamples)
    if isinstance(confidence, bool) or not isinstance(confidence, float | np.floating) or not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; expected a number in (0, 1), such as 0.95.")
