"""Every method, on a robot and on a tabular game: fork, rewind and save from every place in an iteration end alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import workbench as wb
from workbench.running.methods import METHODS

SMALL = {"n_steps": 6, "hidden_sizes": (16,), "threads": 1}
ENDS = 2  # iterations


def ant():
    return wb.envs.mujoco("Ant", "4x2", n_envs=2, n_threads=1)


def game():
    return wb.envs.tabular(wb.theory.random_game(n_agents=3, n_states=4, seed=0), n_envs=4)


ENVIRONMENTS = {"ant": ant, "game": game}


def begun(method, place):
    """A run of one iteration."""
    trainer = getattr(wb, method)(ENVIRONMENTS[place](), seed=0, **SMALL)
    trainer.iterate()
    return trainer


def position(trainer):
    return trainer.iteration, trainer.phase, len(trainer.remaining)


@pytest.mark.parametrize("place", ENVIRONMENTS)
@pytest.mark.parametrize("method", METHODS)
def test_every_cursor_position_can_be_left_and_found_again(method, place):
    original, forks = begun(method, place), []
    while original.iteration < ENDS:
        forks.append(original.fork())
        original.step()
    fingerprint = original.fingerprint()
    assert len(forks) == len(original.units) + 3
    for fork in forks:
        fork.iterate()
        assert position(fork) == position(original)
        assert fork.fingerprint() == fingerprint
        assert fork.history["reward"].equals(original.history["reward"])
    for phases in range(1, len(forks) + 1):
        original.rewind(phases=phases)
        original.iterate()
        assert original.fingerprint() == fingerprint
        assert len(original.history) == ENDS


# Knows the files and nothing else.
FINISH = f"""
import json, sys
import workbench as wb
for path in sys.argv[1:]:
    trainer = wb.load(path)
    while trainer.iteration < {ENDS}:
        trainer.step()
    print(json.dumps([trainer.fingerprint(), trainer.history["reward"].tolist()]))
"""


@pytest.fixture(scope="module")
def finished_elsewhere(tmp_path_factory):
    """{(method, place): (what the run ended with, what another process made of its file of every cursor position)}."""
    directory = tmp_path_factory.mktemp("saved")
    ends, files = {}, {}
    for run in [(method, place) for method in METHODS for place in ENVIRONMENTS]:
        trainer, files[run] = begun(*run), []
        while trainer.iteration < ENDS:
            files[run].append(trainer.save(directory / f"{'-'.join(run)}-{len(files[run])}"))
            trainer.step()
        ends[run] = [trainer.fingerprint(), trainer.history["reward"].tolist()]
        assert len(files[run]) == len(trainer.units) + 3
    command = [sys.executable, "-c", FINISH, *(str(path) for paths in files.values() for path in paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    found = iter(map(json.loads, result.stdout.splitlines()))
    return {run: (ends[run], [next(found) for _ in paths]) for run, paths in files.items()}


@pytest.mark.parametrize("place", ENVIRONMENTS)
@pytest.mark.parametrize("method", METHODS)
def test_another_process_finishes_what_was_saved_at_every_cursor_position(method, place, finished_elsewhere):
    end, found = finished_elsewhere[method, place]
    assert found
    assert all(each == end for each in found)


class LastFirst:
    """A rule that is an object, and cannot be copied."""

    def __call__(self, context):
        return context.remaining[::-1]

    def __deepcopy__(self, _):
        raise TypeError("one is enough")


@pytest.mark.parametrize("method", METHODS)
def test_whatever_a_trainer_accepts_it_can_save(method, tmp_path):
    trainer = begun(method, "game")
    order = np.arange(len(trainer.units))[::-1]
    for number, changes in enumerate(
        ({"order": LastFirst()}, {"order": order}, {"gamma": np.float32(0.9)}, {"n_steps": np.int64(8)})
    ):
        rule = {"order": changes["order"]} if callable(changes.get("order")) else {}
        made = getattr(wb, method)(game(), seed=0, **{**SMALL, **changes})
        for run in (trainer.fork(**changes), made):
            loaded = wb.load(run.save(tmp_path / "run"), **rule)
            assert loaded.fingerprint() == run.fingerprint()
        trainer.fork(**changes).run(iterations=1, directory=tmp_path / str(number), progress=False)
        assert list((tmp_path / str(number)).glob("checkpoint-*"))
