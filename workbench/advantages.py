"""Advantages from rewards and values."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    done: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """A_t = Σ_{k≥0} (γλ)^k δ_{t+k},   δ_t = r_t + γ·V(s'_t) − V(s_t), the sum ending with the episode.

    rewards      (n_steps, n_envs) joint reward of the step taken at t
    values       (n_steps, n_envs) V(s_t)
    next_values  (n_steps, n_envs) V(s'_t) of the state that the step *truly* led to: 0 where the game terminated, the
                 value of the final state, not of the new episode's first, where it was truncated
    done         (n_steps, n_envs) bool, the episode ended with this step in either way
    gamma        discount γ in [0, 1]
    gae_lambda   λ in [0, 1]: 0 gives one-step differences, 1 the discounted return minus the value

    Returns (n_steps, n_envs). Source: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage
    Estimation, ICLR 2016 (arXiv 1506.02438).
    """
    deltas = rewards + gamma * next_values - values
    carry = (gamma * gae_lambda) * (~done).to(deltas.dtype)
    advantages = torch.empty_like(deltas)
    following = torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        following = torch.addcmul(deltas[t], carry[t], following)
        advantages[t] = following
    return advantages


def standardize(advantages: Tensor, weights: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(A − mean(A)) / (std(A) + eps) over all samples, or over those that ``weights`` (0 or 1) keeps."""
    if weights is None:
        mean, std = advantages.mean(), advantages.std(correction=0)
    else:
        count = weights.sum().clamp(min=1)
        mean = (advantages * weights).sum() / count
        std = ((advantages - mean).square() * weights).sum().div(count).sqrt()
    return (advantages - mean) / (std + eps)
