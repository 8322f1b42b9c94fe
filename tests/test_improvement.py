"""What an iteration promised and what it kept, exactly and by fresh episodes; and forks under other settings."""

from __future__ import annotations

import numpy as np
import pytest
from point_team import PointTeam

import workbench as wb
from workbench.envs import TeamEnv
from workbench.errors import SnapshotUnsupported
from workbench.running.improvement import exact_improvement, tabular_policies
from workbench.theory import evaluate, joint_policy

SMALL = {"n_steps": 32, "hidden_sizes": (16,), "gamma": 0.5, "threads": 1}
GAME = wb.theory.random_game(3, 3, 2, discount=0.5, seed=1)


def trained(method="happo", game=GAME, iterations=1, n_envs=32, **settings):
    env = wb.envs.tabular(game, n_envs=n_envs, max_episode_steps=40 if game.discount else None)
    return getattr(wb, method)(env, seed=0, **{**SMALL, **settings}).run(iterations, progress=False)


@pytest.mark.parametrize("method", ["happo", "hatrpo"])
def test_the_exact_form_telescopes(method):
    trainer = trained(method)
    table = wb.improvement(trainer, 2).table.set_index("stage")
    gains = table.loc[[*trainer.iteration_order, "end"], "exact_gain"]
    assert abs(gains.sum() - table.loc["iteration", "exact_gain"]) < 1e-10
    # The surrogates add up to the joint policy's, E_{s~ρ_old, a~π_new}[A_old].
    states = trainer._last_iteration()
    old, new = (tabular_policies(trainer._setup, state) for state in (states[0], states[-1]))
    before = evaluate(GAME, old)
    joint = float((before.visitation[:, None, None, None] * joint_policy(new) * before.advantages).sum())
    assert abs(table.loc["iteration", "exact_promised"] - joint) < 1e-10
    assert table.loc["before", "exact_J"] == before.objective
    assert table.loc["iteration", "exact_gain"] == pytest.approx(evaluate(GAME, new).objective - before.objective)


def test_a_simultaneous_method_promises_what_each_agent_would_gain_alone():
    trainer = trained("mappo")
    states = trainer._last_iteration()
    order = trainer.iteration_order
    _, promised = exact_improvement(trainer._setup, [*states[2:-1], states[-1]], order)
    _, reverse = exact_improvement(trainer._setup, [*states[2:-1], states[-1]], order[::-1])
    assert promised == reverse[::-1]  # nobody's hangs on who went before


def test_what_the_update_was_fitted_to_is_what_it_logged():
    trainer = trained("hatrpo", standardize_advantages=False)
    table = wb.improvement(trainer, 2).table.set_index("stage")
    logged = trainer.agent_history.set_index("agent")["surrogate_gain"]
    length = sum(0.5**t for t in range(40))
    for agent in trainer.units:
        assert table.loc[agent, "promised"] == pytest.approx(length * logged[agent], rel=1e-4)


def test_the_held_out_gain_of_a_linear_toy_is_the_known_one():
    # One state, one step: J is linear in each policy, the surrogate is E[(r − 1)·w·reward], whatever the critic says.
    game = wb.theory.matrix_game([[0.0, 1.0], [1.0, 3.0]])
    trainer = trained(game=game, n_envs=256, n_steps=64)
    table = wb.improvement(trainer, 2).table.set_index("stage")
    samples = 256 * 64
    for agent in trainer.units:
        gap = table.loc[agent, "held_out"] - table.loc[agent, "exact_promised"]
        assert abs(gap) < 5 * 0.4 / np.sqrt(samples)  # 5 deviations of (r − 1)·A, which is below 0.4
    # And in such a game what the agents promise one after another is what J does, to the last digit.
    assert abs(table.loc["iteration", "exact_promised"] - table.loc["iteration", "exact_gain"]) < 1e-10
    assert abs(table.loc["iteration", "held_out"] - table.loc["iteration", "exact_gain"]) < 0.02


def covered(trials, episodes=100):
    """The share of intervals that hold the exact J."""
    trainer = trained()
    inside = 0
    for seed in range(trials):
        before = wb.improvement(trainer, episodes, seed=seed).table.iloc[0]
        inside += before["J_low"] < before["exact_J"] < before["J_high"]
    return inside / trials


def test_intervals_of_sampled_j_hold_the_exact_one():
    assert covered(12, 60) >= 0.75  # of 12 at 95 % fewer than 9 have a chance of 2 in 1,000


@pytest.mark.stress
def test_intervals_of_sampled_j_hold_the_exact_one_as_often_as_they_say():
    assert 0.93 <= covered(1000) <= 0.97


@pytest.mark.parametrize("method", ["happo", "shared_ppo", "ippo"])
def test_it_changes_nothing(method):
    trainer = trained(method)
    before = trainer.fingerprint()
    last = wb.improvement(trainer, 4)
    following = wb.improvement(trainer, 4, which="next")
    assert trainer.fingerprint() == before
    assert following.table["iteration"].iloc[0] == last.table["iteration"].iloc[0] + 1
    twin = trained(method)
    assert twin.run(1, progress=False).fingerprint() == trainer.run(1, progress=False).fingerprint()
    assert wb.improvement(trainer, 4).table.equals(following.table)  # the next, once it is the last


def test_a_run_keeps_it_and_a_checkpoint_too(tmp_path):
    trainer = trained(iterations=0)
    trainer.run(4, progress=False, measure_improvement_every=2, improvement_episodes=4)
    assert trainer.improvements["iteration"].unique().tolist() == [1, 3]
    assert wb.improvement(trainer, 4).table.equals(trainer.improvements.tail(6).reset_index(drop=True))
    assert wb.load(trainer.save(tmp_path / "run.safetensors")).improvements.equals(trainer.improvements)
    assert trainer.fingerprint() == trained(iterations=4).fingerprint()


@pytest.mark.parametrize("ask", [wb.improvement, lambda trainer: wb.what_if(trainer, gamma=[0.9, 0.5])])
def test_in_the_middle_is_refused_in_one_sentence(ask):
    trainer = trained()
    trainer.step()
    with pytest.raises(ValueError, match=r"middle of one \(next: estimate\): trainer.iterate\(\) first"):
        ask(trainer)
    with pytest.raises(TypeError, match="expected a trainer"):
        ask("trainer")


def test_what_cannot_be_measured_is_refused_in_one_sentence(monkeypatch):
    uncopied = wb.happo(PointTeam(), n_steps=8, hidden_sizes=(8,))
    uncopied.iterate()
    monkeypatch.setattr(PointTeam, "remake", TeamEnv.remake)
    with pytest.raises(NotImplementedError, match="PointTeam has no description to be rebuilt from"):
        wb.improvement(uncopied)
    monkeypatch.setattr(PointTeam, "snapshot", TeamEnv.snapshot)
    with pytest.raises(SnapshotUnsupported, match="no improvement: PointTeam cannot be copied"):
        wb.improvement(wb.happo(PointTeam(), n_steps=8, hidden_sizes=(8,)).run(1, progress=False))
    with pytest.raises(ValueError, match="iteration before 0 is not kept"):
        wb.improvement(trained(iterations=0))
    with pytest.raises(ValueError, match="did you mean 'last'"):
        wb.improvement(trained(), which="lst")
    with pytest.raises(ValueError, match="episodes is 1; expected an integer ≥ 2"):
        wb.improvement(trained(), 1)


def test_what_if_compares_pairs():
    trainer = trained(iterations=1)
    before = trainer.fingerprint()
    table = wb.what_if(trainer, clip_epsilon=[0.05, 0.3], repeats=3)
    assert trainer.fingerprint() == before
    assert table[["seed", "clip_epsilon"]].to_numpy().tolist() == [[s, e] for s in range(3) for e in (0.05, 0.3)]
    assert table["next_reward"].nunique() == 6
    alone = trainer.fork(clip_epsilon=0.3)
    alone.iterate(), alone.iterate()
    assert table["next_reward"].iloc[1] == alone.history["reward"].iloc[-1]  # the first repeat has the run's own noise
    record = wb.views.paired_differences(table, "clip_epsilon = 0.05", "next_reward", by="clip_epsilon")
    assert "0.3" in record.text
    two = wb.what_if(trainer, order=["fixed", (2, 1, 0)], gamma=[0.5, 0.9], repeats=1, iterations_after=0)
    assert len(two) == 4
    assert two["next_reward"].isna().all()


def test_what_if_of_orders_is_try_orders():
    trainer = trained(iterations=1)
    orders = [(0, 1, 2), (2, 1, 0)]
    tried = wb.try_orders(trainer, orders).groupby("order", sort=False)
    table = wb.what_if(trainer, order=orders, repeats=1)
    for name in ("joint_gain", "next_reward", "next_return"):
        assert tried[name].first().tolist() == table[name].tolist()


def test_what_if_refuses_what_cannot_be_tried():
    trainer = trained()
    with pytest.raises(AttributeError, match="hidden_sizes is fixed when a run is made"):
        wb.what_if(trainer, hidden_sizes=[(8,), (16,)])
    with pytest.raises(ValueError, match="0 settings are given"):
        wb.what_if(trainer)
    with pytest.raises(ValueError, match=r"gamma is 0\.5; expected a list of the values to try"):
        wb.what_if(trainer, gamma=0.5)
    with pytest.raises(ValueError, match="did you mean 'clip_epsilon'"):
        wb.what_if(trainer, clip_epsilo=[0.1, 0.2])


def test_the_staircase_shows_every_stage():
    trainer = trained()
    record = wb.views.improvement(wb.improvement(trainer, 4))
    (stairs, *_), axis = record.figure.data, record.figure.layout.xaxis
    assert len(stairs.x) == len(trainer.units) + 2
    assert [text.split("<br>")[0] for text in axis.ticktext] == ["before", "1", "2", "3", "end"]
    assert {"promised, held-out", "exact gain", "exact promise"} <= {trace.name for trace in record.figure.data}
    assert record.png.startswith(b"\x89PNG")
    with pytest.raises(TypeError, match=r"expected what wb\.improvement"):
        wb.views.improvement(trainer)
