"""What networks see: running statistics of each feature, in the state, and actions in units of their bounds."""

from __future__ import annotations

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import safetensors.numpy
import torch
from point_team import PointTeam

import workbench as wb
from workbench.learning.policy_inputs import LIMIT, FeatureStatistics, Moments, Transform
from workbench.running.methods import METHODS

SMALL = {"n_steps": 10, "hidden_sizes": (8,), "threads": 1, "critic_minibatches": 2}


class ScaledTeam(PointTeam):
    """Points whose features have scales that differ by a million, one of which never changes; the last agent leaves."""

    scales = np.array([1e3, 1e-3, 1.0], np.float32)

    def _observations(self, x):
        return {
            agent: np.column_stack([x * self.scales, np.full(len(x), 7.5)]).astype(np.float32) for agent in self.agents
        }

    def _show(self, *shown):
        return replace(super()._show(*shown), active={self.agents[-1]: self._t % 3 > 0})


class Watched(ScaledTeam):
    """The same, keeping what every agent was shown to act upon, and the states."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shown = []

    def _show(self, *shown):
        self.shown.append(super()._show(*shown))
        return self.shown[-1]

    def snapshot(self):
        return PointTeam.snapshot(self)


def acted_upon(env, agent, n):
    steps = env.shown[:n]
    there = [step.active.get(agent, np.ones(env.n_envs, bool)) for step in steps]
    return np.concatenate([step.observations[agent][where] for step, where in zip(steps, there, strict=True)])


def small_game():
    rng = np.random.default_rng(0)
    shape = (4, 2, 2)
    game = wb.theory.TabularGame(rng.uniform(size=shape), rng.dirichlet(np.ones(4), size=shape), np.ones(4) / 4, 0.8)
    return wb.envs.tabular(game, n_envs=3)


def test_merged_statistics_are_numpys():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 50, 4)) * [1e-4, 1.0, 1e5, 0.0] + [1e4, 0.0, -1e6, 3.3]
    whole = FeatureStatistics.none(4)
    for part in rows:
        moments = Moments(1, 4)
        for some in np.split(part, [1, 7, 30]):
            Transform([whole], [np.zeros(4, bool)])(some[None], np.empty((1, *some.shape)), moments)
        whole = whole.merged(moments.of(0))
    flat = rows.reshape(-1, 4)
    assert whole.count == 150
    np.testing.assert_allclose(whole.mean, flat.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(whole.variance, flat.var(0), rtol=1e-9, atol=1e-14)
    assert whole.squares[3] == 0.0
    assert whole.mean[3] == 3.3


def test_features_are_standardized_clipped_and_left_alone_where_they_never_changed():
    statistics = FeatureStatistics(10.0, np.array([5.0, 2.0, 1.0]), np.array([40.0, 0.0, 10.0]))
    transform = Transform([statistics], [np.array([False, False, True])])
    out = np.empty((1, 3, 3), np.float32)
    transform(np.array([[[7.0, 2.0, 1.0], [5.0, 100.0, -50.0], [1e6, -3.0, np.nan]]]), out)
    np.testing.assert_array_equal(out[0, :2], [[1.0, 2.0, 1.0], [0.0, 100.0, -50.0]])
    assert out[0, 2, 0] == LIMIT
    assert np.isnan(out[0, 2, 2])


@pytest.mark.parametrize("sharing", ["separate", "shared"])
def test_statistics_in_a_run_are_numpys_over_all_that_was_seen(sharing):
    env = Watched(n_envs=5)
    trainer = wb.mappo(env, seed=0, sharing=sharing, **SMALL)
    for _ in range(3):
        trainer.iterate()
    found, n = trainer.observation_statistics, 30
    for unit in trainer.units:
        seen = np.concatenate([acted_upon(env, agent, n) for agent in trainer._setup.team.units[unit]])
        assert found[unit]["count"] == len(seen)
        np.testing.assert_allclose(found[unit]["mean"][:4], seen.astype(float).mean(0), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found[unit]["std"][:4], seen.astype(float).std(0), rtol=1e-10, atol=1e-10)
    states = np.concatenate([step.state for step in env.shown[:n]]).astype(float)
    np.testing.assert_allclose(found["state"]["mean"], states.mean(0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found["state"]["std"], states.std(0), rtol=1e-10, atol=1e-10)


def test_within_an_iteration_the_statistics_are_frozen_and_the_inputs_are_what_they_say():
    env = Watched(n_envs=5)
    trainer = wb.happo(env, seed=0, **SMALL)
    trainer.iterate()
    before = trainer.observation_statistics
    trainer.step()
    rollout = trainer._state.rollout
    mean, std = before["agent_0"]["mean"], before["agent_0"]["std"]
    raw = np.stack([step.observations["agent_0"] for step in env.shown[10:21]]).astype(float)
    expected = np.clip((raw[..., :3] - mean[:3]) / std[:3], -LIMIT, LIMIT)
    np.testing.assert_allclose(rollout.observations["agent_0"][..., :3], expected, rtol=1e-5, atol=1e-5)
    assert (rollout.observations["agent_0"][..., 3] == 7.5).all()
    while trainer.phase != "collect":
        assert all(
            np.array_equal(before[name][part], now[part])
            for name, now in trainer.observation_statistics.items()
            for part in now
        )
        trainer.step()
    assert trainer.observation_statistics["agent_0"]["count"] == 2 * before["agent_0"]["count"]


def test_one_hot_parts_stay_as_they_are():
    env = wb.envs.mujoco("Walker2d", "2x3", n_envs=3, n_threads=1)
    trainer = wb.shared_ppo(env, seed=0, **SMALL)
    trainer.iterate()
    trainer.step()
    for number, agent in enumerate(env.agents):
        seen = trainer._state.rollout.observations[agent]
        assert seen.shape[-1] == 17 + 2 + 2  # the state, the papers' number, the shared policy's
        for start in (17, 19):
            assert (seen[..., start : start + 2] == torch.eye(2)[number]).all()
    game = wb.happo(small_game(), seed=0, **SMALL)
    game.iterate()
    game.step()
    assert set(game._state.rollout.states.unique().tolist()) == {0.0, 1.0}
    assert set(game._state.rollout.observations["agent_0"].unique().tolist()) == {0.0, 1.0}


def test_off_it_is_off_to_the_last_bit():
    env = Watched(n_envs=5)
    trainer = wb.happo(env, seed=0, normalize_observations=False, **SMALL)
    trainer.iterate()
    trainer.step()
    raw = np.stack([step.observations["agent_1"] for step in env.shown[10:21]])
    np.testing.assert_array_equal(trainer._state.rollout.observations["agent_1"], raw)
    assert trainer.observation_statistics == {}


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [lambda: ScaledTeam(n_envs=5), small_game], ids=["points", "tabular"])
def test_a_fork_and_a_loaded_checkpoint_go_on_to_the_same_bits_from_every_phase(make, method, recurrent, tmp_path):
    several = {} if method == "hatrpo" else {"n_minibatches": 2}
    trainer = getattr(wb, method)(make(), seed=0, recurrent=recurrent, sequence_length=5, **several, **SMALL)
    trainer.iterate()
    phases = len(trainer.units) + 3
    for k in range(phases):
        twin = trainer.fork()
        path = trainer.save(tmp_path / f"{k}.safetensors")
        loaded = wb.load(path, env=make())
        assert loaded.fingerprint() == twin.fingerprint() == trainer.fingerprint()
        trainer.step()
        loaded.step()
        assert loaded.fingerprint() == trainer.fingerprint()
        trainer.rewind(phases=1)
        assert trainer.fingerprint() == twin.fingerprint()
        trainer.step()
        assert loaded.fingerprint() == trainer.fingerprint()


@pytest.mark.parametrize("method", ["happo", "hatrpo"])
def test_before_its_first_step_an_agents_ratio_is_one_and_the_gains_telescope(method):
    trainer = getattr(wb, method)(ScaledTeam(n_envs=5), seed=0, ratio_clamp=None, dtype="float64", **SMALL)
    for _ in range(2):
        trainer.iterate()
    trainer.step()
    trainer.step()
    assert (trainer.preceding_ratio == 1).all()
    ratios, preceding = [], trainer.preceding_ratio
    while trainer.phase == "update_agent":
        trainer.step()
        ratios.append(trainer.preceding_ratio / preceding)
        preceding = trainer.preceding_ratio
    m_factors = list(trainer.m_factors.values())
    gained = sum((r - 1) * m for r, m in zip(ratios, m_factors, strict=True))
    np.testing.assert_allclose(gained, (preceding - 1) * m_factors[0], rtol=0, atol=1e-10)
    assert np.abs(preceding - 1).max() > 1e-3


def test_statistics_of_another_environment_are_refused(tmp_path):
    path = wb.happo(PointTeam(n_envs=5), seed=0, **SMALL).save(tmp_path / "run.safetensors")
    with pytest.raises(wb.errors.CheckpointError, match=r"state.* has shape"):
        wb.load(path, env=WiderState(n_envs=5))


class WiderState(PointTeam):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.state_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu", "elu"])
@pytest.mark.parametrize("layer_norm", [False, "hidden", "all"])
def test_exported_policies_act_as_the_trainer_does(activation, layer_norm, tmp_path):
    env = ScaledTeam(n_envs=5)
    trainer = wb.happo(env, seed=0, activation=activation, layer_norm=layer_norm, **SMALL)
    for _ in range(2):
        trainer.iterate()
    policies = wb.load_policies(wb.export_policies(trainer, tmp_path))
    seen = env.reset(seed=3).observations
    theirs = trainer.action_distributions(seen)
    for agent, action in policies.act(seen).items():
        np.testing.assert_allclose(action, theirs[agent]["mean"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(by_hand(tmp_path, agent, seen[agent]), theirs[agent]["mean"], rtol=0, atol=1e-5)


def by_hand(directory, agent, observations):
    """What the exported files say in words, by NumPy alone."""
    about = json.loads((directory / "policies.json").read_text())["agents"][agent]
    tensors = safetensors.numpy.load_file(directory / "policies.safetensors")
    activation = {
        "tanh": np.tanh,
        "relu": lambda x: np.where(x > 0, x, 0),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    }[about["activation"]]
    mean, scale, limit = (tensors[f"{agent}/inputs/{name}"] for name in ("mean", "scale", "limit"))
    x = np.clip((observations - mean) / scale, -limit, limit)
    for layer in range(about["layers"]):
        if about["layer_norm"][layer]:
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        x = x @ tensors[f"{agent}/layer_{layer}/weight"] + tensors[f"{agent}/layer_{layer}/bias"]
        x = activation(x) if layer < about["layers"] - 1 else x
    return x


# ---- actions in units of their bounds ----


class Aim(PointTeam):
    """All agents earn minus the distance of their mean action from 70 % of the range, in halves of the range."""

    low, high = -1.0, 1.0

    def __init__(self, n_envs=8):
        super().__init__(n_envs, 2)
        self.action_spaces = dict.fromkeys(self.agents, gymnasium.spaces.Box(self.low, self.high, (1,), np.float32))

    def step(self, actions):
        self.taken = actions
        where = (np.mean([action[:, 0] for action in actions.values()], 0) - self.low) / (self.high - self.low)
        everywhere = np.arange(self.n_envs)
        final = wb.envs.Final(everywhere, self._observations(self._x), self._x.astype(np.float32))
        return self._show(-2 * np.abs(where - 0.7), np.ones(self.n_envs, bool), np.zeros(self.n_envs, bool), final)


class Megawatts(Aim):
    low, high = 30.0, 1017.0


def test_the_same_game_in_other_units_is_learned_the_same_way():
    returns = []
    for kind in (Aim, Megawatts):
        trainer = wb.happo(kind(), seed=0, n_steps=25, hidden_sizes=(8,), threads=1)
        for _ in range(20):
            trainer.iterate()
        returns.append(trainer.history["reward"].to_numpy())
        assert trainer._state.rollout.actions["agent_0"].abs().max() < 5
    np.testing.assert_allclose(*returns, rtol=0, atol=2e-2)
    assert returns[1][-3:].mean() > -0.35 > returns[1][:1].mean()


def test_actions_go_out_in_the_environments_units(tmp_path):
    env = Megawatts()
    trainer = wb.happo(env, seed=0, n_steps=4, hidden_sizes=(8,))
    trainer.step()
    inside = trainer._state.rollout.actions["agent_0"][-1].numpy()
    np.testing.assert_allclose(env.taken["agent_0"], 523.5 + 493.5 * inside, rtol=1e-6)
    seen = env.reset(seed=0).observations
    mean = trainer.action_distributions(seen)["agent_0"]["mean"]
    assert 300 < mean.mean() < 750
    policies = wb.load_policies(wb.export_policies(trainer, tmp_path))
    np.testing.assert_allclose(policies.act(seen)["agent_0"], mean, rtol=1e-6)


def test_mujocos_actions_stay_as_they_are():
    env = wb.envs.mujoco("Humanoid", "9|8", n_envs=2, n_threads=1)
    assert wb.happo(env, seed=0)._setup.team.action_scales == {}


# ---- bad input ----


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("hatrpo", {"team_max_kl": 0.02, "max_kl": 0.01}, "exactly one of them"),
        ("hatrpo", {"team_max_kl": None}, "neither"),
        ("hatrpo", {"team_max_kl": None, "max_kl": None}, "neither"),
        ("happo", {"target_kl": "small"}, "target_kl"),
        ("happo", {"target_kl": 0.01, "team_target_kl": 0.02}, "one of them"),
        ("happo", {"activation": "sine"}, "'tanh', 'relu', 'silu', 'elu'"),
        ("happo", {"layer_norm": True}, "'hidden'"),
        ("happo", {"normalize_observations": 1.0}, "True or False"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(method, settings, told):
    with pytest.raises(ValueError, match=told):
        getattr(wb, method)(PointTeam(), seed=0, **settings)


def test_one_trust_region_takes_the_others_place():
    trainer = wb.hatrpo(PointTeam(), seed=0, **SMALL)
    assert (trainer.team_max_kl, trainer.max_kl) == (0.02, None)
    trainer.max_kl = 0.01
    assert (trainer.team_max_kl, trainer.max_kl) == (None, 0.01)
    trainer.team_max_kl = 0.03
    trainer.iterate()
    assert trainer.agent_history["max_kl"].tolist() == pytest.approx([0.01] * 3)
    assert wb.hatrpo(PointTeam(), seed=0, max_kl=0.5, **SMALL).team_max_kl is None


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_default_minibatches_are_no_more_than_the_samples(recurrent):
    tiny = {"n_steps": 2, "sequence_length": 2, "hidden_sizes": (4,), "recurrent": recurrent}
    trainer = wb.happo(PointTeam(n_envs=2), seed=0, **tiny)
    trainer.iterate()
    assert trainer.history["value_loss"].notna().all()
    with pytest.raises(ValueError, match=r"9 minibatches of (2|4)"):
        wb.happo(PointTeam(n_envs=2), seed=0, n_minibatches=9, **tiny).iterate()


def test_passes_end_when_the_kl_is_past_its_target():
    free = wb.happo(PointTeam(), seed=0, team_target_kl=None, lr=1e-2, **SMALL)
    held = wb.happo(PointTeam(), seed=0, target_kl=1e-3, lr=1e-2, **SMALL)
    free.iterate()
    held.iterate()
    assert (free.agent_history["epochs"] == 10).all()
    assert (held.agent_history["epochs"] < 10).all()
    assert (held.agent_history["kl"] > 1e-3).all()
    assert held.agent_history["kl"].max() < free.agent_history["kl"].min()
