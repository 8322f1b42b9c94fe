"""Learning anywhere but in the CPU's memory: by torch's own operations, with the same results as the compiled passes.

Tests that withhold the compiled passes on the CPU run everywhere; the others want a GPU.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from point_team import PointTeam

import workbench as wb
from workbench.learning import critic, updates
from workbench.networks import cuda_graphs, kernels
from workbench.running.methods import METHODS

CLOSE = 1e-8  # in double precision, after two iterations
AFTER_CG = 1e-6  # conjugate gradients magnify the last bits
SMALL = {"n_steps": 12, "hidden_sizes": (16, 16), "threads": 1, "dtype": "float64"}
EXTRAS = {method: {} for method in METHODS}
EXTRAS |= {
    "happo": {"n_minibatches": 2, "value_clip_epsilon": 0.2, "huber_delta": 10.0},
    "hatrpo": {"max_kl": 0.01, "fisher_fraction": 0.5},
}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
everywhere = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])


class LimitedTeam(PointTeam):
    """Points that choose among three pushes, of which not all may always be taken; one agent leaves now and then."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.action_spaces = dict.fromkeys(self.agents, gymnasium.spaces.Discrete(3))

    def _show(self, *shown):
        step = super()._show(*shown)
        masks = {
            a: np.column_stack([self._x[:, i] > 0, np.ones(self.n_envs), self._x[:, i] < 1]) > 0
            for i, a in enumerate(self.agents)
        }
        return replace(step, action_masks=masks, active={self.agents[-1]: self._t % 3 > 0})

    def step(self, actions):
        return super().step({a: np.column_stack([chosen - 1.0, 0 * chosen]) for a, chosen in actions.items()})


def trained(method, env=None, **changes):
    env = env or wb.envs.mujoco("Walker2d", "2x3", n_envs=4, n_threads=1)
    trainer = getattr(wb, method)(env, seed=0, **SMALL | EXTRAS[method] | changes)
    for _ in range(2):
        trainer.iterate()
    return trainer


def without_compiled_code(monkeypatch, asked=None):
    """Everything as where tensors are not in the CPU's memory."""
    for module in (kernels, critic, updates):
        monkeypatch.setattr(module, "on_cpu", lambda tensor: None if asked is None else asked.append(tensor))


def parameters(trainer):
    found = {unit: policy.values for unit, policy in trainer._state.policies.items()}
    return found | {f"critic {name}": critic.values for name, critic in trainer._state.critics.items()}


def assert_alike(one, other):
    close = AFTER_CG if one.method == "HATRPO" else CLOSE
    for (name, values), others in zip(parameters(one).items(), parameters(other).values(), strict=True):
        torch.testing.assert_close(
            others.cpu(), values, rtol=close, atol=close, msg=lambda text, n=name: f"{n}: {text}"
        )
    for column in ("reward", "kl", "value_loss"):
        np.testing.assert_allclose(other.history[column], one.history[column], rtol=close)


@pytest.mark.parametrize("method", METHODS)
def test_without_compiled_passes_training_is_the_same(method, monkeypatch):
    compiled = trained(method)
    asked = []
    without_compiled_code(monkeypatch, asked)
    assert_alike(compiled, trained(method))
    assert asked


@everywhere
def test_a_clip_of_the_joint_ratio(device, monkeypatch):
    tight = {"joint_clip_epsilon": 0.02, "epochs": 3, "lr": 3e-3}
    compiled = trained("happo", **tight)
    without_compiled_code(monkeypatch)
    assert_alike(compiled, trained("happo", device=device, **tight))


@needs_gpu
@pytest.mark.parametrize("method", METHODS)
def test_on_a_gpu_training_is_the_same(method):
    on_gpu = trained(method, device="cuda")
    assert {values.device.type for values in parameters(on_gpu).values()} == {"cuda"}
    assert_alike(trained(method), on_gpu)


@needs_gpu
def test_a_recurrent_team_learns_on_a_gpu():
    shape = {"recurrent": True, "sequence_length": 4}
    assert_alike(trained("happo", **shape), trained("happo", device="cuda", **shape))


@pytest.mark.parametrize("method", ["happo", "hatrpo"])
@everywhere
def test_limited_actions_and_agents_who_leave(method, device, monkeypatch):
    compiled = trained(method, LimitedTeam())
    without_compiled_code(monkeypatch)
    assert_alike(compiled, trained(method, LimitedTeam(), device=device))


@everywhere
def test_equal_seeds_give_equal_bits(device):
    assert trained("happo", device=device).fingerprint() == trained("happo", device=device).fingerprint()


@everywhere
def test_what_is_shown_of_a_run_is_there_on_every_device(device, tmp_path):
    trainer = trained("happo", device=device)
    assert len(trainer.evaluate(2)) == 2
    trainer.step()
    trainer.step()
    assert tuple(trainer.m_factors) == trainer.iteration_order[:1]
    seen = {agent: np.zeros((3, *space.shape)) for agent, space in trainer.env.observation_spaces.items()}
    shapes = {agent: about["mean"].shape for agent, about in trainer.action_distributions(seen).items()}
    assert shapes == dict.fromkeys(trainer.env.agents, (3, 3))
    assert len(wb.try_orders(trainer, iterations_after=0)) == 4
    trainer.iterate()
    policies = wb.load_policies(wb.export_policies(trainer, tmp_path))
    np.testing.assert_allclose(
        policies.outputs("agent_0", seen["agent_0"]), trainer.action_distributions(seen)["agent_0"]["mean"], atol=CLOSE
    )


def scaled_sum(scale, x, y, bias):
    return (x * scale + y if bias is None else x * scale + y + bias), (x * y).sum()


@needs_gpu
def test_what_is_replayed_is_what_the_function_gives():
    draw = torch.Generator().manual_seed(0)
    x, y, bias = (torch.randn(*shape, generator=draw) for shape in ((3, 4), (3, 4), (4,)))
    on_gpu, calls = x.cuda(), []

    def check(*fixed):
        for tensors in ((on_gpu, y, bias), (on_gpu, y, None), (on_gpu[:2], y[:2], bias)):
            moved = [None if tensor is None else tensor.cuda() for tensor in tensors]
            found = cuda_graphs.replayed(scaled_sum, fixed, *tensors)
            calls.append(found)
            torch.testing.assert_close(found, scaled_sum(*fixed, *moved), rtol=0, atol=0)

    check(2.0)
    check(3.0)
    on_gpu.add_(1)  # the same tensor with other values
    check(2.0)
    y.add_(1)
    check(2.0)
    with torch.inference_mode():
        check(2.0)
    thread = threading.Thread(target=check, args=(2.0,))
    thread.start()
    thread.join()
    assert len(calls) == 18
    assert len({part.data_ptr() for found in calls for part in found}) == 36  # nobody's results are written over


@needs_gpu
def test_only_so_many_recordings_are_kept(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "KEPT", 3)
    x = torch.ones(2, device="cuda")
    for scale in range(8):
        assert cuda_graphs.replayed(scaled_sum, (scale,), x, x, None)[0].tolist() == [scale + 1.0] * 2
    assert len(cuda_graphs._recordings) == 3
    assert cuda_graphs.replayed(scaled_sum, (0,), x, x, None)[0].tolist() == [1.0, 1.0]


@needs_gpu
def test_a_run_on_a_gpu_is_forked_saved_and_taken_up_on_the_cpu(tmp_path):
    trainer = trained("happo", device="cuda")
    trainer.step()
    fork, path = trainer.fork(), trainer.save(tmp_path / "run.safetensors")
    trainer.iterate()
    fork.iterate()
    assert fork.fingerprint() == trainer.fingerprint()
    here = wb.load(path, device="cpu")
    here.iterate()
    assert_alike(here, trainer)
    assert trainer.evaluate(2).shape == (2,)
