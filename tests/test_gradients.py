"""Compiled passes, on several threads too, and whole updates in one call, against autograd and torch's optimiser."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import warnings

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.learning import critic, fitting, updates
from workbench.learning.critic import ValueGradient, value_loss
from workbench.learning.settings import ClippedSettings, TrustRegionSettings
from workbench.learning.surrogate import ratio
from workbench.learning.team import Policy
from workbench.learning.updates import AgentTurn, Surrogate, SurrogateGradient, UnitBatch
from workbench.networks import gradients, kernels
from workbench.networks.distributions import Gaussian
from workbench.networks.gradients import (
    BLOCK,
    ROWS_A_THREAD,
    AutogradLinearization,
    AutogradPass,
    CompiledPass,
    Linearization,
    ReplayedLinearization,
    shares,
    worker_threads,
)
from workbench.networks.mlp import ACTIVATIONS, LAYER_NORMS, Mlp, ParameterVector

BATCH = 4 * BLOCK + 77
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-12}
every_kind = pytest.mark.parametrize(
    ("activation", "layer_norm"), list(itertools.product(ACTIVATIONS, LAYER_NORMS)), ids=str
)


def problem(hidden_sizes, dtype, batch=BATCH, **kind):
    generator = torch.Generator().manual_seed(0)
    network = Mlp(5, 3, hidden_sizes, n_free=3, output_gain=1.0, **kind)
    values = network.initial(generator, dtype)
    values += 0.1 * torch.randn(len(values), generator=generator, dtype=dtype)
    inputs = torch.randn(batch, 5, generator=generator, dtype=dtype)
    return network, values, inputs, torch.randn(batch, 3, generator=generator, dtype=dtype)


def pulled_by(cotangents):
    """A cotangent that needs the outputs too, as losses do."""

    def cotangent(rows, outputs, free):
        return cotangents[rows] * outputs, free * (rows.stop - rows.start)

    return cotangent


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden_sizes", [(), (24, 8)])
def test_outputs_gradients_and_products_are_autograds(activation, layer_norm, dtype, hidden_sizes):
    network, values, inputs, cotangents = problem(
        hidden_sizes, dtype, 700, activation=activation, layer_norm=layer_norm
    )
    close, scaled = TOLERANCE[dtype], 20 * TOLERANCE[dtype]
    compiled, reference = CompiledPass(network, inputs), AutogradPass(network, inputs)
    torch.testing.assert_close(compiled.outputs(values), reference.outputs(values), rtol=close, atol=close)
    expected = reference.gradient(values, pulled_by(cotangents))
    size = float(expected.abs().max())
    assert size > 0.01
    torch.testing.assert_close(compiled.gradient(values, pulled_by(cotangents)), expected, rtol=0, atol=close * size)
    vector, free = torch.randn_like(values), torch.randn(3, dtype=dtype)
    by_autograd = AutogradLinearization(reference.outputs, values)
    pulled = by_autograd.vjp(cotangents, free)
    for kind in (Linearization, ReplayedLinearization):
        linearization = kind(network, values, inputs)
        torch.testing.assert_close(linearization.jvp(vector), by_autograd.jvp(vector), rtol=scaled, atol=scaled)
        atol = close * float(pulled.abs().max())
        torch.testing.assert_close(linearization.vjp(cotangents, free), pulled, rtol=0, atol=atol)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 7, BATCH])
def test_threads_share_the_samples(n_threads, batch):
    network, values, inputs, cotangents = problem((16, 16), torch.float64, batch)
    reference = AutogradPass(network, inputs)
    with worker_threads(n_threads):
        over, linearization = CompiledPass(network, inputs), Linearization(network, values, inputs)
        assert len(over._shares) == min(n_threads, max(1, round(batch / ROWS_A_THREAD)))
        torch.testing.assert_close(over.outputs(values), reference.outputs(values), rtol=0, atol=1e-12)
        expected = reference.gradient(values, pulled_by(cotangents))
        torch.testing.assert_close(over.gradient(values, pulled_by(cotangents)), expected, rtol=1e-11, atol=1e-9)
    vector, free = torch.randn_like(values), torch.randn(3, dtype=torch.float64)
    by_autograd = AutogradLinearization(reference.outputs, values)
    torch.testing.assert_close(linearization.jvp(vector), by_autograd.jvp(vector), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        linearization.vjp(cotangents, free), by_autograd.vjp(cotangents, free), rtol=1e-11, atol=1e-9
    )


def test_equal_numbers_of_threads_give_equal_bits_however_they_run():
    network, values, inputs, cotangents = problem((16, 16), torch.float32)
    with worker_threads(3):
        over = CompiledPass(network, inputs)
    first = over.gradient(values, pulled_by(cotangents))
    found = []
    callers = [
        threading.Thread(target=lambda: found.append(over.gradient(values, pulled_by(cotangents)))) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    assert all(torch.equal(first, each) for each in found)


def test_shares_cover_every_row_once():
    for n_rows, n_threads in itertools.product((1, ROWS_A_THREAD, BLOCK, BLOCK + 1, 4000, 10_007), (1, 2, 5)):
        rows = [row for share in shares(n_rows, n_threads) for row in range(share.start, share.stop)]
        assert rows == list(range(n_rows))


def test_a_fault_in_one_thread_is_raised_and_leaves_the_next_pass_alone():
    network, values, inputs, cotangents = problem((16,), torch.float32)

    def faulty(rows, outputs, free):
        if rows.start:
            raise ArithmeticError(f"rows from {rows.start}")
        return outputs, free

    with worker_threads(2):
        over = CompiledPass(network, inputs)
        with pytest.raises(ArithmeticError, match="rows from"):
            over.gradient(values, faulty)
        over.gradient(values, pulled_by(cotangents))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_not_finite_stays_so(activation):
    hidden = np.array([[np.nan, 1.0], [0.5, -3.0]], np.float32)
    slope = np.empty_like(hidden)
    kernels.activate(hidden, np.zeros(2, np.float32), slope, kernels.ACTIVATIONS[activation])
    assert np.isnan(hidden).tolist() == [[True, False], [False, False]]
    kernels.normalize_rows(hidden, np.empty(2, np.float32))
    assert np.isnan(hidden).tolist() == [[True, True], [False, False]]


def test_tanh_is_tanh_to_single_precision():
    x = np.concatenate([np.linspace(-12, 12, 20_001), [0.0, 1e-6, -1e-20]]).astype(np.float32)
    hidden, slope = x[None].copy(), np.empty((1, len(x)), np.float32)
    kernels.activate(hidden, np.zeros(len(x), np.float32), slope, kernels.TANH)
    exact = np.tanh(x.astype(np.float64))
    np.testing.assert_allclose(hidden[0], exact, rtol=4e-7, atol=0)
    np.testing.assert_allclose(slope[0], 1 - exact**2, rtol=0, atol=6e-7)


# ---- whole updates ----


def gaussian_problem(dtype, std="exp", n=600, present=True, joint=False):
    """A policy a little away from the one that acted, and its samples."""
    draw = torch.Generator().manual_seed(0)
    head, network = Gaussian(3, std), Mlp(5, 3, (16, 8), n_free=3, output_gain=1.0)
    values = network.initial(draw, dtype)

    def drawn(*shape):
        return torch.randn(*shape, generator=draw, dtype=dtype)

    policy, observations = Policy(network, head), drawn(n, 5)
    acted = policy.distribution(values, observations)
    actions = head.sample(acted, drawn(n, 3))
    values = values + 0.03 * drawn(len(values))
    old = head.log_prob(policy.distribution(values, observations), actions) + 0.1 * drawn(n)
    w, advantages = torch.exp(0.3 * drawn(n)), drawn(n)
    batch = UnitBatch(
        observations,
        actions,
        old,
        w * advantages,
        weights=(drawn(n) > 0).to(dtype) if present else None,
        joint=(w, advantages) if joint else None,
    )
    return policy, ParameterVector.of(values), batch


def turn_of(policy, vector, batch, settings):
    return AgentTurn(
        unit="agent_0",
        policy=policy,
        vector=vector,
        batch=batch,
        old=policy.distribution(vector.values, batch.observations),
        preceding_ratio=torch.ones_like(batch.m_factors),
        settings=settings,
        position=0,
        n_units=1,
        team_size=1,
        lr_scale=1.0,
        max_kl=math.nan,
        generator=torch.Generator().manual_seed(5),
    )


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n_minibatches", [1, 3])
@pytest.mark.parametrize(
    ("surrogate", "std", "present", "target_kl"),
    [
        (Surrogate(0.1), "exp", True, math.inf),
        (Surrogate(0.1, 0.2), "sigmoid", True, math.inf),
        (Surrogate(), "sigmoid", False, math.inf),
        (Surrogate(0.2), "exp", True, 1e-2),
    ],
)
def test_an_agents_update_in_one_call_is_the_same_step_by_step(
    surrogate, std, present, target_kl, n_minibatches, n_threads, monkeypatch
):
    monkeypatch.setattr(gradients, "ROWS_A_THREAD", 50)
    joint = surrogate.joint_epsilon is not None
    policy, vector, batch = gaussian_problem(torch.float64, std, present=present, joint=joint)
    settings = ClippedSettings(
        epochs=5, n_minibatches=n_minibatches, entropy_coef=0.01, dtype="float64", max_grad_norm=0.3, lr=1e-2
    )
    before = vector.values.clone()
    with worker_threads(n_threads):
        found = updates._ascend_compiled(turn_of(policy, vector, batch, settings), surrogate, target_kl)
    expected = updates._ascend_by_passes(turn_of(policy, vector, batch, settings), surrogate, target_kl)
    assert torch.equal(vector.values, before)
    assert float((expected[0].values - before).abs().max()) > 1e-3
    for part in ("values", "first_moment", "second_moment"):
        torch.testing.assert_close(getattr(found[0], part), getattr(expected[0], part), rtol=1e-8, atol=1e-10)
    assert found[0].steps == expected[0].steps
    assert found[1] == pytest.approx(expected[1])
    assert found[2] == expected[2]
    assert (found[2] < 5) == (target_kl < 1)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n_minibatches", [1, 3])
@pytest.mark.parametrize(("clip", "huber_delta"), [(None, None), (0.2, 0.5)])
def test_a_critics_fit_in_one_call_is_the_same_step_by_step(clip, huber_delta, n_minibatches, n_threads, monkeypatch):
    monkeypatch.setattr(gradients, "ROWS_A_THREAD", 50)
    draw = torch.Generator().manual_seed(0)
    network = Mlp(5, 1, (16, 8), output_gain=1.0)
    vector = ParameterVector.of(network.initial(draw, torch.float64))
    inputs, old, targets = (torch.randn(400, *k, generator=draw, dtype=torch.float64) for k in ((5,), (), ()))
    settings = ClippedSettings(
        critic_epochs=4, critic_minibatches=n_minibatches, value_clip_epsilon=clip, huber_delta=huber_delta
    )

    def fit():
        generator = torch.Generator().manual_seed(1)
        return critic.fit_critic(network, vector, inputs, old, targets, settings, 1e-2, generator)

    with worker_threads(n_threads):
        found = fit()
    for module in (critic, gradients.kernels):
        monkeypatch.setattr(module, "on_cpu", lambda tensor: False)
    expected = fit()
    torch.testing.assert_close(found[0].values, expected[0].values, rtol=1e-8, atol=1e-10)
    assert found[0].steps == expected[0].steps == 4 * n_minibatches
    assert found[1:] == pytest.approx(expected[1:])


@pytest.mark.parametrize("where", ["old_log_probs", "m_factors"])
def test_what_is_not_a_number_is_told_by_the_norm(where):
    policy, vector, batch = gaussian_problem(torch.float32)
    spoilt = getattr(batch, where).clone()
    spoilt[torch.nonzero(batch.weights)[0]] = math.nan
    batch = dataclasses.replace(batch, **{where: spoilt})
    for ascend in (updates._ascend_compiled, updates._ascend_by_passes):
        turn = turn_of(policy, vector, batch, ClippedSettings())
        assert math.isnan(ascend(turn, Surrogate(0.2), math.inf)[1])


@pytest.mark.parametrize("n_parts", [2, 5])
def test_parts_are_as_torch_splits_them(n_parts):
    for n in (5, 11, 1024):
        expected = [len(part) for part in torch.arange(n).tensor_split(n_parts)]
        edges = [fitting.part_of(n, n_parts, index) for index in range(n_parts)]
        assert [stop - start for start, stop in edges] == expected
        assert [edges[0][0], edges[-1][1]] == [0, n]


# ---- slopes ----


def test_the_slope_of_a_surrogate_is_that_of_its_mean_over_the_whole_batch():
    policy, vector, batch = gaussian_problem(torch.float64)
    values = vector.values.requires_grad_()
    parameters = policy.distribution(values, batch.observations)
    own = ratio(policy.head.log_prob(parameters, batch.actions), batch.old_log_probs)
    entropy = policy.head.entropy(parameters)
    objective = ((Surrogate(0.2)(own, batch) + 0.3 * entropy) * batch.weights).sum() / batch.weights.sum()
    (expected,) = torch.autograd.grad(-objective, values)
    slope = SurrogateGradient(policy.head, Surrogate(0.2), batch, 0.3)
    found = CompiledPass(policy.network, batch.observations).gradient(values, slope)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("huber_delta", [None, 0.5])
def test_the_value_slope_is_the_value_losss(clip, huber_delta):
    predictions = torch.randn(2000, dtype=torch.float64, requires_grad=True)
    old, targets = predictions.detach() + 0.3 * torch.randn(2000).double(), torch.randn(2000, dtype=torch.float64)
    loss = value_loss(predictions, old, targets, clip=clip, huber_delta=huber_delta)
    (expected,) = torch.autograd.grad(loss, predictions)
    slope = ValueGradient(clip, huber_delta, old, targets)
    halves = [
        slope(rows, predictions.detach()[rows].unsqueeze(1), torch.empty(0))[0]
        for rows in (slice(0, 700), slice(700, 2000))
    ]
    torch.testing.assert_close(torch.cat(halves).squeeze(1), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(slope.found[0].squeeze(), loss.detach(), rtol=0, atol=1e-12)
    losses, slopes = np.empty(2000), np.empty(2000)
    seen = (part.detach().numpy() for part in (predictions, old, targets))
    fitting.value_cotangent(
        *seen, *(math.inf if bound is None else bound for bound in (clip, huber_delta)), losses, slopes
    )
    np.testing.assert_allclose(slopes / 2000, expected, rtol=0, atol=1e-15)
    assert losses.mean() == pytest.approx(loss.item())


def test_the_value_slope_keeps_what_is_not_a_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses, slopes, zeros = np.empty(3), np.empty(3), np.zeros(3)
        fitting.value_cotangent(np.array([math.nan, 1.0, math.inf]), zeros, zeros, math.inf, math.inf, losses, slopes)
    assert losses.tolist()[1:] == [0.5, math.inf]
    assert np.isnan(losses).tolist() == np.isnan(slopes).tolist() == [True, False, False]


@pytest.mark.parametrize("fraction", [1.0, 0.3])
@pytest.mark.parametrize(("std", "present"), [("exp", True), ("sigmoid", False)])
def test_a_natural_gradient_in_one_call_is_the_same_product_by_product(std, present, fraction):
    policy, vector, batch = gaussian_problem(torch.float64, std, present=present)
    settings = TrustRegionSettings(dtype="float64", cg_iterations=7, fisher_fraction=fraction, damping=0.05)
    kept = None if fraction == 1 else torch.randperm(len(batch))[: round(fraction * len(batch))]
    turn = turn_of(policy, vector, batch, settings)
    found, norm = updates._natural_gradient_compiled(turn, vector.values, settings, kept)
    expected, expected_norm = updates._natural_gradient_by_products(turn, vector.values, settings, kept)
    torch.testing.assert_close(found.solution, expected.solution, rtol=1e-9, atol=1e-12)
    assert found.curvature == pytest.approx(expected.curvature, rel=1e-9)
    assert found.slope == pytest.approx(expected.slope, rel=1e-9)
    assert norm == pytest.approx(expected_norm, rel=1e-12)


def test_a_trainer_says_by_which_arithmetic_it_updates():
    robot = wb.envs.mujoco("Hopper", "3x1", n_envs=1)
    game = wb.envs.tabular(wb.theory.simultaneous_game(), n_envs=2)
    assert set(wb.hatrpo(robot).passes.values()) == {updates.IN_ONE_CALL}
    assert set(wb.happo(robot, recurrent=True).passes.values()) == {"autograd: the network is recurrent"}
    categorical = "compiled, a gradient at a time: the policy is categorical"
    assert wb.happo(game).passes == dict.fromkeys(game.agents, categorical)
