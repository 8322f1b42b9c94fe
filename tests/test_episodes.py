"""Episodes as they are recorded, and rollouts taken again."""

from __future__ import annotations

import numpy as np
import pytest
from seen_team import SMALL, SeenTeam, game_trainer, hoppers

import workbench as wb
from workbench.episodes import RunPlayer, play
from workbench.learning.state import actor_of


def test_an_episode_is_what_evaluation_plays_and_its_end_is_seen():
    trainer = hoppers(max_episode_steps=40)
    episodes = play(trainer.env, RunPlayer(trainer._setup, trainer._state), 3, seed=5)
    env = trainer.env.remake(3)
    actor = actor_of(trainer._setup, trainer._state)
    step, going, returns = env.reset(seed=5), np.ones(3, bool), np.zeros(3)
    ends = {}
    while going.any():
        before = step
        step = env.step(actor.modes(before.observations, {}))
        returns[going] += step.reward[going]
        for i in np.flatnonzero(step.done & going):
            row = list(step.final.envs).index(i)
            ends[i] = step.info["observation"][i]
            assert row >= 0
        going &= ~step.done
    for i, episode in enumerate(episodes):
        assert episode.total == pytest.approx(returns[i], rel=1e-12)
        assert episode.end in ("terminated", "truncated")
        assert episode.sights.shape == (len(episode) + 1, 6)
        # Hopper observes all positions but the first: the last sight is the true last one, not the next first one.
        np.testing.assert_array_equal(episode.sights[-1, 1:], ends[i][:5])
        assert set(episode.terms) >= {"reward_forward", "reward_ctrl", "reward_survive", "x_velocity"}
        assert {agent: taken.shape for agent, taken in episode.actions.items()} == dict.fromkeys(
            trainer.env.agents, (len(episode), 1)
        )
    assert trainer.fingerprint() == hoppers(max_episode_steps=40).fingerprint()


def test_drawn_actions_follow_from_the_seed_alone_and_differ_from_the_likeliest():
    trainer = hoppers(max_episode_steps=15)
    drawn = [trainer.replay(2, deterministic=False, seed=seed).episodes for seed in (1, 1, 2)]
    likeliest = trainer.replay(2, seed=1).episodes
    same = [np.array_equal(a.sights, b.sights) for a, b in zip(drawn[0], drawn[1], strict=True)]
    assert same == [True, True]
    assert not np.array_equal(drawn[0][0].actions["agent_0"], likeliest[0].actions["agent_0"])
    assert np.array_equal(drawn[0][0].sights[0], likeliest[0].sights[0])  # from the same start
    assert not np.array_equal(drawn[0][0].sights[0], drawn[2][0].sights[0])


def test_more_episodes_than_are_stepped_together(monkeypatch):
    monkeypatch.setattr("workbench.episodes.recorder.MANY", 2)
    trainer = game_trainer()
    together = trainer.replay(5, seed=3).episodes
    assert len(together) == 5
    monkeypatch.setattr("workbench.episodes.recorder.MANY", 32)
    for one, other in zip(together, trainer.replay(5, seed=3).episodes, strict=True):
        assert np.array_equal(one.sights, other.sights)


def test_exported_policies_play_what_the_trainer_plays(tmp_path):
    trainer = hoppers(max_episode_steps=10)
    loaded = wb.load_policies(wb.export_policies(trainer, tmp_path))
    ours, theirs = trainer.replay().episodes[0], wb.replay(loaded).episodes[0]
    np.testing.assert_allclose(ours.sights, theirs.sights, atol=1e-5)
    drawn = [wb.replay(loaded, trainer.env, deterministic=False, seed=4).episodes[0] for _ in range(2)]
    assert np.array_equal(drawn[0].sights, drawn[1].sights)
    spread = np.concatenate([drawn[0].actions[agent] - ours.actions[agent][: len(drawn[0])] for agent in loaded.agents])
    assert 0.2 < spread.std() < 0.6  # the first deviation of a policy is 0.37


def test_exported_policies_heed_masks_and_draw_by_probability(tmp_path):
    trainer = game_trainer()
    loaded = wb.load_policies(wb.export_policies(trainer, tmp_path))
    seen = {agent: np.eye(4, dtype=np.float32).repeat(3000, 0) for agent in loaded.agents}
    only = {"agent_0": np.tile([False, True], (12000, 1))}
    assert (loaded.act(seen, only)["agent_0"] == 1).all()
    drawn = loaded.act(seen, rng=np.random.default_rng(0))["agent_1"].reshape(4, 3000).mean(1)
    parameters = trainer.action_distributions({agent: np.eye(4, dtype=np.float32) for agent in loaded.agents})
    np.testing.assert_allclose(drawn, parameters["agent_1"]["probabilities"][:, 1], atol=0.04)
    replayed = wb.replay(loaded, trainer.env, deterministic=False).episodes[0]
    assert set(np.unique(replayed.actions["agent_0"])) <= {0, 1}


# ---- rollouts, taken again ----


@pytest.mark.parametrize("make", [hoppers, game_trainer, lambda: wb.happo(SeenTeam(), seed=0, **SMALL)])
def test_a_rollout_is_taken_again_to_the_same_bits_and_cut_where_episodes_end(make):
    trainer = make()
    trainer.run(iterations=2, progress=False)
    trainer.step()
    rollout = trainer._state.rollout
    for env in range(trainer.env.n_envs):
        replay = trainer.replay_rollout(env=env, start=3, stop=11)
        rewards = np.concatenate([episode.rewards for episode in replay.episodes])
        np.testing.assert_array_equal(rewards.astype(np.float32), rollout.rewards[3:11, env].numpy())
        ended = rollout.done[3:10, env].numpy()
        assert len(replay.episodes) == 1 + ended.sum()
        lengths = np.cumsum([len(episode) for episode in replay.episodes])[:-1]
        np.testing.assert_array_equal(lengths, np.flatnonzero(ended) + 1)
        assert all(episode.before == 0 for episode in replay.episodes[1:])
        for agent in trainer.env.agents:
            actions = np.concatenate([episode.actions[agent] for episode in replay.episodes])
            taken = rollout.actions[agent][3:11, env].numpy().reshape(actions.shape)
            np.testing.assert_array_equal(actions, taken)
    earlier = trainer.replay_rollout(iteration=0)
    assert earlier.takes[0].label == "rollout of iteration 0, environment 0"
    running = trainer._state.running
    whole = trainer.replay_rollout(env=1)
    if not whole.episodes[-1].end:  # the running return, as the trainer itself counts it
        assert whole.episodes[-1].total == pytest.approx(running.returns[1])
        assert whole.episodes[-1].before + len(whole.episodes[-1]) == running.lengths[1]


def test_the_return_so_far_is_known_within_a_running_episode():
    trainer = hoppers()
    trainer.run(iterations=1, progress=False)
    before = trainer._state.running
    trainer.step()
    replay = trainer.replay_rollout(env=2)
    assert replay.episodes[0].before == before.lengths[2]
    assert replay.episodes[0].returned == before.returns[2]


def test_what_is_no_stretch_of_a_rollout_is_refused():
    trainer = game_trainer()
    with pytest.raises(ValueError, match="step\\(\\) through a collect"):
        trainer.replay_rollout()
    trainer.step()
    for wrong, message in (
        ({"env": 3}, "env is 3; expected 0 to 2"),
        ({"start": 12}, "start is 12; expected 0 to 11"),
        ({"start": 5, "stop": 5}, "stop is 5; expected 6 to 12"),
        ({"iteration": 7}, "rollouts of 0 are kept"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.replay_rollout(**wrong)
