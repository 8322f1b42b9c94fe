"""A network over many samples: outputs, gradients, and products with its Jacobian.

    outputs(θ)                f_θ(x), forward only
    gradient(θ, cotangent)    Σ_b J_bᵀ·cotangent_b, J_b the Jacobian at sample b
    Linearization             J·v and Jᵀ·u at one θ, for many v and u

``CompiledPass`` does it for an ``Mlp`` in the CPU's memory by ``kernels``, in blocks whose activations stay in the
cache, the samples shared out among threads where there are enough of them; ``AutogradPass`` for any network on any
device. Equal numbers of threads give equal bits, however they happen to run: what each adds up is added in their order.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from workbench.networks import kernels
from workbench.networks.cuda_graphs import replayed
from workbench.networks.gru import Gru, Network, Sequences
from workbench.networks.kernels import BLOCK, Array
from workbench.networks.mlp import Mlp

ROWS_A_THREAD = 1000  # about: threads with fewer wait for Python's lock more than they compute

T = TypeVar("T")
OutputCotangent = Callable[[slice, Tensor, Tensor], tuple[Tensor, Tensor]]

_n_threads: ContextVar[int] = ContextVar("n_threads", default=1)


@contextlib.contextmanager
def worker_threads(n: int) -> Iterator[None]:
    """Within, a pass over enough samples uses ``n`` threads."""
    token = _n_threads.set(n)
    try:
        yield
    finally:
        _n_threads.reset(token)


@contextlib.contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Run with n torch threads, which the last bits depend on, and one of BLAS's, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Run as if nobody had set a default device, inference mode or autocast around this: no run hangs on them."""
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@functools.cache
def _blas() -> ThreadpoolController:
    importlib.import_module("scipy.linalg.cython_blas")  # what compiled code calls; only what is loaded is found
    return ThreadpoolController()


@functools.cache
def _pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, "gradients")


if hasattr(os, "register_at_fork"):  # the threads of a pool do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)


def shares(n_rows: int, n_threads: int | None = None) -> list[slice]:
    """Which rows each thread takes, nearly equal.

    >>> shares(5, n_threads=2), shares(3000, n_threads=2)
    ([slice(0, 5, None)], [slice(0, 1500, None), slice(1500, 3000, None)])
    """
    wanted = _n_threads.get() if n_threads is None else n_threads
    n = max(1, min(wanted, round(n_rows / ROWS_A_THREAD)))
    edges = [index * n_rows // n for index in range(n + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def in_threads(work: Callable[[slice], T], rows: list[slice]) -> list[T]:
    """``work`` of each share at once, the first in this thread; the results in the shares' order."""
    if len(rows) == 1:
        return [work(rows[0])]
    others = [_pool(len(rows) - 1).submit(work, each) for each in rows[1:]]
    try:
        first = work(rows[0])
    finally:
        wait(others)
    return [first, *(other.result() for other in others)]


def blocks(rows: slice) -> Iterator[slice]:
    """Some rows, a block at a time."""
    for start in range(rows.start, rows.stop, BLOCK):
        yield slice(start, min(start + BLOCK, rows.stop))


class CompiledPass:
    """An ``Mlp`` on given inputs (batch, n_inputs) in the CPU's memory, for many θ."""

    def __init__(self, network: Mlp, inputs: Tensor) -> None:
        self.network = network
        self._inputs = kernels.normalized_inputs(network.layout, inputs.detach().contiguous().numpy())
        self._shares = shares(len(inputs))

    def outputs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """f_θ(x) (batch, n_outputs) under the parameters ``values`` (size,), and the free parameters."""
        flat, layout = values.detach().numpy(), self.network.layout
        outputs = np.empty((len(self._inputs), self.network.n_outputs), flat.dtype)
        in_threads(lambda rows: kernels.predict(flat, layout, self._inputs[rows], outputs[rows]), self._shares)
        return torch.from_numpy(outputs), values.detach()[layout.free : layout.free + layout.n_free]

    def gradient(self, values: Tensor, cotangent: OutputCotangent) -> Tensor:
        """Σ_b J_bᵀ·cotangent_b (size,), the gradient of whatever ``cotangent`` is the slope of.

        cotangent  (rows, outputs (n, n_outputs), free) → cotangents of the outputs, and of the free parameters; called
                   once for each block of rows, from several threads
        """
        flat, layout = values.detach().numpy(), self.network.layout
        free = values.detach()[layout.free : layout.free + layout.n_free]

        def share(rows: slice) -> tuple[Array, Tensor]:
            gradient, by_free = np.zeros_like(flat), torch.zeros_like(free)
            for block in blocks(rows):
                x, buffers = self._inputs[block], _Buffers(self.network, block.stop - block.start, flat.dtype)
                kernels.forward(flat, layout, x, *buffers.all)
                with torch.no_grad():
                    by_outputs, more = cotangent(block, torch.from_numpy(buffers.outputs), free)
                kernels.backward(flat, layout, x, *buffers.activations, by_outputs.contiguous().numpy(), gradient)
                by_free += more
            return gradient, by_free

        gradient, by_free = (sum(parts[1:], parts[0]) for parts in zip(*in_threads(share, self._shares), strict=True))
        found = torch.from_numpy(gradient)
        found[layout.free : layout.free + layout.n_free] = by_free
        return found


class _Buffers:
    """Where a block's activations are kept between forward and back."""

    def __init__(self, network: Mlp, rows: int, dtype: npt.DTypeLike) -> None:
        room = rows * sum(network.hidden_sizes)
        self.activations = (
            np.empty(room, dtype),
            np.empty(room, dtype),
            np.empty((len(network.layout.widths), rows), dtype),
        )
        self.outputs = np.empty((rows, network.n_outputs), dtype)
        self.all = (*self.activations, self.outputs)


class Linearization:
    """outputs(θ + v) = outputs(θ) + J·v + …: an ``Mlp`` at one θ, its activations computed once for many products.

    flat     θ, (size,)
    inputs   (batch, n_inputs)
    outputs  (batch, n_outputs) at θ
    free     (n_free,) the parameters beside the network, whose tangents pass through unchanged
    """

    def __init__(self, network: Mlp, flat: Tensor, inputs: Tensor) -> None:
        self.network, self._flat = network, flat.detach().numpy()
        x = kernels.normalized_inputs(network.layout, inputs.detach().contiguous().numpy())
        self._shares = shares(len(x))
        outputs = np.empty((len(x), network.n_outputs), self._flat.dtype)

        def share(rows: slice) -> list[tuple[slice, Array, _Buffers]]:
            kept = []
            for block in blocks(rows):
                buffers = _Buffers(network, block.stop - block.start, self._flat.dtype)
                kernels.forward(self._flat, network.layout, x[block], *buffers.activations, outputs[block])
                kept.append((block, x[block], buffers))
            return kept

        self._kept = {
            rows.start: kept for rows, kept in zip(self._shares, in_threads(share, self._shares), strict=True)
        }
        self.outputs = torch.from_numpy(outputs)
        start = network.layout.free
        self._free = slice(start, start + network.n_free)
        self.free = flat.detach()[self._free]

    def jvp(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """J·v: the tangents of outputs (batch, n_outputs) and of the free parameters (n_free,)."""
        tangent, found = vector.detach().contiguous().numpy(), np.empty(self.outputs.shape, self._flat.dtype)

        def share(rows: slice) -> None:
            for block, x, buffers in self._kept[rows.start]:
                layout = self.network.layout
                kernels.pushforward(self._flat, layout, x, *buffers.activations, tangent, found[block])

        in_threads(share, self._shares)
        return torch.from_numpy(found), vector[self._free]

    def vjp(self, outputs: Tensor, free: Tensor) -> Tensor:
        """Jᵀ·u: (size,) from cotangents of outputs (batch, n_outputs), summed over the batch, and of the free ones."""
        cotangents = outputs.detach().contiguous().numpy()

        def share(rows: slice) -> Array:
            gradient = np.zeros_like(self._flat)
            for block, x, buffers in self._kept[rows.start]:
                layout = self.network.layout
                kernels.backward(self._flat, layout, x, *buffers.activations, cotangents[block], gradient)
            return gradient

        parts = in_threads(share, self._shares)
        found = torch.from_numpy(sum(parts[1:], parts[0]))
        found[self._free] = free
        return found


class AutogradPass:
    """A ``CompiledPass`` for any network on any device, by autograd; on a GPU in one launch where it can be."""

    def __init__(self, network: Network, inputs: Tensor, sequences: Sequences | None = None) -> None:
        self.network, self._inputs, self._sequences = network, inputs, sequences

    def outputs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        network, inputs = self.network, self._inputs
        if isinstance(network, Gru) and self._sequences is not None:
            recurrent = network.fold(values)
            return network.along(recurrent, inputs, self._sequences), recurrent.free
        folded = network.fold(values)
        return network.forward(folded, inputs), folded.free  # type: ignore[arg-type]  # each folds for itself

    def gradient(self, values: Tensor, cotangent: OutputCotangent) -> Tensor:
        on_gpu = self._sequences is None and not kernels.on_cpu(self._inputs)
        if on_gpu and isinstance(cotangent, RecordableCotangent):
            kind, fixed, tensors = cotangent.recipe
            gradient: Tensor
            gradient, *cotangent.found = replayed(
                _gradient, (self.network, kind, fixed), values, self._inputs, *tensors
            )
            return gradient
        return self.by_autograd(values, cotangent)

    def by_autograd(self, values: Tensor, cotangent: OutputCotangent) -> Tensor:
        """``gradient``, one operation after another."""
        with torch.enable_grad():
            moving = values.detach().requires_grad_()
            outputs, free = self.outputs(moving)
        with torch.no_grad():
            cotangents = cotangent(slice(0, len(self._inputs)), outputs.detach(), free.detach())
        return torch.autograd.grad((outputs, free), moving, cotangents)[0]


@runtime_checkable
class RecordableCotangent(Protocol):
    """An output cotangent that can be made anew from other tensors, as a recording of what it does needs.

    recipe  (kind, fixed, tensors): ``kind(*fixed, *tensors)`` is the same cotangent
    found   tensors that a pass leaves with it, beside the gradient
    """

    found: list[Tensor]

    @property
    def recipe(self) -> tuple[Callable[..., RecordableCotangent], tuple[Any, ...], tuple[Tensor | None, ...]]: ...

    def __call__(self, rows: slice, outputs: Tensor, free: Tensor) -> tuple[Tensor, Tensor]: ...


def _gradient(
    network: Mlp,
    kind: Callable[..., RecordableCotangent],
    fixed: tuple[object, ...],
    values: Tensor,
    inputs: Tensor,
    *tensors: Tensor | None,
) -> tuple[Tensor, ...]:
    cotangent = kind(*fixed, *tensors)
    return AutogradPass(network, inputs).by_autograd(values, cotangent), *cotangent.found


class ReplayedLinearization:
    """A ``Linearization`` on a GPU: each product in one launch."""

    def __init__(self, network: Mlp, flat: Tensor, inputs: Tensor) -> None:
        self._network, self._flat, self._inputs = network, flat.detach(), inputs
        with torch.no_grad():
            self.outputs, self.free = AutogradPass(network, inputs).outputs(self._flat)

    def jvp(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """J·v: the tangents of outputs and of the free parameters."""
        found: tuple[Tensor, Tensor] = replayed(_pushed, (self._network,), vector, self._flat, self._inputs)
        return found

    def vjp(self, outputs: Tensor, free: Tensor) -> Tensor:
        """Jᵀ·u: (size,)."""
        found: Tensor = replayed(_pulled, (self._network,), outputs, free, self._flat, self._inputs)[0]
        return found


def _pushed(network: Mlp, vector: Tensor, flat: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    tangents: tuple[Tensor, Tensor] = torch.func.jvp(AutogradPass(network, inputs).outputs, (flat,), (vector,))[1]
    return tangents


def _pulled(network: Mlp, outputs: Tensor, free: Tensor, flat: Tensor, inputs: Tensor) -> tuple[Tensor]:
    pullback = torch.func.vjp(AutogradPass(network, inputs).outputs, flat)[1]
    return (pullback((outputs, free))[0],)


class AutogradLinearization:
    """Any function θ ↦ (outputs, free): Jᵀu is linear in u, so that J·v is the gradient of (Jᵀu)·v in u.

    The graph of Jᵀu is built once, and each product is one pass back through it.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, Tensor]], flat: Tensor) -> None:
        with torch.enable_grad():
            self._flat = flat.detach().requires_grad_()
            self._values = function(self._flat)
            self._cotangents = tuple(torch.zeros_like(value, requires_grad=True) for value in self._values)
            (self._pulled,) = torch.autograd.grad(self._values, self._flat, self._cotangents, create_graph=True)
        self.outputs, self.free = (value.detach() for value in self._values)

    def jvp(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """J·v: the tangents of outputs and of the free parameters."""
        outputs, free = torch.autograd.grad(
            self._pulled, self._cotangents, vector, retain_graph=True, materialize_grads=True
        )
        return outputs, free

    def vjp(self, outputs: Tensor, free: Tensor) -> Tensor:
        """Jᵀ·u: (size,)."""
        return torch.autograd.grad(self._values, self._flat, (outputs, free), retain_graph=True)[0]


class Linearized(Protocol):
    """A network at one θ: its outputs, and products with the Jacobian J of (outputs, free parameters)."""

    outputs: Tensor
    free: Tensor

    def jvp(self, vector: Tensor) -> tuple[Tensor, Tensor]: ...
    def vjp(self, outputs: Tensor, free: Tensor) -> Tensor: ...


# Which of these does the work is decided in these two functions, and nowhere else.


def pass_over(network: Network, inputs: Tensor, sequences: Sequences | None = None) -> CompiledPass | AutogradPass:
    """A network on flat samples ``inputs`` (batch, n_inputs), for many θ."""
    if isinstance(network, Mlp) and kernels.on_cpu(inputs):
        return CompiledPass(network, inputs)
    return AutogradPass(network, inputs, sequences)


def linearize(network: Network, flat: Tensor, inputs: Tensor, sequences: Sequences | None = None) -> Linearized:
    """The products of a network at θ = ``flat`` on ``inputs``."""
    if isinstance(network, Mlp):
        return (Linearization if kernels.on_cpu(inputs) else ReplayedLinearization)(network, flat, inputs)
    return AutogradLinearization(AutogradPass(network, inputs, sequences).outputs, flat)


def predict(network: Network, values: Tensor, inputs: Tensor, sequences: Sequences | None) -> tuple[Tensor, Tensor]:
    """Outputs (batch, n_outputs) of flat samples under the parameters ``values`` (size,), and the free parameters.

    Differentiable where autograd is on and ``values`` ask for it.
    """
    differentiable = torch.is_grad_enabled() and values.requires_grad
    kind = AutogradPass(network, inputs, sequences) if differentiable else pass_over(network, inputs, sequences)
    return kind.outputs(values)
