"""A network with a memory: an MLP, a gated recurrent unit over its features, and a linear layer on what it remembers.

    u_t = MLP(o_t),   (r, z) = σ(u^{rz}_t + h U^{rz} + c^{rz}),   n = tanh(u^n_t + r∘(h U^n + c^n)),
    h_t = (1 − z)∘n + z∘h,   out_t = LN(h_t) W + b,   with h = h_{t−1}, or 0 at the beginning of an episode

The MLP's last layer is the unit's input weights. Like an ``Mlp`` it lives in one flat vector and stacks. Source: Cho et
al., Learning Phrase Representations using RNN Encoder–Decoder, EMNLP 2014, in the form of ``torch.nn.GRU``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from workbench import kernels
from workbench.graphs import replayed
from workbench.networks import ALIGNMENT, Folded, Mlp
from workbench.passes import Pass, Pull


@dataclass(frozen=True, slots=True)
class Sequences:
    """How flat samples hang together in time: they lie as (blocks, length, width), and each column is a sequence.

    length   steps in a sequence, through which gradients go back
    width    sequences side by side, such as environments
    memory   (n_sequences, memory_size) before the first step of each, block by block
    starts   (batch,) 1 where an episode begins with this sample, and what was remembered is forgotten; else 0
    """

    length: int
    width: int
    memory: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.memory)

    def lined_up(self, flat: Tensor) -> Tensor:
        """(batch, …) → (length, n_sequences, …)."""
        blocks = torch.unflatten(flat, 0, (-1, self.length, self.width))
        return blocks.transpose(0, 1).flatten(1, 2)

    def laid_out(self, lined_up: Tensor) -> Tensor:
        """(length, n_sequences, …) → (batch, …), the inverse of ``lined_up``."""
        return torch.unflatten(lined_up, 1, (-1, self.width)).transpose(0, 1).flatten(0, 2)

    def samples(self, chosen: Tensor) -> Tensor:
        """Indices of the samples of some sequences, laid out as ``select(chosen)`` has them: (length · k,)."""
        block, column = chosen // self.width, chosen % self.width
        steps = torch.arange(self.length, device=chosen.device).unsqueeze(-1)
        return ((block * self.length + steps) * self.width + column).flatten()

    def select(self, chosen: Tensor) -> Sequences:
        """Some sequences, side by side in one block."""
        return replace(self, width=len(chosen), memory=self.memory[chosen], starts=self.starts[self.samples(chosen)])


class FoldedGru(NamedTuple):
    """Weights ready for use: of the MLP, of the recurrence (…, h, 3h) and (…, 1, 3h), and of the last layer."""

    body: Folded
    weight: Tensor
    bias: Tensor
    head: Folded

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return self.body.weights

    @property
    def free(self) -> Tensor:
        return self.head.free


@dataclass(frozen=True)
class Gru:
    """The architecture; parameters are passed in. Fields as of an ``Mlp``; the last hidden size is the memory's."""

    n_inputs: int
    n_outputs: int
    hidden_sizes: tuple[int, ...] = (128, 128)
    n_free: int = 0
    output_gain: float = 0.01
    free_init: float = 1.0

    @property
    def memory_size(self) -> int:
        return self.hidden_sizes[-1]

    @cached_property
    def body(self) -> Mlp:
        return Mlp(self.n_inputs, 3 * self.memory_size, self.hidden_sizes, output_gain=1.0)

    @cached_property
    def head(self) -> Mlp:
        return Mlp(self.memory_size, self.n_outputs, (), self.n_free, self.output_gain, self.free_init)

    @cached_property
    def _sizes(self) -> list[int]:
        h = self.memory_size
        recurrence = [3 * h * h, 3 * h]
        return [self.body.size, *recurrence, -sum(recurrence) % ALIGNMENT, self.head.size]

    @property
    def size(self) -> int:
        """Length of the flat vector, padding included."""
        return sum(self._sizes)

    @property
    def n_parameters(self) -> int:
        """Length of the flat vector without its padding."""
        return self.body.n_parameters + sum(self._sizes[1:3]) + self.head.n_parameters

    def _parts(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        body, weight, bias, _, head = torch.split(flat, self._sizes, -1)
        return body, torch.unflatten(weight, -1, (self.memory_size, 3 * self.memory_size)), bias, head

    def initial(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Orthogonal weights, zero biases, unit gains: (size,)."""
        flat = torch.zeros(self.size, dtype=dtype)
        body, weight, _, head = self._parts(flat)
        body.copy_(self.body.initial(generator, dtype))
        drawn = torch.empty(weight.shape[1], weight.shape[0], dtype=dtype)
        torch.nn.init.orthogonal_(drawn, generator=generator)
        weight.copy_(drawn.T)
        head.copy_(self.head.initial(generator, dtype))
        return flat

    def fold(self, flat: Tensor) -> FoldedGru:
        """Ready weights from a flat vector (size,), or from a stack (n, size)."""
        body, weight, bias, head = self._parts(flat)
        return FoldedGru(self.body.fold(body), weight, bias.unsqueeze(-2), self.head.fold(head))

    def forward(self, folded: FoldedGru, inputs: Tensor) -> Tensor:
        """Outputs (…, batch, outputs) at the beginning of episodes, with nothing to remember."""
        nothing = inputs.new_zeros(*inputs.shape[:-1], self.memory_size)
        return self.step(folded, inputs, nothing)[0]

    def step(self, folded: FoldedGru, inputs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of one step, and what is remembered after it; ``memory`` is (…, batch, memory_size)."""
        memory = _recur(folded, self.body.forward(folded.body, inputs), memory)
        return self.head.forward(folded.head, memory), memory

    def unroll(self, folded: FoldedGru, inputs: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of many steps (length, n, outputs), and what is remembered after each (length, n, memory_size).

        inputs   (length, n, inputs)
        memory   (n, memory_size) before the first step
        starts   (length, n) 1 where an episode begins with the step
        """
        features = torch.unflatten(self.body.forward(folded.body, inputs.flatten(0, 1)), 0, inputs.shape[:2])
        after = []
        for t in range(len(inputs)):
            memory = _recur(folded, features[t], memory * (1 - starts[t]).unsqueeze(-1))
            after.append(memory)
        remembered = torch.stack(after)
        outputs = torch.unflatten(self.head.forward(folded.head, remembered.flatten(0, 1)), 0, inputs.shape[:2])
        return outputs, remembered

    def along(self, folded: FoldedGru, inputs: Tensor, sequences: Sequences) -> Tensor:
        """Outputs of flat samples (batch, inputs), each after those before it in its sequence: (batch, outputs)."""
        starts = sequences.lined_up(sequences.starts)
        outputs, _ = self.unroll(folded, sequences.lined_up(inputs), sequences.memory, starts)
        return sequences.laid_out(outputs)


def _recur(folded: FoldedGru, features: Tensor, memory: Tensor) -> Tensor:
    affine = torch.addmm if memory.dim() == 2 else torch.baddbmm
    reset, update, new = features.chunk(3, -1)
    own_reset, own_update, own_new = affine(folded.bias, memory, folded.weight).chunk(3, -1)
    kept = torch.sigmoid(update + own_update)
    proposed = torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)
    return torch.lerp(proposed, memory, kept)


Network = Mlp | Gru


class AutogradPass:
    """What a ``Pass`` does, for any network on any device, by autograd; on a GPU in one launch, where it can be."""

    def __init__(self, network: Network, inputs: Tensor, sequences: Sequences | None = None) -> None:
        self._network, self._inputs, self._sequences = network, inputs, sequences

    def outputs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        network, inputs = self._network, self._inputs
        if isinstance(network, Gru) and self._sequences is not None:
            recurrent = network.fold(values)
            return network.along(recurrent, inputs, self._sequences), recurrent.free
        folded = network.fold(values)
        return network.forward(folded, inputs), folded.free  # type: ignore[arg-type]  # each folds for itself

    def gradient(self, values: Tensor, pull: Pull) -> Tensor:
        if self._sequences is None and isinstance(pull, RecordablePull) and not kernels.reach(self._inputs):
            kind, fixed, tensors = pull.recipe
            gradient: Tensor
            gradient, *pull.found = replayed(_gradient, (self._network, kind, fixed), values, self._inputs, *tensors)
            return gradient
        return self.by_autograd(values, pull)

    def by_autograd(self, values: Tensor, pull: Pull) -> Tensor:
        """``gradient``, one operation after another."""
        with torch.enable_grad():
            moving = values.detach().requires_grad_()
            outputs, free = self.outputs(moving)
        with torch.no_grad():
            cotangents = pull(slice(0, len(self._inputs)), outputs.detach(), free.detach())
        return torch.autograd.grad((outputs, free), moving, cotangents)[0]


@runtime_checkable
class RecordablePull(Protocol):
    """A pull that can be made anew from other tensors, as a recording of what it does needs.

    recipe  (kind, fixed, tensors): ``kind(*fixed, *tensors)`` is the same pull
    found   tensors that a pass leaves with it, beside the gradient
    """

    found: list[Tensor]

    @property
    def recipe(self) -> tuple[Callable[..., RecordablePull], tuple[Any, ...], tuple[Tensor | None, ...]]: ...

    def __call__(self, rows: slice, outputs: Tensor, free: Tensor) -> tuple[Tensor, Tensor]: ...


def _gradient(
    network: Mlp,
    kind: Callable[..., RecordablePull],
    fixed: tuple[Any, ...],
    values: Tensor,
    inputs: Tensor,
    *tensors: Tensor | None,
) -> tuple[Tensor, ...]:
    pull = kind(*fixed, *tensors)
    return AutogradPass(network, inputs).by_autograd(values, pull), *pull.found


def pass_over(network: Network, inputs: Tensor, sequences: Sequences | None = None) -> Pass | AutogradPass:
    """A network on flat samples ``inputs`` (batch, n_inputs), for many θ: in blocks where that is written out."""
    if isinstance(network, Mlp) and kernels.reach(inputs):
        return Pass(network, inputs)
    return AutogradPass(network, inputs, sequences)


def predict(network: Network, values: Tensor, inputs: Tensor, sequences: Sequences | None) -> tuple[Tensor, Tensor]:
    """Outputs (batch, n_outputs) of flat samples under the parameters ``values`` (size,), and the free parameters.

    Differentiable where autograd is on and ``values`` ask for it.
    """
    differentiable = torch.is_grad_enabled() and values.requires_grad
    kind = AutogradPass(network, inputs, sequences) if differentiable else pass_over(network, inputs, sequences)
    return kind.outputs(values)
