"""One rollout under many orders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from point_team import PointTeam

import workbench as wb

SMALL = {"n_steps": 12, "hidden_sizes": (16,)}


def trainer_at(phases, **settings):
    trainer = wb.happo(PointTeam(), seed=0, **{**SMALL, **settings})
    trainer.iterate()
    for _ in range(phases):
        trainer.step()
    return trainer


@pytest.mark.parametrize("phases", [0, 1, 2])
def test_all_orders_of_one_rollout(phases):
    trainer = trainer_at(phases)
    before = trainer.fingerprint()
    table = wb.try_orders(trainer)
    assert trainer.fingerprint() == before
    assert set(table["order"]) == set(itertools.permutations(trainer.units))
    assert len(table) == 6 * 3
    for order, rows in table.groupby("order"):
        assert tuple(rows["agent"]) == order
        # The agents' gains add up to the joint one: the sequential update telescopes.
        assert rows["surrogate_gain"].sum() == pytest.approx(rows["joint_gain"].iloc[0], abs=1e-6)
    assert table["next_reward"].nunique() == 6


def test_an_order_gives_what_a_run_in_that_order_gives():
    trainer = trainer_at(0)
    table = wb.try_orders(trainer, orders=[(2, 0, 1)])
    alone = trainer.fork(order=(2, 0, 1))
    alone.iterate(), alone.iterate()
    assert table["next_reward"].iloc[0] == alone.history["reward"].iloc[-1]
    assert table["kl"].tolist() == alone.agent_history["kl"].iloc[3:6].tolist()


def test_the_first_agents_update_does_not_depend_on_who_follows():
    table = wb.try_orders(trainer_at(2), iterations_after=0)
    firsts = table[table["position"] == 0].groupby("agent")["surrogate_gain"]
    assert (firsts.nunique() == 1).all()
    assert np.isnan(table["next_reward"]).all()


def test_orders_are_sampled_above_the_bound():
    table = wb.try_orders(trainer_at(2), max_orders=4, iterations_after=0)
    again = wb.try_orders(trainer_at(2), max_orders=4, iterations_after=0)
    assert table["order"].nunique() == 4
    assert table.equals(again)


def test_the_middle_of_an_iteration_is_refused():
    with pytest.raises(ValueError, match=r"rewind\(iterations=0\)"):
        wb.try_orders(trainer_at(3))
    with pytest.raises(ValueError, match="is no permutation"):
        wb.try_orders(trainer_at(2), orders=[(0, 1)])
