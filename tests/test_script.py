"""A run as Python: what it writes ends in the same fingerprint in a fresh process, whatever was clicked."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys

import pytest
from point_team import PointTeam

import workbench as wb
from workbench.running.methods import METHODS

SMALL = {"n_steps": 8, "hidden_sizes": (8,), "threads": 1, "epochs": 2, "critic_epochs": 2}

# Values to choose from for every live setting but the order; a live setting without is a failure of this test.
VALUES = {
    "n_steps": (4, 8, 12),
    "gamma": (0.9, 0.95),
    "gae_lambda": (0.5, 1.0),
    "standardize_advantages": (False, True),
    "critic_lr": (1e-4, 3e-3),
    "critic_epochs": (1, 3),
    "critic_minibatches": (1, 2),
    "value_clip_epsilon": (None, 0.2),
    "huber_delta": (None, 10.0),
    "max_grad_norm": (0.3, 10),
    "lr_decay_steps": (None, 100),
    "final_lr_fraction": (0.0, 0.5),
    "threads": (1, 2),
    "preceding_correction": (None, "ratio", "trace"),
    "ratio_clamp": (None, "upper", (0.5, 2.0)),
    "lr": (1e-4, 1e-3),
    "epochs": (1, 3),
    "n_minibatches": (1, 2),
    "entropy_coef": (0.0, 0.01),
    "clip_epsilon": (0.05, 0.3),
    "clip_schedule": (None, "linear", "team_size"),
    "team_target_kl": (None, 0.01),
    "target_kl": (None, 0.01),
    "joint_clip_epsilon": (None, 0.4),
    "team_max_kl": (0.01, 0.05),
    "max_kl": (0.001, 0.02),
    "kl_allocation": ("uniform", "kkt", "greedy"),
    "damping": (0.01, 0.3),
    "cg_iterations": (3, 5),
    "line_search_steps": (3, 6),
    "line_search_decay": (0.5, 0.7),
    "accept_ratio": (0.0, 0.3),
    "policy_steps": (1, 2),
    "fisher_fraction": (0.5, 1.0),
}
DEEDS = (*["step"] * 3, "iterate", *["change"] * 3, *["order"] * 2, "fork", "rewind", "load", "evaluate")
RULES = ("random", "fixed", "reversed", "cyclic", "greedy", "semi_greedy")


def live_settings(method):
    return [f.name for f in dataclasses.fields(METHODS[method].settings) if f.metadata["live"] and f.name != "order"]


def made(rng):
    method = rng.choice(list(METHODS))
    settings = {name: value for name, value in SMALL.items() if name in METHODS[method].settings.names()}
    if method == "hatrpo" and rng.random() < 0.5:
        settings["max_kl"] = 0.01
    if rng.random() < 0.5:
        game = wb.theory.random_game(3, 2, 2, discount=0.5, seed=rng.randrange(100))
        env = wb.envs.tabular(game, n_envs=4, max_episode_steps=6)
    else:
        env = wb.envs.mujoco("Hopper", "3x1", n_envs=2, n_threads=1, max_episode_steps=20, reset_noise_scale=0.01)
    return getattr(wb, method)(env, seed=rng.randrange(5), **settings)


def changed(rng, trainer, method):
    """A live setting by hand; one that does not go with the others is refused, and is no part of the run."""
    name = rng.choice(live_settings(method))
    try:
        setattr(trainer, name, rng.choice(VALUES[name]))
    except ValueError:
        return


def reordered(rng, trainer):
    left = list(trainer.remaining) if trainer.phase == "update_agent" and rng.random() < 0.7 else list(trainer.units)
    trainer.order = rng.choice(RULES) if rng.random() < 0.4 or len(left) < 2 else rng.sample(left, len(left))


def random_history(seed, directory):
    """A trainer after some forty things done to it at random."""
    rng = random.Random(seed)
    trainer = made(rng)
    method = trainer._setup.method_name
    for _ in range(rng.randrange(5, 40)):
        what = rng.choice(DEEDS)
        if what == "step":
            trainer.step()
        elif what == "iterate":
            trainer.iterate() if rng.random() < 0.7 else trainer.run(iterations=2, progress=False)
        elif what == "change":
            changed(rng, trainer, method)
        elif what == "order":
            reordered(rng, trainer)
        elif what == "fork":
            trainer = trainer.fork(gamma=0.97) if rng.random() < 0.5 else trainer.fork()
        elif what == "rewind" and len(trainer.past):
            trainer.rewind(rng.randrange(1, min(len(trainer.past), 9) + 1))
        elif what == "load":
            trainer.save(directory / "run.safetensors")
            trainer = wb.load(directory / "run.safetensors")
        elif what == "evaluate":
            trainer.evaluate(1, max_steps=3)
    return trainer


ALL_OF_THEM = """
import runpy, sys
for path in sys.argv[1:]:
    runpy.run_path(path)
"""


def run_in_a_fresh_process(scripts, directory):
    """The fingerprints that they print."""
    paths = [directory / f"script_{k}.py" for k in range(len(scripts))]
    for path, text in zip(paths, scripts, strict=True):
        path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-c", ALL_OF_THEM, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def check_histories(seeds, directory):
    runs = [random_history(seed, directory) for seed in seeds]
    scripts = [run.script() for run in runs]
    found = run_in_a_fresh_process(scripts, directory)
    for seed, run, script, fingerprint in zip(seeds, runs, scripts, found, strict=True):
        assert fingerprint == run.fingerprint(), f"history {seed}:\n{script}"


@pytest.mark.parametrize("method", METHODS)
def test_every_live_setting_is_tried(method):
    assert set(live_settings(method)) <= set(VALUES)


def test_a_script_ends_in_the_same_fingerprint_in_a_fresh_process(tmp_path):
    check_histories(range(6), tmp_path)


@pytest.mark.stress
@pytest.mark.parametrize("first", range(0, 200, 20))
def test_two_hundred_scripts_end_in_the_same_fingerprint(first, tmp_path):
    check_histories(range(first, first + 20), tmp_path)


def test_it_reads_as_a_person_would_write_it():
    env = wb.envs.mujoco("Hopper", "3x1", n_envs=2)
    trainer = wb.hatrpo(env, seed=3, n_steps=8, max_kl=0.01, threads=1, order="fixed")
    for _ in range(3):
        trainer.step()
    trainer.order = (2, 1)
    trainer.iterate(), trainer.iterate(), trainer.iterate()
    fork = trainer.fork(damping=0.2, gamma=0.9)
    fork.iterate()
    fork.order = "random"  # undone with the phase after it
    fork.step(), fork.step(), fork.rewind(iterations=1)
    fork.step()
    assert (
        fork.script()
        == f"""\
import workbench as wb

env = wb.envs.mujoco("Hopper", "3x1", n_envs=2)
trainer = wb.hatrpo(env, seed=3, n_steps=8, order="fixed", threads=1, max_kl=0.01)
for _ in range(3):
    trainer.step()
trainer.order = ("agent_2", "agent_1")
trainer.iterate()
trainer.run(iterations=2)
trainer = trainer.fork(damping=0.2, gamma=0.9)
trainer.step()
print(trainer.fingerprint())  # {fork.fingerprint()}
"""
    )


def gap_of(trainer):
    """The comment and the error in which a script stops."""
    lines = trainer.script().splitlines()
    (where,) = [k for k, line in enumerate(lines) if line.startswith("raise ")]
    with pytest.raises(NotImplementedError) as raised:
        exec("\n".join(lines[: where + 1]), {})
    assert lines[where - 1] == f"# {raised.value}"
    return str(raised.value)


def test_what_cannot_be_written_stands_as_a_gap(tmp_path):
    game = wb.envs.tabular(wb.theory.simultaneous_game(), n_envs=4)
    assert "PointTeam has no description" in gap_of(wb.happo(PointTeam(), threads=1))
    own = wb.happo(game, order=lambda context: context.remaining)
    assert gap_of(own).startswith("Order was the function")
    later = wb.happo(game)
    later.step()
    later.order = lambda context: context.remaining
    assert "<lambda>" in gap_of(later)
    later.rewind()
    assert "raise" not in later.script()
    shown = later.replay()
    assert "start_here" in gap_of(shown.start_here())


def test_a_change_back_to_what_it_was_is_no_order(tmp_path):
    trainer = wb.happo(wb.envs.tabular(wb.theory.simultaneous_game(), n_envs=4), n_steps=4)
    for _ in range(3):
        trainer.step()
    trainer.gamma = trainer.gamma
    assert trainer.interventions[-1].new == 0.99
    assert "trainer.gamma = 0.99" in trainer.script()
