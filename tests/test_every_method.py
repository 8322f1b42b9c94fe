"""Every method, on a robot and on a tabular game: fork, rewind and save from every place in an iteration end alike."""

from __future__ import annotations

import pytest

import workbench as wb
from workbench.recipes import METHODS

SMALL = {"n_steps": 6, "hidden_sizes": (16,), "threads": 1}


def ant():
    return wb.envs.mujoco("Ant", "4x2", n_envs=2, n_threads=1)


def game():
    return wb.envs.tabular(wb.theory.random_game(n_agents=3, n_states=4, seed=0), n_envs=4)


def position(trainer):
    return trainer.iteration, trainer.phase, len(trainer.remaining)


@pytest.mark.parametrize("make_env", [ant, game])
@pytest.mark.parametrize("method", METHODS)
def test_every_cursor_position_can_be_left_and_found_again(method, make_env, tmp_path):
    env = make_env()
    original = getattr(wb, method)(env, seed=0, **SMALL)
    original.iterate()
    ends, forks, loaded = 2, [], []
    while original.iteration < ends:
        forks.append(original.fork())
        loaded.append(wb.load(original.save(tmp_path / f"{len(loaded)}"), env=env))
        original.step()
    fingerprint = original.fingerprint()
    assert len(forks) == len(original.units) + 3
    for copy in (*forks, *loaded):
        copy.iterate()
        assert position(copy) == position(original)
        assert copy.fingerprint() == fingerprint
        assert copy.history["reward"].equals(original.history["reward"])
    for phases in range(1, len(forks) + 1):
        original.rewind(phases=phases)
        original.iterate()
        assert original.fingerprint() == fingerprint
