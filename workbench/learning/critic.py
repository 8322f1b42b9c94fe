"""The value function: a network, a normaliser of its targets, and the loss that fits it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from workbench.learning import fitting
from workbench.learning.settings import Settings
from workbench.networks.gradients import pass_over
from workbench.networks.gru import Network, Sequences
from workbench.networks.kernels import normalized_inputs, on_cpu
from workbench.networks.mlp import Adam, Mlp, ParameterVector, clip_norm


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


class ValueGradient:
    """The slope of the mean value loss in the predictions, as a pass takes it; the loss itself is left in ``found``."""

    def __init__(self, clip: float | None, huber_delta: float | None, old: Tensor, targets: Tensor) -> None:
        self._clip, self._huber_delta, self._old, self._targets = clip, huber_delta, old, targets
        self.found = [torch.zeros_like(targets[:1])]

    @property
    def recipe(self) -> tuple[Callable[..., ValueGradient], tuple[Any, ...], tuple[Tensor | None, ...]]:
        return ValueGradient, (self._clip, self._huber_delta), (self._old, self._targets)

    def __call__(self, rows: slice, outputs: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        predictions, old, targets = outputs.detach().requires_grad_(), self._old[rows], self._targets[rows]
        with torch.enable_grad():
            loss = value_loss(predictions.squeeze(-1), old, targets, clip=self._clip, huber_delta=self._huber_delta)
            part = loss * (len(targets) / len(self._targets))
        self.found[0] += part.detach()
        return torch.autograd.grad(part, predictions)[0], torch.zeros_like(free)


def fit_critic(
    network: Network,
    vector: ParameterVector,
    inputs: Tensor,
    old: Tensor,
    targets: Tensor,
    settings: Settings,
    learning_rate: float,
    generator: torch.Generator,
    sequences: Sequences | None = None,
) -> tuple[ParameterVector, float, float]:
    """Descend the mean value loss by Adam, ``critic_epochs`` times over the samples.

    inputs   (batch, n_inputs)
    old      (batch,) normalised predictions before, as are ``targets``

    Returns where it led, the last gradient's norm (not finite where it stopped), and the mean loss on the way.
    """
    clip, huber_delta = settings.value_clip_epsilon, settings.huber_delta
    n_parts = settings.n_parts("critic_minibatches", len(targets) if sequences is None else len(sequences))
    if isinstance(network, Mlp) and on_cpu(inputs):
        plan = fitting.schedule(
            len(inputs), settings.critic_epochs, n_parts, generator, learning_rate, settings.max_grad_norm
        )
        x = normalized_inputs(network.layout, inputs.contiguous().numpy())
        samples = fitting.ValueSamples(x, old.contiguous().numpy(), targets.contiguous().numpy())
        bounds = (math.inf if bound is None else bound for bound in (clip, huber_delta))
        return fitting.fitted_values(vector, network.layout, samples, fitting.ValueLoss(*bounds), plan)
    optimizer, norm, losses = Adam(vector), math.nan, []
    whole = pass_over(network, inputs, sequences)
    for _ in range(settings.critic_epochs):
        for pieces in fitting.random_parts(len(targets) if sequences is None else len(sequences), n_parts, generator):
            chosen, some = _samples_at(pieces, sequences, targets.device)
            slope = ValueGradient(clip, huber_delta, old[chosen], targets[chosen])
            over = whole if pieces is None else pass_over(network, inputs[chosen], some)
            gradient, norm = clip_norm(over.gradient(optimizer.values, slope), settings.max_grad_norm)
            if not math.isfinite(norm):
                return vector, norm, math.nan
            optimizer.step(gradient, learning_rate)
            losses.append(float(slope.found[0]))
    return optimizer.result(), norm, sum(losses) / len(losses)


def _samples_at(
    pieces: Tensor | None, sequences: Sequences | None, device: torch.device
) -> tuple[Tensor | slice, Sequences | None]:
    """Which samples a part of a random partition stands for, and their sequence layout."""
    if pieces is None:
        return slice(None), sequences
    pieces = pieces.to(device)
    return (pieces, None) if sequences is None else (sequences.samples(pieces), sequences.select(pieces))


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 − var(returns − values)/var(returns): 1 is perfect, 0 no better than a constant; NaN for constant returns."""
    variance = float(returns.double().var(correction=0))
    if variance == 0:
        return math.nan
    return 1.0 - float((returns.double() - values.double()).var(correction=0)) / variance
