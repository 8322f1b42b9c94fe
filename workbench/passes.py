"""An ``Mlp`` over many samples: outputs, gradients and Fisher products, in blocks on several threads.

    outputs(θ)            f_θ(x), forward only
    gradient(θ, pull)     Σ_b J_bᵀ·pull_b, J_b the Jacobian at sample b: forward and back, block after block
    Linearization         J·v and Jᵀ·u at one θ, for many v and u

What autograd does with whole activations at a time is written out here over blocks of rows, whose activations stay in
buffers that are used again: fresh memory for each pass takes as long as the arithmetic. Each *lane* is a Python thread
with its own share of the rows, since neither torch's products nor our kernels hold Python's lock; unlike OpenMP's, a
waiting lane leaves its core to others. Lanes add up what is theirs, and the sums are added in the lanes' order: equal
numbers of lanes give equal bits, however the threads happen to run.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor

from workbench import kernels
from workbench.graphs import replayed
from workbench.networks import LAYER_NORM_EPS, Folded, Mlp
from workbench.products import affine

BLOCK = 2048  # rows: fewer would make the lanes wait for Python's lock, more would leave the cache
ROWS_A_LANE = 1000  # about: lanes with fewer wait for Python's lock more than they compute

Array = npt.NDArray[Any]
Pull = Callable[[slice, Tensor, Tensor], tuple[Tensor, Tensor]]

_lanes: ContextVar[int] = ContextVar("lanes", default=1)


@contextlib.contextmanager
def lanes(n: int) -> Iterator[None]:
    """Within, a pass over enough samples uses ``n`` threads."""
    token = _lanes.set(n)
    try:
        yield
    finally:
        _lanes.reset(token)


@functools.cache
def _pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, "lane", initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):  # the threads of a pool do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)


def shares(n_rows: int, n_lanes: int | None = None) -> list[list[slice]]:
    """Which rows each lane takes, in blocks of nearly equal size.

    >>> shares(5, n_lanes=2), [len(blocks) for blocks in shares(8000, n_lanes=2)]
    ([[slice(0, 5, None)]], [2, 2])
    """
    n_lanes = max(1, min(_lanes.get() if n_lanes is None else n_lanes, round(n_rows / ROWS_A_LANE)))
    each = max(1, -(-n_rows // (n_lanes * BLOCK)))
    edges = [index * n_rows // (n_lanes * each) for index in range(n_lanes * each + 1)]
    blocks = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
    return [blocks[lane * each : (lane + 1) * each] for lane in range(n_lanes)]


def _in_lanes(work: Callable[[int], None], n_lanes: int) -> None:
    """``work(lane)`` for every lane at once, the first in this thread."""
    if n_lanes == 1:
        return work(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    others = [_pool(n_lanes - 1).submit(work, lane) for lane in range(1, n_lanes)]
    try:
        work(0)
    finally:
        wait(others)
        torch.set_num_threads(before)
    for other in others:
        other.result()


def _sum_in_lanes(part: Callable[[int, slice], list[Tensor]], shared: list[list[slice]]) -> list[Tensor]:
    """Σ ``part(lane, rows)`` over all blocks, in memory of their own: each lane's first, then over the lanes."""
    sums: list[list[Tensor]] = [[] for _ in shared]

    @torch.no_grad()
    def work(lane: int) -> None:
        for rows in shared[lane]:
            _add(sums[lane], part(lane, rows))

    _in_lanes(work, len(shared))
    total: list[Tensor] = []
    for each in sums:
        _add(total, each)
    return total


def _add(total: list[Tensor], parts: list[Tensor]) -> None:
    if not total:
        total.extend(parts)
        return
    for whole, part in zip(total, parts, strict=True):
        whole += part


class _Layer(NamedTuple):
    """a = relu(h) and x = LN(a), each (n, width), and x's inverse deviation ρ (n,): of a block, for the way back."""

    hidden: Array
    normalized: Array
    inverse_deviation: Array


class _Room:
    """Where one lane keeps the activations of a block."""

    def __init__(self, network: Mlp, rows: int, dtype: torch.dtype) -> None:
        self.normalized = [torch.empty(rows, width, dtype=dtype) for width in network.hidden_sizes]
        self.inverse_deviation = [torch.empty(rows, dtype=dtype) for _ in network.hidden_sizes]


_spare: defaultdict[Any, list[_Room]] = defaultdict(list)


@contextlib.contextmanager
def _rooms(network: Mlp, rows: int, dtype: torch.dtype, n: int) -> Iterator[list[_Room]]:
    """Rooms nobody else uses meanwhile; pages once touched are used again."""
    kept = _spare[network, rows, dtype]
    rooms = []
    for _ in range(n):
        try:
            rooms.append(kept.pop())
        except IndexError:
            rooms.append(_Room(network, rows, dtype))
    try:
        yield rooms
    finally:
        if len(_spare) > 64:  # a process that trains ever new shapes
            _spare.clear()
        else:
            kept.extend(rooms)


class Pass:
    """A network on given inputs, for many θ.

    network  whose parameters are passed in
    inputs   (batch, n_inputs) on the CPU
    """

    def __init__(self, network: Mlp, inputs: Tensor) -> None:
        self.network = network
        self._inputs = torch.native_layer_norm(inputs.detach(), inputs.shape[-1:], None, None, LAYER_NORM_EPS)[0]
        self._shares = shares(len(inputs))
        self._rows = max(block.stop - block.start for blocks in self._shares for block in blocks)

    def _weights(self, values: Tensor) -> tuple[Folded, list[Tensor], list[Tensor]]:
        folded = self.network.fold(values)
        weights = [*folded.weights[:-1], folded.weights[-1].t().contiguous()]
        return folded, weights, [*(bias.squeeze(0) for bias in folded.biases[:-1]), folded.biases[-1].t()]

    @torch.no_grad()
    def outputs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """f_θ(x) (batch, n_outputs) under the parameters ``values`` (size,), and the free parameters."""
        folded, weights, biases = self._weights(values)
        found = torch.empty(self.network.n_outputs, len(self._inputs), dtype=values.dtype)
        with _rooms(self.network, self._rows, values.dtype, len(self._shares)) as rooms:

            @torch.no_grad()
            def work(lane: int) -> None:
                for rows in self._shares[lane]:
                    found[:, rows] = self._forward(rooms[lane], rows, weights, biases)[1]

            _in_lanes(work, len(self._shares))
        return found.t(), folded.free

    @torch.no_grad()
    def gradient(self, values: Tensor, pull: Pull) -> Tensor:
        """Σ_b J_bᵀ·pull_b (size,), the gradient of whatever ``pull`` is the slope of.

        pull  (rows, outputs (n, n_outputs), free) → cotangents of the outputs, and of the free parameters; called once
              for each block of rows, from several threads
        """
        folded, weights, biases = self._weights(values)
        turned = [weight.t() for weight in weights[:-1]]
        with _rooms(self.network, self._rows, values.dtype, len(self._shares)) as rooms:

            def part(lane: int, rows: slice) -> list[Tensor]:
                layers, outputs = self._forward(rooms[lane], rows, weights, biases)
                by_outputs, by_free = pull(rows, outputs.t(), folded.free)
                back = self._back(rooms[lane], rows, layers, by_outputs.t().contiguous(), weights[-1], turned)
                return [by_free.clone(), *back]

            by_free, *found = _sum_in_lanes(part, self._shares)
        return _unfolded(self.network, values, found, by_free)

    def _forward(
        self, room: _Room, rows: slice, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> tuple[list[_Layer], Tensor]:
        """What the hidden layers of a block leave, and its outputs on their side, (n_outputs, n)."""
        x, n = self._inputs[rows], rows.stop - rows.start
        layers = []
        for index, weight in enumerate(weights[:-1]):
            hidden, normalized = affine(x, weight, biases[index]), room.normalized[index][:n]
            layer = _Layer(hidden.numpy(), normalized.numpy(), room.inverse_deviation[index][:n].numpy())
            kernels.relu_normalize(layer.hidden, layer.normalized, layer.inverse_deviation, LAYER_NORM_EPS)
            layers.append(layer)
            x = normalized
        return layers, torch.addmm(biases[-1], weights[-1], x.t())

    def _back(
        self,
        room: _Room,
        rows: slice,
        layers: Sequence[_Layer],
        by_outputs: Tensor,
        last: Tensor,
        turned: Sequence[Tensor],
    ) -> list[Tensor]:
        """A block's part of the gradient, as ``_unfolded`` takes it; ``by_outputs`` is (n_outputs, n)."""
        x = [self._inputs[rows], *(normalized[: rows.stop - rows.start] for normalized in room.normalized)]
        by_weights, by_biases = [torch.mm(by_outputs, x[-1])], [by_outputs.sum(1)]
        cotangent = None
        for index in reversed(range(len(layers))):
            cotangent = torch.mm(by_outputs.t(), last) if cotangent is None else affine(cotangent, turned[index + 1])
            a, normalized, rho = layers[index]
            by_bias = cotangent.new_zeros(cotangent.shape[1])
            kernels.pull_relu_normalize(cotangent.numpy(), a, normalized, rho, by_bias.numpy())
            by_weights.append(affine(x[index].t(), cotangent))
            by_biases.append(by_bias)
        return [*by_weights, *by_biases]


def _unfolded(network: Mlp, flat: Tensor, parts: list[Tensor], by_free: Tensor) -> Tensor:
    """The gradient in the flat vector from that in the ready weights and biases, each from the last layer to the first.

    That in the last layer's weights is on its side: products with a few columns are slow, with a few rows they are not.
    """
    n = len(parts) // 2
    by_weights, by_biases = [parts[0].t(), *parts[1:n]], parts[n:]
    return network.unfold(flat, by_weights[::-1], by_biases[::-1], by_free)


class Linearization:
    """outputs(θ + v) = outputs(θ) + J·v + …: an ``Mlp`` at one θ, its activations computed once for many products.

    flat     θ, (size,)
    inputs   (batch, n_inputs)
    outputs  (batch, n_outputs) at θ
    free     (n_free,) the parameters beside the network, whose tangents pass through unchanged

    With x the normalised input of a layer, ρ its inverse deviation and D = 1{h > 0}·ρ, the tangent of LN(relu(h)) is
    P(D∘dh) with P(e) = e − mean(e) − x·mean(x∘e), which is its own adjoint. Its first mean is left to the weights of
    the next layer, centred over their inputs: that saves a pass over the activations in both directions.

    On a GPU the rows are one block, and a product is one launch.
    """

    @torch.no_grad()
    def __init__(self, network: Mlp, flat: Tensor, inputs: Tensor) -> None:
        folded = network.fold(flat.detach())
        self._shares = shares(len(inputs)) if kernels.reach(inputs) else [[slice(0, len(inputs))]]
        inputs = torch.native_layer_norm(inputs.detach(), inputs.shape[-1:], None, None, LAYER_NORM_EPS)[0]
        normalized = [inputs, *(inputs.new_empty(len(inputs), width) for width in network.hidden_sizes)]
        slopes = [torch.empty_like(x) for x in normalized[1:]]
        self.outputs = inputs.new_empty(network.n_outputs, len(inputs)).t()
        last = folded.weights[-1].t().contiguous()

        def work(rows: slice) -> None:
            for index, slope in enumerate(slopes):
                weight, bias = folded.weights[index], folded.biases[index]
                hidden = affine(normalized[index][rows], weight, bias.squeeze(0))
                _relu_normalize(hidden, normalized[index + 1][rows], slope[rows])
            torch.addmm(folded.biases[-1].t(), last, normalized[-1][rows].t(), out=self.outputs[rows].t())

        self._in_blocks(work)
        centred = [weight - weight.mean(0, keepdim=True) for weight in folded.weights[1:]]
        self._hold(network, flat.detach(), *normalized, *slopes, *centred)

    def _hold(self, network: Mlp, flat: Tensor, *parts: Tensor) -> None:
        """All that products need: normalised inputs of each layer, slopes, and centred weights of all but the first."""
        self.network, self._flat, self._parts = network, flat, parts
        *self._layers, self.free = network.views(flat)
        depth = len(network.hidden_sizes)
        self._normalized, rest = parts[: depth + 1], parts[depth + 1 :]
        self._slopes, self._centred = rest[:depth], rest[depth:]

    @staticmethod
    def _of(network: Mlp, flat: Tensor, *parts: Tensor) -> Linearization:
        made = Linearization.__new__(Linearization)
        made._hold(network, flat, *parts)
        made._shares = [[slice(0, len(parts[0]))]]
        return made

    def _in_blocks(self, work: Callable[[slice], None]) -> None:
        @torch.no_grad()
        def all_of(lane: int) -> None:
            for rows in self._shares[lane]:
                work(rows)

        _in_lanes(all_of, len(self._shares))

    def jvp(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """J·v: the tangents of outputs (batch, n_outputs) and of the free parameters (n_free,)."""
        if kernels.reach(vector):
            return self._jvp(vector)
        found: tuple[Tensor, Tensor] = replayed(_pushed, (self.network,), vector, self._flat, *self._parts)
        return found

    def vjp(self, outputs: Tensor, free: Tensor) -> Tensor:
        """Jᵀ·u: (size,) from cotangents of outputs (batch, n_outputs), summed over the batch, and of the free ones."""
        if kernels.reach(outputs):
            return self._vjp(outputs, free)
        found: Tensor = replayed(_pulled, (self.network,), outputs, free, self._flat, *self._parts)[0]
        return found

    @torch.no_grad()
    def _jvp(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        *tangents, free = self.network.views(vector)
        weights, biases = [], []
        for index in range(len(self._normalized)):
            gain, shift, weight, _ = self._layers[4 * index : 4 * index + 4]
            d_gain, d_shift, d_weight, d_bias = tangents[4 * index : 4 * index + 4]
            weights.append(torch.addcmul(d_gain.unsqueeze(-1) * weight, gain.unsqueeze(-1), d_weight))
            biases.append(d_bias + d_shift @ weight + shift @ d_weight)
        weights[-1], biases[-1] = weights[-1].t().contiguous(), biases[-1].unsqueeze(-1)
        found = vector.new_empty(self.network.n_outputs, len(self._normalized[0])).t()
        last = self._centred[-1].t().contiguous() if self._centred else None

        def work(rows: slice) -> None:
            through = None
            for index, slope in enumerate(self._slopes):
                moved = affine(self._normalized[index][rows], weights[index], biases[index])
                if through is not None:
                    moved += affine(through, self._centred[index - 1])
                _push_slope(moved, slope[rows], self._normalized[index + 1][rows])
                through = moved
            out = torch.addmm(biases[-1], weights[-1], self._normalized[-1][rows].t(), out=found[rows].t())
            if through is not None and last is not None:
                out.addmm_(last, through.t())

        self._in_blocks(work)
        return found, free

    @torch.no_grad()
    def _vjp(self, outputs: Tensor, free: Tensor) -> Tensor:
        def part(lane: int, rows: slice) -> list[Tensor]:
            return self._back(rows, outputs[rows].t().contiguous())

        return _unfolded(self.network, self._flat, _sum_in_lanes(part, self._shares), free)

    def _back(self, rows: slice, by_outputs: Tensor) -> list[Tensor]:
        """A block's part of Jᵀ·u, as ``_unfolded`` takes it; ``by_outputs`` is (n_outputs, n)."""
        by_weights, by_biases = [torch.mm(by_outputs, self._normalized[-1][rows])], [by_outputs.sum(1)]
        pulled = None
        for index in reversed(range(len(self._slopes))):
            turned = self._centred[index].t()
            pulled = torch.mm(by_outputs.t(), turned) if pulled is None else affine(pulled, turned)
            _pull_slope(pulled, self._slopes[index][rows], self._normalized[index + 1][rows])
            by_weights.append(affine(self._normalized[index][rows].t(), pulled))
            by_biases.append(pulled.sum(0))
        return [*by_weights, *by_biases]


def _pushed(network: Mlp, vector: Tensor, flat: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
    return Linearization._of(network, flat, *parts)._jvp(vector)


def _pulled(network: Mlp, outputs: Tensor, free: Tensor, flat: Tensor, *parts: Tensor) -> tuple[Tensor]:
    return (Linearization._of(network, flat, *parts)._vjp(outputs, free),)


# The compiled arithmetic of a linearization, or the same by torch where that does not reach.


def _relu_normalize(hidden: Tensor, normalized: Tensor, slope: Tensor) -> None:
    """x = LN(relu(h)) and D = 1{h > 0}·ρ, into ``normalized`` and ``slope``; all are (n, width)."""
    if kernels.reach(hidden):
        rho = hidden.new_empty(len(hidden))
        kernels.relu_normalize(hidden.numpy(), normalized.numpy(), rho.numpy(), LAYER_NORM_EPS)
        kernels.slope_of(hidden.numpy(), rho.numpy(), slope.numpy())
        return
    active = hidden.relu()
    x, _, rho = torch.native_layer_norm(active, active.shape[-1:], None, None, LAYER_NORM_EPS)
    normalized.copy_(x)
    torch.mul(active > 0, rho, out=slope)


def _push_slope(tangent: Tensor, slope: Tensor, normalized: Tensor) -> None:
    if kernels.reach(tangent):
        return kernels.push_slope(tangent.numpy(), slope.numpy(), normalized.numpy())
    tangent.mul_(slope).addcmul_(normalized, (tangent * normalized).mean(-1, keepdim=True), value=-1)


def _pull_slope(cotangent: Tensor, slope: Tensor, normalized: Tensor) -> None:
    if kernels.reach(cotangent):
        return kernels.pull_slope(cotangent.numpy(), slope.numpy(), normalized.numpy())
    cotangent.addcmul_(normalized, (cotangent * normalized).mean(-1, keepdim=True), value=-1).mul_(slope)
