"""What follows from a frame, what the second scrubber goes through, and who may be a ghost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from point_team import ForgetfulTeam, PointTeam
from seen_team import SMALL, SeenTeam, game_trainer, hoppers, idle

import workbench as wb
from workbench.envs.contract import ContractError
from workbench.envs.sampled_game import SampledGame
from workbench.episodes import RunPlayer, play
from workbench.errors import SnapshotUnsupported
from workbench.learning.state import actor_of, critic_inputs_of

# ---- start here ----


def assert_goes_on_like(fork, original, actions_before, seed_rows):
    """The fork's next rollout equals what ``original`` gives from that state under the same actions."""
    event = fork.step()
    assert event.phase == "collect"
    rollout, setup, state = fork._state.rollout, fork._setup, fork._state
    actor = actor_of(setup, state)
    for env in range(fork.env.n_envs):
        alone = fork.env.remake(1)
        original(alone)
        for actions in actions_before:
            step = alone.step(actions)
        if env:  # the state is the frame's, chance the fork's own
            saved = dict(alone.snapshot())
            for name in alone.generator_rows:
                saved[name] = seed_rows[name][[env]]
            alone.restore(saved)
        for t in range(rollout.n_steps):
            actions = {agent: taken[t, [env]].numpy() for agent, taken in rollout.actions.items()}
            actions = {
                agent: rows.reshape(1, *(fork.env.action_spaces[agent].shape or ())) for agent, rows in actions.items()
            }
            step = alone.step(actions)
            assert np.float32(step.reward[0]) == rollout.rewards[t, env].numpy()
            shown = critic_inputs_of(setup, state, actor, "state", step.state)
            assert torch.equal(shown[0], rollout.states[t + 1, env])
            for agent in fork.env.agents:
                shown = actor.inputs_of(agent, step.observations[agent])
                assert torch.equal(shown[0], rollout.observations[agent][t + 1, env])


@pytest.mark.parametrize("make", [hoppers, game_trainer, lambda: wb.happo(SeenTeam(), seed=0, **SMALL)])
@pytest.mark.parametrize("frame", [0, 4])
def test_start_here_goes_on_as_the_original_does_bit_for_bit(make, frame):
    trainer = make()
    trainer.run(iterations=1, progress=False)
    fingerprint = trainer.fingerprint()
    replay = trainer.replay(seed=7)
    own = trainer._state.env
    fork = replay.start_here(frame)
    assert (fork.phase, fork.iteration) == ("collect", trainer.iteration)
    played = replay.episodes[0]
    running = fork._state.running
    assert (running.lengths == frame).all()
    assert running.returns == pytest.approx(np.full(trainer.env.n_envs, played.rewards[:frame].sum()))
    assert_goes_on_like(fork, lambda alone: alone.reset(seed=7), played.actions_before(frame), own)
    assert trainer.fingerprint() == fingerprint
    assert replay.forks == [fork]
    assert fork.steered
    assert fork.lineage[-1]["changes"] == {"start": frame}
    fork.run(iterations=1, progress=False)


def test_start_here_within_a_rollout_goes_on_as_training_did():
    trainer = hoppers()
    trainer.run(iterations=1, progress=False)
    before = trainer._state
    trainer.step()
    replay = trainer.replay_rollout(env=2, start=2)
    frame = 5
    fork = replay.start_here(frame)
    assert fork.iteration == before.iteration

    def original(alone):
        alone.restore(alone.select(before.env, [2]))

    taken = trainer._state.rollout.actions
    actions = [{agent: rows[t, [2]].numpy() for agent, rows in taken.items()} for t in range(2 + frame)]
    # The stretch begins at step 2 of the rollout, in the middle of whatever episode that is.
    assert replay.episodes[0].place.length == int(before.running.lengths[2]) + 2
    assert_goes_on_like(fork, original, actions, before.env)


def test_start_here_leaves_out_an_iteration_under_way_and_takes_the_policies_shown():
    trainer = game_trainer(order="fixed")
    trainer.run(iterations=1, progress=False)
    for _ in range(3):  # collect, estimate, the first agent
        trainer.step()
    fork = trainer.replay(past=True).start_here(2)
    assert (fork.phase, fork.iteration, fork.remaining) == ("collect", 2, ("agent_0", "agent_1"))
    assert fork._state.policies["agent_0"] is trainer._state.policies["agent_0"]
    earlier = trainer.replay(past=True).start_here(2, take=0)
    assert earlier.iteration == 0
    assert earlier._state.policies["agent_0"] is not trainer._state.policies["agent_0"]


def test_recurrent_networks_remember_what_led_to_the_frame():
    trainer = wb.happo(
        SeenTeam(limit=30), seed=0, n_steps=12, hidden_sizes=(6,), recurrent=True, sequence_length=4, dtype="float64"
    )
    trainer.run(iterations=1, progress=False)
    before = trainer._state
    trainer.step()  # collect
    trainer.step()  # estimate: what critics remember after the rollout is known
    # The stretch to the rollout's end, started from there: networks remember what they did in training.
    env = int(np.flatnonzero(trainer._state.running.lengths == before.running.lengths + 12)[0])
    replay = trainer.replay_rollout(env=env, start=3)
    last = replay.episodes[-1]
    assert not last.end
    fork = replay.start_here(len(last), episode=len(replay.episodes) - 1)
    running, reached = fork._state.running, trainer._state.running
    for agent in trainer.env.agents:
        torch.testing.assert_close(running.memory[agent][0], reached.memory[agent][env], atol=1e-6, rtol=1e-5)
    assert before.running.lengths[env] + 12 == running.lengths[0]
    critics, in_training = running.critic_memory["state"], reached.critic_memory["state"]
    torch.testing.assert_close(critics[2], in_training[env], atol=1e-6, rtol=1e-5)
    np.testing.assert_array_equal(running.current.state[0], reached.current.state[env])


def test_nothing_follows_the_end_and_no_run_is_behind_mere_policies():
    trainer = hoppers(max_episode_steps=8)
    replay = trainer.replay()
    with pytest.raises(ValueError, match="frame 8: nothing follows it"):
        replay.start_here(8)
    with pytest.raises(ValueError, match="frame is 9; expected 0 to 8"):
        replay.start_here(9)
    with pytest.raises(ValueError, match="belong to no run"):
        wb.replay(lambda seen: idle(trainer.env), trainer.env).start_here(1)


class Unseparated(SeenTeam):
    select = PointTeam.select

    def remake(self, n_envs):
        return Unseparated(n_envs, len(self.agents), self.limit)


class Uncopied(SeenTeam):
    snapshot, restore = ForgetfulTeam.snapshot, ForgetfulTeam.restore

    def remake(self, n_envs):
        return Uncopied(n_envs, len(self.agents), self.limit)


@pytest.mark.parametrize("kind", [Unseparated, Uncopied])
def test_an_environment_that_cannot_be_copied_one_by_one_is_shown_but_not_started_from(kind):
    trainer = wb.happo(kind(), seed=0, **SMALL)
    replay = trainer.replay()
    assert replay.data()[0]["startable"] is False
    with pytest.raises(SnapshotUnsupported, match="cannot be copied"):
        replay.start_here(1)
    trainer.step()
    with pytest.raises(SnapshotUnsupported):
        trainer.replay_rollout()


def test_a_trainer_that_cannot_return_does_not_start_elsewhere():
    place = wb.happo(SeenTeam(), seed=0, **SMALL).replay().episodes[0].place
    with pytest.raises(SnapshotUnsupported, match="Uncopied cannot be copied, so no frame can be returned to"):
        wb.happo(Uncopied(), seed=0, **SMALL).start_at(place)


# ---- moments, ghosts, refusals ----


def test_a_scrubber_over_training_shows_what_the_policies_of_each_moment_do():
    trainer = game_trainer()
    snapshots = wb.Snapshots(trainer, every=2)
    trainer.run(iterations=5, progress=False)
    snapshots.close()
    trainer.run(iterations=1, progress=False)
    replay = trainer.replay(past=True)
    assert [take.state.iteration for take in replay.takes] == [0, 1, 2, 3, 4, 5, 6]
    assert replay.takes[0].label == "iteration 0 · 0 env steps"
    assert [take.state.iteration for take in trainer.replay(past=3).takes] == [0, 2, 5, 6]
    assert [take.state.iteration for take in trainer.replay(past=snapshots).takes] == [0, 2, 4, 6]
    assert all(state.rollout is None for state in snapshots)
    for take in replay.takes:
        alone = play(trainer.env, RunPlayer(trainer._setup, take.state), 1)[0]
        assert np.array_equal(alone.actions["agent_1"], take.episodes[0].actions["agent_1"])
    with pytest.raises(ValueError, match="past is 'all'; expected True"):
        trainer.replay(past="all")


def test_a_ghost_starts_where_the_other_does_and_may_share_the_robot_out_otherwise():
    trainer = hoppers(max_episode_steps=9)
    other = wb.happo(wb.envs.mujoco("Hopper", None, n_envs=2, max_episode_steps=9), seed=1, **SMALL)
    replay = trainer.replay(ghost={"one agent": other}, seed=2)
    assert replay.ghost.label == "one agent"
    assert np.array_equal(replay.ghost.episodes[0].sights[0], replay.episodes[0].sights[0])
    assert not np.array_equal(replay.ghost.episodes[0].sights[-1], replay.episodes[0].sights[-1])
    spec, _, _ = replay.data()
    owners = {part["owner"] for part in spec["ghostScene"]["parts"]}
    assert owners == {None, "agent_0"}
    fork = trainer.fork()
    fork.run(iterations=1, progress=False)
    assert trainer.replay(ghost=fork).ghost.label == "HAPPO, iteration 1 · 36 env steps"
    cheetah = wb.happo(wb.envs.mujoco("HalfCheetah", "2x3", n_envs=1), seed=0, **SMALL)
    with pytest.raises(ValueError, match="another scene"):
        trainer.replay(ghost=cheetah)


def test_who_cannot_play_there_is_refused():
    trainer = game_trainer()
    with pytest.raises(ValueError, match="the environment's agents are agent_0, agent_1, agent_2"):
        wb.replay(trainer, SeenTeam())
    with pytest.raises(TypeError, match="policy is a int"):
        wb.replay(3, SeenTeam())
    with pytest.raises(ValueError, match="env is missing"):
        wb.replay(lambda seen: seen)
    with pytest.raises(ValueError, match="a function acts as it does"):
        wb.replay(lambda seen: seen, SeenTeam(), deterministic=False)
    with pytest.raises(ValueError, match="empty mapping"):
        wb.replay({}, SeenTeam())
    with pytest.raises(ValueError, match="shows nothing that could be replayed"):
        wb.happo(PointTeam(), seed=0, **SMALL).replay()
    with pytest.raises(ValueError, match="episodes is 0"):
        trainer.replay(episodes=0)
    with pytest.raises(ValueError, match="every is 0"):
        wb.Snapshots(trainer, every=0)


class Confused(SampledGame):
    """Takes another environment out of a snapshot than it is asked for."""

    def select(self, snapshot, envs):
        return super().select(snapshot, [0] * len(envs))

    def remake(self, n_envs):
        return Confused(self.game, n_envs)


def test_the_contract_holds_select_to_its_word():
    game = game_trainer().env.game
    wb.envs.check(wb.envs.tabular(game, n_envs=3))
    with pytest.raises(ContractError, match="environment 2, taken out of a snapshot by select"):
        wb.envs.check(Confused(game, 3))
