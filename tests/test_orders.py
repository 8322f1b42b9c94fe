"""Who is next: fixed rules, rules that look, rules of one's own, and a hand that overrules them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from point_team import PointTeam

import workbench as wb
from workbench.learning.agent_turn import agent_turn, scores
from workbench.learning.orders import RULES, OrderContext, adaptive, rule_for

SMALL = {"n_steps": 12, "hidden_sizes": (8,)}


def context(remaining=("a", "b", "c", "d"), *, iteration=0, position=0, promised=None, seed=0):
    asked = []

    def give():
        asked.append(promised)
        return promised

    rng = np.random.Generator(np.random.PCG64(seed))
    return OrderContext(("a", "b", "c", "d"), tuple(remaining), iteration, rng, position, give), asked


def test_rules_that_look_at_nothing():
    for left in ("abcd", "bd"):
        where, asked = context(left)
        assert RULES["fixed"](where) == list(left)
        assert RULES["reversed"](where) == list(left)[::-1]
        assert sorted(RULES["random"](where)) == list(left)
        assert not asked
    cycle = ["".join(RULES["cyclic"](context(iteration=k)[0])) for k in range(5)]
    assert cycle == ["abcd", "bcda", "cdab", "dabc", "abcd"]
    assert RULES["cyclic"](context("ad", iteration=3)[0]) == ["d", "a"]


def test_random_orders_are_uniform():
    drawn = Counter(tuple(RULES["random"](context("abcd", seed=seed)[0])) for seed in range(2400))
    assert len(drawn) == 24
    # χ² with 23 degrees of freedom stays below 49.7 with probability 0.999.
    assert sum((count - 100) ** 2 / 100 for count in drawn.values()) < 49.7


def test_greedy_takes_the_most_promising_first_and_breaks_ties_by_the_teams_order():
    where, _ = context(promised={"a": 1.0, "b": 3.0, "c": 1.0, "d": 2.0})
    assert RULES["greedy"](where) == ["b", "d", "a", "c"]


def test_semi_greedy_takes_turns():
    promised = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 4.0}
    assert all(RULES["semi_greedy"](context(promised=promised, seed=s)[0])[0] == "d" for s in range(20))
    odd = [context("abc", promised=promised, position=1, seed=s)[0] for s in range(300)]
    firsts = Counter(RULES["semi_greedy"](where)[0] for where in odd)
    assert set(firsts) == {"a", "b", "c"}
    # 300 draws of 1/3 each: 100 ± 4 standard deviations of √(300·2/9) = 8.2.
    assert all(67 < count < 133 for count in firsts.values())


def dense_score(trainer, unit, damping=0.1):
    """√(gᵀ(F + damping)⁻¹g) with the Hessian of the KL written out."""
    setup, state = trainer._setup, trainer._state
    policy, theta = setup.team.policies[unit], state.policies[unit].values
    turn = agent_turn(setup, state, unit)
    batch, old = turn.batch, turn.old

    def surrogate(values):
        r = (policy.log_probs(values, batch.observations, batch.actions) - batch.old_log_probs).exp()
        return (r * batch.m_factors).mean()

    def kl(values):
        return policy.head.kl(old, policy.distribution(values, batch.observations)).mean()

    g = torch.autograd.functional.jacobian(surrogate, theta)
    h = torch.autograd.functional.hessian(kl, theta) + damping * torch.eye(len(theta), dtype=theta.dtype)
    return float((g @ torch.linalg.solve(h, g)).sqrt())


def test_scores_are_the_expected_gain_on_the_present_m_factors():
    # Wide steps, so that the M-factors differ from agent to agent; CG runs to the end.
    trainer = wb.hatrpo(
        PointTeam(), seed=0, dtype="float64", max_kl=0.3, cg_iterations=200, n_steps=12, hidden_sizes=(4,)
    )
    trainer.step(), trainer.step()
    while trainer.phase == "update_agent":
        left = trainer.remaining
        found = scores(trainer._setup, trainer._state, left)
        assert list(found) == list(left)
        for unit in left:
            assert found[unit] == pytest.approx(dense_score(trainer, unit), rel=1e-6)
        trainer.step()


@pytest.mark.parametrize(("make", "far"), [(wb.happo, {"lr": 1e-3}), (wb.hatrpo, {"team_max_kl": 0.2})])
def test_greedy_chooses_anew_before_each_update(make, far):
    trainer = make(PointTeam(n_agents=4), seed=1, order="greedy", **far, **SMALL)
    assert trainer.remaining == trainer.units  # nothing is known yet
    predicted = chosen = ()
    for _ in range(6):
        trainer.step()
        assert trainer.step().order == trainer.remaining
        predicted += trainer.remaining
        while trainer.phase == "update_agent":
            promised = scores(trainer._setup, trainer._state, trainer.remaining)
            assert trainer.remaining[0] == max(promised, key=promised.__getitem__)
            chosen += (trainer.step().agent,)
        trainer.step()
        assert trainer.history["order"].iloc[-1] == chosen[-4:] == trainer.iteration_order
    assert predicted != chosen  # what the first updates did to M changed who came next


def test_semi_greedy_in_a_run():
    trainer = wb.happo(PointTeam(n_agents=4), seed=0, order="semi_greedy", **SMALL)
    best = {0: [], 1: [], 2: []}
    for _ in range(8):
        trainer.step(), trainer.step()
        while trainer.phase == "update_agent":
            position = 4 - len(trainer.remaining)
            promised = scores(trainer._setup, trainer._state, trainer.remaining)
            chosen = trainer.step().agent
            best.setdefault(position, []).append(chosen == max(promised, key=promised.__getitem__))
        trainer.step()
    assert all(best[0])
    assert all(best[2])
    assert not all(best[1])


@pytest.mark.parametrize("order", ["greedy", "semi_greedy"])
def test_an_adaptive_order_resumes_and_forks_exactly(order, tmp_path):
    env = PointTeam(n_agents=4)
    trainer = wb.happo(env, seed=0, order=order, **SMALL)
    trainer.iterate()
    for _ in range(4):
        trainer.step()
    fork, saved = trainer.fork(), wb.load(trainer.save(tmp_path / "run.wb"), env=PointTeam(n_agents=4))
    for each in (trainer, fork, saved):
        each.iterate(), each.iterate()
    assert trainer.fingerprint() == fork.fingerprint() == saved.fingerprint()


def test_a_callable_is_asked_once_and_an_adaptive_one_before_each_update():
    asked = []

    def once(where):
        asked.append(where.remaining)
        return where.remaining[::-1]

    trainer = wb.happo(PointTeam(), seed=0, order=once, **SMALL)
    asked.clear()
    trainer.iterate()
    assert asked == [("agent_0", "agent_1", "agent_2")]

    @adaptive
    def each_time(where):
        asked.append((where.position, where.remaining))
        return sorted(where.remaining, key=where.scores().__getitem__)

    trainer.order = each_time
    asked.clear()
    trainer.iterate()
    assert [position for position, _ in asked] == [0, 1]  # with one left there is nothing to ask
    assert [len(left) for _, left in asked] == [3, 2]


def test_a_hand_overrules_an_adaptive_order_for_the_rest_of_the_iteration(tmp_path):
    trainer = wb.happo(PointTeam(n_agents=4), seed=0, order="greedy", **SMALL)
    trainer.step(), trainer.step(), trainer.step()
    worst_first = trainer.remaining[::-1]
    trainer.order = worst_first
    assert trainer.order == "greedy"
    saved = wb.load(trainer.save(tmp_path / "run.wb"), env=PointTeam(n_agents=4))
    for each in (trainer, saved):
        assert each.remaining == worst_first
        each.iterate()
        assert each.iteration_order[1:] == worst_first
        each.step(), each.step()
        promised = scores(each._setup, each._state, each.remaining)
        assert each.remaining[0] == max(promised, key=promised.__getitem__)
    assert trainer.fingerprint() == saved.fingerprint()


def test_setting_greedy_midway_chooses_among_who_is_left():
    trainer = wb.happo(PointTeam(n_agents=4), seed=0, order="fixed", **SMALL)
    trainer.step(), trainer.step(), trainer.step()
    trainer.order = "greedy"
    promised = scores(trainer._setup, trainer._state, trainer.remaining)
    assert trainer.remaining == tuple(sorted(promised, key=lambda unit: -promised[unit]))
    assert "agent_0" not in trainer.remaining


def test_unknown_rules_are_refused_by_name():
    with pytest.raises(ValueError, match=r"unknown order 'semigreedy'; did you mean 'semi_greedy'\?"):
        rule_for("semigreedy", str)
    with pytest.raises(ValueError, match="unknown order 'gready'; did you mean 'greedy'"):
        wb.happo(PointTeam(), order="gready")
