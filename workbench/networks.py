"""The network behind every policy and critic: an MLP with LayerNorm whose parameters are one flat vector.

    x₀ = LN(o),   x_{l+1} = LN(relu(x_l W_l + b_l)),   out = x_L W_L + b_L

One flat vector per policy makes the rest simple: an optimiser's moment is one vector, conjugate gradients work on it
directly, and the policies of agents of one shape stack into one matrix that a single batched product evaluates.

LayerNorm's gain g and bias c are *folded* into the layer that follows, W' = diag(g)·W and b' = b + c·W, so that no pass
over the activations is spent on them; the gradient flows through the fold, which is small.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam

from workbench import kernels

LAYER_NORM_EPS = 1e-5  # under the root of the variance
ALIGNMENT = 16  # floats: rows of a stack start at a 64-byte boundary, so products do not depend on the row


class Folded(NamedTuple):
    """Weights ready for use: ``weights[l]`` (..., in, out), ``biases[l]`` (..., 1, out), ``free`` (..., n_free)."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    free: Tensor


@dataclass(frozen=True)
class Mlp:
    """The architecture; parameters are passed in.

    n_inputs, n_outputs   sizes of the vectors in and out
    hidden_sizes          widths of the hidden layers
    n_free                parameters beside the network, such as a Gaussian's log_std
    output_gain           gain of the last layer's orthogonal initialisation; the hidden layers have √2
    free_init             initial value of the free parameters
    """

    n_inputs: int
    n_outputs: int
    hidden_sizes: tuple[int, ...] = (128, 128)
    n_free: int = 0
    output_gain: float = 0.01
    free_init: float = 1.0

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes in the flat vector's order: (gain, bias, weight, bias) of each layer, then the free parameters."""
        widths = (self.n_inputs, *self.hidden_sizes, self.n_outputs)
        layers = [((n,), (n,), (n, m), (m,)) for n, m in itertools.pairwise(widths)]
        return (*(shape for layer in layers for shape in layer), (self.n_free,))

    @cached_property
    def _sizes(self) -> list[int]:
        sizes = [math.prod(shape) for shape in self.shapes]
        return [*sizes, -sum(sizes) % ALIGNMENT]

    @property
    def size(self) -> int:
        """Length of the flat vector, padding included."""
        return sum(self._sizes)

    @property
    def n_parameters(self) -> int:
        """Length of the flat vector without its padding."""
        return sum(self._sizes[:-1])

    def views(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The flat vector (..., size) as its parts: views, one for each of ``shapes``."""
        parts = torch.split(flat, self._sizes, -1)
        return tuple(torch.unflatten(part, -1, shape) for part, shape in zip(parts, self.shapes, strict=False))

    def initial(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Orthogonal weights, zero biases, unit gains: (size,)."""
        flat = torch.zeros(self.size, dtype=dtype)
        *layers, free = self.views(flat)
        for index in range(0, len(layers), 4):
            gain, _, weight, _ = layers[index : index + 4]
            gain.fill_(1.0)
            last = index == len(layers) - 4
            # Drawn in the (out, in) layout of torch's own layers, then turned.
            drawn = torch.empty(weight.shape[1], weight.shape[0], dtype=dtype)
            torch.nn.init.orthogonal_(drawn, self.output_gain if last else math.sqrt(2), generator=generator)
            weight.copy_(drawn.T)
        free.fill_(self.free_init)
        return flat

    def fold(self, flat: Tensor) -> Folded:
        """Ready weights from a flat vector (size,), or from a stack (n, size) for ``forward`` on (n, batch, inputs)."""
        *layers, free = self.views(flat)
        weights, biases = [], []
        for index in range(0, len(layers), 4):
            gain, shift, weight, bias = layers[index : index + 4]
            weights.append(gain.unsqueeze(-1) * weight)
            biases.append(bias.unsqueeze(-2) + shift.unsqueeze(-2) @ weight)
        return Folded(tuple(weights), tuple(biases), free)

    def unfold(
        self, flat: Tensor, by_weights: Sequence[Tensor], by_biases: Sequence[Tensor], by_free: Tensor
    ) -> Tensor:
        """The gradient in the flat vector (size,) from that in the ready weights and biases: the adjoint of ``fold``.

        ∂g = rowsum(W∘∂W'),   ∂c = W·∂b',   ∂W = diag(g)·∂W' + c⊗∂b',   ∂b = ∂b'
        """
        result = torch.zeros_like(flat)
        *layers, _ = self.views(flat)
        *parts, free = self.views(result)
        free.copy_(by_free)
        for index, (by_weight, by_bias) in enumerate(zip(by_weights, by_biases, strict=True)):
            gain, shift, weight, _ = layers[4 * index : 4 * index + 4]
            by_gain, by_shift, by_own, by_own_bias = parts[4 * index : 4 * index + 4]
            torch.sum(weight * by_weight, -1, out=by_gain)
            torch.mv(weight, by_bias, out=by_shift)
            torch.addcmul(torch.outer(shift, by_bias), gain.unsqueeze(-1), by_weight, out=by_own)
            by_own_bias.copy_(by_bias)
        return result

    def forward(self, folded: Folded, inputs: Tensor) -> Tensor:
        """(batch, n_inputs) → (batch, n_outputs); stacked, (n, batch, n_inputs) → (n, batch, n_outputs)."""
        return _through(folded, _normalize(inputs), lambda x: _normalize(x.relu_()))

    def evaluate(self, folded: Folded, inputs: Tensor) -> Tensor:
        """``forward`` of a few rows without a gradient: what lies between the products is compiled, on the CPU."""
        if not kernels.reach(inputs):
            return self.forward(folded, inputs)
        return _through(folded, _normalize(inputs), _relu_normalize)


def _through(folded: Folded, x: Tensor, between: Callable[[Tensor], Tensor]) -> Tensor:
    """The products of all layers, with ``between`` on what each but the last gives."""
    affine = torch.addmm if x.dim() == 2 else torch.baddbmm
    for weight, bias in zip(folded.weights[:-1], folded.biases[:-1], strict=True):
        x = between(affine(bias, x, weight))
    return affine(folded.biases[-1], x, folded.weights[-1])


def _relu_normalize(x: Tensor) -> Tensor:
    rows = x.numpy().reshape(-1, x.shape[-1])
    kernels.relu_normalize(rows, rows, np.empty(len(rows), rows.dtype), LAYER_NORM_EPS)
    return x


def _normalize(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)


@dataclass(frozen=True, slots=True)
class ParameterVector:
    """One network's parameters with Adam's moments; never written to, an update makes a new one.

    values, first_moment, second_moment   (size,)
    steps                                 number of optimiser steps taken
    """

    values: Tensor
    first_moment: Tensor
    second_moment: Tensor
    steps: int = 0

    @staticmethod
    def of(values: Tensor) -> ParameterVector:
        """Parameters at their first values, moments at zero."""
        return ParameterVector(values, torch.zeros_like(values), torch.zeros_like(values))

    def with_values(self, values: Tensor) -> ParameterVector:
        """The same moments at other values, for updates that are not Adam's."""
        return ParameterVector(values, self.first_moment, self.second_moment, self.steps)


class Adam:
    """Adam on a private copy of a ``ParameterVector``: nothing is changed until ``result`` is taken.

    The arithmetic is ``torch.optim``'s own functional Adam; only the storage is ours.
    """

    def __init__(self, vector: ParameterVector, *, eps: float = 1e-5) -> None:
        self.values = vector.values.clone().requires_grad_()
        self._first_moment = vector.first_moment.clone()
        self._second_moment = vector.second_moment.clone()
        self._steps = torch.tensor(float(vector.steps))
        self._eps = eps

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """One step down ``gradient`` (size,)."""
        adam(
            [self.values],
            [gradient],
            [self._first_moment],
            [self._second_moment],
            [],
            [self._steps],
            foreach=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )

    def result(self) -> ParameterVector:
        """Where the steps led."""
        return ParameterVector(self.values.detach(), self._first_moment, self._second_moment, int(self._steps.item()))


def clip_norm(gradient: Tensor, max_norm: float) -> tuple[Tensor, float]:
    """g · min(1, max_norm/‖g‖), and ‖g‖ before."""
    norm = float(torch.linalg.vector_norm(gradient))
    return (gradient * (max_norm / norm), norm) if norm > max_norm else (gradient, norm)


def stack(vectors: Sequence[ParameterVector]) -> Tensor:
    """The values of vectors of one shape as a matrix (n, size)."""
    return torch.stack([vector.values for vector in vectors])
