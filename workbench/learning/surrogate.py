"""The sequential surrogate, one pure function an equation.

Symbols and shapes (``...`` is any batch of samples, equal in all arguments of a call)

    ratio             r = π_new(a|o) / π_old(a|o) of the agent being updated          (...)
    preceding_ratio   Π_{j<m} π_new(a^{ij}|o^{ij}) / π_old(a^{ij}|o^{ij})             (...)
    advantages        A_π(s, a) of the joint action                                   (...)
    m_factor          M^{i1:m} = preceding_ratio · A, what multiplies r for agent i_m (...)

Source: Kuba et al., Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning, ICLR 2022
(arXiv 2109.11251).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def ratio(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """r = exp(log π_new(a|o) − log π_old(a|o)), the joint over an action's components."""
    return torch.exp(log_probs - old_log_probs)


def m_factor(preceding_ratio: Tensor, advantages: Tensor) -> Tensor:
    """M^{i1:m} = Π_{j<m} (π_new/π_old)(a^{ij}|o^{ij}) · A_π(s, a)   (eq. 11 of the source).

    The advantages are computed, and normalised, once an iteration and *before* the product: no agent sees them anew.
    """
    return preceding_ratio * advantages


def clamp_ratio(preceding_ratio: Tensor, bounds: tuple[float | None, float | None]) -> Tensor:
    """w̃ = clip(w, low, high), the preceding ratio held between ``bounds`` before it multiplies A; None: no bound there.

    The variance of M grows exponentially with the position in the order, by the rare large w. Bounding them from above
    at 1 keeps E[M²] below E[A²], and costs a bias of E[min(w, 1)] − 1 ≤ 0. The product itself goes on unclamped to the
    next agent. Source: Le & Ta, Low Variance Trust Region Optimization with Independent Actors and Sequential
    Updates in Cooperative Multi-Agent Reinforcement Learning, JAAMAS 39:12 (2025), arXiv 2606.25526 (high = 1).

    >>> clamp_ratio(torch.tensor([0.5, 1.0, 3.0]), (None, 1.0))
    tensor([0.5000, 1.0000, 1.0000])
    """
    low, high = bounds
    return preceding_ratio if low is None and high is None else preceding_ratio.clamp(low, high)


def plain_surrogate(ratio: Tensor, m_factor: Tensor) -> Tensor:
    """r·M, per sample."""
    return ratio * m_factor


def clipped_surrogate(ratio: Tensor, m_factor: Tensor, clip_epsilon: float) -> Tensor:
    """min(r·M, clip(r, 1 − ε, 1 + ε)·M), per sample, to be maximised: pessimistic for M of either sign.

    >>> clipped_surrogate(torch.tensor([1.5, 1.5]), torch.tensor([2.0, -2.0]), clip_epsilon=0.2)
    tensor([ 2.4000, -3.0000])
    """
    return torch.min(ratio * m_factor, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * m_factor)


def doubly_clipped_surrogate(
    ratio: Tensor,
    m_factor: Tensor,
    preceding_ratio: Tensor,
    advantages: Tensor,
    clip_epsilon: float,
    joint_clip_epsilon: float,
) -> Tensor:
    """min(r·M, clip(r, 1 ± ε)·M, clip(w·r, 1 ± ε_J)·A), M = w·A: pessimistic about the joint ratio w·r as well.

    An agent gains nothing by moving on where its predecessors have already moved the joint policy out of 1 ± ε_J in the
    direction of A. The idea is the double clip of Wu et al., Coordinated Proximal Policy Optimization, NeurIPS 2021
    (arXiv 2111.04051); there the agents move at once, and the others' ratio is clipped as ``ratio_clamp`` does here.

    >>> one = torch.ones(1)
    >>> doubly_clipped_surrogate(1.1 * one, 1.5 * one, 1.5 * one, one, clip_epsilon=0.2, joint_clip_epsilon=0.3)
    tensor([1.3000])
    """
    joint = (preceding_ratio * ratio).clamp(1 - joint_clip_epsilon, 1 + joint_clip_epsilon)
    return torch.min(clipped_surrogate(ratio, m_factor, clip_epsilon), joint * advantages)


def telescoping_gap(ratios: list[Tensor], advantages: Tensor) -> Tensor:
    """Σ_m (r_m − 1)·M^{i1:m} − (Π_m r_m − 1)·A per sample: zero for any order, whatever the policies.

    The identity behind the sequential update: what the agents gain one after another, each on its own M-factor, adds up
    to what the joint policy gains. ``ratios`` are the agents' own, in update order.
    """
    preceding = torch.ones_like(advantages)
    total = torch.zeros_like(advantages)
    for own in ratios:
        total = total + (own - 1) * m_factor(preceding, advantages)
        preceding = preceding * own
    return total - (preceding - 1) * advantages


def masked_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over the samples where the agent was there; ``weights`` is 0 or 1 per sample, None for always."""
    return values.mean() if weights is None else (values * weights).sum() / weights.sum().clamp(min=1)


def ratio_diagnostics(
    preceding_ratio: Tensor, m_factors: Tensor, bounds: tuple[float | None, float | None] = (None, None)
) -> dict[str, float]:
    """What the preceding ratio w does to the estimate, at one position of the order.

    preceding_ratio_bias           mean(w) − 1, near 0 where the sample is large enough
    preceding_log_ratio_variance   var(log w)
    effective_sample_size          (Σw)² / (N·Σw²) in (0, 1]
    max_weight_share               max w / Σw
    m_variance                     var(M)
    clamped_fraction               share of samples whose w the ``bounds`` change
    clamp_bias                     mean(clip(w)) − mean(w), which estimates E[clip(w)] − 1
    """
    w = preceding_ratio.double()
    total, squares = w.sum(), w.square().sum()
    clamped = clamp_ratio(w, bounds)
    return {
        "preceding_ratio_bias": float(w.mean() - 1),
        "preceding_log_ratio_variance": log_variance(w),
        "effective_sample_size": float(total.square() / (w.numel() * squares)),
        "max_weight_share": float(w.max() / total),
        "m_variance": float(m_factors.double().var(correction=0)),
        "clamped_fraction": float((clamped != w).double().mean()),
        "clamp_bias": float((clamped - w).mean()),
    }


def log_variance(ratio: Tensor) -> float:
    """var(log r) over the samples, inf where a ratio is 0."""
    r = ratio.double()
    return float(r.log().var(correction=0)) if bool((r > 0).all()) else math.inf


def outside(ratio: Tensor, epsilon: float, weights: Tensor | None = None) -> float:
    """Share of samples whose ratio lies outside 1 ± ε; NaN where there is no ε."""
    if math.isnan(epsilon):
        return math.nan
    return float(masked_mean(((ratio - 1).abs() > epsilon).to(ratio.dtype), weights))
