"""The network behind every policy and critic: an MLP whose parameters are one flat vector.

    x₀ = o or LN(o),   x_{l+1} = φ(x_l W_l + b_l) or its LN,   out = x_L W_L + b_L

One flat vector per policy makes the rest simple: an optimiser's moment is one vector, conjugate gradients work on it
directly, and the policies of agents of one shape stack into one matrix that a single batched product evaluates.

LayerNorm's gain g and shift c are *folded* into the layer that follows, W' = diag(g)·W and b' = b + c·W, so that no
pass over the activations is spent on them; the gradient flows through the fold, which is small.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam

from workbench.networks import kernels
from workbench.networks.kernels import LAYER_NORM_EPS, ParameterLayout

ALIGNMENT = 16  # floats: rows of a stack start at a 64-byte boundary, so products do not depend on the row
ADAM_EPS = 1e-5

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "silu": functional.silu,
    "elu": functional.elu,
}
LAYER_NORMS = (False, "hidden", "all")


class Layer(NamedTuple):
    """One layer's parameters, views of a flat vector; ``gain`` and ``shift`` of the LayerNorm before it, or None."""

    gain: Tensor | None
    shift: Tensor | None
    weight: Tensor
    bias: Tensor


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
    activation            φ: "tanh", "relu", "silu" or "elu"
    layer_norm            False; "hidden": after each hidden layer; "all": on the inputs, too
    """

    n_inputs: int
    n_outputs: int
    hidden_sizes: tuple[int, ...] = (64, 64)
    n_free: int = 0
    output_gain: float = 0.01
    free_init: float = 0.0
    activation: str = "tanh"
    layer_norm: str | bool = False

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes in the flat vector's order: of each layer (gain, shift,) weight, bias; then the free parameters."""
        widths = (self.n_inputs, *self.hidden_sizes, self.n_outputs)
        shapes: list[tuple[int, ...]] = []
        for index, (n, m) in enumerate(itertools.pairwise(widths)):
            shapes += [(n,), (n,)] if self.normalizes(index) else []
            shapes += [(n, m), (m,)]
        return (*shapes, (self.n_free,))

    def normalizes(self, layer: int) -> bool:
        """Whether a LayerNorm comes before a layer."""
        return self.layer_norm == "all" or (self.layer_norm == "hidden" and layer > 0)

    @cached_property
    def _sizes(self) -> list[int]:
        sizes = [math.prod(shape) for shape in self.shapes]
        return [*sizes, -sum(sizes) % ALIGNMENT]

    @cached_property
    def layout(self) -> ParameterLayout:
        """Where everything lies, for compiled code."""
        starts = iter(itertools.accumulate(self._sizes, initial=0))
        rows = [
            (*((next(starts), next(starts)) if self.normalizes(index) else (-1, -1)), next(starts), next(starts))
            for index in range(len(self.hidden_sizes) + 1)
        ]
        gains, shifts, weights, biases = np.array(rows, np.int64).T.copy()
        widths = np.array((self.n_inputs, *self.hidden_sizes, self.n_outputs), np.int64)
        kind = kernels.ACTIVATIONS[self.activation]
        return ParameterLayout(widths, weights, biases, gains, shifts, next(starts), self.n_free, kind)

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

    def layers(self, flat: Tensor) -> tuple[list[Layer], Tensor]:
        """The flat vector (..., size) as its layers and its free parameters: views."""
        *parts, free = self.views(flat)
        rest = iter(parts)
        layers = []
        for index in range(len(self.hidden_sizes) + 1):
            gain, shift = (next(rest), next(rest)) if self.normalizes(index) else (None, None)
            layers.append(Layer(gain, shift, next(rest), next(rest)))
        return layers, free

    def initial(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Orthogonal weights, zero biases, unit gains: (size,)."""
        flat = torch.zeros(self.size, dtype=dtype)
        layers, free = self.layers(flat)
        for layer in layers:
            if layer.gain is not None:
                layer.gain.fill_(1.0)
            weight = layer.weight
            # Drawn in the (out, in) layout of torch's own layers, then turned.
            drawn = torch.empty(weight.shape[1], weight.shape[0], dtype=dtype)
            scale = self.output_gain if layer is layers[-1] else math.sqrt(2)
            torch.nn.init.orthogonal_(drawn, scale, generator=generator)
            weight.copy_(drawn.T)
        free.fill_(self.free_init)
        return flat

    def fold(self, flat: Tensor) -> Folded:
        """Ready weights from a flat vector (size,), or from a stack (n, size) for ``forward`` on (n, batch, inputs)."""
        layers, free = self.layers(flat)
        weights, biases = [], []
        for gain, shift, weight, bias in layers:
            ready = bias.unsqueeze(-2)
            if gain is None or shift is None:
                weights.append(weight)
                biases.append(ready)
            else:
                weights.append(gain.unsqueeze(-1) * weight)
                biases.append(ready + shift.unsqueeze(-2) @ weight)
        return Folded(tuple(weights), tuple(biases), free)

    def forward(self, folded: Folded, inputs: Tensor) -> Tensor:
        """(batch, n_inputs) → (batch, n_outputs); stacked, (n, batch, n_inputs) → (n, batch, n_outputs)."""
        affine = torch.addmm if inputs.dim() == 2 else torch.baddbmm
        activation = ACTIVATIONS[self.activation]
        x = _normalize(inputs) if self.normalizes(0) else inputs
        for index, (weight, bias) in enumerate(zip(folded.weights[:-1], folded.biases[:-1], strict=True)):
            x = activation(affine(bias, x, weight))
            x = _normalize(x) if self.normalizes(index + 1) else x
        return affine(folded.biases[-1], x, folded.weights[-1])

    def evaluate(self, flats: Tensor, inputs: Tensor) -> Tensor:
        """``forward`` of a stack (n, size) on (n, batch, n_inputs) in the CPU's memory, compiled, with no gradient."""
        outputs = inputs.new_empty(*inputs.shape[:-1], self.n_outputs)
        kernels.predict_stack(flats.numpy(), self.layout, inputs.contiguous().numpy(), outputs.numpy())
        return outputs


def _normalize(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)


@dataclass(frozen=True, slots=True)
class ParameterVector:
    """One network's parameters with Adam's moments; never written to, an update makes a new one.

    values, first_moment, second_moment   (size,)
    steps                                 number of optimiser steps taken
    """

    values: Annotated[Tensor, "size"]
    first_moment: Annotated[Tensor, "size"]
    second_moment: Annotated[Tensor, "size"]
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

    def __init__(self, vector: ParameterVector, *, eps: float = ADAM_EPS) -> None:
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
