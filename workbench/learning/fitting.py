"""A whole update in one compiled call: all epochs and minibatches of an agent, or of the critic, by Adam.

The same steps as the loops over ``gradients`` take, without Python in between: what a gradient of 64 rows costs by
itself is a twentieth of what calling it costs. For Gaussian policies and critics of an ``Mlp`` in the CPU's memory;
``updates`` and ``critic`` decide, and do the same step by step for all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from workbench.learning.trust_region import CG_TOLERANCE
from workbench.networks.distributions import LOG_SQRT_2PI
from workbench.networks.gradients import in_threads, shares
from workbench.networks.kernels import (
    BLOCK,
    Array,
    ParameterLayout,
    adam,
    backward,
    clip_to_norm,
    compiled,
    forward,
    hidden_width,
    predict,
    pushforward,
)
from workbench.networks.mlp import ADAM_EPS, ParameterVector


class PolicySamples(NamedTuple):
    """What a Gaussian policy is updated on, all (n,) but where said.

    inputs         (n, n_inputs), normalised where a LayerNorm comes first
    actions        (n, dim)
    old_log_probs  log π_old(a|o)
    m_factors      M
    weights        0 where the agent had left, else 1
    preceding      the preceding ratio as it is in M, and ``advantages`` A, where the joint ratio is clipped; else (0,)
    """

    inputs: Array
    actions: Array
    old_log_probs: Array
    m_factors: Array
    weights: Array
    preceding: Array
    advantages: Array


class ValueSamples(NamedTuple):
    """What a critic is fitted to.

    inputs   (n, n_inputs), normalised where a LayerNorm comes first
    old      (n,) normalised predictions before
    targets  (n,) normalised returns
    """

    inputs: Array
    old: Array
    targets: Array


class ValueLoss(NamedTuple):
    """``critic.value_loss``: how far a prediction may move, and where the loss turns linear; inf for None."""

    clip: float
    huber_delta: float


class Objective(NamedTuple):
    """s·(mean(min(r·M, clip(r, 1 ± ε)·M)) + c·mean(H)).

    sigmoid        whether σ = ½·sigmoid(ℓ), else exp(ℓ)
    epsilon        ε; inf: no clip
    joint_epsilon  the joint ratio's; inf: no clip
    entropy_coef   c
    sign           s: −1 for what is descended
    """

    sigmoid: bool
    epsilon: float
    joint_epsilon: float
    entropy_coef: float
    sign: float


class Schedule(NamedTuple):
    """How Adam goes over the samples.

    parts          (epochs, n) permutations of the samples, or (epochs, 0): as they lie
    n_minibatches  parts of each pass
    learning_rate  of every step
    max_norm       gradients are clipped to this norm
    eps            Adam's
    target_kl      no further pass once mean KL(old ‖ new) is past it; inf: all passes
    """

    parts: npt.NDArray[np.int64]
    n_minibatches: int
    learning_rate: float
    max_norm: float
    eps: float
    target_kl: float


@compiled
def standard_deviation(free: float, sigmoid: bool) -> Any:
    """σ(ℓ)."""
    return 0.5 / (1.0 + np.exp(-free)) if sigmoid else np.exp(free)


@compiled
def surrogate_cotangent(
    means: Array,
    free: Array,
    samples: PolicySamples,
    objective: Objective,
    inverse: float,
    by_means: Array,
    by_free: Array,
) -> None:
    """∂/∂(μ, ℓ) of the objective's share that some samples make up, r = N(a; μ, σ(ℓ)²)/π_old.

    means     (n, dim) μ
    free      (dim,) ℓ
    by_means  (n, dim), written
    by_free   (dim,), added to
    """
    one, half, zero = means.dtype.type(1), means.dtype.type(0.5), means.dtype.type(0)
    low, high = means.dtype.type(1 - objective.epsilon), means.dtype.type(1 + objective.epsilon)
    scale = means.dtype.type(objective.sign * inverse)
    joint = not np.isinf(objective.joint_epsilon)
    joint_low, joint_high = 1 - objective.joint_epsilon, 1 + objective.joint_epsilon
    n, dim = means.shape
    precision, slope = np.empty_like(free), np.empty_like(free)
    constant, bonus = zero, zero
    for d in range(dim):
        std = means.dtype.type(standard_deviation(free[d], objective.sigmoid))
        precision[d] = one / std
        slope[d] = one - (std + std) if objective.sigmoid else one  # σ'(ℓ)/σ
        constant += np.log(std) + means.dtype.type(LOG_SQRT_2PI)
    for i in range(n):
        squares = zero
        for d in range(dim):
            z = (samples.actions[i, d] - means[i, d]) * precision[d]
            by_means[i, d] = z
            squares += z * z
        r = np.exp(-half * squares - constant - samples.old_log_probs[i])
        m = samples.m_factors[i]
        clipped = min(max(r, low), high) * m
        # What is not finite stays so in either case.
        pull = r * (m if r * m <= clipped else zero * m)
        if joint:
            w = samples.preceding[i]
            bounded = min(max(w * r, joint_low), joint_high) * samples.advantages[i]
            if abs(w * r - one) >= objective.joint_epsilon and not min(r * m, clipped) <= bounded:
                pull = zero * pull
        pull *= samples.weights[i] * scale
        bonus += samples.weights[i]
        for d in range(dim):
            z = by_means[i, d]
            by_means[i, d] = pull * z * precision[d]
            by_free[d] += pull * (z * z - one) * slope[d]
    for d in range(dim):
        by_free[d] += bonus * scale * means.dtype.type(objective.entropy_coef) * slope[d]


@compiled
def some_samples(samples: PolicySamples, index: Array) -> PolicySamples:
    """The samples at some indices, next to each other."""
    n = len(index)
    inputs = np.empty((n, samples.inputs.shape[1]), samples.inputs.dtype)
    actions = np.empty((n, samples.actions.shape[1]), samples.actions.dtype)
    for i in range(n):
        inputs[i] = samples.inputs[index[i]]
        actions[i] = samples.actions[index[i]]
    joint = len(samples.preceding) > 0
    return PolicySamples(
        inputs,
        actions,
        samples.old_log_probs[index],
        samples.m_factors[index],
        samples.weights[index],
        samples.preceding[index] if joint else samples.preceding,
        samples.advantages[index] if joint else samples.advantages,
    )


@compiled
def sample_rows(samples: PolicySamples, start: int, stop: int) -> PolicySamples:
    """PolicySamples that lie next to each other."""
    joint = len(samples.preceding) > 0
    return PolicySamples(
        samples.inputs[start:stop],
        samples.actions[start:stop],
        samples.old_log_probs[start:stop],
        samples.m_factors[start:stop],
        samples.weights[start:stop],
        samples.preceding[start:stop] if joint else samples.preceding,
        samples.advantages[start:stop] if joint else samples.advantages,
    )


@compiled
def surrogate_gradient(
    flat: Array,
    layout: ParameterLayout,
    samples: PolicySamples,
    objective: Objective,
    inverse: float,
    gradient: Array,
) -> None:
    """Add the objective's gradient over ``samples`` to ``gradient`` (size,), block after block."""
    rows = min(BLOCK, len(samples.inputs))
    room = rows * hidden_width(layout)
    hidden, slopes = np.empty(room, flat.dtype), np.empty(room, flat.dtype)
    rho = np.empty((len(layout.widths), rows), flat.dtype)
    outputs = np.empty((rows, layout.n_free), flat.dtype)
    by_outputs = np.empty((rows, layout.n_free), flat.dtype)
    free, by_free = flat[layout.free : layout.free + layout.n_free], gradient[layout.free : layout.free + layout.n_free]
    for start in range(0, len(samples.inputs), BLOCK):
        stop = min(start + BLOCK, len(samples.inputs))
        block, n = sample_rows(samples, start, stop), stop - start
        forward(flat, layout, block.inputs, hidden, slopes, rho, outputs[:n])
        surrogate_cotangent(outputs[:n], free, block, objective, inverse, by_outputs[:n], by_free)
        backward(flat, layout, block.inputs, hidden, slopes, rho, by_outputs[:n], gradient)


@compiled
def inverse_count(weights: Array) -> float:
    """1 / how many samples count."""
    total = 0.0
    for weight in weights:
        total += weight
    return 1.0 / max(total, 1.0)


@compiled
def gaussian_kl(old_means: Array, old_free: Array, means: Array, free: Array, sigmoid: bool, weights: Array) -> float:
    """mean KL(old ‖ new) of Gaussians with means (n, dim) and ℓ (dim,), in float64, over samples of weight 1."""
    total, count = 0.0, 0.0
    n, dim = means.shape
    ratio, precision, constant = np.empty(dim), np.empty(dim), 0.0
    for d in range(dim):
        old = standard_deviation(np.float64(old_free[d]), sigmoid)
        new = standard_deviation(np.float64(free[d]), sigmoid)
        ratio[d] = (old / new) ** 2
        precision[d] = 1.0 / (new * new)
        constant += 0.5 * (ratio[d] - 1.0 - np.log(ratio[d]))
    for i in range(n):
        distance = 0.0
        for d in range(dim):
            off = np.float64(old_means[i, d]) - np.float64(means[i, d])
            distance += off * off * precision[d]
        total += weights[i] * (constant + 0.5 * distance)
        count += weights[i]
    return total / max(count, 1.0)


@compiled
def part_of(n: int, n_parts: int, index: int) -> tuple[int, int]:
    """Where a part of n samples begins and ends, as ``torch.tensor_split`` divides them."""
    each, longer = n // n_parts, n % n_parts
    start = index * each + min(index, longer)
    return start, start + each + (1 if index < longer else 0)


@compiled
def ascend(
    flat: Array, first_moment: Array, second_moment: Array, steps: int, layout: ParameterLayout, samples: PolicySamples,
    objective: Objective, schedule: Schedule,
) -> tuple[int, float, int]:  # fmt: skip
    """Adam over all passes, in place; returns (steps of Adam so far, the last gradient's norm, passes made).

    Stops at the first norm that is not finite, and after a pass that leaves the KL past ``target_kl``.
    """
    n, norm = len(samples.inputs), np.nan
    free = slice(layout.free, layout.free + layout.n_free)
    watched = not np.isinf(schedule.target_kl)
    old_means = np.empty((n if watched else 0, layout.n_free), flat.dtype)
    means, old_free = np.empty_like(old_means), flat[free].copy()
    if watched:
        predict(flat, layout, samples.inputs, old_means)
    gradient = np.empty_like(flat)
    for epoch in range(len(schedule.parts)):
        order = schedule.parts[epoch]
        for index in range(schedule.n_minibatches):
            gradient[:] = 0
            if len(order):
                start, stop = part_of(n, schedule.n_minibatches, index)
                part = some_samples(samples, order[start:stop])
                surrogate_gradient(flat, layout, part, objective, inverse_count(part.weights), gradient)
            else:
                surrogate_gradient(flat, layout, samples, objective, inverse_count(samples.weights), gradient)
            norm = clip_to_norm(gradient, schedule.max_norm)
            if not np.isfinite(norm):
                return steps, norm, epoch
            steps += 1
            adam(flat, first_moment, second_moment, steps, gradient, schedule.learning_rate, schedule.eps)
        if watched:
            predict(flat, layout, samples.inputs, means)
            kl = gaussian_kl(old_means, old_free, means, flat[free], objective.sigmoid, samples.weights)
            if kl > schedule.target_kl:
                return steps, norm, epoch + 1
    return steps, norm, len(schedule.parts)


class Activations(NamedTuple):
    """What ``forward`` left of all samples, block after block, for many products at one θ.

    inputs  (n, n_inputs); ``hidden`` and ``slopes`` (hidden_width·n,); ``rho`` (n_blocks, n_layers, rows)
    """

    inputs: Array
    hidden: Array
    slopes: Array
    rho: Array


@compiled
def activations(flat: Array, layout: ParameterLayout, inputs: Array) -> Activations:
    """A forward pass whose activations are kept."""
    n, width, rows = len(inputs), hidden_width(layout), min(BLOCK, len(inputs))
    hidden, slopes = np.empty(n * width, flat.dtype), np.empty(n * width, flat.dtype)
    rho = np.empty((-(-n // BLOCK), len(layout.widths), rows), flat.dtype)
    outputs = np.empty((rows, layout.n_free), flat.dtype)
    for block in range(len(rho)):
        start, stop = block * BLOCK, min(block * BLOCK + BLOCK, n)
        span = slice(start * width, stop * width)
        forward(flat, layout, inputs[start:stop], hidden[span], slopes[span], rho[block], outputs[: stop - start])
    return Activations(inputs, hidden, slopes, rho)


@compiled
def damped_fisher_product(
    flat: Array, layout: ParameterLayout, kept: Activations, shares: Array, by_std: Array, by_free: Array,
    damping: float, vector: Array, product: Array,
) -> None:  # fmt: skip
    """(F + damping·1)·v into ``product``, both (size,): a pass forward and one back over each block.

    shares   (n,) of the mean that each sample makes up
    by_std   (dim,) 1/σ², and ``by_free`` 2·(σ'(ℓ)/σ)²: the Fisher matrix of the Gaussians
    """
    n, width = len(kept.inputs), hidden_width(layout)
    tangents = np.empty((kept.rho.shape[2], layout.n_free), flat.dtype)
    product[:] = 0
    for block in range(len(kept.rho)):
        start, stop = block * BLOCK, min(block * BLOCK + BLOCK, n)
        span, some = slice(start * width, stop * width), tangents[: stop - start]
        x, hidden, slopes, rho = kept.inputs[start:stop], kept.hidden[span], kept.slopes[span], kept.rho[block]
        pushforward(flat, layout, x, hidden, slopes, rho, vector, some)
        for i in range(stop - start):
            for d in range(layout.n_free):
                some[i, d] *= by_std[d] * shares[start + i]
        backward(flat, layout, x, hidden, slopes, rho, some, product)
    for d in range(layout.n_free):
        product[layout.free + d] = by_free[d] * vector[layout.free + d]
    small = flat.dtype.type(damping)
    for i in range(len(product)):
        product[i] += small * vector[i]


@compiled
def gaussian_natural_gradient(
    flat: Array, layout: ParameterLayout, inputs: Array, weights: Array, sigmoid: bool, damping: float,
    gradient: Array, iterations: int, tolerance: float,
) -> tuple[Array, Array]:  # fmt: skip
    """``trust_region.conjugate_gradient`` on a Gaussian policy's damped Fisher matrix over ``inputs``."""
    kept, dtype = activations(flat, layout, inputs), flat.dtype
    shares = weights * dtype.type(inverse_count(weights))
    by_std, by_free = np.empty(layout.n_free, dtype), np.empty(layout.n_free, dtype)
    for d in range(layout.n_free):
        std = dtype.type(standard_deviation(flat[layout.free + d], sigmoid))
        slope = dtype.type(1) - (std + std) if sigmoid else dtype.type(1)
        by_std[d], by_free[d] = dtype.type(1) / (std * std), dtype.type(2) * slope * slope
    residual = gradient.astype(np.float64)
    solution, direction, curved = np.zeros_like(residual), residual.copy(), np.empty_like(gradient)
    squared = (residual * residual).sum()
    goal = tolerance * squared
    for _ in range(iterations):
        if squared <= goal:
            break
        damped_fisher_product(flat, layout, kept, shares, by_std, by_free, damping, direction.astype(dtype), curved)
        along = 0.0
        for i in range(len(curved)):
            along += direction[i] * curved[i]
        step = squared / along
        previous, squared = squared, 0.0
        for i in range(len(curved)):
            solution[i] += step * direction[i]
            residual[i] -= step * curved[i]
            squared += residual[i] * residual[i]
        for i in range(len(curved)):
            direction[i] = residual[i] + direction[i] * (squared / previous)
    return solution, residual


@compiled
def value_cotangent(
    predictions: Array, old: Array, targets: Array, clip: float, huber_delta: float, losses: Array, slopes: Array
) -> None:
    """The terms of ``critic.value_loss`` and their derivatives in one pass; inf for None. All are (n,)."""
    half, zero = predictions.dtype.type(0.5), predictions.dtype.type(0)
    near, delta = predictions.dtype.type(clip), predictions.dtype.type(huber_delta)
    for i in range(predictions.shape[0]):
        error = predictions[i] - targets[i]
        moved = predictions[i] - old[i]
        slope = delta if error > delta else (-delta if error < -delta else error)
        loss = half * error * error if abs(error) <= delta else delta * (abs(error) - half * delta)
        held = near if moved > near else (-near if moved < -near else moved)
        other = abs(old[i] + held - targets[i])
        kept = half * other * other if other <= delta else delta * (other - half * delta)
        if abs(moved) > near and kept > loss:
            loss, slope = kept, zero
        losses[i] = loss
        slopes[i] = slope


@compiled
def value_gradient(
    flat: Array, layout: ParameterLayout, samples: ValueSamples, value_loss: ValueLoss, gradient: Array
) -> float:
    """Add the gradient of the mean value loss to ``gradient`` (size,), block after block; returns that loss."""
    inputs, old, targets = samples
    clip, huber_delta = value_loss
    rows = min(BLOCK, len(inputs))
    room = rows * hidden_width(layout)
    hidden, slopes = np.empty(room, flat.dtype), np.empty(room, flat.dtype)
    rho = np.empty((len(layout.widths), rows), flat.dtype)
    outputs, by_outputs = np.empty((rows, 1), flat.dtype), np.empty((rows, 1), flat.dtype)
    losses = np.empty(rows, flat.dtype)
    total, share = 0.0, flat.dtype.type(1.0 / len(inputs))
    for start in range(0, len(inputs), BLOCK):
        stop = min(start + BLOCK, len(inputs))
        n = stop - start
        forward(flat, layout, inputs[start:stop], hidden, slopes, rho, outputs[:n])
        value_cotangent(
            outputs[:n, 0], old[start:stop], targets[start:stop], clip, huber_delta, losses[:n], by_outputs[:n, 0]
        )
        for i in range(n):
            total += losses[i]
            by_outputs[i, 0] *= share
        backward(flat, layout, inputs[start:stop], hidden, slopes, rho, by_outputs[:n], gradient)
    return total / len(inputs)


@compiled
def fit_values(
    flat: Array, first_moment: Array, second_moment: Array, steps: int, layout: ParameterLayout, samples: ValueSamples,
    value_loss: ValueLoss, schedule: Schedule,
) -> tuple[int, float, float]:  # fmt: skip
    """Adam on the mean value loss over all passes, in place; returns (steps so far, the last norm, the mean loss)."""
    inputs, old, targets = samples
    n, norm, losses, made = len(inputs), np.nan, 0.0, 0
    gradient = np.empty_like(flat)
    for epoch in range(len(schedule.parts)):
        order = schedule.parts[epoch]
        for index in range(schedule.n_minibatches):
            gradient[:] = 0
            if len(order):
                start, stop = part_of(n, schedule.n_minibatches, index)
                chosen = order[start:stop]
                part = np.empty((len(chosen), inputs.shape[1]), inputs.dtype)
                for i in range(len(chosen)):
                    part[i] = inputs[chosen[i]]
                some = ValueSamples(part, old[chosen], targets[chosen])
                losses += value_gradient(flat, layout, some, value_loss, gradient)
            else:
                losses += value_gradient(flat, layout, samples, value_loss, gradient)
            made += 1
            norm = clip_to_norm(gradient, schedule.max_norm)
            if not np.isfinite(norm):
                return steps, norm, losses / made
            steps += 1
            adam(flat, first_moment, second_moment, steps, gradient, schedule.learning_rate, schedule.eps)
    return steps, norm, losses / max(made, 1)


# --- called from Python -----------------------------------------------------------------------------------------------


def schedule(
    n: int,
    epochs: int,
    n_minibatches: int,
    generator: torch.Generator,
    learning_rate: float,
    max_norm: float,
    target_kl: float = math.inf,
) -> Schedule:
    """A ``Schedule`` over n samples, its permutations drawn from ``generator``; one part needs none."""
    parts = np.empty((epochs, 0 if n_minibatches == 1 else n), np.int64)
    if n_minibatches > 1:
        refuse_more_parts_than_samples(n, n_minibatches)
        for row in parts:
            row[:] = torch.randperm(n, generator=generator).numpy()
    return Schedule(parts, n_minibatches, learning_rate, max_norm, ADAM_EPS, target_kl)


def random_parts(length: int, n_parts: int, generator: torch.Generator) -> list[Tensor | None]:
    """A random partition of range(length) into ``n_parts``; [None], for everything, where there is one part."""
    if n_parts == 1:
        return [None]
    refuse_more_parts_than_samples(length, n_parts)
    return list(torch.randperm(length, generator=generator).tensor_split(n_parts))


def refuse_more_parts_than_samples(length: int, n_parts: int) -> None:
    """Minibatches hold at least one sample each."""
    if n_parts > length:
        raise ValueError(f"{n_parts} minibatches of {length} samples (or sequences); use at most as many as there are.")


class _Moving:
    """A parameter vector on its way: copies that compiled code writes to."""

    def __init__(self, vector: ParameterVector) -> None:
        parts = (vector.values, vector.first_moment, vector.second_moment)
        self.values, self.first_moment, self.second_moment = (part.detach().numpy().copy() for part in parts)
        self.steps = vector.steps

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        return self.values, self.first_moment, self.second_moment

    def result(self) -> ParameterVector:
        """Where the steps led."""
        values, first_moment, second_moment = map(torch.from_numpy, self.arrays)
        return ParameterVector(values, first_moment, second_moment, self.steps)

    def step(self, gradients: Sequence[Array], plan: Schedule) -> float:
        """A step down the sum of some threads' gradients, if it is finite; the sum's norm."""
        gradient = gradients[0]
        for other in gradients[1:]:
            gradient += other
        norm = float(clip_to_norm(gradient, plan.max_norm))
        if math.isfinite(norm):
            self.steps += 1
            adam(*self.arrays, self.steps, gradient, plan.learning_rate, plan.eps)
        return norm


def ascended(
    vector: ParameterVector, layout: ParameterLayout, samples: PolicySamples, objective: Objective, plan: Schedule
) -> tuple[ParameterVector, float, int]:
    """``ascend`` from ``vector``, which stays as it is: (where it led, the last gradient's norm, passes made).

    Where a minibatch is large enough for several threads, each gradient is theirs together.
    """
    moving = _Moving(vector)
    if len(shares(len(samples.inputs) // plan.n_minibatches)) == 1:
        moving.steps, norm, epochs = ascend(*moving.arrays, moving.steps, layout, samples, objective, plan)
        return moving.result(), norm, epochs
    flat, norm, epoch = moving.values, math.nan, 0
    free = slice(layout.free, layout.free + layout.n_free)
    old_free, old_means = flat[free].copy(), _predicted(flat, layout, samples)
    for epoch, order in enumerate(plan.parts):
        for index in range(plan.n_minibatches):
            chosen = order[slice(*part_of(len(order), plan.n_minibatches, index))]
            part = some_samples(samples, chosen) if len(order) else samples
            inverse = inverse_count(part.weights)

            def share(rows: slice, part: PolicySamples = part, inverse: float = inverse) -> Array:
                gradient, own = np.zeros_like(flat), sample_rows(part, rows.start, rows.stop)
                surrogate_gradient(flat, layout, own, objective, inverse, gradient)
                return gradient

            norm = moving.step(in_threads(share, shares(len(part.inputs))), plan)
            if not math.isfinite(norm):
                return vector, norm, epoch
        if math.isfinite(plan.target_kl):
            means = _predicted(flat, layout, samples)
            if gaussian_kl(old_means, old_free, means, flat[free], objective.sigmoid, samples.weights) > plan.target_kl:
                break
    return moving.result(), norm, epoch + 1


def natural_gradient(
    values: Tensor,
    layout: ParameterLayout,
    samples: PolicySamples,
    sigmoid: bool,
    damping: float,
    iterations: int,
    fisher_rows: npt.NDArray[np.int64] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """g = ∇mean(r·M) at ``values``, and (F + damping·1)⁻¹g with its residual: each (size,).

    fisher_rows  the samples that F is taken over; None: all
    """
    flat = values.numpy()
    gradient = np.zeros_like(flat)
    objective = Objective(sigmoid, math.inf, math.inf, 0.0, 1.0)
    surrogate_gradient(flat, layout, samples, objective, inverse_count(samples.weights), gradient)
    inputs, weights = samples.inputs, samples.weights
    if fisher_rows is not None:
        inputs, weights = inputs[fisher_rows], weights[fisher_rows]
    solution, residual = gaussian_natural_gradient(
        flat, layout, inputs, weights, sigmoid, damping, gradient, iterations, CG_TOLERANCE
    )
    return torch.from_numpy(gradient), torch.from_numpy(solution), torch.from_numpy(residual)


def _predicted(flat: Array, layout: ParameterLayout, samples: PolicySamples) -> Array:
    means = np.empty((len(samples.inputs), layout.n_free), flat.dtype)
    in_threads(lambda rows: predict(flat, layout, samples.inputs[rows], means[rows]), shares(len(means)))
    return means


def fitted_values(
    vector: ParameterVector, layout: ParameterLayout, samples: ValueSamples, value_loss: ValueLoss, plan: Schedule
) -> tuple[ParameterVector, float, float]:
    """``fit_values`` from ``vector``, which stays as it is: (where it led, the last norm, the mean loss).

    In several threads where a minibatch is large enough, as ``ascended``.
    """
    moving = _Moving(vector)
    if len(shares(len(samples.inputs) // plan.n_minibatches)) == 1:
        moving.steps, norm, loss = fit_values(*moving.arrays, moving.steps, layout, samples, value_loss, plan)
        return moving.result(), norm, loss
    flat, norm, losses = moving.values, math.nan, []
    for order in plan.parts:
        for index in range(plan.n_minibatches):
            chosen = order[slice(*part_of(len(order), plan.n_minibatches, index))] if len(order) else slice(None)
            part = ValueSamples(*(array[chosen] for array in samples))

            def share(rows: slice, part: ValueSamples = part) -> tuple[Array, float]:
                gradient, weight = np.zeros_like(flat), (rows.stop - rows.start) / len(part.targets)
                own = ValueSamples(*(array[rows] for array in part))
                loss = value_gradient(flat, layout, own, value_loss, gradient)
                return gradient * flat.dtype.type(weight), loss * weight

            gradients, parts = zip(*in_threads(share, shares(len(part.targets))), strict=True)
            losses.append(sum(parts))
            norm = moving.step(gradients, plan)
            if not math.isfinite(norm):
                return vector, norm, math.nan
    return moving.result(), norm, sum(losses) / len(losses)
