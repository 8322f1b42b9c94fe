"""Products of a block of activations with a layer's weights, by the faster of the libraries that torch brings.

torch hands products of float32 to MKL, which keeps its AVX-512 code to some makers' processors. oneDNN uses it on all:
twice as fast there. torch has it as an operator of its own compiler, which is not promised to users; hence
``onednn_works()``, and torch's usual product wherever it does not.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from workbench.kernels import reach

TOLERANCE = 1e-5  # of the self-test, on products of unit vectors


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·W + b: (n, k), (k, m), (m,) → (n, m), in fresh memory, on one thread and without a gradient."""
    if reach(x) and x.dtype is torch.float32 and onednn_works():
        return _onednn(x, weight, bias)
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight.t(), bias, "none", [], "")
    return found


@functools.cache
def onednn_works() -> bool:
    """Whether oneDNN's products are used here: on processors with AVX-512, where they are what torch's are."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((40, 24), (24, 8), (8,)))
    x, weight = x / x.norm(dim=1, keepdim=True), weight / weight.norm(dim=0, keepdim=True)
    try:
        with torch.no_grad():
            pairs = [
                (_onednn(x, weight, bias), torch.addmm(bias, x, weight)),
                (_onednn(x.t(), x, None), torch.mm(x.t(), x)),
            ]
    except (AttributeError, RuntimeError):  # another torch, or one built without it
        return False
    return all(torch.allclose(found, expected, rtol=0, atol=TOLERANCE) for found, expected in pairs)
