"""What rewind can reach: bounded in number and memory, shared where nothing changed."""

from __future__ import annotations

import gc
import weakref

import pytest
from point_team import PointTeam

import workbench as wb

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
    with pytest.raises(ValueError, match="expected both ≥ 0"):
        trainer.past.limit(iterations=-1)


def test_its_memory_is_what_its_arrays_hold():
    trainer = trained(3)
    seen = {}
    for state in trainer.past:
        for vector in (*state.policies.values(), *state.critics.values()):
            for tensor in (vector.values, vector.first_moment, vector.second_moment):
                seen[id(tensor)] = tensor.nbytes
    assert sum(seen.values()) < trainer.past.bytes
    whole = trainer.past.bytes
    assert f"{whole / 2**20:.1f} MB" in repr(trainer.past)
    # Dropping the oldest one by one ends at nothing: what later states still use is charged to them, once.
    for kept in range(len(trainer.past), 0, -1):
        assert trainer.past.bytes > 0
        trainer.past._drop_oldest()
        assert len(trainer.past) == kept - 1
    assert trainer.past.bytes == 0


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
