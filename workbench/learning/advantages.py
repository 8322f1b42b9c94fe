"""Advantages from rewards and values."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.networks.cuda_graphs import replayed


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
    deltas = td_errors(rewards, values, next_values, gamma=gamma)
    return _discounted_sum(deltas, (gamma * gae_lambda) * (~done).to(deltas.dtype))


def td_errors(rewards: Tensor, values: Tensor, next_values: Tensor, *, gamma: float) -> Tensor:
    """δ_t = r_t + γ·V(s'_t) − V(s_t): (n_steps, n_envs), arguments as in ``gae``."""
    return rewards + gamma * next_values - values


def trace_correction(
    deltas: Tensor, preceding_ratio: Tensor, done: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Σ_{k≥1} (γλ)^k (Π_{j=1..k} min(1, w_{t+j}) − 1) δ_{t+k}: what the predecessors' moves change in A_t.

    Added to A, it gives the advantage Σ_k (γλ)^k Π_{j=1..k} min(1, w_{t+j}) δ_{t+k}, in which what follows a step
    counts only as far as the predecessors' new policies would have gone there: w is their preceding ratio, capped at 1
    as V-trace caps it. The step's own w_t does not enter. Source: the preceding-agent off-policy correction of Wang et
    al., Order Matters: Agent-by-agent Policy Optimization, ICLR 2023 (arXiv 2302.06205), which multiplies by a clipped
    w_t besides.

    deltas           (n_steps, n_envs) TD errors, in the unit of the advantages
    preceding_ratio  (n_steps, n_envs) w
    done             (n_steps, n_envs) bool

    Zero to the last bit where w is 1 everywhere.
    """
    carry = (gamma * gae_lambda) * (~done).to(deltas.dtype)
    capped = carry.clone()
    capped[:-1] *= preceding_ratio[1:].clamp(max=1)
    return _discounted_sum(deltas, capped) - _discounted_sum(deltas, carry)


def _discounted_sum(deltas: Tensor, carry: Tensor) -> Tensor:
    """x_t = δ_t + carry_t·x_{t+1}."""
    sums: Tensor = replayed(_summed, (), deltas, carry)[0]
    return sums


def _summed(deltas: Tensor, carry: Tensor) -> tuple[Tensor]:
    sums = torch.empty_like(deltas)
    following = torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        following = torch.addcmul(deltas[t], carry[t], following)
        sums[t] = following
    return (sums,)


def standardization(advantages: Tensor, weights: Tensor | None = None, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """mean(A) and std(A) + eps over all samples, or over those that ``weights`` (0 or 1) keeps."""
    if weights is None:
        return advantages.mean(), advantages.std(correction=0) + eps
    count = weights.sum().clamp(min=1)
    mean = (advantages * weights).sum() / count
    std = ((advantages - mean).square() * weights).sum().div(count).sqrt()
    return mean, std + eps


def standardize(advantages: Tensor, weights: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(A − mean(A)) / (std(A) + eps) over all samples, or over those that ``weights`` (0 or 1) keeps."""
    mean, scale = standardization(advantages, weights, eps)
    return (advantages - mean) / scale
