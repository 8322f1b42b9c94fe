"""GAE against the sum that defines it, on episodes with both kinds of ending."""

from __future__ import annotations

import pytest
import torch

from workbench.learning.advantages import gae, standardize

GAMMA, LAMBDA = 0.9, 0.8


def brute_force(rewards, values, next_values, done):
    """A_t = Σ_k (γλ)^k δ_{t+k}, each term written out, until the episode ends."""
    n_steps, n_envs = rewards.shape
    advantages = torch.zeros_like(rewards)
    for env in range(n_envs):
        for t in range(n_steps):
            for k in range(n_steps - t):
                i = t + k
                delta = rewards[i, env] + GAMMA * next_values[i, env] - values[i, env]
                advantages[t, env] += (GAMMA * LAMBDA) ** k * delta
                if done[i, env]:
                    break
    return advantages


@pytest.mark.parametrize("seed", range(3))
def test_gae_is_the_sum_that_defines_it(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values, next_values = torch.randn(3, 12, 5, generator=generator, dtype=torch.float64)
    done = torch.rand(12, 5, generator=generator) < 0.25
    assert done.any()
    ours = gae(rewards, values, next_values, done, gamma=GAMMA, gae_lambda=LAMBDA)
    torch.testing.assert_close(ours, brute_force(rewards, values, next_values, done), rtol=0, atol=1e-12)


def test_a_hand_made_episode_with_both_endings():
    # Steps 0-1 end by termination (nothing follows), steps 2-3 by truncation (the final state is worth 10).
    rewards = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    values = torch.tensor([[0.5], [0.5], [0.5], [0.5]])
    next_values = torch.tensor([[0.5], [0.0], [0.5], [10.0]])
    done = torch.tensor([[False], [True], [False], [True]])
    ours = gae(rewards, values, next_values, done, gamma=0.9, gae_lambda=0.8).squeeze()
    # δ = 1 + 0.45 − 0.5, 2 − 0.5, 3 + 0.45 − 0.5, 4 + 9 − 0.5; A₀ = δ₀ + 0.72·δ₁, A₂ = δ₂ + 0.72·δ₃
    torch.testing.assert_close(ours, torch.tensor([0.95 + 0.72 * 1.5, 1.5, 2.95 + 0.72 * 12.5, 12.5]))


def test_standardized_advantages_have_mean_zero_and_deviation_one():
    raw = torch.randn(30, 4, dtype=torch.float64) * 7 + 3
    ours = standardize(raw)
    assert abs(ours.mean()) < 1e-12
    assert abs(ours.std(correction=0) - 1) < 1e-5


def test_standardizing_with_weights_ignores_the_absent():
    raw = torch.tensor([1.0, 2.0, 3.0, 1e6])
    ours = standardize(raw, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(ours[:3], standardize(raw[:3]))
