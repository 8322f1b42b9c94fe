"""A network with a memory: an MLP, a gated recurrent unit over its features, and a linear layer on what it remembers.

    u_t = MLP(o_t),   (r, z) = σ(u^{rz}_t + h U^{rz} + c^{rz}),   n = tanh(u^n_t + r∘(h U^n + c^n)),
    h_t = (1 − z)∘n + z∘h,   out_t = h_t W + b,   with h = h_{t−1}, or 0 at the beginning of an episode

The MLP's last layer is the unit's input weights. Like an ``Mlp`` it lives in one flat vector and stacks. Source: Cho et
al., Learning Phrase Representations using RNN Encoder–Decoder, EMNLP 2014, in the form of ``torch.nn.GRU``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.networks.mlp import ALIGNMENT, Folded, Mlp


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequence layout of flat samples: they lie as (blocks, length, width), and each column is a sequence.

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
    """The architecture; parameters are passed in. Fields as of an ``Mlp``; the last hidden size is the memory's.

    With ``layer_norm`` what is remembered goes through a LayerNorm, too, before the last layer.
    """

    n_inputs: int
    n_outputs: int
    hidden_sizes: tuple[int, ...] = (64, 64)
    n_free: int = 0
    output_gain: float = 0.01
    free_init: float = 0.0
    activation: str = "tanh"
    layer_norm: str | bool = False

    @property
    def memory_size(self) -> int:
        return self.hidden_sizes[-1]

    @cached_property
    def body(self) -> Mlp:
        n_outputs, sizes, norm = 3 * self.memory_size, self.hidden_sizes, self.layer_norm
        return Mlp(self.n_inputs, n_outputs, sizes, output_gain=1.0, activation=self.activation, layer_norm=norm)

    @cached_property
    def head(self) -> Mlp:
        norm = "all" if self.layer_norm else False
        return Mlp(self.memory_size, self.n_outputs, (), self.n_free, self.output_gain, self.free_init, layer_norm=norm)

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
