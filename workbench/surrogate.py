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


def plain_surrogate(ratio: Tensor, m_factor: Tensor) -> Tensor:
    """r·M, per sample."""
    return ratio * m_factor


def clipped_surrogate(ratio: Tensor, m_factor: Tensor, clip_epsilon: float) -> Tensor:
    """min(r·M, clip(r, 1 − ε, 1 + ε)·M), per sample, to be maximised: pessimistic for M of either sign.

    >>> clipped_surrogate(torch.tensor([1.5, 1.5]), torch.tensor([2.0, -2.0]), clip_epsilon=0.2)
    tensor([ 2.4000, -3.0000])
    """
    return torch.min(ratio * m_factor, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * m_factor)


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


def ratio_diagnostics(preceding_ratio: Tensor, m_factors: Tensor) -> dict[str, float]:
    """What the preceding ratio w does to the estimate, at one position of the order.

    preceding_ratio_bias           mean(w) − 1, near 0 where the sample is large enough
    preceding_log_ratio_variance   var(log w)
    effective_sample_size          (Σw)² / (N·Σw²) in (0, 1]; for m independent log-ratios N(−σ²/2, σ²) it is e^{−mσ²}
    max_weight_share               max w / Σw
    m_variance                     var(M)
    """
    w = preceding_ratio.double()
    total, squares = w.sum(), w.square().sum()
    spread = w.log().var(correction=0) if bool((w > 0).all()) else torch.tensor(math.inf)
    values = {
        "preceding_ratio_bias": w.mean() - 1,
        "preceding_log_ratio_variance": spread,
        "effective_sample_size": total.square() / (w.numel() * squares),
        "max_weight_share": w.max() / total,
        "m_variance": m_factors.double().var(correction=0),
    }
    return {name: float(value) for name, value in values.items()}
