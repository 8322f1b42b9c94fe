"""What a rollout holds, and what the advantages make of its endings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from point_team import PointTeam

import workbench as wb
from workbench.learning.phases import _values
from workbench.learning.state import actor_of

SMALL = {"n_steps": 12, "hidden_sizes": (16,)}


def replayed(trainer):
    """The rollout again, by stepping a fresh environment by hand with the actions that the rollout recorded."""
    rollout = trainer._state.rollout
    env = PointTeam()
    step = env.reset(seed=trainer._setup.streams.integer("environment"))
    joint_actions = ({a: taken[t].numpy() for a, taken in rollout.actions.items()} for t in range(rollout.n_steps))
    return rollout, [step, *map(env.step, joint_actions)]


def collected():
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.step()
    return trainer


def test_the_rollout_is_what_the_environment_did():
    rollout, steps = replayed(collected())
    for t, step in enumerate(steps):
        np.testing.assert_array_equal(rollout.states[t], step.state)
        for agent in step.observations:
            np.testing.assert_array_equal(rollout.observations[agent][t], step.observations[agent])
    for t, step in enumerate(steps[1:]):
        np.testing.assert_array_equal(rollout.rewards[t], step.reward.astype(np.float32))
        np.testing.assert_array_equal(rollout.terminated[t], step.terminated)
        np.testing.assert_array_equal(rollout.truncated[t], step.truncated)


def test_both_endings_occur_and_hand_back_their_true_last_states():
    rollout, steps = replayed(collected())
    assert rollout.terminated.any()
    assert rollout.truncated.any()
    ends = [(t, step.final) for t, step in enumerate(steps[1:]) if step.final is not None]
    at = np.concatenate([np.stack([np.full(len(f.envs), t), f.envs], 1) for t, f in ends])
    np.testing.assert_array_equal(rollout.final_at, at)
    np.testing.assert_array_equal(rollout.final_states, np.concatenate([f.state for _, f in ends]))


def test_a_truncated_step_bootstraps_from_its_true_final_state_and_a_terminated_one_from_nothing():
    trainer = collected()
    state, setup = trainer._state, trainer._setup
    rollout = state.rollout
    _, values, next_values = _values(setup, state, "state")
    network = setup.critics["state"]

    def value(states):
        return network.forward(network.fold(state.critics["state"].values), states).squeeze(-1)

    going_on = ~rollout.done
    torch.testing.assert_close(next_values[:-1][going_on[:-1]], values[1:][going_on[:-1]])
    assert (next_values[rollout.terminated] == 0).all()
    for (t, env), final in zip(rollout.final_at.tolist(), rollout.final_states, strict=True):
        if rollout.truncated[t, env]:
            torch.testing.assert_close(next_values[t, env], value(final[None])[0])
            assert next_values[t, env] != values[t + 1, env] if t + 1 < len(values) else True


def test_episode_returns_span_rollouts():
    trainer = wb.happo(PointTeam(limit=30), seed=0, **SMALL)
    rewards, returns, lengths = [], [], []
    running, length = np.zeros(4), np.zeros(4, int)
    for _ in range(4):
        trainer.iterate()
        rollout = trainer._state.rollout
        for t in range(rollout.n_steps):
            rewards.append(rollout.rewards[t])
            running += rollout.rewards[t].double().numpy()
            length += 1
            for env in np.flatnonzero(rollout.done[t]):
                returns.append(running[env])
                lengths.append(length[env])
                running[env], length[env] = 0, 0
    history = trainer.history
    assert history["episodes"].sum() == len(returns)
    weighted = (history["return"].fillna(0) * history["episodes"]).sum() / history["episodes"].sum()
    np.testing.assert_allclose(weighted, np.mean(returns), rtol=1e-5)
    assert max(lengths) > 12  # some episode lived through more than one rollout


@pytest.mark.parametrize("std", ["exp", "sigmoid"])
def test_gaussian_actions_are_the_means_and_sigma_times_the_noise(std):
    trainer = wb.happo(PointTeam(), seed=0, std=std, **SMALL)
    actor, generator = actor_of(trainer._setup, trainer._state), torch.Generator().manual_seed(0)
    for stacked in actor.stacks:
        shape, network, head = (len(stacked.agents), 5), stacked.policy.network, stacked.policy.head
        inputs = torch.randn(*shape, network.n_inputs, generator=generator)
        noise = torch.randn(*shape, head.action_size, generator=generator)
        expected = head.sample(actor.distribution(stacked, inputs), noise)
        torch.testing.assert_close(actor.sample(stacked, inputs, noise), expected)
