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

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """``function`` as machine code. Sums may be taken in any order, but NaN and inf stay what they are."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(F, numba.njit(**options)(function))


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
def slope_of(hidden: Any, inverse_deviation: Any) -> None:
    """D = 1{a > 0}·ρ, in place in ``hidden`` (n, width)."""
    zero = hidden.dtype.type(0)
    for i in range(hidden.shape[0]):
        for j in range(hidden.shape[1]):
            hidden[i, j] = inverse_deviation[i] if hidden[i, j] > zero else zero
