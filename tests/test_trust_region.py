"""HATRPO's parts against their definitions, and its steps against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from point_team import PointTeam
from torch import distributions as reference

import workbench as wb
from workbench.learning.agent_turn import agent_turn
from workbench.learning.trust_region import (
    conjugate_gradient,
    fisher_vector_product,
    line_search,
    natural_gradient,
)
from workbench.networks.distributions import Categorical, Gaussian
from workbench.networks.gradients import Linearization
from workbench.networks.mlp import Mlp

HEADS = {
    "gaussian": Gaussian(3),
    "gaussian exp": Gaussian(2, "exp"),
    "categorical": Categorical((4,)),
    "multi-discrete": Categorical((3, 2)),
}
SMALL = {"n_steps": 12, "hidden_sizes": (16, 16)}
BATCH = 23


def problem(kind, *, masked=False, weighted=False):
    """A small policy at random parameters, in float64, with observations, masks and weights."""
    head = HEADS[kind]
    generator = torch.Generator().manual_seed(0)
    network = Mlp(5, head.n_outputs, (7, 6), n_free=head.n_free, output_gain=1.0)
    flat = network.initial(generator, torch.float64)
    flat = flat + 0.2 * torch.randn(flat.shape, generator=generator, dtype=torch.float64)
    observations = torch.randn(BATCH, 5, generator=generator, dtype=torch.float64)
    masks = torch.rand(BATCH, head.n_outputs, generator=generator) < 0.7 if masked else None
    if masks is not None:
        masks[:, 0] = True
    weights = (torch.rand(BATCH, generator=generator) < 0.6).double() if weighted else None
    return network, head, flat, observations, masks, weights


def kl_from(network, head, flat, observations, masks, weights):
    """θ ↦ mean KL(π_flat ‖ π_θ), written with torch.distributions."""

    def distribution(theta):
        folded = network.fold(theta)
        outputs = network.forward(folded, observations)
        if isinstance(head, Gaussian):
            free = folded.free
            std = 0.5 * torch.sigmoid(free) if head.std == "sigmoid" else free.exp()
            return [reference.Independent(reference.Normal(outputs, std.expand_as(outputs)), 1)]
        parts = torch.split(outputs, list(head.sizes), -1)
        allowed = torch.split(torch.ones_like(outputs, dtype=torch.bool) if masks is None else masks, head.sizes, -1)
        return [
            reference.Categorical(logits=part.masked_fill(~mask, -1e30))
            for part, mask in zip(parts, allowed, strict=True)
        ]

    old = distribution(flat.detach())

    def mean_kl(theta):
        per_sample = sum(reference.kl_divergence(p, q) for p, q in zip(old, distribution(theta), strict=True))
        return per_sample.mean() if weights is None else (per_sample * weights).sum() / weights.sum()

    return mean_kl


@pytest.mark.parametrize(
    ("kind", "masked", "weighted"),
    [
        ("gaussian", False, False),
        ("gaussian", False, True),
        ("gaussian exp", False, False),
        ("categorical", False, False),
        ("categorical", True, True),
        ("multi-discrete", False, True),
    ],
)
def test_fisher_vector_products_are_the_hessian_of_the_mean_kl(kind, masked, weighted):
    network, head, flat, observations, masks, weights = problem(kind, masked=masked, weighted=weighted)
    hessian = torch.autograd.functional.hessian(kl_from(network, head, flat, observations, masks, weights), flat)
    linearization = Linearization(network, flat, observations)
    parameters = head.parameters(linearization.outputs, linearization.free, masks)
    units = torch.eye(len(flat), dtype=torch.float64)
    fisher = torch.stack([fisher_vector_product(linearization, head, parameters, v, weights) for v in units], 1)
    assert hessian.abs().max() > 0.01
    torch.testing.assert_close(fisher, hessian, rtol=0, atol=1e-12)


def test_the_linearization_is_the_networks_own():
    network, _, flat, observations, *_ = problem("gaussian")
    linearization = Linearization(network, flat, observations)

    def function(theta):
        folded = network.fold(theta)
        return network.forward(folded, observations), folded.free

    v, (u, w) = torch.randn_like(flat), (torch.randn(BATCH, 3).double(), torch.randn(3).double())
    (outputs, free), tangents = torch.autograd.functional.jvp(function, flat, v)
    torch.testing.assert_close((linearization.outputs, linearization.free), (outputs, free), rtol=0, atol=1e-13)
    torch.testing.assert_close(linearization.jvp(v), tangents, rtol=0, atol=1e-12)
    pulled = torch.autograd.functional.vjp(function, flat, (u, w))[1]
    torch.testing.assert_close(linearization.vjp(u, w), pulled, rtol=0, atol=1e-12)


def test_conjugate_gradient_is_a_dense_solve():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix, b = root @ root.T + torch.eye(12), torch.randn(12, generator=generator, dtype=torch.float64)
    x, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations=40, tolerance=1e-28)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=0, atol=1e-10)
    torch.testing.assert_close(residual, b - matrix @ x, rtol=0, atol=1e-10)
    # Exact after as many steps as there are different eigenvalues: two here.
    diagonal = torch.tensor([2.0, 5.0, 5.0, 2.0], dtype=torch.float64)
    x, _ = conjugate_gradient(lambda v: diagonal * v, torch.ones(4, dtype=torch.float64), iterations=2)
    torch.testing.assert_close(x, 1 / diagonal)
    nothing, _ = conjugate_gradient(lambda v: matrix @ v, torch.zeros(12), iterations=5)
    assert torch.equal(nothing, torch.zeros(12, dtype=torch.float64))


def test_the_natural_gradient_by_hand():
    # H = diag(2, 8), g = (2, 4): x = H⁻¹g = (1, ½), xᵀHx = gᵀx = 4; ½·(βx)ᵀH(βx) = δ for β = √(2δ/4).
    diagonal = torch.tensor([2.0, 8.0], dtype=torch.float64)
    direction = natural_gradient(lambda v: diagonal * v, torch.tensor([2.0, 4.0], dtype=torch.float64), iterations=5)
    torch.testing.assert_close(direction.solution, torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert (direction.curvature, direction.slope, direction.score) == pytest.approx((4.0, 4.0, 2.0))
    assert direction.scale(0.02) == pytest.approx(0.1)
    nowhere = natural_gradient(lambda v: diagonal * v, torch.zeros(2), iterations=5)
    assert (nowhere.scale(0.02), nowhere.score) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("measured", "fraction"),
    [
        # The full step's KL is over δ = 0.01, the first cut's is not.
        ({1.0: (0.9, 0.011), 0.5: (0.4, 0.004)}, 0.5),
        # Its gain is below half of the promise (1.0 for the full step), the second cut's is not: 0.13 ≥ 0.5·0.25.
        ({1.0: (0.49, 0.009), 0.5: (0.24, 0.004), 0.25: (0.13, 0.001)}, 0.25),
        # A loss, a NaN, and no more tries.
        ({1.0: (-0.1, 0.001), 0.5: (float("nan"), 0.001), 0.25: (0.9, float("nan"))}, 0.0),
        ({1.0: (0.5, 0.01)}, 1.0),
    ],
)
def test_the_line_search_accepts_the_first_that_will_do(measured, fraction):
    found = line_search(measured.__getitem__, expected_gain=1.0, max_kl=0.01, steps=3, decay=0.5, accept_ratio=0.5)
    assert found.fraction == fraction
    assert (found.gain, found.kl) == (measured[fraction] if fraction else (0.0, 0.0))


def own_update(trainer, before, agent):
    """Gain and KL of an agent's latest update, by torch.distributions, from the parameters before and after it."""
    setup, after = trainer._setup, trainer._state
    m = torch.from_numpy(trainer.m_factors[agent]).double()
    batch = agent_turn(setup, before, agent, {agent: m}).batch
    policy = setup.team.policies[agent]

    def distribution(state):
        parameters = policy.distribution(state.policies[agent].values, batch.observations)
        if isinstance(policy.head, Gaussian):
            mean, std = (part.double() for part in parameters)
            return reference.Independent(reference.Normal(mean, std.expand_as(mean)), 1)
        return reference.Categorical(logits=parameters[0].double())

    old, new = distribution(before), distribution(after)
    actions = batch.actions if isinstance(policy.head, Gaussian) else batch.actions.squeeze(-1)
    r = (new.log_prob(actions) - old.log_prob(actions)).exp()
    return float(((r - 1) * m.flatten()).mean()), float(reference.kl_divergence(old, new).mean())


def cart(n_envs=8):
    """A tabular game of three agents with unequal numbers of actions."""
    rng = np.random.Generator(np.random.PCG64(0))
    reward = rng.normal(size=(3, 2, 3, 2))
    transition = rng.dirichlet(np.ones(3), size=(3, 2, 3, 2))
    return wb.envs.tabular(wb.theory.TabularGame(reward, transition, [0.5, 0.25, 0.25], 0.9), n_envs=n_envs)


@pytest.mark.parametrize("max_kl", [0.002, 0.05])
@pytest.mark.parametrize("make", [PointTeam, cart])
@pytest.mark.parametrize("policy_steps", [1, 3])
def test_every_accepted_step_keeps_its_promises(make, max_kl, policy_steps):
    trainer = wb.hatrpo(make(), seed=0, max_kl=max_kl, policy_steps=policy_steps, **SMALL)
    accepted = 0
    for _ in range(5):
        trainer.step(), trainer.step()
        while trainer.phase == "update_agent":
            before = trainer._state
            event = trainer.step()
            gain, kl = own_update(trainer, before, event.agent)
            reported = event.diagnostics
            assert reported["kl"] == pytest.approx(kl, rel=1e-3, abs=1e-7)
            assert reported["surrogate_gain"] == pytest.approx(gain, rel=1e-3, abs=1e-6)
            assert reported["kl"] <= max_kl
            if reported["line_search"]:
                accepted += 1
                assert 0 < reported["line_search"] <= 1
                assert kl <= max_kl * (1 + 1e-3)
                assert gain > 0
                assert kl > 1e-3 * max_kl
        trainer.step()
    assert accepted >= 12  # of 15: the search does find something


@pytest.mark.parametrize("make", [PointTeam, cart])
def test_a_failed_search_leaves_the_parameters_bit_identical(make):
    # A promise for a far step that must be kept in full, in one try.
    trainer = wb.hatrpo(make(), seed=0, max_kl=5.0, accept_ratio=1.0, line_search_steps=1, **SMALL)
    before = dict(trainer._state.policies)
    events = [event for event in trainer.iterate() if event.phase == "update_agent"]
    assert len(events) == 3
    for event in events:
        assert event.diagnostics["line_search"] == 0
        assert event.diagnostics["kl"] == 0
        assert event.diagnostics["surrogate_gain"] == 0
        assert event.diagnostics["expected_gain"] > 0
        assert torch.equal(trainer._state.policies[event.agent].values, before[event.agent].values)
    assert (trainer.history["kl"] == 0).all()
    first, *others = trainer.m_factors.values()
    assert all(np.array_equal(first, other) for other in others)  # every ratio is exactly 1


def test_several_steps_follow_the_bend_and_share_the_region():
    """One step of k = 1 and three of k = 3 spend about the same KL; the three gain about as much or more."""
    gains, kls = {}, {}
    for k in (1, 3):
        trainer = wb.hatrpo(PointTeam(n_envs=32), seed=0, max_kl=0.05, policy_steps=k, n_steps=40, damping=1e-3)
        trainer.step(), trainer.step()
        event = trainer.step()
        gains[k], kls[k] = event.diagnostics["surrogate_gain"], event.diagnostics["kl"]
    assert 0.5 * kls[1] < kls[3] <= 0.05
    assert gains[3] > 0.9 * gains[1]


def test_a_share_of_the_samples_for_the_products():
    def first_update(**options):
        trainer = wb.hatrpo(PointTeam(), seed=0, order=(1, 0, 2), **SMALL, **options)
        trainer.step(), trainer.step(), trainer.step()
        return trainer._state.policies["agent_1"].values

    whole, fifth = first_update(), first_update(fisher_fraction=0.2)
    assert torch.equal(whole, first_update(fisher_fraction=1.0))
    assert not torch.equal(whole, fifth)
    # Drawn for the agent, not for its turn.
    trainer = wb.hatrpo(PointTeam(), seed=0, order=(1, 2, 0), fisher_fraction=0.2, **SMALL)
    trainer.step(), trainer.step(), trainer.step()
    assert torch.equal(trainer._state.policies["agent_1"].values, fifth)


def test_hatrpo_learns():
    trainer = wb.hatrpo(PointTeam(n_envs=16, limit=20), seed=0, n_steps=40, max_kl=0.02, hidden_sizes=(32,), gamma=0.9)
    untrained = trainer.evaluate(32).mean()
    trainer.run(iterations=25, progress=False)
    assert trainer.evaluate(32).mean() > 0.6 * untrained  # returns are negative
    assert (trainer.agent_history["kl"] <= 0.02).all()


def test_hatrpo_has_no_clip():
    with pytest.raises(ValueError, match=r"unknown option of HATRPO 'clip_epsilon'.*max_kl.*damping"):
        wb.hatrpo(PointTeam(), clip_epsilon=0.1)
    with pytest.raises(ValueError, match="unknown option of HATRPO 'lr'"):
        wb.hatrpo(PointTeam(), lr=1e-3)
    with pytest.raises(ValueError, match=r"max_kl .* is 0"):
        wb.hatrpo(PointTeam(), max_kl=0)
    with pytest.raises(ValueError, match=r"fisher_fraction .* is 0; expected a number in \(0, 1\]"):
        wb.hatrpo(PointTeam(), fisher_fraction=0)
