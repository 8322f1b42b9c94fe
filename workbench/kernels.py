"""Row by row arithmetic between the matrix products, compiled: ReLU and LayerNorm forward, and back.

torch has these as separate passes over the activations, and its LayerNorm alone takes as long as a third of the matrix
product before it; here each is one pass, and runs without Python's lock, so that threads do not wait for one another.
Compiled for this machine when first called, and kept on disk where that can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from torch import Tensor

from workbench.distributions import LOG_SQRT_2PI

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """``function`` as machine code. Sums may be taken in any order, but NaN and inf stay what they are."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(F, numba.njit(**options)(function))


def reach(tensor: Tensor) -> bool:
    """Whether compiled arithmetic can work on a tensor: outside the CPU's memory, torch's own has to do."""
    return tensor.device.type == "cpu"


@compiled
def relu_normalize(hidden: Any, normalized: Any, inverse_deviation: Any, eps: float) -> None:
    """a = relu(h),  x = (a − mean(a))·ρ,  ρ = 1/√(var(a) + eps), of every row.

    hidden             (n, width) h, becomes a
    normalized         (n, width) x, written
    inverse_deviation  (n,) ρ, written
    """
    one = hidden.dtype.type(1)
    half = hidden.dtype.type(0.5)
    share = one / hidden.dtype.type(hidden.shape[1])
    for i in range(hidden.shape[0]):
        total = hidden.dtype.type(0)
        for j in range(hidden.shape[1]):
            h = hidden[i, j]
            a = (h + abs(h)) * half  # relu to the last bit, NaN kept, and with no branch
            hidden[i, j] = a
            total += a
        mean = total * share
        squares = hidden.dtype.type(0)
        for j in range(hidden.shape[1]):
            off = hidden[i, j] - mean
            squares += off * off
        rho = one / np.sqrt(squares * share + hidden.dtype.type(eps))
        for j in range(hidden.shape[1]):
            normalized[i, j] = (hidden[i, j] - mean) * rho
        inverse_deviation[i] = rho


@compiled
def pull_relu_normalize(cotangent: Any, hidden: Any, normalized: Any, inverse_deviation: Any, total: Any) -> None:
    """ā = ρ·(x̄ − mean(x̄) − x·mean(x∘x̄)),  h̄ = ā·1{a > 0}: x̄ back through ``relu_normalize``, in place.

    cotangent   (n, width) x̄, becomes h̄
    total       (width,) the sum of h̄ over the rows is added to it
    """
    share = cotangent.dtype.type(1) / cotangent.dtype.type(cotangent.shape[1])
    zero = cotangent.dtype.type(0)
    for i in range(cotangent.shape[0]):
        mean = zero
        along = zero
        for j in range(cotangent.shape[1]):
            mean += cotangent[i, j]
            along += cotangent[i, j] * normalized[i, j]
        mean *= share
        along *= share
        rho = inverse_deviation[i]
        for j in range(cotangent.shape[1]):
            pulled = rho * (cotangent[i, j] - mean - normalized[i, j] * along)
            pulled = pulled if hidden[i, j] > zero else zero
            cotangent[i, j] = pulled
            total[j] += pulled


@compiled
def push_slope(tangent: Any, slope: Any, normalized: Any) -> None:
    """e = D∘ḣ,  e − x·mean(x∘e), in place in ``tangent`` (n, width); D is ``slope``, x is ``normalized``."""
    share = tangent.dtype.type(1) / tangent.dtype.type(tangent.shape[1])
    zero = tangent.dtype.type(0)
    for i in range(tangent.shape[0]):
        along = zero
        for j in range(tangent.shape[1]):
            e = tangent[i, j] * slope[i, j]
            tangent[i, j] = e
            along += e * normalized[i, j]
        along *= share
        for j in range(tangent.shape[1]):
            tangent[i, j] -= normalized[i, j] * along


@compiled
def pull_slope(cotangent: Any, slope: Any, normalized: Any) -> None:
    """D∘(e − x·mean(x∘e)), in place in ``cotangent`` (n, width): the adjoint of ``push_slope``."""
    share = cotangent.dtype.type(1) / cotangent.dtype.type(cotangent.shape[1])
    for i in range(cotangent.shape[0]):
        along = cotangent.dtype.type(0)
        for j in range(cotangent.shape[1]):
            along += cotangent[i, j] * normalized[i, j]
        along *= share
        for j in range(cotangent.shape[1]):
            cotangent[i, j] = slope[i, j] * (cotangent[i, j] - normalized[i, j] * along)


@compiled
def slope_of(hidden: Any, inverse_deviation: Any, slope: Any) -> None:
    """D = 1{a > 0}·ρ, of ``hidden`` a and ρ as ``relu_normalize`` leaves them, written into ``slope`` (n, width)."""
    zero = hidden.dtype.type(0)
    for i in range(hidden.shape[0]):
        for j in range(hidden.shape[1]):
            slope[i, j] = inverse_deviation[i] if hidden[i, j] > zero else zero


@compiled
def pull_clipped_gaussian(
    means: Any,
    free: Any,
    sigmoid: bool,
    actions: Any,
    old_log_probs: Any,
    m_factors: Any,
    weights: Any,
    epsilon: float,
    scale: float,
    entropy_coef: float,
    by_means: Any,
    by_free: Any,
) -> None:
    """∂/∂(μ, ℓ) of s·Σ_b w_b·(min(r·M, clip(r, 1 ± ε)·M) + c·H),  r = N(a; μ, σ(ℓ)²)/π_old, in one pass.

    means          (dim, n) μ, on its side
    free           (dim,) ℓ, of which σ = ½·sigmoid(ℓ), or else exp(ℓ)
    actions        (n, dim)
    old_log_probs  (n,), as are ``m_factors`` M and ``weights`` w
    epsilon        ε; inf: no clip
    by_means       (dim, n), written, as is ``by_free`` (dim,)
    """
    one, half, zero = means.dtype.type(1), means.dtype.type(0.5), means.dtype.type(0)
    low, high, share = means.dtype.type(1 - epsilon), means.dtype.type(1 + epsilon), means.dtype.type(scale)
    dim, n = means.shape
    precision, slope = np.empty_like(free), np.empty_like(free)
    constant, bonus = zero, zero
    for d in range(dim):
        std = half / (one + np.exp(-free[d])) if sigmoid else np.exp(free[d])
        precision[d] = one / std
        slope[d] = one - (std + std) if sigmoid else one  # σ'(ℓ)/σ
        constant += np.log(std) + means.dtype.type(LOG_SQRT_2PI)
        by_free[d] = zero
    for i in range(n):
        squares = zero
        for d in range(dim):
            z = (actions[i, d] - means[d, i]) * precision[d]
            by_means[d, i] = z
            squares += z * z
        r = np.exp(-half * squares - constant - old_log_probs[i])
        # What is not finite stays so in either case.
        unclipped = r * m_factors[i] <= min(max(r, low), high) * m_factors[i]
        pull = r * (m_factors[i] if unclipped else zero * m_factors[i]) * weights[i] * share
        bonus += weights[i]
        for d in range(dim):
            z = by_means[d, i]
            by_means[d, i] = pull * z * precision[d]
            by_free[d] += pull * (z * z - one)
    for d in range(dim):
        by_free[d] = (by_free[d] + bonus * share * means.dtype.type(entropy_coef)) * slope[d]


@compiled
def slope_of_value(
    predictions: Any, old: Any, targets: Any, clip: float, huber_delta: float, losses: Any, slopes: Any
) -> None:
    """``workbench.critic.value_slope`` in one pass, into ``losses`` and ``slopes``; inf for None. All are (n,)."""
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
