"""Passes in blocks on several threads against autograd, and closed slopes against autograd."""

from __future__ import annotations

import dataclasses
import math
import threading

import numpy as np
import pytest
import torch

from workbench import critic, products
from workbench.critic import value_loss, value_slope
from workbench.distributions import Categorical, Gaussian
from workbench.kernels import relu_normalize
from workbench.networks import Mlp
from workbench.passes import BLOCK, ROWS_A_LANE, Linearization, Pass, lanes, shares
from workbench.recurrent import AutogradPass
from workbench.surrogate import (
    clipped_slope,
    clipped_surrogate,
    doubly_clipped_slope,
    doubly_clipped_surrogate,
)
from workbench.updates import Clipped, Descent, GaussianDescent, UnitBatch, pull_of

BATCH = 2 * BLOCK + 77
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-12}


def problem(hidden_sizes, dtype, batch=BATCH):
    generator = torch.Generator().manual_seed(0)
    network = Mlp(5, 3, hidden_sizes, n_free=2, output_gain=1.0)
    values = network.initial(generator, dtype)
    values += 0.1 * torch.randn(len(values), generator=generator, dtype=dtype)
    inputs = torch.randn(batch, 5, generator=generator, dtype=dtype)
    return network, values, inputs, torch.randn(batch, 3, generator=generator, dtype=dtype)


def pulled_by(cotangents):
    """A pull that needs the outputs too, as losses do."""

    def pull(rows, outputs, free):
        return cotangents[rows] * outputs, free * (rows.stop - rows.start)

    return pull


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden_sizes", [(), (16,), (24, 8), (16, 16, 16)])
@pytest.mark.parametrize("n_lanes", [1, 3])
@pytest.mark.parametrize("batch", [1, 7, BATCH])
def test_outputs_and_gradients_are_autograds(dtype, hidden_sizes, n_lanes, batch):
    network, values, inputs, cotangents = problem(hidden_sizes, dtype, batch)
    reference = AutogradPass(network, inputs)
    with lanes(n_lanes):
        over = Pass(network, inputs)
    assert len(over._shares) == min(n_lanes, max(1, round(batch / ROWS_A_LANE)))
    expected, free = reference.outputs(values)
    found = over.outputs(values)
    torch.testing.assert_close(found, (expected, free), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    gradient = reference.gradient(values, pulled_by(cotangents))
    scale = float(gradient.abs().max())
    assert scale > 0.01
    found = over.gradient(values, pulled_by(cotangents))
    torch.testing.assert_close(found, gradient, rtol=0, atol=TOLERANCE[dtype] * scale)


def test_equal_lanes_give_equal_bits_however_threads_run():
    network, values, inputs, cotangents = problem((16, 16), torch.float32)
    with lanes(3):
        over = Pass(network, inputs)
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


def test_blocks_cover_every_row_once():
    for n_rows in (1, ROWS_A_LANE, BLOCK, BLOCK + 1, 4000, 10_007):
        for n_lanes in (1, 2, 5):
            blocks = [block for blocks in shares(n_rows, n_lanes) for block in blocks]
            assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(n_rows))
            assert all(block.stop - block.start <= BLOCK for block in blocks)


def test_a_fault_in_one_lane_is_raised_and_leaves_the_next_pass_alone():
    network, values, inputs, cotangents = problem((16,), torch.float32)

    def pull(rows, outputs, free):
        if rows.start:
            raise ArithmeticError(f"rows from {rows.start}")
        return outputs, free

    with lanes(2):
        over = Pass(network, inputs)
        with pytest.raises(ArithmeticError, match="rows from"):
            over.gradient(values, pull)
        before = torch.get_num_threads()
        over.gradient(values, pulled_by(cotangents))
        assert torch.get_num_threads() == before


def test_what_is_not_finite_stays_so():
    hidden = np.array([[np.nan, 1.0], [-np.inf, 1.0], [-0.0, -3.0]], np.float32)
    normalized, rho = np.empty_like(hidden), np.empty(3, np.float32)
    relu_normalize(hidden, normalized, rho, 1e-5)
    assert np.isnan(normalized[0]).all()
    assert np.array_equal(hidden[2], [0.0, 0.0])
    assert np.array_equal(normalized[2], [0.0, 0.0])


@pytest.mark.parametrize("n_lanes", [1, 2])
def test_linearizations_in_lanes_are_adjoint_and_autograds(n_lanes):
    network, values, inputs, cotangents = problem((16, 8), torch.float64)
    with lanes(n_lanes):
        linearization = Linearization(network, values, inputs)
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(len(values), generator=generator, dtype=torch.float64)
    free = torch.randn(2, generator=generator, dtype=torch.float64)

    def function(theta):
        return AutogradPass(network, inputs).outputs(theta)

    outputs, tangents = torch.autograd.functional.jvp(function, values, vector)
    torch.testing.assert_close((linearization.outputs, linearization.free), outputs, rtol=0, atol=1e-12)
    torch.testing.assert_close(linearization.jvp(vector), tangents, rtol=1e-11, atol=1e-11)
    pulled = torch.autograd.functional.vjp(function, values, (cotangents, free))[1]
    torch.testing.assert_close(linearization.vjp(cotangents, free), pulled, rtol=1e-11, atol=1e-10)


# ---- products ----


@pytest.mark.skipif(not products.onednn_works(), reason="oneDNN's products are not used on this processor")
def test_passes_are_the_same_by_onednn_and_by_torchs_usual_products(monkeypatch):
    network, values, inputs, cotangents = problem((24, 8), torch.float32)
    found = []
    for works in (True, False):
        monkeypatch.setattr(products, "onednn_works", lambda works=works: works)
        linearization = Linearization(network, values, inputs)
        over = Pass(network, inputs)
        gradient = over.gradient(values, pulled_by(cotangents))
        parts = (over.outputs(values)[0], gradient, linearization.jvp(values)[0])
        found.append([part / part.abs().max() for part in parts])
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_products_take_any_layout_and_no_rows():
    x, weight, bias = torch.randn(6, 4), torch.randn(5, 4).t(), torch.randn(5)
    torch.testing.assert_close(products.affine(x, weight, bias), x @ weight + bias)
    torch.testing.assert_close(products.affine(x[1:4].t(), x[1:4]), x[1:4].t() @ x[1:4])
    assert products.affine(x[:0], weight, bias).shape == (0, 5)


@pytest.mark.parametrize("fault", [AttributeError, RuntimeError, None])
def test_onednn_is_left_alone_where_it_fails_or_computes_something_else(monkeypatch, fault):
    def broken(x, weight, bias):
        if fault:
            raise fault("no such operator")
        return torch.zeros(len(x), weight.shape[1])

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(products, "_onednn", broken)
    assert not products.onednn_works.__wrapped__()


# ---- slopes in closed form ----


@pytest.mark.parametrize(
    ("head", "masked"),
    [(Gaussian(3), False), (Gaussian(3, "exp"), False), (Categorical((4,)), True), (Categorical((2, 3)), False)],
)
def test_scores_are_the_gradients_of_log_probs_and_entropies(head, masked):
    outputs = torch.randn(50, head.n_outputs, dtype=torch.float64, requires_grad=True)
    free = torch.randn(head.n_free, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(50, head.n_outputs) < 0.6 if masked else None
    if mask is not None:
        mask[:, 0] = True
    parameters = head.parameters(outputs, free, mask)
    actions = head.sample(parameters, head.noise((50,), torch.Generator().manual_seed(0), torch.float64)).detach()
    weights = torch.randn(50, dtype=torch.float64)
    for value, score in (
        (head.log_prob(parameters, actions), head.score(parameters, actions, weights)),
        (head.entropy(parameters), head.entropy_score(parameters, weights)),
    ):
        expected = torch.autograd.grad(
            (value * weights).sum(), (outputs, free), retain_graph=True, materialize_grads=True, allow_unused=True
        )
        torch.testing.assert_close(tuple(part.detach() for part in score), expected, rtol=0, atol=1e-12)


def test_slopes_are_the_derivatives_of_the_surrogates():
    r = (torch.rand(2000, dtype=torch.float64) + 0.5).requires_grad_()
    w, a = torch.rand(2000, dtype=torch.float64) + 0.5, torch.randn(2000, dtype=torch.float64)
    (expected,) = torch.autograd.grad(clipped_surrogate(r, w * a, 0.2).sum(), r)
    torch.testing.assert_close(clipped_slope(r.detach(), w * a, 0.2), expected, rtol=0, atol=1e-12)
    (expected,) = torch.autograd.grad(doubly_clipped_surrogate(r, w * a, w, a, 0.3, 0.2).sum(), r)
    found = doubly_clipped_slope(r.detach(), w * a, w, a, 0.3, 0.2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert 0.1 < float((found == 0).double().mean()) < 0.9


def test_the_joint_clip_leaves_what_lies_within_it_alone_in_single_precision():
    w = torch.rand(5000) * 0.2 + 0.9
    r, a = torch.rand(5000) * 0.1 + 0.95, torch.randn(5000)
    assert torch.equal(doubly_clipped_slope(r, w * a, w, a, 0.2, 0.5), w * a)


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("huber_delta", [None, 0.5])
def test_the_value_slope_is_the_value_losss(clip, huber_delta):
    predictions = torch.randn(2000, dtype=torch.float64, requires_grad=True)
    old, targets = predictions.detach() + 0.3 * torch.randn(2000).double(), torch.randn(2000, dtype=torch.float64)
    loss = value_loss(predictions, old, targets, clip=clip, huber_delta=huber_delta)
    (expected,) = torch.autograd.grad(loss, predictions)
    for found in (value_slope, critic._value_slope):  # compiled, and for other devices
        losses, slope = found(predictions.detach(), old, targets, clip=clip, huber_delta=huber_delta)
        torch.testing.assert_close(slope / 2000, expected, rtol=0, atol=1e-15)
        torch.testing.assert_close(losses.mean(), loss.detach(), rtol=0, atol=1e-15)


def test_the_value_slope_keeps_what_is_not_a_number():
    predictions, zeros = torch.tensor([math.nan, 1.0, math.inf]), torch.zeros(3)
    losses, slope = value_slope(predictions, zeros, zeros, clip=None, huber_delta=None)
    assert losses.tolist()[1:] == [0.5, math.inf]
    assert losses.isnan().tolist() == slope.isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("std", ["sigmoid", "exp"])
@pytest.mark.parametrize("epsilon", [0.1, math.inf])
@pytest.mark.parametrize("present", [True, False])
def test_the_compiled_descent_of_a_gaussian_is_the_surrogates(std, epsilon, present):
    head, n = Gaussian(3, std), 500
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    outputs, free = drawn(3, n).t(), drawn(3)
    actions = head.sample(head.parameters(outputs, free), drawn(n, 3))
    old = head.log_prob(head.parameters(outputs + 0.1 * drawn(n, 3), free), actions)
    batch = UnitBatch(actions, actions, old, drawn(n), weights=(drawn(n) > 0).double() if present else None)
    slope = Clipped(epsilon)
    assert float(batch.share) == pytest.approx(1 / (n if batch.weights is None else (batch.weights > 0).sum()))
    assert isinstance(pull_of(head, slope, batch, 0.3), GaussianDescent)
    for rows in (slice(0, n), slice(100, 350)):
        found = pull_of(head, slope, batch, 0.3)(rows, outputs[rows], free)
        expected = Descent(head, slope, batch, 0.3)(rows, outputs[rows], free)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)
    stopped = float((found[0] == 0).all(1).double().mean())
    assert 0.05 < stopped < 0.95 if epsilon < 1 or present else stopped == 0


@pytest.mark.parametrize("where", ["old_log_probs", "m_factors"])
def test_the_compiled_descent_keeps_what_is_not_a_number(where):
    outputs, draw = torch.zeros(4, 2), torch.ones(4)
    batch = UnitBatch(outputs, outputs, draw, draw)
    batch = dataclasses.replace(batch, **{where: torch.tensor([1.0, math.nan, 1.0, 1.0])})
    by_outputs, by_free = pull_of(Gaussian(2), Clipped(0.2), batch, 0.0)(slice(0, 4), outputs + 1, torch.zeros(2))
    assert by_outputs.isnan().all(1).tolist() == [False, True, False, False]
    assert by_free.isnan().all()
