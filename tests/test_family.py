"""All methods from one loop: each trains, forks, saves and refuses what it does not have; and what tells them apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from point_team import PointTeam

import workbench as wb
from workbench.learning.agent_turn import agent_turn
from workbench.learning.settings import Settings
from workbench.running.methods import METHODS

CLIPPED = {"clipped_fraction", "joint_clipped_fraction"}
SMALL = {"n_steps": 12, "hidden_sizes": (16,)}


def unequal(n_envs=6):
    """A sampled game of three agents with 2, 3 and 2 actions."""
    rng = np.random.Generator(np.random.PCG64(0))
    reward = rng.normal(size=(3, 2, 3, 2))
    transition = rng.dirichlet(np.ones(3), size=(3, 2, 3, 2))
    return wb.envs.tabular(wb.theory.TabularGame(reward, transition, [0.5, 0.25, 0.25], 0.9), n_envs=n_envs)


def recipe(name):
    return getattr(wb, name)


def sharing_for(name, env):
    """Groups that a method which shares can have on an environment: the first and the last are always alike."""
    return {"sharing": [[0, 2], [1]]} if name == "shared_ppo" and not isinstance(env, PointTeam) else {}


@pytest.mark.parametrize("make", [PointTeam, unequal])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_forks_and_saves(name, make, tmp_path):
    env = make()
    trainer = recipe(name)(env, seed=0, **SMALL, **sharing_for(name, env))
    trainer.iterate()
    trainer.step(), trainer.step(), trainer.step()  # between two agents, or after the last
    fork = trainer.fork()
    saved = wb.load(trainer.save(tmp_path / "run.wb"), env=make())
    for each in (trainer, fork, saved):
        each.iterate()
        each.iterate()
    assert trainer.fingerprint() == fork.fingerprint() == saved.fingerprint()
    assert len(trainer.agent_history) == 3 * len(trainer.units)
    has_none = {"agent", "std"} if name not in ("hatrpo", "haa2c") else {"agent", "std", *CLIPPED}
    numbers = trainer.agent_history[[c for c in trainer.agent_history if c not in has_none]]
    assert np.isfinite(numbers.to_numpy(float)).all()
    assert trainer.agent_history[list(has_none & CLIPPED)].isna().all(axis=None)
    assert trainer.evaluate(2).shape == (2,)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_moves_every_policy_and_critic(name):
    trainer = recipe(name)(PointTeam(), seed=0, **SMALL)
    before = trainer._state
    trainer.iterate()
    after = trainer._state
    for kind in ("policies", "critics"):
        for unit, vector in getattr(after, kind).items():
            assert not torch.equal(vector.values, getattr(before, kind)[unit].values), unit


# Each is an option of some method, and none of this one.
FOREIGN = {
    "happo": ["max_kl", "damping", "cg_iterations", "line_search_steps"],
    "hatrpo": ["clip_epsilon", "epochs", "n_minibatches", "lr", "entropy_coef"],
    "haa2c": ["clip_epsilon", "max_kl"],
    "mappo": ["max_kl", "accept_ratio"],
    "ippo": ["max_kl", "fisher_fraction"],
    "shared_ppo": ["max_kl", "policy_steps"],
}


def test_the_table_of_foreign_options_is_complete():
    assert FOREIGN.keys() == METHODS.keys()
    known = {option for method in METHODS.values() for option in method.settings.names()}
    assert {option for options in FOREIGN.values() for option in options} <= known


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in FOREIGN for option in FOREIGN[name]])
def test_an_option_that_a_method_does_not_have_is_refused(name, option):
    method = METHODS[name]
    with pytest.raises(ValueError, match=f"unknown option of {method.name} '{option}'") as refusal:
        recipe(name)(PointTeam(), **{option: 0.1})
    assert all(known in str(refusal.value) for known in method.settings.names())
    trainer = recipe(name)(PointTeam(), **SMALL)
    with pytest.raises(AttributeError, match=option):
        setattr(trainer, option, 0.1)
    with pytest.raises(ValueError, match=option):
        trainer.fork(**{option: 0.1})


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_a_meaning_and_a_working_default(name):
    settings = METHODS[name].settings
    assert issubclass(settings, Settings)
    described = wb.options(name)
    assert described.keys() == set(settings.names())
    assert all(meaning for meaning in described.values())
    assert settings() == settings.make(name, {})


def test_mappo_is_happo_without_the_preceding_ratio():
    """The first in the order sees the same; from the second on, M is A alone."""

    def updates(make):
        trainer = make(PointTeam(), seed=0, order="fixed", lr=3e-3, **SMALL)
        trainer.iterate()
        return trainer._state.policies, trainer.m_factors

    (happo, with_ratio), (mappo, without) = updates(wb.happo), updates(wb.mappo)
    assert torch.equal(happo["agent_0"].values, mappo["agent_0"].values)
    assert not torch.equal(happo["agent_1"].values, mappo["agent_1"].values)
    assert np.array_equal(without["agent_0"], without["agent_2"])
    assert not np.array_equal(with_ratio["agent_0"], with_ratio["agent_2"])


def test_mappos_order_changes_nothing():
    def policies(order):
        trainer = wb.mappo(PointTeam(), seed=0, order=order, n_minibatches=2, **SMALL)
        trainer.iterate(), trainer.iterate()
        return trainer._state.policies

    forwards, backwards = policies("fixed"), policies("reversed")
    assert all(torch.equal(forwards[agent].values, backwards[agent].values) for agent in forwards)


def test_minibatches_are_drawn_for_the_agent_not_for_its_turn():
    drawn = {}

    def rule(turn):
        drawn.setdefault(turn.unit, set()).add(tuple(torch.randperm(20, generator=turn.generator).tolist()))
        return turn.vector, {}

    for order in [(0, 1, 2), (2, 0, 1), (1, 2, 0)]:
        trainer = wb.happo(PointTeam(), seed=0, order=order, **SMALL)
        setup = trainer._setup
        trainer.__dict__["_setup"] = replace(setup, method=replace(setup.method, rule=rule))
        trainer.iterate()
    assert [len(draws) for draws in drawn.values()] == [1, 1, 1]  # whatever the order
    assert len(set.union(*drawn.values())) == 3  # each agent its own


@pytest.mark.parametrize("name", ["happo", "ippo"])
def test_advantages_are_in_units_of_return(name):
    """Returns minus the values that the critic means, not the normalised ones that it predicts."""
    trainer = getattr(wb, name)(PointTeam(), seed=0, dtype="float64", **SMALL)
    trainer.iterate(), trainer.iterate()
    trainer.step(), trainer.step()
    state = trainer._state
    for critic, advantages in state.estimate.advantages.items():
        normalizer = state.normalizers[critic]
        assert abs(normalizer.scale - 1) > 0.05
        values = normalizer.location + normalizer.scale * state.estimate.predictions[critic]
        raw = state.estimate.returns[critic] - values
        torch.testing.assert_close(advantages, (raw - raw.mean()) / (raw.std(correction=0) + 1e-5), rtol=0, atol=1e-9)


def test_ippo_judges_each_agent_by_its_own_observations():
    env = PointTeam()
    trainer = wb.ippo(env, seed=0, **SMALL)
    assert list(trainer._setup.critics) == list(env.agents)
    assert all(critic.n_inputs == 4 for critic in trainer._setup.critics.values())
    trainer.step(), trainer.step()
    estimate = trainer._state.estimate
    assert list(estimate.advantages) == list(env.agents)
    assert not torch.equal(estimate.advantages["agent_0"], estimate.advantages["agent_1"])
    # Returns minus values of its own critic, standardised: mean 0 and deviation 1 for each agent alone.
    for advantages in estimate.advantages.values():
        assert abs(float(advantages.mean())) < 1e-5
        assert float(advantages.std(correction=0)) == pytest.approx(1, abs=1e-4)
    for agent, m in trainer.m_factors.items():
        assert np.array_equal(m, estimate.advantages[agent].numpy())


def test_a_shared_policy_sees_who_acts():
    env = PointTeam()
    trainer = wb.shared_ppo(env, seed=0, **SMALL)
    assert trainer.units == ("agent_0+agent_1+agent_2",)
    trainer.step()
    seen = trainer._state.rollout.observations
    for index, agent in enumerate(env.agents):
        assert seen[agent].shape[-1] == 4 + 3
        assert (seen[agent][..., 4:] == torch.eye(3)[index]).all()
    trainer.iterate()
    assert list(trainer.m_factors) == list(env.agents)

    alike = wb.shared_ppo(env, seed=0, agent_id=False, **SMALL)
    alike.step()
    assert alike._state.rollout.observations["agent_1"].shape[-1] == 4


def test_groups_share_within_and_differ_between():
    trainer = wb.mappo(PointTeam(n_agents=4), seed=0, sharing=[["agent_3", 0], ["agent_1", "agent_2"]], **SMALL)
    assert trainer.units == ("agent_0+agent_3", "agent_1+agent_2")
    trainer.iterate()
    assert trainer.agent_history["agent"].isin(trainer.units).all()
    assert sorted(trainer.m_factors) == ["agent_0", "agent_1", "agent_2", "agent_3"]
    trainer.order = ("agent_2", "agent_0")  # a member names its group
    trainer.iterate()
    assert trainer.iteration_order == ("agent_1+agent_2", "agent_0+agent_3")


def test_an_agent_that_leaves_counts_where_it_was_there_though_its_group_stays():
    trainer = wb.mappo(PointTeam(), seed=0, sharing="shared", **SMALL)
    trainer.step(), trainer.step()
    left = torch.ones(12, 4)
    left[5:] = 0
    state = trainer._state
    state = replace(state, rollout=replace(state.rollout, active={"agent_1": left}))
    unit = trainer.units[0]
    batch = agent_turn(trainer._setup, state, unit, dict.fromkeys(trainer.env.agents, state.preceding_ratio)).batch
    assert torch.equal(batch.weights.view(3, 12, 4), torch.stack([torch.ones(12, 4), left, torch.ones(12, 4)]))


def test_an_agent_whose_actions_are_limited_may_share_with_one_whose_are_not():
    game = wb.theory.random_game(n_agents=2, n_states=2, n_actions=3, seed=0)
    trainer = wb.shared_ppo(wb.envs.tabular(game, n_envs=4), seed=0, **SMALL)
    trainer.step(), trainer.step()
    limits = torch.ones(12, 4, 3, dtype=torch.bool)
    limits[..., 2] = False
    state = trainer._state
    state = replace(state, rollout=replace(state.rollout, masks={"agent_1": limits}))
    m_factors = dict.fromkeys(trainer.env.agents, state.preceding_ratio)
    turn = agent_turn(trainer._setup, state, trainer.units[0], m_factors)
    batch, (log_p,) = turn.batch, turn.old
    assert torch.equal(batch.masks.view(2, 12, 4, 3)[1], limits)
    probabilities = log_p.exp().view(2, 12, 4, 3)
    assert (probabilities[0] > 0).all()
    assert (probabilities[1, ..., 2] == 0).all()


def test_agents_that_differ_cannot_share():
    with pytest.raises(ValueError, match=r"agent_0 and agent_1 cannot share .* Discrete\(2\); .* Discrete\(3\)"):
        wb.shared_ppo(unequal())
    with pytest.raises(ValueError, match=r"sharing .* 'separate'; expected 'shared' or groups .* wb\.mappo"):
        wb.shared_ppo(PointTeam(), sharing="separate")


class Picturing(PointTeam):
    """Its agents are said to observe pictures."""

    def __init__(self):
        super().__init__()
        self.observation_spaces = dict.fromkeys(self.agents, spaces.Box(0, 1, (4, 4)))


def test_observations_that_are_no_vectors_are_refused():
    with pytest.raises(ValueError, match=r"agent_0 observes Box.*\(4, 4\).*; expected a Box of one axis\. Flatten"):
        wb.happo(Picturing())


def test_agents_of_different_sizes_in_one_team():
    env = wb.envs.mujoco("Humanoid", "9|8", n_envs=2)
    shapes = {(env.observation_spaces[agent].shape, env.action_spaces[agent].shape) for agent in env.agents}
    assert len(shapes) == 2
    for make in (wb.happo, wb.hatrpo, wb.ippo):
        trainer = make(env, seed=0, n_steps=4, hidden_sizes=(16,))
        trainer.iterate()
        assert set(trainer.m_factors) == set(env.agents)
    with pytest.raises(ValueError, match="cannot share a policy"):
        wb.shared_ppo(env)


def test_haa2c_takes_policy_gradient_steps():
    """One epoch is one step along mean(M·∇log π), where HAPPO's clip has no effect yet; later ones know no clip."""

    def policies(make, **options):
        trainer = make(PointTeam(), seed=0, order="fixed", **SMALL, **options)
        trainer.iterate()
        return trainer._state.policies["agent_0"].values

    assert torch.equal(policies(wb.haa2c, epochs=1), policies(wb.happo, epochs=1))
    clipped = policies(wb.happo, epochs=30, lr=3e-3, clip_epsilon=0.05)
    assert not torch.equal(policies(wb.haa2c, epochs=30, lr=3e-3), clipped)
    # With ε so wide that nothing is outside, HAPPO ascends the plain surrogate.
    wide = policies(wb.happo, epochs=5, lr=1e-4, clip_epsilon=0.99)
    assert torch.equal(policies(wb.haa2c, epochs=5, lr=1e-4), wide)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns(name):
    """Points that are pushed to the middle, for the shared reward alone."""
    options = {"max_kl": 0.02} if name == "hatrpo" else {"lr": 3e-3}
    env = PointTeam(n_envs=16, limit=20)
    trainer = recipe(name)(env, seed=0, n_steps=40, hidden_sizes=(32,), gamma=0.9, **options)
    untrained = trainer.evaluate(32).mean()
    trainer.run(iterations=20, progress=False)
    trained = trainer.evaluate(32).mean()
    assert trained > 0.7 * untrained  # returns are negative
    assert math.isfinite(trainer.history["value_loss"].iloc[-1])


def test_evaluation_remakes_an_environment_whatever_it_calls_the_number():
    class Team(PointTeam):
        def remake(self, n):
            return PointTeam(n, len(self.agents), self.limit)

    assert wb.happo(Team(), seed=0, **SMALL).evaluate(3).shape == (3,)
