"""A function of tensors in one launch, where they are on a GPU: recorded once as a CUDA graph, and replayed after that.

A gradient of a small network is a hundred kernels of a few microseconds each, and one after another they take ten times
as long to launch as to run. A graph launches them together. The kernels are the same, and so are the bits.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

KEPT = 64  # recordings, each of one function at one set of shapes; those used last stay

Tensors = tuple[Tensor | None, ...]

_recordings: OrderedDict[Hashable, _Recording] = OrderedDict()
_one_at_a_time = threading.RLock()  # trainers in several threads share the recordings, and so their memory


def replayed(function: Callable[..., tuple[Tensor, ...]], fixed: tuple[object, ...], *tensors: Tensor | None) -> Any:
    """``function(*fixed, *tensors)``, a tuple of tensors of their own; simply called where nothing is on a GPU.

    function  of the module's own level, which waits for nothing that the GPU computes, and writes to no argument
    fixed     what is not a tensor; another value is another recording, as another shape is
    """
    device = next((tensor.device for tensor in tensors if tensor is not None and tensor.is_cuda), None)
    if device is None:
        return function(*fixed, *tensors)
    shapes = tuple(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in tensors)
    key = (function, fixed, device, torch.get_float32_matmul_precision(), shapes)
    with _one_at_a_time, torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
        if key not in _recordings:
            _recordings[key] = _Recording(function, fixed, tensors, device)
            while len(_recordings) > KEPT:
                _recordings.popitem(last=False)
        _recordings.move_to_end(key)
        return _recordings[key](tensors)


class _Recording:
    """A function at one set of shapes, with memory of its own for what goes in."""

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        fixed: tuple[object, ...],
        tensors: Tensors,
        device: torch.device,
    ) -> None:
        self._own = tuple(None if given is None else given.to(device, copy=True) for given in tensors)
        self._held: list[tuple[weakref.ref[Tensor], int] | None] = [None] * len(tensors)
        # Once without recording: libraries make their plans and workspaces at their first call.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            function(*fixed, *self._own)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._found = function(*fixed, *self._own)

    def __call__(self, tensors: Tensors) -> tuple[Tensor, ...]:
        for index, (own, given) in enumerate(zip(self._own, tensors, strict=True)):
            if own is None or given is None or self._holds(index, given):
                continue
            own.copy_(given)
            lasts = given.is_cuda and not given.is_inference()  # NumPy may write to others unseen
            self._held[index] = (weakref.ref(given), given._version) if lasts else None
        self._graph.replay()
        return tuple(part.clone() for part in self._found)

    def _holds(self, index: int, given: Tensor) -> bool:
        held = self._held[index]
        return held is not None and held[0]() is given and held[1] == given._version
