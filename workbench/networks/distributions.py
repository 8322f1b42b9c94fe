"""Action distributions as pure functions of a network's outputs.

A *head* turns network outputs (..., n_outputs), and ``free`` parameters that no observation moves, into the parameters
of a distribution: a tuple of tensors. All else is a function of those parameters, and equals ``torch.distributions``
(without its objects, which would cost more than the arithmetic at the batch sizes of a rollout).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import gymnasium
import torch
from torch import Tensor

Parameters = tuple[Tensor, ...]

LOG_SQRT_2PI = math.log(math.sqrt(2 * math.pi))


class Head(Protocol):
    """What a policy needs of its distribution. Shapes: ``...`` is any batch, equal in all arguments of a call."""

    @property
    def n_outputs(self) -> int: ...
    @property
    def n_free(self) -> int: ...
    @property
    def action_size(self) -> int: ...
    @property
    def action_dtype(self) -> torch.dtype | None: ...

    def parameters(self, outputs: Tensor, free: Tensor, mask: Tensor | None = None) -> Parameters: ...
    def noise(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor: ...
    def sample(self, parameters: Parameters, noise: Tensor) -> Tensor: ...
    def mode(self, parameters: Parameters) -> Tensor: ...
    def log_prob(self, parameters: Parameters, actions: Tensor) -> Tensor: ...
    def entropy(self, parameters: Parameters) -> Tensor: ...
    def kl(self, old: Parameters, new: Parameters) -> Tensor: ...
    def fisher_product(self, parameters: Parameters, outputs: Tensor, free: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, slots=True)
class Gaussian:
    """π(a|o) = Π_d N(a_d; μ_d(o), σ_d²), with a standard deviation that no observation moves.

    ``std="exp"`` is σ = exp(ℓ); ``std="sigmoid"`` is the reference's σ = ½·sigmoid(ℓ), so that σ₀ = 0.3655 at ℓ = 1.
    Actions are not squashed: the environment clamps where its model does.

    dim   number of action components
    """

    dim: int
    std: str = "exp"

    @property
    def n_outputs(self) -> int:
        return self.dim

    @property
    def n_free(self) -> int:
        return self.dim

    @property
    def action_size(self) -> int:
        return self.dim

    @property
    def action_dtype(self) -> torch.dtype | None:
        return None  # the network's own

    def parameters(self, outputs: Tensor, free: Tensor, mask: Tensor | None = None) -> Parameters:
        """(mean, std), each (..., dim); ``free`` is (dim,), or (n, dim) for n stacked policies."""
        return outputs, self.standard_deviation(free).unsqueeze(-2)

    def standard_deviation(self, free: Tensor) -> Tensor:
        """σ of ℓ, shaped as ``free``."""
        return 0.5 * torch.sigmoid(free) if self.std == "sigmoid" else torch.exp(free)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        return torch.randn(*shape, self.dim, generator=generator, dtype=dtype)

    def sample(self, parameters: Parameters, noise: Tensor) -> Tensor:
        mean, std = parameters
        return torch.addcmul(mean, std, noise)

    def mode(self, parameters: Parameters) -> Tensor:
        return parameters[0]

    def log_prob(self, parameters: Parameters, actions: Tensor) -> Tensor:
        mean, std = parameters
        per_dimension = -((actions - mean) ** 2) / (2 * std**2) - std.log() - LOG_SQRT_2PI
        return per_dimension.sum(-1)

    def _relative_slope(self, std: Tensor) -> Tensor:
        """σ'(ℓ)/σ: 1 for exp, and 1 − 2σ for ½·sigmoid."""
        return 1 - 2 * std if self.std == "sigmoid" else torch.ones_like(std)

    def entropy(self, parameters: Parameters) -> Tensor:
        mean, std = parameters
        return (0.5 + 0.5 * math.log(2 * math.pi) + std.log()).expand_as(mean).sum(-1)

    def kl(self, old: Parameters, new: Parameters) -> Tensor:
        """KL(old ‖ new) = Σ_d ½(ρ + ((μ_old − μ_new)/σ_new)² − 1 − log ρ), ρ = (σ_old/σ_new)²."""
        variance_ratio = (old[1] / new[1]) ** 2
        distance = ((old[0] - new[0]) / new[1]) ** 2
        return (0.5 * (variance_ratio + distance - 1 - variance_ratio.log())).sum(-1)

    def fisher_product(self, parameters: Parameters, outputs: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """F_dist·(dμ, dℓ) = (dμ/σ², 2·(σ'(ℓ)/σ)²·dℓ); σ'/σ is 1 for exp, and 1 − 2σ for ½·sigmoid."""
        std = parameters[1].squeeze(-2)
        return outputs / std.square(), 2 * self._relative_slope(std).square() * free


@dataclass(frozen=True, slots=True)
class Categorical:
    """π(a|o) = Π_k softmax(logits_k(o))[a_k]: one categorical for ``Discrete``, several for ``MultiDiscrete``.

    sizes   numbers of actions, one for each component; actions are (..., len(sizes)) integers
    """

    sizes: tuple[int, ...]

    @property
    def n_outputs(self) -> int:
        return sum(self.sizes)

    @property
    def n_free(self) -> int:
        return 0

    @property
    def action_size(self) -> int:
        return len(self.sizes)

    @property
    def action_dtype(self) -> torch.dtype | None:
        return torch.int64

    def parameters(self, outputs: Tensor, free: Tensor, mask: Tensor | None = None) -> Parameters:
        """Normalised log-probabilities, one (..., size) tensor a component; masked actions get probability 0."""
        if mask is not None:
            outputs = outputs.masked_fill(~mask, torch.finfo(outputs.dtype).min)
        return tuple(part - part.logsumexp(-1, keepdim=True) for part in torch.split(outputs, list(self.sizes), -1))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Standard Gumbel noise: argmax(log p + g) is a draw from p, and equal noise makes equal draws."""
        exponential = torch.empty(*shape, self.n_outputs, dtype=torch.float64).exponential_(generator=generator)
        return -exponential.log().to(dtype)

    def sample(self, parameters: Parameters, noise: Tensor) -> Tensor:
        parts = zip(parameters, torch.split(noise, list(self.sizes), -1), strict=True)
        return torch.stack([(log_p + gumbel).argmax(-1) for log_p, gumbel in parts], -1)

    def mode(self, parameters: Parameters) -> Tensor:
        return torch.stack([log_p.argmax(-1) for log_p in parameters], -1)

    def log_prob(self, parameters: Parameters, actions: Tensor) -> Tensor:
        chosen = zip(parameters, actions.unbind(-1), strict=True)
        return torch.stack([log_p.gather(-1, a.unsqueeze(-1)).squeeze(-1) for log_p, a in chosen], -1).sum(-1)

    def entropy(self, parameters: Parameters) -> Tensor:
        return torch.stack([-_expectation(log_p, log_p) for log_p in parameters], -1).sum(-1)

    def kl(self, old: Parameters, new: Parameters) -> Tensor:
        """KL(old ‖ new) = Σ_k Σ_a π_old(a)·(log π_old(a) − log π_new(a)), weighted by π_old."""
        pairs = zip(old, new, strict=True)
        return torch.stack([_expectation(log_p, log_p - log_q) for log_p, log_q in pairs], -1).sum(-1)

    def fisher_product(self, parameters: Parameters, outputs: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """F_dist·du = (diag(p) − ppᵀ)·du for each component's logits u."""
        parts = zip(parameters, torch.split(outputs, list(self.sizes), -1), strict=True)
        products = [_covariance_product(log_p.exp(), tangent) for log_p, tangent in parts]
        return torch.cat(products, -1), free


def _expectation(log_p: Tensor, values: Tensor) -> Tensor:
    """Σ_a p(a)·values(a); an action of probability 0 adds 0, whatever its value."""
    p = log_p.exp()
    return torch.where(p > 0, p * values, torch.zeros_like(p)).sum(-1)


def _covariance_product(p: Tensor, tangent: Tensor) -> Tensor:
    """(diag(p) − ppᵀ)·u over the last axis."""
    weighted = p * tangent
    return weighted - p * weighted.sum(-1, keepdim=True)


def head_for(space: gymnasium.Space[object], std: str = "exp") -> Head:
    """The head for an action space: ``Box`` → Gaussian, ``Discrete`` and ``MultiDiscrete`` → Categorical."""
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return Gaussian(space.shape[0], std)
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return Categorical((int(space.n),))
    if isinstance(space, gymnasium.spaces.MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return Categorical(tuple(int(n) for n in space.nvec))
    raise ValueError(
        f"no policy acts in {space}; expected a Box of one axis, or a Discrete or MultiDiscrete that starts at 0. "
        "Wrap the environment so that its actions are one of these."
    )
