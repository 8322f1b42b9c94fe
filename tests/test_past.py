"""What rewind can reach: bounded in number and memory, shared where nothing changed."""

from __future__ import annotations

import gc
import weakref
from types import ModuleType

import numpy as np
import psutil
import pytest
import torch
from point_team import PointTeam

import workbench as wb
from workbench.learning.history import Log
from workbench.learning.settings import Settings

SMALL = {"n_steps": 8, "hidden_sizes": (16,)}


def trained(iterations, **settings):
    trainer = wb.happo(PointTeam(), seed=0, **{**SMALL, **settings})
    return trainer.run(iterations=iterations, progress=False)


def test_it_reaches_ten_iterations_back_by_default():
    trainer = trained(14)
    assert len(trainer.past) == 60
    trainer.rewind(iterations=10)
    assert trainer.iteration == 4
    with pytest.raises(ValueError, match=r"nothing is kept yet \(past\.limit"):
        trainer.rewind(iterations=1)


def test_bounds_can_be_changed():
    trainer = trained(6)
    trainer.past.limit(iterations=2)
    assert len(trainer.past) == 12
    trainer.past.limit(megabytes=0.05)
    assert 0 < trainer.past.bytes <= 0.05 * 2**20
    trainer.past.limit(iterations=50)
    trainer.run(iterations=20, progress=False)
    assert len(trainer.past) > 12 * 6 or trainer.past.bytes > 0.04 * 2**20
    with pytest.raises(ValueError, match="expected an integer ≥ 0"):
        trainer.past.limit(iterations=-1)


def alive(past):
    """Bytes of all blocks of memory that tensors and arrays of the kept states keep alive, found by the collector."""
    blocks, seen, waiting = {}, set(), list(past)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | Log | Settings):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            blocks[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        elif isinstance(thing, np.ndarray) and thing.base is None:
            blocks[thing.__array_interface__["data"][0]] = thing.nbytes
        else:
            waiting += gc.get_referents(thing) if not isinstance(thing, np.ndarray) else [thing.base]
    return sum(blocks.values())


@pytest.mark.parametrize("settings", [{}, {"recurrent": True, "sequence_length": 4}])
def test_its_memory_is_what_its_arrays_hold(settings):
    trainer = trained(3, **settings)
    assert trainer.past.bytes == alive(trainer.past)
    assert f"{trainer.past.bytes / 2**20:.1f} MB" in repr(trainer.past)
    trainer.fork().rewind(iterations=1).run(iterations=2, progress=False)
    trainer.rewind(phases=5)
    assert trainer.past.bytes == alive(trainer.past)
    # Dropping the oldest one by one ends at nothing: what later states still use is charged to them, once.
    for kept in range(len(trainer.past), 0, -1):
        assert trainer.past.bytes > 0
        trainer.past._drop_oldest()
        assert len(trainer.past) == kept - 1
        assert trainer.past.bytes == alive(trainer.past)
    assert trainer.past.bytes == 0


def test_fifty_iterations_stay_within_the_memory_that_is_stated():
    trainer = trained(1)
    trainer.past.limit(iterations=50, megabytes=0.25)
    for _ in range(6):
        trainer.run(iterations=5, progress=False)
        assert alive(trainer.past) <= 0.25 * 2**20
    assert trainer.past.bytes > 0.2 * 2**20  # and use it
    trainer.past.limit(iterations=50, megabytes=64)
    trainer.run(iterations=55, progress=False)
    assert len(trainer.past) == 50 * 6
    assert alive(trainer.past) == trainer.past.bytes < 64 * 2**20


@pytest.mark.stress
def test_a_ring_of_fifty_iterations_of_ants_takes_no_more_of_the_machine():
    """Resident memory, which counts everything: what is stated, and what the C library has not given back yet."""
    trainer = wb.happo(wb.envs.mujoco("Ant", "4x2", n_envs=20), seed=0, epochs=1, critic_epochs=1)
    trainer.past.limit(iterations=0)
    trainer.run(iterations=3, progress=False)
    process = psutil.Process()
    before = process.memory_info().rss
    trainer.past.limit(iterations=50, megabytes=400)
    trainer.run(iterations=50, progress=False)
    grown = process.memory_info().rss - before
    print(f"{trainer.past!r}; the process grew by {grown / 2**20:.1f} MB")
    assert trainer.past.bytes <= 400 * 2**20
    assert 0.8 * trainer.past.bytes < grown < 1.4 * trainer.past.bytes


def test_a_phase_costs_what_it_changed():
    trainer = trained(2)
    trainer.step(), trainer.step()
    before = trainer.past.bytes
    trainer.step()  # keeps the state before the first agent's update, whose rollout is new
    with_rollout = trainer.past.bytes - before
    trainer.step()  # adds one agent's parameters and moments, a ratio and an M-factor
    vector = trainer._state.policies["agent_0"]
    expected = 3 * vector.values.nbytes + 2 * 8 * 4 * 4
    assert trainer.past.bytes - before - with_rollout <= expected


def test_what_is_forgotten_is_freed():
    trainer = trained(1)
    rollout = weakref.ref(trainer._state.rollout.rewards)
    trainer.past.limit(iterations=1)
    trainer.run(iterations=3, progress=False)
    gc.collect()
    assert rollout() is None


def test_a_forks_past_is_its_own():
    trainer = trained(3)
    fork = trainer.fork()
    fork.rewind(iterations=2)
    fork.run(iterations=1, progress=False)
    assert trainer.iteration == 3
    trainer.rewind(iterations=3)
    assert trainer.iteration == 0
