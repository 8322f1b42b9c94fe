"""Learning anywhere but in the CPU's memory: by torch's own operations, with the same results as the compiled passes.

The first test withholds the compiled passes on the CPU, so that it runs everywhere; the others want a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import workbench as wb
from workbench import kernels
from workbench.recipes import METHODS

CLOSE = 1e-8  # relative, in double precision, after two iterations
SMALL = {"n_steps": 12, "hidden_sizes": (16, 16), "threads": 1, "dtype": "float64"}
EXTRAS = {method: {} for method in METHODS}
EXTRAS |= {
    "happo": {"n_minibatches": 2, "value_clip_epsilon": 0.2, "huber_delta": 10.0},
    "hatrpo": {"max_kl": 0.01, "fisher_fraction": 0.5},
}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")


def trained(method, **changes):
    env = wb.envs.mujoco("Walker2d", "2x3", n_envs=4, n_threads=1)
    trainer = getattr(wb, method)(env, seed=0, **SMALL | EXTRAS[method] | changes)
    for _ in range(2):
        trainer.iterate()
    return trainer


def parameters(trainer):
    found = {unit: policy.values for unit, policy in trainer._state.policies.items()}
    return found | {f"critic {name}": critic.values for name, critic in trainer._state.critics.items()}


def assert_alike(one, other):
    for (name, values), others in zip(parameters(one).items(), parameters(other).values(), strict=True):
        torch.testing.assert_close(
            others.cpu(), values, rtol=CLOSE, atol=CLOSE, msg=lambda text, n=name: f"{n}: {text}"
        )
    for column in ("reward", "kl", "value_loss"):
        np.testing.assert_allclose(other.history[column], one.history[column], rtol=CLOSE)


@pytest.mark.parametrize("method", METHODS)
def test_without_compiled_passes_training_is_the_same(method, monkeypatch):
    compiled = trained(method)
    asked = []
    monkeypatch.setattr(kernels, "reach", lambda tensor: asked.append(tensor) or False)
    assert_alike(compiled, trained(method))
    assert asked


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
