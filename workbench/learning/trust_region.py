"""The trust region, one pure function an equation: maximise g·x subject to ½·xᵀFx ≤ δ, then hold the result to the KL.

Symbols and shapes

    g   gradient of the surrogate mean(r·M) in the policy's parameters              (size,)
    F   Fisher matrix, the Hessian of mean KL(π_old ‖ π_θ) at θ = θ_old             (size, size), never written out
    H   F + damping·1, what conjugate gradients invert
    J   Jacobian of the network's outputs in its parameters; F = mean_o JᵀF_dist(o)J with F_dist in closed form

F does not depend on M: what the predecessors in the order have done moves g alone.

Source: Schulman et al., Trust Region Policy Optimization, ICML 2015 (arXiv 1502.05477), appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.networks.distributions import Head, Parameters
from workbench.networks.gradients import Linearized

Product = Callable[[Tensor], Tensor]
CG_TOLERANCE = 1e-10  # of conjugate gradients: ‖residual‖² of ‖g‖²


def fisher_vector_product(
    linearization: Linearized, head: Head, parameters: Parameters, vector: Tensor, weights: Tensor | None = None
) -> Tensor:
    """F·v = mean_o Jᵀ F_dist(o) J v: (size,), by one pass forward and one back, with no second derivative.

    Equal to the Hessian of mean KL(π_old ‖ π_θ) at θ_old times v: the KL's gradient in the distribution's parameters
    vanishes there, and with it the term in the network's second derivatives.

    parameters  of the distributions at ``linearization.outputs``
    weights     (batch,) 0 or 1 a sample, None for always; the mean is over the samples of weight 1
    """
    outputs, free = head.fisher_product(parameters, *linearization.jvp(vector))
    scale = 1.0 / len(outputs) if weights is None else (weights / weights.sum().clamp(min=1)).unsqueeze(-1)
    return linearization.vjp(outputs * scale, free)


def conjugate_gradient(
    product: Product, target: Tensor, iterations: int, tolerance: float = CG_TOLERANCE
) -> tuple[Tensor, Tensor]:
    """x ≈ H⁻¹g and the residual g − Hx, each (size,) in float64, for symmetric positive H given as ``product(v)`` = Hv.

    Stops early at a residual of ‖g − Hx‖² ≤ ``tolerance``·‖g‖². Vectors and their dot products are float64, whatever
    the precision of the product. Source: Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear
    Systems, 1952.
    """
    residual = target.double().clone()
    solution = torch.zeros_like(residual)
    direction = residual.clone()
    squared = residual.dot(residual)
    goal = tolerance * squared
    for _ in range(iterations):
        if squared <= goal:
            break
        curved = product(direction.to(target.dtype)).double()
        step = squared / direction.dot(curved)
        solution.add_(direction * step)
        residual.sub_(curved * step)
        previous, squared = squared, residual.dot(residual)
        direction = residual + direction * (squared / previous)
    return solution, residual


@dataclass(frozen=True, slots=True)
class Direction:
    """The natural gradient: where to go, and what it promises.

    solution   x ≈ H⁻¹g, (size,) float64
    curvature  xᵀHx
    slope      gᵀx

    To first order and within ½·xᵀHx ≤ δ, the surrogate gains at most √(2δ)·√(gᵀH⁻¹g).
    """

    solution: Tensor
    curvature: float
    slope: float

    @staticmethod
    def of(gradient: Tensor, solution: Tensor, residual: Tensor) -> Direction:
        """From x ≈ H⁻¹g and g − Hx: xᵀHx = x·(g − residual) needs no further product."""
        exact = gradient.double()
        return Direction(solution, float(solution.dot(exact - residual)), float(solution.dot(exact)))

    @property
    def score(self) -> float:
        """√(gᵀH⁻¹g), the gain that a step promises for each √(2δ) of KL: the same in every parametrisation."""
        return math.sqrt(max(self.slope, 0.0))

    def scale(self, max_kl: float) -> float:
        """β = √(2δ / xᵀHx), so that ½·(βx)ᵀH(βx) = δ; 0 where there is no direction."""
        return math.sqrt(2 * max_kl / self.curvature) if self.curvature > 0 else 0.0


def natural_gradient(product: Product, gradient: Tensor, iterations: int) -> Direction:
    """x ≈ H⁻¹g by conjugate gradients."""
    return Direction.of(gradient, *conjugate_gradient(product, gradient, iterations))


@dataclass(frozen=True, slots=True)
class LineSearch:
    """What a line search found.

    fraction  of the full step that was accepted; 0 where none was
    gain      of the surrogate by the accepted step; 0 where none was
    kl        KL(old ‖ new) of the accepted step, not of a rejected one
    """

    fraction: float
    gain: float
    kl: float


def line_search(
    measure: Callable[[float], tuple[float, float]],
    *,
    expected_gain: float,
    max_kl: float,
    steps: int,
    decay: float,
    accept_ratio: float,
) -> LineSearch:
    """The first fraction f = decayᵏ, k < ``steps``, with KL ≤ δ, gain > 0 and gain ≥ accept_ratio·f·expected gain.

    None is tried where no gain is expected.

    measure        fraction → (gain of the surrogate, KL(old ‖ new)) at that fraction of the full step
    expected_gain  what the linear model promises for the full step, gᵀ(βx)
    """
    for k in range(steps if expected_gain > 0 else 0):
        fraction = decay**k
        gain, kl = measure(fraction)
        # A NaN fails every comparison, and the fraction with it.
        if kl <= max_kl and gain > 0 and gain >= accept_ratio * fraction * expected_gain:
            return LineSearch(fraction, gain, kl)
    return LineSearch(0.0, 0.0, 0.0)


def share_kl(how: str, scores: Sequence[float], budget: float) -> tuple[float, ...]:
    """δ₁ … δₙ with Σδᵢ = ``budget``: how much KL each agent may spend, by what it would gain, sᵢ·√(2δᵢ).

    scores  sᵢ = √(gᵢᵀHᵢ⁻¹gᵢ), see ``Direction.score``
    how     "kkt"     δᵢ = budget·sᵢ²/Σⱼsⱼ², where Σsᵢ√(2δᵢ) is largest: there the marginal gains sᵢ/√(2δᵢ) are equal
            "greedy"  n quanta of budget/n, one after another to whoever gains most by one more, sᵢ·(√(c+1) − √c) for
                      the (c+1)-th: an agent that promises little gets none, and stays as it is

    Equal shares where nobody promises anything. The idea of one budget for the team, shared by KKT conditions or
    greedily by improvement per KL, is that of HATRPO-W and HATRPO-G in Shek et al., Multi-Agent Trust Region Policy
    Optimisation: A Joint Constraint Approach, AAMAS 2026 (arXiv 2508.10340). The shares here are the exact solution for
    the gain to first order, and do not set the order, which ``order="greedy"`` does.

    >>> share_kl("kkt", [1.0, 1.0], budget=0.5), share_kl("greedy", [3.0, 1.0, 1.0], budget=0.75)
    ((0.25, 0.25), (0.5, 0.25, 0.0))
    """
    n, squares = len(scores), [score * score for score in scores]
    if not sum(squares):
        return (budget / n,) * n
    if how == "kkt":
        return tuple(budget * (square / sum(squares)) for square in squares)
    counts = [0] * n
    for _ in range(n):
        gains = [score * (math.sqrt(count + 1) - math.sqrt(count)) for score, count in zip(scores, counts, strict=True)]
        counts[gains.index(max(gains))] += 1
    return tuple(budget * (count / n) for count in counts)
