"""The value function: a network, a normaliser of its targets, and the loss that fits it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workbench import kernels


@dataclass(frozen=True, slots=True)
class ValueNormalizer:
    """Running mean and deviation of the value targets: the network predicts (V − μ)/σ.

        m ← β·m + (1 − β)·mean(V),   q ← β·q + (1 − β)·mean(V²),   μ = m/w,   σ² = q/w − μ²,   w ← β·w + (1 − β)

    ``weight`` w undoes the bias of starting at zero. Never written to: ``updated`` makes a new one. With
    ``enabled=False`` it passes everything through. Source: van Hasselt et al., Learning values across many orders of
    magnitude, NeurIPS 2016, without its rescaling of the last layer.
    """

    mean: float = 0.0
    mean_square: float = 0.0
    weight: float = 0.0
    enabled: bool = True

    BETA = 0.99999
    MIN_VARIANCE = 1e-2

    @property
    def location(self) -> float:
        """μ, in units of return."""
        return self.mean / self.weight if self.enabled and self.weight else 0.0

    @property
    def scale(self) -> float:
        """σ, in units of return."""
        if not (self.enabled and self.weight):
            return 1.0
        return math.sqrt(max(self.mean_square / self.weight - self.location**2, self.MIN_VARIANCE))

    def updated(self, targets: Tensor) -> ValueNormalizer:
        """The normaliser after having seen ``targets`` (any shape), in units of return."""
        if not self.enabled:
            return self
        seen = targets.double()
        keep, take = self.BETA, 1 - self.BETA
        return ValueNormalizer(
            keep * self.mean + take * float(seen.mean()),
            keep * self.mean_square + take * float(seen.square().mean()),
            keep * self.weight + take,
        )

    def normalize(self, values: Tensor) -> Tensor:
        """(V − μ)/σ."""
        return (values - self.location) / self.scale

    def denormalize(self, predictions: Tensor) -> Tensor:
        """μ + σ·prediction, in units of return."""
        return predictions * self.scale + self.location


def value_loss(
    predictions: Tensor,
    old_predictions: Tensor,
    targets: Tensor,
    *,
    clip: float | None,
    huber_delta: float | None,
) -> Tensor:
    """mean(max(ℓ(v − y), ℓ(v_clip − y))),   v_clip = v_old + clip(v − v_old, ±ε),   ℓ Huber or squared.

    All arguments are normalised values of one shape.

    clip          ε of the clipped loss, which lets a value move away from its old one by at most ε; None: unclipped
    huber_delta   where ℓ turns from e²/2 to linear; None: e²/2 everywhere
    """

    def error(prediction: Tensor) -> Tensor:
        if huber_delta is None:
            return 0.5 * (prediction - targets).square()
        return functional.huber_loss(prediction, targets, reduction="none", delta=huber_delta)

    loss = error(predictions)
    if clip is not None:
        kept_near = old_predictions + (predictions - old_predictions).clamp(-clip, clip)
        loss = torch.max(loss, error(kept_near))
    return loss.mean()


def value_slope(
    predictions: Tensor,
    old_predictions: Tensor,
    targets: Tensor,
    *,
    clip: float | None,
    huber_delta: float | None,
) -> tuple[Tensor, Tensor]:
    """The terms whose mean is ``value_loss``, and their derivatives in the predictions; arguments as there."""
    if not kernels.reach(predictions):
        return _value_slope(predictions, old_predictions, targets, clip, huber_delta)
    losses, slopes = torch.empty_like(predictions), torch.empty_like(predictions)
    near, delta = (math.inf if bound is None else bound for bound in (clip, huber_delta))
    seen = predictions.numpy(), old_predictions.numpy(), targets.numpy()
    kernels.slope_of_value(*seen, near, delta, losses.numpy(), slopes.numpy())
    return losses, slopes


def _value_slope(
    predictions: Tensor, old_predictions: Tensor, targets: Tensor, clip: float | None, huber_delta: float | None
) -> tuple[Tensor, Tensor]:
    """``value_slope`` on any device."""

    def slope(error: Tensor) -> Tensor:
        return error if huber_delta is None else error.clamp(-huber_delta, huber_delta)

    def height(error: Tensor) -> Tensor:
        if huber_delta is None:
            return 0.5 * error.square()
        return functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=huber_delta)

    error = predictions - targets
    loss, derivative = height(error), slope(error)
    if clip is None:
        return loss, derivative
    moved = predictions - old_predictions
    other = old_predictions + moved.clamp(-clip, clip) - targets
    held = moved.abs() > clip
    kept_near = height(other)
    derivative = torch.where(held & (kept_near > loss), torch.zeros_like(derivative), derivative)
    return torch.max(loss, kept_near), derivative


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 − var(returns − values)/var(returns): 1 is perfect, 0 no better than a constant; NaN for constant returns."""
    variance = float(returns.double().var(correction=0))
    if variance == 0:
        return math.nan
    return 1.0 - float((returns.double() - values.double()).var(correction=0)) / variance
