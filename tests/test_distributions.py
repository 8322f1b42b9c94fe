"""Heads against torch.distributions, which is the reference."""

from __future__ import annotations

import gymnasium
import pytest
import torch
from torch import distributions as reference

from workbench.networks.distributions import Categorical, Gaussian, head_for

B = 257


@pytest.mark.parametrize("std", ["sigmoid", "exp"])
def test_gaussian_equals_torch_distributions_to_the_last_bit(std):
    head = Gaussian(3, std)
    mean, free, actions = torch.randn(B, 3), torch.randn(3), torch.randn(B, 3)
    parameters = head.parameters(mean, free)
    normal = reference.Normal(mean, parameters[1].expand_as(mean))
    assert torch.equal(head.log_prob(parameters, actions), normal.log_prob(actions).sum(-1))
    assert torch.equal(head.entropy(parameters), normal.entropy().sum(-1))
    new = head.parameters(mean + 0.3, free + 0.1)
    other = reference.Normal(new[0], new[1].expand_as(mean))
    assert torch.equal(head.kl(parameters, new), reference.kl_divergence(normal, other).sum(-1))


def test_the_reference_std_starts_at_its_published_value():
    _, std = Gaussian(2, "sigmoid").parameters(torch.zeros(1, 2), torch.ones(2))
    assert std[0, 0].item() == pytest.approx(0.3655, abs=1e-4)


def test_categorical_agrees_with_torch_distributions():
    head = Categorical((3, 5))
    logits, shift = torch.randn(2, B, 8, dtype=torch.float64)
    actions = torch.stack([torch.randint(3, (B,)), torch.randint(5, (B,))], -1)
    old, new = head.parameters(logits, torch.empty(0)), head.parameters(logits + shift, torch.empty(0))
    ours = [reference.Categorical(logits=part) for part in torch.split(logits, [3, 5], -1)]
    theirs = [reference.Categorical(logits=part) for part in torch.split(logits + shift, [3, 5], -1)]
    expected = sum(d.log_prob(actions[:, k]) for k, d in enumerate(ours))
    torch.testing.assert_close(head.log_prob(old, actions), expected)
    torch.testing.assert_close(head.entropy(old), sum(d.entropy() for d in ours))
    kl = sum(reference.kl_divergence(p, q) for p, q in zip(ours, theirs, strict=True))
    torch.testing.assert_close(head.kl(old, new), kl)


def test_discrete_kl_is_weighted_by_the_old_policy():
    # p = (0.9, 0.1), q = (0.8, 0.2): KL = 0.9·ln(0.9/0.8) + 0.1·ln(0.1/0.2) = 0.0367, the unweighted sum −0.575.
    head = Categorical((2,))
    old = head.parameters(torch.tensor([[0.9, 0.1]]).log(), torch.empty(0))
    new = head.parameters(torch.tensor([[0.8, 0.2]]).log(), torch.empty(0))
    assert head.kl(old, new).item() == pytest.approx(0.036690, abs=1e-6)


def test_masked_actions_are_never_taken_and_cost_nothing():
    head = Categorical((4,))
    mask = torch.tensor([[True, False, True, False]]).expand(B, 4)
    parameters = head.parameters(torch.randn(B, 4), torch.empty(0), mask)
    noise = head.noise((B,), torch.Generator().manual_seed(0), torch.float32)
    drawn = head.sample(parameters, noise).squeeze(-1)
    assert set(drawn.tolist()) == {0, 2}
    assert torch.isfinite(head.entropy(parameters)).all()
    assert torch.isfinite(head.kl(parameters, parameters)).all()


def test_gumbel_noise_draws_from_the_softmax():
    head = Categorical((3,))
    p = torch.tensor([0.2, 0.5, 0.3])
    n = 200_000
    noise = head.noise((n,), torch.Generator().manual_seed(0), torch.float32)
    drawn = head.sample(head.parameters(p.log().expand(n, 3), torch.empty(0)), noise).squeeze(-1)
    share = torch.bincount(drawn, minlength=3) / n
    # Four standard deviations of a binomial share.
    torch.testing.assert_close(share, p, rtol=0, atol=4 * (0.25 / n) ** 0.5)


def test_stacked_policies_draw_as_single_ones_do():
    head = Gaussian(2)
    means, free, noise = torch.randn(3, B, 2), torch.randn(3, 2), torch.randn(3, B, 2)
    stacked = head.sample(head.parameters(means, free), noise)
    for i in range(3):
        assert torch.equal(stacked[i], head.sample(head.parameters(means[i], free[i]), noise[i]))


def test_heads_for_spaces():
    spaces = gymnasium.spaces
    assert head_for(spaces.Box(-1, 1, (3,))) == Gaussian(3)
    assert head_for(spaces.Discrete(5)) == Categorical((5,))
    assert head_for(spaces.MultiDiscrete([2, 3])) == Categorical((2, 3))
    with pytest.raises(ValueError, match="no policy acts in"):
        head_for(spaces.Box(-1, 1, (2, 2)))
