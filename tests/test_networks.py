"""The flat network against torch's own layers and optimiser."""

from __future__ import annotations

import itertools

import pytest
import torch

from workbench.networks.mlp import ACTIVATIONS, LAYER_NORMS, Adam, Mlp, ParameterVector, clip_norm

MODULES = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "silu": torch.nn.SiLU, "elu": torch.nn.ELU}


def reference_module(network, flat):
    """The same network from torch.nn's layers, with LayerNorm's gain and bias where the definition has them."""
    widths = (network.n_inputs, *network.hidden_sizes, network.n_outputs)
    modules = []
    for (n, m), layer in zip(itertools.pairwise(widths), network.layers(flat)[0], strict=True):
        if layer.gain is not None:
            norm = torch.nn.LayerNorm(n, dtype=flat.dtype)
            norm.weight.data, norm.bias.data = layer.gain.clone(), layer.shift.clone()
            modules.append(norm)
        linear = torch.nn.Linear(n, m, dtype=flat.dtype)
        linear.weight.data, linear.bias.data = layer.weight.T.clone(), layer.bias.clone()
        modules += [linear, MODULES[network.activation]()]
    return torch.nn.Sequential(*modules[:-1])


def random_flat(network, seed=0):
    flat = network.initial(torch.Generator().manual_seed(seed), torch.float64)
    return flat + 0.1 * torch.randn(network.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layer_norm", LAYER_NORMS)
def test_folded_forward_and_gradient_equal_the_unfolded_ones(activation, layer_norm):
    network = Mlp(5, 3, (8, 7), activation=activation, layer_norm=layer_norm)
    flat = random_flat(network).requires_grad_()
    inputs = torch.randn(11, 5, dtype=torch.float64)
    module = reference_module(network, flat.detach())
    norms = [layer for layer in module if isinstance(layer, torch.nn.LayerNorm)]
    assert len(norms) == {False: 0, "hidden": 2, "all": 3}[layer_norm]
    ours, theirs = network.forward(network.fold(flat), inputs), module(inputs)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(ours.square().sum(), flat)
    theirs.square().sum().backward()
    linears = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
    layers, _ = network.layers(gradient)
    for layer, linear in zip(layers, linears, strict=True):
        torch.testing.assert_close(layer.weight, linear.weight.grad.T, rtol=0, atol=1e-10)
        torch.testing.assert_close(layer.bias, linear.bias.grad, rtol=0, atol=1e-10)
    for layer, norm in zip(layers[len(layers) - len(norms) :], norms, strict=True):
        torch.testing.assert_close(layer.gain, norm.weight.grad, rtol=0, atol=1e-10)
        torch.testing.assert_close(layer.shift, norm.bias.grad, rtol=0, atol=1e-10)


def test_a_stack_evaluates_as_its_members_do():
    network = Mlp(5, 3, (8,), layer_norm="all")
    flats = torch.stack([random_flat(network, seed) for seed in range(4)])
    inputs = torch.randn(4, 11, 5, dtype=torch.float64)
    stacked = network.forward(network.fold(flats), inputs)
    torch.testing.assert_close(network.evaluate(flats, inputs), stacked, rtol=0, atol=1e-12)
    for i in range(4):
        torch.testing.assert_close(stacked[i], network.forward(network.fold(flats[i]), inputs[i]))


def test_layout_covers_the_vector_and_rows_stay_aligned():
    network = Mlp(31, 2, (128, 128), n_free=2, layer_norm="all")
    assert network.n_parameters == 31 * 2 + 31 * 128 + 128 + 2 * 128 + 128 * 128 + 128 + 2 * 128 + 128 * 2 + 2 + 2
    assert network.size % 16 == 0
    assert 0 <= network.size - network.n_parameters < 16


def test_initial_weights_are_orthogonal_with_their_gains():
    network = Mlp(6, 2, (6,))
    parts = network.views(network.initial(torch.Generator().manual_seed(0), torch.float64))
    eye = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(parts[0].T @ parts[0], 2 * eye)
    torch.testing.assert_close(parts[2].T @ parts[2], 1e-4 * eye[:2, :2])


def test_adam_is_torchs_adam_and_leaves_its_start_alone():
    start = torch.randn(64)
    vector = ParameterVector.of(start.clone())
    ours = Adam(vector)
    parameter = torch.nn.Parameter(start.clone())
    theirs = torch.optim.Adam([parameter], lr=1e-2, eps=1e-5)
    for seed in range(5):
        gradient = torch.randn(64, generator=torch.Generator().manual_seed(seed))
        ours.step(gradient, 1e-2)
        parameter.grad = gradient.clone()
        theirs.step()
    result = ours.result()
    assert torch.equal(result.values, parameter.detach())
    assert result.steps == 5
    assert torch.equal(vector.values, start)
    assert vector.steps == 0


@pytest.mark.parametrize(("norm", "clipped"), [(3.0, 3.0), (30.0, 10.0)])
def test_clip_norm(norm, clipped):
    gradient = torch.zeros(9)
    gradient[4] = norm
    ours, before = clip_norm(gradient, 10.0)
    assert before == norm
    assert torch.linalg.vector_norm(ours).item() == pytest.approx(clipped)
