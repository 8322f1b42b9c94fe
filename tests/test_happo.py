"""The sequential update: its identities on real rollouts, its order, its randomness, its equality with PPO."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from point_team import PointTeam

import workbench as wb
from workbench.learning.agent_turn import agent_turn
from workbench.learning.surrogate import clipped_surrogate, ratio, telescoping_gap
from workbench.learning.updates import UnitBatch, minibatches

SMALL = {"n_steps": 12, "hidden_sizes": (16, 16)}
PLAIN = {"max_grad_norm": 1e9, "n_minibatches": 1, "team_target_kl": None, "lr_decay_steps": None}


def own_ratios(trainer, before):
    """Every agent's π_new/π_old over the whole rollout, from the parameters before and after an iteration."""
    setup, after = trainer._setup, trainer._state
    ratios = {}
    for agent in setup.team.agents:
        batch = agent_turn(setup, before, agent, {agent: before.preceding_ratio}).batch
        new = setup.team.policies[agent].log_probs(after.policies[agent].values, batch.observations, batch.actions)
        ratios[agent] = ratio(new, batch.old_log_probs).view_as(before.preceding_ratio)
    return ratios


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), "reversed", "random"])
def test_gains_telescope_on_a_real_rollout(dtype, tolerance, order):
    env = wb.envs.mujoco("Ant", "4x2", n_envs=4)
    options = {"n_steps": 20, "dtype": dtype, "hidden_sizes": (16,), "lr": 3e-3}
    trainer = wb.happo(env, seed=0, order=order, ratio_clamp=None, **options)
    trainer.step(), trainer.step()
    estimated = trainer._state
    while trainer.phase == "update_agent":
        trainer.step()
    ratios = own_ratios(trainer, estimated)
    in_order = [ratios[agent] for agent in trainer.iteration_order]
    advantages = estimated.estimate.advantages["state"]
    assert max(float((r - 1).abs().max()) for r in in_order) > 0.01  # the policies did move
    assert float(telescoping_gap(in_order, advantages).abs().max()) < tolerance
    # The trainer's own M-factors are the ones that telescope.
    total = sum((ratios[a].numpy() - 1) * m for a, m in trainer.m_factors.items())
    joint = np.prod([r.numpy() for r in in_order], axis=0)
    np.testing.assert_allclose(total, (joint - 1) * advantages.numpy(), rtol=0, atol=tolerance)


def test_m_factors_are_the_preceding_ratios_times_the_advantages():
    trainer = wb.happo(PointTeam(), seed=1, order=(1, 2, 0), ratio_clamp=None, **SMALL)
    assert trainer.m_factors == {}
    trainer.step(), trainer.step()
    estimated = trainer._state
    advantages = estimated.estimate.advantages["state"].numpy()
    assert list(trainer.m_factors) == ["agent_1"]
    assert np.array_equal(trainer.m_factors["agent_1"], advantages)
    trainer.step()
    assert list(trainer.m_factors) == ["agent_1", "agent_2"]
    trainer.iterate()
    ratios = own_ratios(trainer, estimated)
    assert list(trainer.m_factors) == ["agent_1", "agent_2", "agent_0"]
    np.testing.assert_allclose(trainer.m_factors["agent_2"], ratios["agent_1"].numpy() * advantages, rtol=1e-6)
    preceding = (ratios["agent_1"] * ratios["agent_2"]).numpy()
    np.testing.assert_allclose(trainer.m_factors["agent_0"], preceding * advantages, rtol=1e-6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_given_is_the_order_used(order):
    trainer = wb.happo(PointTeam(), seed=0, order=order, **SMALL)
    updated = [event.agent for event in trainer.iterate() if event.phase == "update_agent"]
    assert updated == [f"agent_{i}" for i in order]
    assert trainer.order == order
    assert trainer.history["order"].iloc[0] == tuple(updated)
    assert trainer.agent_history["agent"].tolist() == updated
    assert trainer.agent_history["position"].tolist() == [0, 1, 2]


def test_with_one_agent_happo_is_ppo_bit_for_bit():
    def run(recipe):
        trainer = recipe(PointTeam(n_agents=1), seed=3, n_minibatches=3, entropy_coef=0.01, **SMALL)
        for _ in range(3):
            trainer.iterate()
        return trainer

    happo, ppo = run(wb.happo), run(wb.mappo)
    assert torch.equal(happo._state.policies["agent_0"].values, ppo._state.policies["agent_0"].values)
    assert torch.equal(happo._state.critics["state"].values, ppo._state.critics["state"].values)
    assert happo.history["return"].equals(ppo.history["return"])


def test_one_agents_update_is_textbook_ppo():
    """The same losses and steps written with torch.nn parameters, torch.optim and torch.distributions."""
    trainer = wb.happo(PointTeam(n_agents=1), seed=5, epochs=4, dtype="float64", **PLAIN, **SMALL)
    trainer.step(), trainer.step()
    before = trainer._state
    batch = agent_turn(trainer._setup, before, "agent_0", {"agent_0": before.estimate.advantages["state"]}).batch
    policy = trainer._setup.team.policies["agent_0"]
    theta = torch.nn.Parameter(before.policies["agent_0"].values.clone())
    optimizer = torch.optim.Adam([theta], lr=3e-4, eps=1e-5)
    for _ in range(4):
        mean, std = policy.distribution(theta, batch.observations)
        normal = torch.distributions.Independent(torch.distributions.Normal(mean, std.expand_as(mean)), 1)
        r = (normal.log_prob(batch.actions) - batch.old_log_probs).exp()
        loss = -torch.min(r * batch.m_factors, r.clamp(0.8, 1.2) * batch.m_factors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trainer.step()
    torch.testing.assert_close(trainer._state.policies["agent_0"].values, theta.detach(), rtol=0, atol=1e-12)


def test_mappo_carries_no_preceding_ratio():
    trainer = wb.mappo(PointTeam(), seed=0, **SMALL)
    trainer.iterate()
    first, *others = trainer.m_factors.values()
    assert all(np.array_equal(first, other) for other in others)


def test_clipping_is_pessimistic_for_both_signs():
    r = torch.tensor([0.5, 0.5, 1.0, 1.5, 1.5])
    m = torch.tensor([1.0, -1.0, 2.0, 1.0, -1.0])
    expected = torch.tensor([0.5, -0.8, 2.0, 1.2, -1.5])
    torch.testing.assert_close(clipped_surrogate(r, m, 0.2), expected)


def test_permuting_the_order_reshuffles_nobodys_minibatches():
    """Each agent's draws depend on (seed, iteration, agent), not on when its turn comes."""
    seen = {}
    for order in itertools.permutations(range(3)):
        trainer = wb.happo(PointTeam(), seed=0, order=order, n_minibatches=4, **SMALL)
        trainer.step(), trainer.step()
        streams = trainer._setup.streams
        samples = torch.arange(12.0 * 4)
        for index, agent in enumerate(trainer.units):
            batch = UnitBatch(samples[:, None], samples[:, None], samples, samples)
            generator = streams.torch("policy minibatches", 0, index)
            drawn = torch.cat([part.m_factors for _ in range(2) for part in minibatches(batch, 4, generator)])
            assert torch.equal(seen.setdefault(agent, drawn), drawn)
        # The first in the order sees M = A: its new parameters must not depend on who comes after it.
        first = trainer.remaining[0]
        trainer.step()
        values = trainer._state.policies[first].values
        assert torch.equal(seen.setdefault(("first", first), values), values)
    assert not torch.equal(seen["agent_0"], seen["agent_1"])


def test_different_agents_draw_different_noise():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.step()
    actions = trainer._state.rollout.actions
    assert not torch.equal(actions["agent_0"], actions["agent_1"])


def test_happo_learns():
    """Points that are pushed to the middle: with the shared reward alone, the team comes near the best there is."""
    trainer = wb.happo(PointTeam(n_envs=16, limit=20), seed=0, n_steps=40, lr=3e-3, hidden_sizes=(32,), gamma=0.9)
    untrained = trainer.evaluate(32).mean()
    trainer.run(iterations=25, progress=False)
    trained = trainer.evaluate(32).mean()
    assert trained > 0.6 * untrained  # returns are negative: the loss shrank by two fifths at least
    assert trainer.history["kl"].between(0, 0.1).all()
