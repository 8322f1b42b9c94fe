"""The steppable trainer: phases, changes by hand, going back, branching, keeping, and what it does with bad news."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import types
import warnings

import numpy as np
import pytest
import torch
from envs.parallel_games import Scripted
from point_team import ForgetfulTeam, PointTeam

import workbench as wb
from workbench.envs.parallel import PettingZooTeamEnv
from workbench.errors import EnvironmentFailedError, NonFiniteError, SnapshotUnsupported
from workbench.learning import policy_evaluation
from workbench.learning.state import actor_of

SMALL = {"n_steps": 8, "hidden_sizes": (16,)}
CURSORS = 6  # collect, estimate, three agents, critic


def trainer_at(cursor, env=None, **settings):
    trainer = wb.happo(env or PointTeam(), seed=0, **{**SMALL, **settings})
    trainer.iterate()
    for _ in range(cursor):
        trainer.step()
    return trainer


def finish(trainer, iterations=1):
    for _ in range(iterations + 1):
        trainer.iterate()
    return trainer.fingerprint()


# --- phases and events ------------------------------------------------------------------------------------------------


def test_an_iteration_walks_its_phases():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    walked = []
    for _ in range(CURSORS):
        walked.append(trainer.phase)
        assert trainer.step().phase == walked[-1]
    assert walked == ["collect", "estimate", "update_agent", "update_agent", "update_agent", "update_critic"]
    assert (trainer.phase, trainer.iteration, trainer.env_steps) == ("collect", 1, 32)


def test_remaining_counts_down_in_order():
    trainer = wb.happo(PointTeam(), seed=0, order="reversed", **SMALL)
    assert trainer.remaining == ("agent_2", "agent_1", "agent_0")
    trainer.step(), trainer.step()
    left = []
    while trainer.phase == "update_agent":
        left.append(trainer.remaining)
        trainer.step()
    assert left == [("agent_2", "agent_1", "agent_0"), ("agent_1", "agent_0"), ("agent_0",)]
    assert trainer.remaining == ()


def test_random_orders_are_known_before_they_are_used_and_change():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    used = []
    for _ in range(8):
        announced = trainer.remaining
        trainer.iterate()
        assert trainer.iteration_order == announced
        used.append(announced)
    assert len(set(used)) > 2


def test_iterate_finishes_the_iteration_from_anywhere():
    for cursor in range(CURSORS):
        trainer = trainer_at(cursor)
        trainer.iterate()
        assert (trainer.phase, trainer.iteration) == ("collect", 2)


def test_run_counts_iterations_or_env_steps(capsys):
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    assert trainer.run(iterations=2).env_steps == 64
    assert "HAPPO" in capsys.readouterr().err
    assert trainer.run(env_steps=100, progress=False).env_steps == 128  # the iteration that reaches it is finished
    with pytest.raises(ValueError, match="either iterations= or env_steps="):
        trainer.run()


def test_run_evaluates_on_schedule():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.run(iterations=4, evaluate_every=2, evaluate_episodes=3, progress=False)
    assert trainer.evaluations["iteration"].tolist() == [2, 4]


def test_true_from_after_iteration_ends_the_run_and_nothing_else_does(tmp_path, capsys):
    answers = iter([np.ones(3), "yes", 1, np.bool_(True)])
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.run(iterations=9, after_iteration=lambda _: next(answers), directory=tmp_path)
    assert trainer.iteration == 4
    assert "after_iteration ended it after iteration 4" in capsys.readouterr().err
    assert wb.load(tmp_path, env=PointTeam()).fingerprint() == trainer.fingerprint()


def test_act_gives_what_evaluate_plays_and_changes_nothing():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL).run(iterations=1, progress=False)
    env, returns = PointTeam(n_envs=5), trainer.evaluate(5)
    before = trainer.fingerprint()
    step = env.reset(seed=trainer._setup.streams.integer("evaluation", index=0))
    total, ended = np.zeros(5), np.zeros(5, bool)
    while not ended.all():
        step = env.step(trainer.act(step))
        total += np.where(ended, 0, step.reward)
        ended |= step.done
    np.testing.assert_array_equal(total, returns)
    seen = {agent: rows[2] for agent, rows in step.observations.items()}
    alone, many = trainer.act(seen), trainer.act(step.observations)
    for agent in env.agents:
        assert alone[agent].shape == (2,)
        np.testing.assert_allclose(alone[agent], many[agent][2], rtol=1e-6)
    drawn = [trainer.act(step, deterministic=False, rng=np.random.default_rng(k)) for k in (0, 0, 1)]
    assert (drawn[0]["agent_0"] == drawn[1]["agent_0"]).all()
    assert (drawn[0]["agent_0"] != drawn[2]["agent_0"]).all()
    assert trainer.fingerprint() == before
    with pytest.raises(ValueError, match="recurrent"):
        wb.happo(PointTeam(), seed=0, recurrent=True, **SMALL).act(step)


def test_act_takes_only_what_a_mask_allows():
    env = PettingZooTeamEnv(lambda: Scripted(mask=lambda agent, t: np.array([0, 1, 0])), n_envs=2)
    trainer, step = wb.happo(env, seed=0, **SMALL), env.reset(seed=0)
    assert [trainer.act(step, drawn)["a"].tolist() for drawn in (True, False)] == [[1, 1]] * 2
    alone = {agent: rows[0] for agent, rows in step.observations.items()}
    mask = {agent: np.array([False, False, True]) for agent in env.agents}
    assert trainer.act(alone, action_masks=mask)["b"] == 2
    env.close()


def test_events_are_plain_and_read_well():
    trainer = wb.happo(PointTeam(), seed=0, order="fixed", **SMALL)
    events = trainer.iterate()
    assert repr(events[0]).startswith("collect · iteration 0 · reward a step")
    assert "agent_0 → agent_1 → agent_2" in repr(events[1])
    assert len(repr(events).splitlines()) == CURSORS
    with pytest.raises(dataclasses.FrozenInstanceError):
        events[0].env_steps = 5
    assert all(isinstance(value, float) for value in events[2].diagnostics.values())


# --- determinism ------------------------------------------------------------------------------------------------------


def test_one_seed_one_fingerprint_and_another_seed_another():
    assert finish(wb.happo(PointTeam(), seed=0, **SMALL)) == finish(wb.happo(PointTeam(), seed=0, **SMALL))
    assert finish(wb.happo(PointTeam(), seed=0, **SMALL)) != finish(wb.happo(PointTeam(), seed=1, **SMALL))
    assert finish(wb.happo(PointTeam(), seed=np.int64(7), **SMALL)) == finish(wb.happo(PointTeam(), seed=7, **SMALL))


def test_looking_changes_nothing():
    quiet, watched = (wb.happo(PointTeam(), seed=0, **SMALL) for _ in range(2))
    heard = []
    watched.subscribe(heard.append)
    for _ in range(2 * CURSORS):
        quiet.step()
        watched.step()
        for factor in watched.m_factors.values():
            factor[:] = 0  # copies: scribbling over them is harmless
        watched.agent_history, watched.remaining, watched.fingerprint(), repr(watched)
        watched.evaluate(2)
        watched.env.step({a: np.zeros((4, 2)) for a in watched.env.agents})  # by hand, in between
        torch.rand(3)  # the global generator is nobody's
        assert watched.fingerprint() == quiet.fingerprint()
    assert len(heard) == 2 * CURSORS


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize(
    ("around", "settings"),
    [
        (torch.inference_mode, {"recurrent": True}),
        (lambda: torch.autocast("cpu", torch.bfloat16), {"recurrent": True}),
        (lambda: default_device("meta"), {}),  # on which nothing can be computed
    ],
)
def test_what_torch_is_set_to_around_a_run_changes_nothing(around, settings, tmp_path):
    def run():
        trainer = trainer_at(3, **settings)
        trainer.evaluate(2)
        return wb.load(trainer.save(tmp_path / "run"), env=PointTeam()).fork()

    expected = finish(run())
    with around():
        trainer = run()
        fingerprint = finish(trainer)
    assert (fingerprint, finish(trainer)) == (expected, finish(wb.load(tmp_path / "run", env=PointTeam()), 3))


def test_a_rollout_that_cannot_be_learned_from_or_held_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"n_steps is 1 and so is n_envs; expected rollouts of more than one sample"):
        wb.happo(PointTeam(n_envs=1), n_steps=1)
    trainer = wb.happo(PointTeam(n_envs=1), n_steps=2)
    with pytest.raises(ValueError, match="more than one sample"):
        trainer.n_steps = 1
    assert trainer.n_steps == 2
    # 3 agents that see 4 numbers and take 2 actions, drawn from 2 more, and a state of 3: 27 numbers of 4 bytes
    monkeypatch.setattr("psutil.virtual_memory", lambda: types.SimpleNamespace(available=10**8 - 1))
    with pytest.raises(ValueError, match=r"of 1000000 steps in 1 environments takes 0\.1 GB at least, and 0\.1"):
        trainer.n_steps = 1_000_000
    trainer.n_steps = (10**8 - 1) // 108


def test_evaluation_repeats_itself_and_counts_whole_episodes():
    trainer = trainer_at(0)
    first = trainer.evaluate(7)
    assert first.shape == (7,)
    assert np.array_equal(first, trainer.evaluate(7))
    assert not np.array_equal(first, trainer.evaluate(7, seed=1))
    assert trainer.evaluations["episodes"].tolist() == [7, 7, 7]


class Endless(PointTeam):
    """Points that nothing stops."""

    def step(self, actions):
        self._t[:] = 0
        self._x[:] = 0
        return super().step(actions)

    def remake(self, n_envs):
        return Endless(n_envs)


def test_an_evaluation_without_an_end_is_told(monkeypatch):
    monkeypatch.setattr(policy_evaluation, "LONGEST_EPISODE", 50)
    trainer = wb.happo(Endless(), seed=0, **SMALL)
    trainer.iterate()
    with pytest.raises(EnvironmentFailedError, match=r"not ended after 50 steps .*max_steps="):
        trainer.evaluate(2)
    returns = trainer.evaluate(6, max_steps=30)  # in four copies: two rounds
    assert returns.shape == (6,)
    assert trainer.evaluations["episode_length"].tolist() == [30]
    assert np.array_equal(returns, trainer.evaluate(6, max_steps=30))


def test_a_limit_that_no_episode_reaches_changes_no_first_episode():
    trainer = trainer_at(0)
    assert np.array_equal(trainer.evaluate(4), trainer.evaluate(4, max_steps=1000))
    shorter, whole = trainer.evaluate(4, max_steps=2), trainer.evaluate(4)
    assert (shorter >= whole).all()  # rewards are below 0
    assert (shorter > whole).any()


def test_two_trainers_share_one_environment_in_peace():
    env = PointTeam()
    one, two = wb.happo(env, seed=0, **SMALL), wb.happo(env, seed=1, **SMALL)
    for _ in range(2 * CURSORS):
        one.step(), two.step()
    assert one.fingerprint() == finish(wb.happo(PointTeam(), seed=0, **SMALL))


class UniqueTeam(ForgetfulTeam):
    """Neither to be restored nor made anew."""

    remake = wb.envs.TeamEnv.remake


def test_what_cannot_be_restored_is_stepped_in_a_copy_of_the_runs_own():
    env = ForgetfulTeam()
    one, two = wb.happo(env, seed=0, **SMALL), wb.ippo(env, seed=1, **SMALL)
    assert one.env is two.env is env
    for _ in range(2 * CURSORS):
        one.step(), two.step(), env.reset(seed=3)
    assert one.fingerprint() == finish(wb.happo(ForgetfulTeam(), seed=0, **SMALL))


def test_what_can_be_neither_restored_nor_made_anew_is_told_once():
    with pytest.warns(UserWarning, match="UniqueTeam can be neither restored nor made anew") as told:
        finish(wb.happo(UniqueTeam(), seed=0, **SMALL))
    assert [each.filename for each in told] == [__file__]


def test_episodes_whose_middle_is_lost_begin_anew():
    settings = {"normalize_observations": False}
    with pytest.warns(UserWarning, match="neither restored"):
        trainer = trainer_at(0, env=UniqueTeam(poison_at=8 + 4, poison="raise"), **settings)
    with pytest.raises(RuntimeError, match="the simulator crashed"):
        trainer.step()
    trainer.env.poison_at = None
    with pytest.warns(UserWarning, match="the last rollout failed in the midst of episodes of UniqueTeam") as told:
        trainer.step()
    assert [each.filename for each in told] == [__file__]
    first = PointTeam().reset(seed=trainer._setup.streams.integer("environment", 1)).observations["agent_2"]
    assert np.array_equal(trainer._state.rollout.observations["agent_2"][0], first)
    assert trainer._state.running.lengths.max() <= 8


@pytest.mark.parametrize("scenario", ["tiny", "mujoco"])
def test_the_thread_count_is_kept(scenario):
    env = PointTeam() if scenario == "tiny" else wb.envs.mujoco("Ant", "4x2", n_envs=2)
    before = torch.get_num_threads()
    trainer = wb.happo(env, seed=0, threads=before + 1, **SMALL)
    trainer.iterate()
    assert torch.get_num_threads() == before
    assert trainer.settings.threads == before + 1


# --- changes by hand --------------------------------------------------------------------------------------------------


def test_a_setting_takes_effect_at_the_next_update_and_is_kept():
    plain, changed = trainer_at(2), trainer_at(2)
    changed.clip_epsilon = 0.01
    first = [trainer.step().diagnostics for trainer in (plain, changed)]
    assert first[0] != first[1]
    (change,) = changed.interventions
    assert (change.iteration, change.phase, change.position) == (1, "update_agent", 0)
    assert (change.name, change.old, change.new) == ("clip_epsilon", 0.2, 0.01)
    assert changed.steered
    assert not plain.steered
    assert "steered" in repr(changed)


def test_settings_before_the_first_phase_are_configuration():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.clip_epsilon = 0.1
    assert not trainer.steered
    assert finish(trainer) == finish(wb.happo(PointTeam(), seed=0, clip_epsilon=0.1, **SMALL))


def test_an_order_set_in_mid_iteration_reorders_who_is_left():
    trainer = trainer_at(3, order="fixed")  # agent_0 is updated
    trainer.order = (2, 1, 0)
    assert trainer.remaining == ("agent_2", "agent_1")
    assert trainer.iteration_order == ("agent_0", "agent_2", "agent_1")
    trainer.iterate()
    assert trainer.history["order"].iloc[-1] == ("agent_0", "agent_2", "agent_1")
    trainer.iterate()
    assert trainer.history["order"].iloc[-1] == ("agent_2", "agent_1", "agent_0")
    assert "agent_2 → agent_1" in trainer.interventions[0].outcome


def test_an_order_of_those_left_holds_for_this_iteration_only():
    trainer = trainer_at(3, order="fixed")
    trainer.order = ["agent_2", 1]
    trainer.iterate()
    trainer.iterate()
    assert trainer.history["order"].tolist()[1:] == [
        ("agent_0", "agent_2", "agent_1"),
        ("agent_0", "agent_1", "agent_2"),
    ]
    assert trainer.order == "fixed"


def test_an_order_may_be_a_function():
    trainer = wb.happo(PointTeam(), seed=0, order=lambda context: sorted(context.remaining, reverse=True), **SMALL)
    trainer.iterate()
    assert trainer.iteration_order == ("agent_2", "agent_1", "agent_0")


@pytest.mark.parametrize("cursor", range(CURSORS))
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("order", (0, 1), "is no permutation of .*agent_2: agent_2 missing"),
        ("order", (0, 1, 1), "agent_1 named twice"),
        ("order", (0, 1, 7), "unknown agent 7"),
        ("order", "randm", "did you mean 'random'"),
        ("clip_epsilon", 1.0, r"expected a number in \(0, 1\), such as 0.2"),
        ("clip_epsilon", 0, r"expected a number in \(0, 1\)"),
        ("clip_epsilon", "0.1", r"clip_epsilon .* is '0.1'"),
        ("clip_epsilion", 0.1, "did you mean 'clip_epsilon'"),
        ("epochs", 2.5, "expected an integer ≥ 1"),
        ("hidden_sizes", (64,), "fixed when a run is made"),
        ("phase", "collect", "can be read, not set"),
    ],
)
def test_bad_changes_are_refused_and_change_nothing(cursor, name, value, message):
    trainer = trainer_at(cursor, order="fixed")
    before = trainer.fingerprint()
    with pytest.raises((ValueError, AttributeError), match=message):
        setattr(trainer, name, value)
    assert trainer.fingerprint() == before
    assert trainer.interventions == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_epsilion": 0.1}, "unknown option of HAPPO 'clip_epsilion'; did you mean 'clip_epsilon'"),
        ({"max_kl": 0.01}, "unknown option of HAPPO 'max_kl'"),
        ({"clip_epsilon": 1.2}, r"clip_epsilon \(clip ε of the agent's own ratio\) is 1.2"),
        ({"clip_epsilon": float("nan")}, "expected a number in"),
        ({"order": (0, 0, 1)}, "is no permutation"),
        ({"gamma": 1.01}, r"expected a number in \[0, 1\]"),
        ({"hidden_sizes": (0,)}, "positive integers"),
        ({"seed": -1}, "expected an integer ≥ 0"),
        ({"seed": 0.5}, "expected an integer ≥ 0"),
        ({"device": "cuda:99"}, "expected a device"),
        ({"sharing": "share"}, "did you mean 'shared'"),
        ({"n_minibatches": 0}, "expected an integer ≥ 1"),
    ],
)
def test_bad_options_are_refused_with_the_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        wb.happo(PointTeam(), **{"seed": 0, **SMALL, **options})


def test_what_is_no_environment_is_refused():
    with pytest.raises(TypeError, match="expected a TeamEnv"):
        wb.happo("Ant-v5", seed=0)


def test_settings_can_be_listed_and_completed():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    assert "clip_epsilon" in dir(trainer)
    assert wb.options("happo")["gamma"] == "discount γ"
    with pytest.raises(AttributeError, match="did you mean 'clip_epsilon'"):
        _ = trainer.clip_epsilom


# --- going back, branching, keeping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", range(CURSORS))
def test_a_fork_and_its_original_end_alike(cursor):
    trainer = trainer_at(cursor)
    fork = trainer.fork()
    assert finish(fork) == finish(trainer)
    assert fork.history["return"].equals(trainer.history["return"])


@pytest.mark.parametrize("cursor", range(CURSORS))
def test_a_fork_leaves_its_parent_alone(cursor):
    trainer, twin = trainer_at(cursor), trainer_at(cursor)
    fork = trainer.fork(clip_epsilon=0.01)
    finish(fork)
    assert finish(trainer) == finish(twin)
    assert trainer.clip_epsilon == 0.2
    assert fork.steered
    assert fork.lineage[-1]["iteration"] == 1
    assert fork.lineage[-1]["changes"] == {"clip_epsilon": 0.01}
    with pytest.raises(ValueError, match="did you mean 'clip_epsilon'"):
        trainer.fork(clip_epsilom=0.1)


@pytest.mark.parametrize("cursor", range(CURSORS))
@pytest.mark.parametrize("phases", [1, 2, 6])
def test_rewound_and_finished_is_as_before(cursor, phases):
    trainer = trainer_at(cursor)
    here = trainer.fingerprint()
    trainer.rewind(phases=phases)
    assert trainer.fingerprint() != here
    for _ in range(phases):
        trainer.step()
    assert trainer.fingerprint() == here
    assert not trainer.steered


def test_rewind_by_iterations_goes_to_their_beginning():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    starts = []
    for _ in range(4):
        starts.append(trainer.fingerprint())
        trainer.iterate()
    trainer.step()
    trainer.rewind(iterations=0)
    assert trainer.iteration == 4
    trainer.rewind(iterations=3)
    assert trainer.fingerprint() == starts[1]
    assert len(trainer.history) == 1
    assert [change.name for change in trainer.interventions] == ["rewind", "rewind"]
    with pytest.raises(ValueError, match="iterations 0 to 0 are kept"):
        trainer.rewind(iterations=5)
    with pytest.raises(ValueError, match="6 are kept"):
        trainer.rewind(phases=7)


@pytest.mark.parametrize("cursor", range(CURSORS))
def test_saved_and_loaded_goes_on_bit_for_bit(cursor, tmp_path):
    trainer = trainer_at(cursor)
    trainer.clip_epsilon = 0.15
    path = trainer.save(tmp_path / "a checkpoint.safetensors")
    loaded = wb.load(path, env=PointTeam())
    assert loaded.fingerprint() == trainer.fingerprint()
    assert list(loaded.agent_history) == list(trainer.agent_history)
    assert finish(loaded) == finish(trainer)
    assert loaded.history["return"].equals(trainer.history["return"])
    assert loaded.agent_history.equals(trainer.agent_history)
    assert loaded.interventions == trainer.interventions


def test_another_process_goes_on_bit_for_bit(tmp_path):
    trainer = wb.happo(wb.envs.mujoco("Ant", "4x2", n_envs=3), seed=0, **SMALL)
    trainer.iterate(), trainer.step(), trainer.step(), trainer.step()
    path = trainer.save(tmp_path / "run.safetensors")
    code = f"import workbench as wb; t = wb.load({str(path)!r}); t.iterate(); t.iterate(); print(t.fingerprint())"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    trainer.iterate(), trainer.iterate()
    assert result.stdout.strip() == trainer.fingerprint()


def test_what_cannot_be_loaded_is_told_in_one_sentence(tmp_path):
    trainer = trainer_at(3)
    path = trainer.save(tmp_path / "run.safetensors")
    whole = path.read_bytes()

    def refused(content, message, env=None):
        path.write_bytes(content)
        with pytest.raises(wb.errors.CheckpointError, match=message):
            wb.load(path, env=env or PointTeam())

    refused(whole[:1000], "truncated, damaged")
    refused(b"", "truncated, damaged")
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    refused(bytes(flipped), "altered or damaged")
    refused(b"\x80\x04cposix\nsystem\n(S'echo hostile'\ntR.", "truncated, damaged")
    refused(whole, "saved with the agents", env=PointTeam(n_agents=2))
    path.write_bytes(whole)
    with pytest.raises(wb.errors.CheckpointError, match="pass one like it"):
        wb.load(path)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        wb.load(tmp_path / "nothing")


def test_a_failed_write_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    trainer = trainer_at(0)
    path = trainer.save(tmp_path / "run.safetensors")
    before = path.read_bytes()
    trainer.step()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        trainer.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_environment_that_cannot_be_copied_trains_and_says_what_it_lacks(tmp_path):
    trainer = wb.happo(ForgetfulTeam(), seed=0, **SMALL)
    trainer.iterate()
    for act in (trainer.fork, trainer.rewind):
        with pytest.raises(SnapshotUnsupported, match=r"has no snapshot\(\). Return every value"):
            act()
    path = trainer.save(tmp_path / "run")
    with pytest.warns(UserWarning, match="its episodes begin anew"):
        loaded = wb.load(path, env=ForgetfulTeam())
    loaded.iterate()
    assert loaded.iteration == 2


# --- bad news ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "error", "message"),
    [
        ("reward", NonFiniteError, "the reward is NaN or inf in environment 1 after step 3 of iteration 1"),
        ("observation", NonFiniteError, "observation of agent_1 is NaN or inf in environment 2 after step 3"),
        ("raise", RuntimeError, "the simulator crashed"),
    ],
)
def test_a_failing_environment_stops_the_phase_and_loses_nothing(poison, error, message):
    trainer = trainer_at(0, env=PointTeam(poison_at=8 + 4, poison=poison))
    before = trainer.fingerprint()
    with pytest.raises(error, match=message):
        trainer.step()
    assert trainer.phase == "collect"
    assert trainer.fingerprint() == before
    assert finish(trainer) == finish(trainer_at(0))  # the poison has passed: as if nothing had happened


class BadNews(PointTeam):
    """Once shows what no learner can go on from."""

    def __init__(self, what, value):
        super().__init__(limit=3)
        self.what, self.value = what, value

    def _show(self, reward, terminated, truncated, final=None):
        if self.calls > 8 and final is not None and truncated.any() and self.what == "last" and self.value is not None:
            row = np.flatnonzero(truncated[final.envs])[0]
            final.observations["agent_2"][row, 1], self.value = self.value, None
        elif self.what == "reward" and self.calls == 11:
            reward[3], self.calls = self.value, 99
        shown = super()._show(reward, terminated, truncated, final)
        if self.what == "reset" and self.calls == 0:
            shown.observations["agent_0"][2, 0] = self.value
        return shown


@pytest.mark.parametrize(
    ("what", "value", "message"),
    [
        ("last", np.nan, r"the true last observation of agent_2 is NaN or inf in environment \d after step \d of it"),
        ("reward", 1e300, "the reward is beyond 2e.15, too large for float32, in environment 3 after step 2 of iter"),
        ("reward", 1e20, "the reward is beyond 2e.15, too large for float32, in environment 3 after step 2 of iter"),
    ],
)
def test_what_passes_for_a_number_and_is_none_for_the_learner_is_refused_at_collect(what, value, message):
    trainer = trainer_at(0, env=BadNews(what, value))
    before = trainer.fingerprint()
    with pytest.raises(NonFiniteError, match=message):
        trainer.step()
    assert (trainer.phase, trainer.fingerprint()) == ("collect", before)
    assert finish(trainer) == finish(trainer_at(0, env=PointTeam(limit=3)))


def test_what_reset_shows_is_blamed_on_reset():
    trainer = wb.happo(BadNews("reset", np.nan), seed=0, n_steps=8, hidden_sizes=(16,))
    with pytest.raises(
        NonFiniteError, match="the observation of agent_0 is NaN or inf in environment 2 before iteration 0, as"
    ):
        trainer.step()


def test_a_loss_that_is_not_finite_names_the_agent_and_loses_nothing():
    trainer = trainer_at(2, order="fixed")
    broken = dataclasses.replace(trainer._state, preceding_ratio=torch.full((8, 4), torch.nan))
    trainer.__dict__["_state"] = broken
    with pytest.raises(NonFiniteError, match="the policy gradient of agent_0 is nan"):
        trainer.step()
    assert trainer._state is broken


def test_a_failing_listener_is_reported_and_training_goes_on():
    trainer = trainer_at(0)

    def broken(event):
        raise RuntimeError("view closed")

    unsubscribe = trainer.subscribe(broken)
    with pytest.warns(UserWarning, match="view closed"):
        trainer.step()
    unsubscribe()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.step()


def test_an_interrupt_stops_run_at_a_phase_boundary():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.subscribe(lambda event: os.kill(os.getpid(), signal.SIGINT) if event.env_steps == 96 else None)
    previous = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        trainer.run(iterations=50, progress=False)
    assert (trainer.env_steps, trainer.phase) == (96, "estimate")
    assert signal.getsignal(signal.SIGINT) is previous
    trainer._listeners.clear()
    assert finish(trainer) == finish(trainer_at(0), 2)


def test_a_change_from_another_thread_waits_for_the_phase_boundary():
    trainer = wb.happo(PointTeam(n_envs=8), seed=0, **SMALL)
    done = threading.Event()

    def train():
        while not done.is_set():
            trainer.step()

    worker = threading.Thread(target=train)
    worker.start()
    for epsilon in np.linspace(0.1, 0.3, 20):
        trainer.clip_epsilon = float(epsilon)
    done.set()
    worker.join()
    assert [change.new for change in trainer.interventions[-19:]] == list(np.linspace(0.1, 0.3, 20))[-19:]


def test_action_distributions_are_those_that_acted():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    shown = trainer.env.reset(seed=0)
    for agent, found in trainer.action_distributions(shown.observations).items():
        assert found["mean"].shape == found["std"].shape == (4, 2)
        np.testing.assert_allclose(found["std"], np.exp(-0.5), atol=1e-4)
        modes = actor_of(trainer._setup, trainer._state).modes(shown.observations, {})
        np.testing.assert_allclose(found["mean"], modes[agent], atol=1e-6)
    game = wb.happo(wb.envs.tabular(wb.theory.sharing_game(4), n_envs=4), seed=0, **SMALL)
    (found, *_) = game.action_distributions(game.env.reset(seed=0).observations).values()
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, atol=1e-6)
