"""A network's arithmetic, compiled: forward, back, and tangents, for an ``Mlp``'s flat vector on rows of inputs.

    h_l = x_l W_l + b_l,   a_l = φ(h_l),   x_{l+1} = a_l or LN(a_l),   out = x_L W_L + b_L

The products are BLAS's; what lies between them is one pass over the activations. Nothing here holds Python's lock, so
threads run side by side. Compiled for this machine when first called, and kept on disk where that can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

LAYER_NORM_EPS = 1e-5  # under the root of the variance
TANH, RELU, SILU, ELU = range(4)
ACTIVATIONS = {"tanh": TANH, "relu": RELU, "silu": SILU, "elu": ELU}
BLOCK = 512  # rows at a time, so that their activations stay in the cache

# tanh x ≈ x·P(x²)/Q(x²) on |x| ≤ LIMIT, beyond which it is ±1 to float32's precision: the minimax rational function
# that XNNPACK, Eigen and XLA use; its error is below 4 units in the last place of a float32.
_LIMIT = 7.90531110763549805
_P = (
    *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
    *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
)
_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


class ParameterLayout(NamedTuple):
    """Where an ``Mlp``'s parameters lie in its flat vector, as compiled code takes it.

    widths      (n_layers + 1,) of the inputs, the hidden layers and the outputs
    weights     (n_layers,) where each layer's W begins, as do ``biases``, and ``gains`` and ``shifts`` of the
                LayerNorm before it, −1 where there is none
    free        where the free parameters begin, and ``n_free`` how many they are
    activation  φ, as in ``ACTIVATIONS``
    """

    widths: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    biases: npt.NDArray[np.int64]
    gains: npt.NDArray[np.int64]
    shifts: npt.NDArray[np.int64]
    free: int
    n_free: int
    activation: int


def compiled(function: F) -> F:
    """``function`` as machine code, to the bits of IEEE arithmetic in the order that is written down.

    No sum is reordered and no product fused with one: what the compiler makes of a function depends on who calls it and
    on whether it was kept on disk, and runs have to come out the same in any case.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(F, numba.njit(**options)(function))


def on_cpu(tensor: Tensor) -> bool:
    """Whether compiled arithmetic can work on a tensor: outside the CPU's memory, torch's own has to do."""
    return tensor.device.type == "cpu"


@compiled
def tanh(x: np.float32) -> np.float32:
    """tanh of a float32, so that loops over it are vectorised."""
    one = np.float32(1)
    limit = np.float32(_LIMIT)
    x = limit if x > limit else x
    x = -limit if x < -limit else x
    square = x * x * one
    p = np.float32(_P[0])
    for k in range(1, 7):
        p = p * square + np.float32(_P[k])
    q = np.float32(_Q[0])
    for k in range(1, 4):
        q = q * square + np.float32(_Q[k])
    return x * p / q


@compiled
def activate(h: Array, bias: Array, slope: Array, activation: int) -> None:
    """a = φ(h + b) in place of ``h`` (n, width), and φ'(h + b) into ``slope`` (n, width)."""
    one, half, zero = h.dtype.type(1), h.dtype.type(0.5), h.dtype.type(0)
    rows, width = h.shape
    if activation == TANH and h.itemsize == 4:
        for i in range(rows):
            for j in range(width):
                a = tanh(h[i, j] + bias[j])
                h[i, j] = a
                slope[i, j] = one - a * a
    elif activation == TANH:
        for i in range(rows):
            for j in range(width):
                a = np.tanh(h[i, j] + bias[j])
                h[i, j] = a
                slope[i, j] = one - a * a
    elif activation == RELU:
        for i in range(rows):
            for j in range(width):
                x = h[i, j] + bias[j]
                h[i, j] = (x + abs(x)) * half  # to the last bit, NaN kept, and with no branch
                slope[i, j] = one if x > zero else zero
    elif activation == SILU:
        for i in range(rows):
            for j in range(width):
                x = h[i, j] + bias[j]
                s = one / (one + np.exp(-x))
                h[i, j] = x * s
                slope[i, j] = s * (one + x * (one - s))
    else:
        for i in range(rows):
            for j in range(width):
                x = h[i, j] + bias[j]
                a = np.exp(min(x, zero)) - one if x <= zero else x
                h[i, j] = a
                slope[i, j] = one if x > zero else a + one


@compiled
def normalize_rows(x: Array, rho: Array) -> None:
    """x ← (x − mean(x))·ρ,  ρ = 1/√(var(x) + eps), of every row in place; ρ into ``rho`` (n,)."""
    one = x.dtype.type(1)
    inverse_width = one / x.dtype.type(x.shape[1])
    for i in range(x.shape[0]):
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        mean = total * inverse_width
        squares = x.dtype.type(0)
        for j in range(x.shape[1]):
            off = x[i, j] - mean
            squares += off * off
        inverse_deviation = one / np.sqrt(squares * inverse_width + x.dtype.type(LAYER_NORM_EPS))
        for j in range(x.shape[1]):
            x[i, j] = (x[i, j] - mean) * inverse_deviation
        rho[i] = inverse_deviation


@compiled
def through_normalization(tangent: Array, normalized: Array, rho: Array) -> None:
    """e ← ρ·(e − mean(e) − x·mean(x∘e)), of every row in place: LayerNorm's Jacobian, which is its own adjoint."""
    inverse_width = tangent.dtype.type(1) / tangent.dtype.type(tangent.shape[1])
    zero = tangent.dtype.type(0)
    for i in range(tangent.shape[0]):
        mean = zero
        along = zero
        for j in range(tangent.shape[1]):
            mean += tangent[i, j]
            along += tangent[i, j] * normalized[i, j]
        mean *= inverse_width
        along *= inverse_width
        for j in range(tangent.shape[1]):
            tangent[i, j] = rho[i] * (tangent[i, j] - mean - normalized[i, j] * along)


@compiled
def weight_of(flat: Array, layout: ParameterLayout, layer: int) -> Array:
    """W of a layer, (n, m), with the gain of the LayerNorm before it folded in: diag(g)·W."""
    n, m = layout.widths[layer], layout.widths[layer + 1]
    start, gain = layout.weights[layer], layout.gains[layer]
    weight = flat[start : start + n * m].reshape(n, m)
    if gain < 0:
        return weight
    folded = np.empty((n, m), flat.dtype)
    for i in range(n):
        for j in range(m):
            folded[i, j] = flat[gain + i] * weight[i, j]
    return folded


@compiled
def bias_of(flat: Array, layout: ParameterLayout, layer: int) -> Array:
    """b of a layer, (m,), with the shift of the LayerNorm before it folded in: b + c·W."""
    n, m = layout.widths[layer], layout.widths[layer + 1]
    start, shift, weight = layout.biases[layer], layout.shifts[layer], layout.weights[layer]
    bias = flat[start : start + m]
    if shift < 0:
        return bias
    folded = bias.copy()
    for i in range(n):
        for j in range(m):
            folded[j] += flat[shift + i] * flat[weight + i * m + j]
    return folded


@compiled
def hidden_width(layout: ParameterLayout) -> int:
    """The widths of the hidden layers added up: what a row's activations take."""
    total = 0
    for layer in range(1, len(layout.widths) - 1):
        total += layout.widths[layer]
    return total


@compiled
def rows_of(buffer: Array, layout: ParameterLayout, layer: int, n: int) -> Array:
    """The part of an activation buffer (hidden_width·n,) that holds hidden layer ``layer`` ≥ 1, as (n, width)."""
    start = 0
    for each in range(1, layer):
        start += layout.widths[each] * n
    return buffer[start : start + layout.widths[layer] * n].reshape(n, layout.widths[layer])


@compiled
def forward(
    flat: Array, layout: ParameterLayout, inputs: Array, hidden: Array, slopes: Array, rho: Array, outputs: Array
) -> None:
    """out (n, n_outputs) of ``inputs`` (n, n_inputs), already normalised where a LayerNorm comes first.

    hidden   (hidden_width·n,) x_1 … x_L, written, as are ``slopes`` φ'
    rho      (n_layers, n) inverse deviations of the LayerNorms, written where there are any
    outputs  (n, n_outputs), written
    """
    n, last = inputs.shape[0], len(layout.widths) - 2
    x = inputs
    for layer in range(last):
        h = rows_of(hidden, layout, layer + 1, n)
        np.dot(x, weight_of(flat, layout, layer), h)
        activate(h, bias_of(flat, layout, layer), rows_of(slopes, layout, layer + 1, n), layout.activation)
        if layout.gains[layer + 1] >= 0:
            normalize_rows(h, rho[layer + 1])
        x = h
    np.dot(x, weight_of(flat, layout, last), outputs)
    bias = bias_of(flat, layout, last)
    for i in range(n):
        for j in range(outputs.shape[1]):
            outputs[i, j] += bias[j]


@compiled
def add_weight_gradient(
    flat: Array, layout: ParameterLayout, layer: int, x: Array, cotangent: Array, gradient: Array
) -> None:
    """Add the gradient of a layer's parameters, given its inputs (n, k) and its outputs' cotangents (n, m).

    With W' = diag(g)·W and b' = b + c·W:  ∂g = rowsum(W∘∂W'),  ∂c = W·∂b',  ∂W = diag(g)·∂W' + c⊗∂b',  ∂b = ∂b'
    """
    k, m = x.shape[1], cotangent.shape[1]
    by_weight = np.dot(x.T, cotangent)
    by_bias = np.zeros(m, flat.dtype)
    for i in range(len(cotangent)):
        for j in range(m):
            by_bias[j] += cotangent[i, j]
    weight, bias = layout.weights[layer], layout.biases[layer]
    gain, shift = layout.gains[layer], layout.shifts[layer]
    for j in range(m):
        gradient[bias + j] += by_bias[j]
    for i in range(k):
        row = weight + i * m
        if gain < 0:
            for j in range(m):
                gradient[row + j] += by_weight[i, j]
        else:
            by_gain, by_shift = flat.dtype.type(0), flat.dtype.type(0)
            for j in range(m):
                by_gain += flat[row + j] * by_weight[i, j]
                by_shift += flat[row + j] * by_bias[j]
                gradient[row + j] += flat[gain + i] * by_weight[i, j] + flat[shift + i] * by_bias[j]
            gradient[gain + i] += by_gain
            gradient[shift + i] += by_shift


@compiled
def backward(
    flat: Array,
    layout: ParameterLayout,
    inputs: Array,
    hidden: Array,
    slopes: Array,
    rho: Array,
    by_outputs: Array,
    gradient: Array,
) -> None:
    """Add Σ_b J_bᵀ·cotangent_b to ``gradient`` (size,), the free parameters' part aside; buffers as ``forward`` leaves.

    by_outputs  (n, n_outputs) cotangents of the outputs
    """
    n, last = inputs.shape[0], len(layout.widths) - 2
    cotangent = by_outputs
    for layer in range(last, 0, -1):
        x, slope = rows_of(hidden, layout, layer, n), rows_of(slopes, layout, layer, n)
        add_weight_gradient(flat, layout, layer, x, cotangent, gradient)
        cotangent = np.dot(cotangent, weight_of(flat, layout, layer).T)
        if layout.gains[layer] >= 0:
            through_normalization(cotangent, x, rho[layer])
        for i in range(n):
            for j in range(cotangent.shape[1]):
                cotangent[i, j] *= slope[i, j]
    add_weight_gradient(flat, layout, 0, inputs, cotangent, gradient)


@compiled
def pushforward(
    flat: Array,
    layout: ParameterLayout,
    inputs: Array,
    hidden: Array,
    slopes: Array,
    rho: Array,
    tangent: Array,
    by_outputs: Array,
) -> None:
    """J·v (n, n_outputs) of ``tangent`` v (size,) into ``by_outputs``; buffers as ``forward`` leaves them."""
    n, last = inputs.shape[0], len(layout.widths) - 2
    x = inputs
    moved = np.empty((0, 0), flat.dtype)
    for layer in range(last + 1):
        k, m = layout.widths[layer], layout.widths[layer + 1]
        start, bias = layout.weights[layer], layout.biases[layer]
        gain, shift = layout.gains[layer], layout.shifts[layer]
        d_weight = tangent[start : start + k * m].reshape(k, m)
        d_bias = tangent[bias : bias + m]
        if gain >= 0:  # of the folded weights and biases
            d_weight, d_bias = d_weight.copy(), d_bias.copy()
            for i in range(k):
                for j in range(m):
                    own = flat[start + i * m + j]
                    d_bias[j] += tangent[shift + i] * own + flat[shift + i] * d_weight[i, j]
                    d_weight[i, j] = tangent[gain + i] * own + flat[gain + i] * d_weight[i, j]
        out = np.dot(x, d_weight)
        for i in range(n):
            for j in range(m):
                out[i, j] += d_bias[j]
        if layer:
            out += np.dot(moved, weight_of(flat, layout, layer))
        if layer == last:
            by_outputs[:] = out
        else:
            x, slope = rows_of(hidden, layout, layer + 1, n), rows_of(slopes, layout, layer + 1, n)
            for i in range(n):
                for j in range(m):
                    out[i, j] *= slope[i, j]
            if layout.gains[layer + 1] >= 0:
                through_normalization(out, x, rho[layer + 1])
            moved = out


@compiled
def predict(flat: Array, layout: ParameterLayout, inputs: Array, outputs: Array) -> None:
    """``forward`` alone, block after block: out (n, n_outputs) of ``inputs`` (n, n_inputs), written."""
    n = min(BLOCK, len(inputs))
    hidden, slopes = np.empty(n * hidden_width(layout), flat.dtype), np.empty(n * hidden_width(layout), flat.dtype)
    rho = np.empty((len(layout.widths), n), flat.dtype)
    for start in range(0, len(inputs), BLOCK):
        stop = min(start + BLOCK, len(inputs))
        forward(flat, layout, inputs[start:stop], hidden, slopes, rho, outputs[start:stop])


@compiled
def predict_stack(flats: Array, layout: ParameterLayout, inputs: Array, outputs: Array) -> None:
    """``predict`` of n networks of one shape, ``flats`` (n, size), each on inputs of its own (n, batch, n_inputs)."""
    rho = np.empty(inputs.shape[1], flats.dtype)
    for i in range(len(flats)):
        x = inputs[i]
        if layout.gains[0] >= 0:
            x = x.copy()
            normalize_rows(x, rho)
        predict(flats[i], layout, x, outputs[i])


@compiled
def sample_stack(
    flats: Array, layout: ParameterLayout, inputs: Array, std: Array, noise: Array, actions: Array
) -> None:
    """μ_d(o) + σ_d·ε_d of n Gaussian policies of one shape into ``actions`` (n, batch, dim).

    std     (n, dim)
    noise   (n, batch, dim) ε
    """
    predict_stack(flats, layout, inputs, actions)
    for i in range(actions.shape[0]):
        for row in range(actions.shape[1]):
            for d in range(actions.shape[2]):
                actions[i, row, d] += std[i, d] * noise[i, row, d]


@compiled
def normalized_inputs(layout: ParameterLayout, inputs: Array) -> Array:
    """``inputs`` (n, n_inputs) as the first layer takes them: normalised where a LayerNorm comes first."""
    if layout.gains[0] < 0:
        return inputs
    x = inputs.copy()
    normalize_rows(x, np.empty(len(x), x.dtype))
    return x


@compiled
def adam(
    values: Array,
    first_moment: Array,
    second_moment: Array,
    step: int,
    gradient: Array,
    learning_rate: float,
    eps: float,
) -> None:
    """Adam's ``step``-th step down ``gradient``, in place; β₁ = 0.9, β₂ = 0.999. All are (size,)."""
    one = values.dtype.type(1)
    beta1, beta2 = values.dtype.type(0.9), values.dtype.type(0.999)
    size = values.dtype.type(learning_rate / (1.0 - 0.9**step))
    root = values.dtype.type(1.0 / np.sqrt(1.0 - 0.999**step))
    small = values.dtype.type(eps)
    for i in range(len(values)):
        first_moment[i] += (gradient[i] - first_moment[i]) * (one - beta1)
        second_moment[i] = second_moment[i] * beta2 + gradient[i] * gradient[i] * (one - beta2)
        values[i] -= size * first_moment[i] / (np.sqrt(second_moment[i]) * root + small)


@compiled
def clip_to_norm(gradient: Array, max_norm: float) -> float:
    """g · min(1, max_norm/‖g‖) in place; returns ‖g‖ before."""
    # Four sums side by side, since each alone would wait for its own last addition.
    parts = np.zeros(4)
    for i in range(len(gradient)):
        parts[i % 4] += np.float64(gradient[i]) * np.float64(gradient[i])
    squares = parts.sum()
    norm: float = np.sqrt(squares)
    if norm > max_norm:
        factor = gradient.dtype.type(max_norm / norm)
        for i in range(len(gradient)):
            gradient[i] *= factor
    return norm
