"""``as_parallel_env()``: PettingZoo's own test passes, and what is shown is what the team's environment shows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.envs.base import TimeStep
from workbench.envs.parallel_view import ParallelView
from workbench.theory import TabularGame

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pettingzoo.test import parallel_api_test


@pytest.mark.parametrize(
    ("scenario", "conf", "options"),
    [
        ("Ant", "4x2", {}),
        ("Ant", "8x1", {"agent_obsk": 1}),
        ("HalfCheetah", "6x1", {}),
        ("Humanoid", "9|8", {}),
        ("Walker2d", "3x2", {}),
        ("ManyAgentSwimmer", "10x2", {"agent_obsk": 0}),
    ],
)
@pytest.mark.filterwarnings("error")
def test_pettingzoos_own_test_passes(scenario: str, conf: str, options: dict[str, Any]) -> None:
    env = wb.envs.mujoco(scenario, conf, n_envs=5, max_episode_steps=30, **options)
    parallel_api_test(env.as_parallel_env(), num_cycles=80)


@pytest.mark.filterwarnings("error")
def test_it_passes_on_a_tabular_game() -> None:
    game = TabularGame([[[0, 2], [2, -1]]], np.ones((1, 2, 2, 1)), initial=[1], discount=0.9)
    parallel_api_test(wb.envs.tabular(game, n_envs=5, max_episode_steps=4).as_parallel_env(), num_cycles=20)


def test_one_copy_is_itself_and_several_are_remade() -> None:
    one = wb.envs.mujoco("Hopper", "3x1", n_envs=1)
    assert one.as_parallel_env().team_env is one
    many = wb.envs.mujoco("Hopper", "3x1", n_envs=4)
    assert many.as_parallel_env().team_env.n_envs == 1
    with pytest.raises(ValueError, match=r"n_envs=4: pass env.remake\(1\)"):
        ParallelView(many)


def test_episodes_are_those_of_the_teams_environment() -> None:
    """Three episodes on end: every observation, reward and flag, the true last observation, and the next first one."""
    team = wb.envs.mujoco("Walker2d", "2x3", n_envs=1, max_episode_steps=25)
    view = wb.envs.mujoco("Walker2d", "2x3", n_envs=1, max_episode_steps=25).as_parallel_env()
    shown, (seen, _) = team.reset(seed=8), view.reset(seed=8)
    rng = np.random.default_rng(0)
    for _ in range(70):
        assert np.array_equal(view.state(), shown.state[0])
        assert all(np.array_equal(seen[agent], shown.observations[agent][0]) for agent in team.agents)
        actions = {agent: rng.uniform(-1, 1, 3).astype(np.float32) for agent in team.agents}
        shown = team.step({agent: action[None] for agent, action in actions.items()})
        seen, rewards, terminations, truncations, infos = view.step(actions)
        assert set(rewards.values()) == {shown.reward[0]}
        assert set(terminations.values()) == {bool(shown.terminated[0])}
        assert set(truncations.values()) == {bool(shown.truncated[0])}
        assert infos["agent_1"]["reward_forward"] == shown.info["reward_forward"][0]
        if shown.final is not None:
            last = shown.final.observations
            assert all(np.array_equal(seen[agent], last[agent][0]) for agent in team.agents)
            assert np.array_equal(view.state(), shown.final.state[0])
            assert view.agents == []
            seen, _ = view.reset()
        assert view.agents == list(team.agents)


def test_a_seed_given_at_reset_counts_even_after_an_episode() -> None:
    view = wb.envs.mujoco("Swimmer", "2x1", n_envs=1, max_episode_steps=3).as_parallel_env()
    first, _ = view.reset(seed=4)
    for _ in range(3):
        view.step({agent: np.zeros(1, np.float32) for agent in view.agents})
    again, _ = view.reset(seed=4)
    assert all(np.array_equal(first[agent], again[agent]) for agent in first)


def test_an_action_that_is_missing_is_refused() -> None:
    view = wb.envs.mujoco("Swimmer", "2x1", n_envs=1).as_parallel_env()
    view.reset(seed=0)
    with pytest.raises(ValueError, match="agent_1"):
        view.step({"agent_0": np.zeros(1)})


class EarlyLeaver(wb.envs.TeamEnv):
    """Two agents of whom the second leaves after two steps; choices are masked; the team goes on to step four."""

    def __init__(self) -> None:
        from gymnasium.spaces import Box, Discrete

        self.n_envs, self.agents, self.clock = 1, ("stays", "leaves"), 0
        self.observation_spaces = dict.fromkeys(self.agents, Box(0, 9, (1,), np.float32))
        self.action_spaces = dict.fromkeys(self.agents, Discrete(2))
        self.state_space = Box(0, 9, (1,), np.float32)
        self.received: list[dict[str, int]] = []

    def _show(self, ended: bool) -> TimeStep:
        from workbench.envs.base import Final

        seen = np.full((1, 1), self.clock, np.float32)
        final = Final(np.array([0]), dict.fromkeys(self.agents, seen), seen) if ended else None
        self.clock = 0 if ended else self.clock
        now = np.full((1, 1), self.clock, np.float32)
        masks = dict.fromkeys(self.agents, np.array([[True, False]]))
        active = {"leaves": np.array([self.clock < 2])}
        flags = np.array([False]), np.array([ended])
        return TimeStep(dict.fromkeys(self.agents, now), now, np.zeros(1), *flags, final, masks, active)

    def reset(self, seed: int | None = None) -> TimeStep:
        self.clock = 0
        return self._show(False)

    def step(self, actions: Any) -> TimeStep:
        self.received.append({agent: int(action[0]) for agent, action in actions.items()})
        self.clock += 1
        return self._show(self.clock == 4)


def test_agents_may_leave_before_their_team() -> None:
    env = EarlyLeaver()
    view = env.as_parallel_env()
    _, infos = view.reset()
    assert np.array_equal(infos["stays"]["action_mask"], [True, False])
    view.step({"stays": 1, "leaves": 1})
    *_, terminations, truncations, _ = view.step({"stays": 1, "leaves": 1})
    assert (terminations, view.agents) == ({"stays": False, "leaves": True}, ["stays"])
    observations, _, terminations, truncations, _ = view.step({"stays": 1})
    assert list(observations) == ["stays"]
    *_, terminations, truncations, _ = view.step({"stays": 1})
    assert (terminations, truncations, view.agents) == ({"stays": False}, {"stays": True}, [])
    assert env.received == [{"stays": 1, "leaves": 1}] * 2 + [{"stays": 1, "leaves": 0}] * 2
    view.reset()
    assert view.agents == ["stays", "leaves"]
