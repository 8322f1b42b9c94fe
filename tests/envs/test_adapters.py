"""Gymnasium's and HARL's environments as a team's: the same numbers as the environment stepped by hand."""

from __future__ import annotations

from typing import Any

import gymnasium
import lbforaging  # noqa: F401 - registers its tasks
import numpy as np
import pytest
from gymnasium import spaces
from parallel_games import Foraging, actions_for, same

import workbench as wb
from workbench.envs.parallel import IncompatibleEnvironmentError
from workbench.errors import EnvironmentFailedError

FORAGING = "Foraging-5x5-2p-1f-coop-v3"


def test_one_agent_sees_what_the_environment_shows() -> None:
    env = wb.envs.gymnasium("CartPole-v1", n_envs=3)
    wb.envs.check(env)
    assert (env.agents, env.observation_spaces["agent_0"].shape) == (("agent_0",), (4,))
    assert env.action_spaces["agent_0"] == spaces.Discrete(2)
    by_hand = gymnasium.make("CartPole-v1")
    step = env.reset(seed=3)
    assert step.observations["agent_0"][2].tolist() == by_hand.reset(seed=5)[0].tolist()
    for _ in range(30):
        step = env.step({"agent_0": np.ones(3, int)})
        seen, reward, terminated, *_ = by_hand.step(1)
        assert (step.reward[2], step.terminated[2]) == (reward, terminated)
        if terminated:
            break
        assert step.observations["agent_0"][2].tolist() == seen.tolist()
    assert step.terminated[2]


def test_a_pole_is_balanced_longer_after_some_training() -> None:
    env = wb.envs.gymnasium(lambda: gymnasium.make("CartPole-v1"), n_envs=8)
    trainer = wb.happo(env, seed=0, n_steps=128, lr=3e-3, hidden_sizes=(32,))
    before = trainer.evaluate(5).mean()
    trainer.run(iterations=12, progress=False)
    assert trainer.evaluate(5).mean() > before + 30


@pytest.mark.parametrize("limit", [None, 7])
def test_a_limit_truncates(limit: int | None) -> None:
    env = wb.envs.gymnasium("Pendulum-v1", n_envs=1, max_episode_steps=limit)
    env.reset(seed=0)
    ends = [bool(env.step({"agent_0": np.zeros((1, 1))}).truncated[0]) for _ in range(200)]
    assert ends.index(True) == (limit or 200) - 1


def test_several_agents_of_tuples() -> None:
    env = wb.envs.gymnasium(FORAGING, n_envs=2, reward="sum")
    other = wb.envs.pettingzoo(lambda: Foraging(FORAGING), n_envs=2, reward="sum")
    assert env.agents == ("agent_0", "agent_1")
    wb.envs.check(env)
    rng = np.random.default_rng(0)
    first, theirs = env.reset(seed=3), other.reset(seed=3)
    assert np.array_equal(first.state, theirs.state)
    step = env.step(actions := actions_for(env, rng))
    assert np.array_equal(step.reward, other.step(dict(zip(other.agents, actions.values(), strict=True))).reward)
    assert same(first, env.reset(seed=3))
    wb.happo(env, n_steps=20, hidden_sizes=(8,)).run(iterations=2, progress=False)


def test_a_copy_by_the_environments_own_means() -> None:
    def take(env: Any) -> dict[str, Any]:
        return {"state": np.array(env.unwrapped.state), "rng": env.np_random.bit_generator.state}

    def put(env: Any, value: dict[str, Any]) -> None:
        env.reset()
        env.unwrapped.state = tuple(value["state"])
        env.np_random.bit_generator.state = value["rng"]

    env = wb.envs.gymnasium("CartPole-v1", n_envs=2, snapshot=take, restore=put)
    wb.envs.check(env)
    assert env.can_snapshot


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (3, TypeError, "make is a int; expected a function that makes a new environment"),
        (object, IncompatibleEnvironmentError, "object has no observation_space and action_space"),
        ("CartPole-v999", EnvironmentFailedError, "CartPole"),
    ],
)
def test_what_is_no_gymnasium_environment_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wb.envs.gymnasium(make, n_envs=1)


class Harl:
    """Three agents in HARL's form, who are paid for the number that they all choose; 5 steps, or until all choose 3."""

    n_agents = 3
    observation_space = [spaces.Box(-1, 9, (2,))] * 3
    share_observation_space = [spaces.Box(-1, 9, (4,))] * 3
    action_space = [spaces.Discrete(4)] * 3

    def __init__(self) -> None:
        self.received: list[Any] = []

    def seed(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def reset(self) -> Any:
        self.t, self.x = 0, float(self.rng.random())
        return self.shown()

    def shown(self) -> Any:
        seen = [np.array([i, self.t]) for i in range(3)]
        shared = [np.array([self.t, self.x, 0, 1])] * 3
        return seen, shared, [[1, 1, 1, int(self.t > 1)]] * 3

    def step(self, actions: Any) -> Any:
        self.received.append(actions)
        self.t += 1
        won = bool((actions == 3).all())
        seen, shared, available = self.shown()
        late = self.t == 5 and not won
        infos = [{"bad_transition": late} for _ in range(3)]
        return seen, shared, [[float(actions.sum())]] * 3, [won or late] * 3, infos, available

    def close(self) -> None:
        pass


def test_harls_environments() -> None:
    made: list[Harl] = []
    env = wb.envs.harl(lambda: made.append(Harl()) or made[-1], n_envs=2)
    wb.envs.check(env)
    step = env.reset(seed=0)
    assert (env.agents, env.state_space.shape) == (("agent_0", "agent_1", "agent_2"), (4,))
    assert step.observations["agent_2"].tolist() == [[2, 0], [2, 0]]
    assert step.state[1].tolist() == [0, np.float32(np.random.default_rng(1).random()), 0, 1]
    assert step.action_masks["agent_1"].tolist() == [[True, True, True, False]] * 2
    steps = [env.step({agent: np.array([1, choice]) for agent in env.agents}) for choice in (0, 1, 3, 0, 2)]
    assert made[-2].received[0].tolist() == [[1], [1], [1]]
    assert [step.reward.tolist() for step in steps] == [[3, 0], [3, 3], [3, 9], [3, 0], [3, 6]]
    assert [step.terminated.tolist() for step in steps] == [[False, row == 2] for row in range(5)]
    assert [step.truncated.tolist() for step in steps] == [[row == 4, False] for row in range(5)]
    wb.happo(env, n_steps=10, hidden_sizes=(8,)).run(iterations=2, progress=False)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("reset", r"reset\(\) returned \[1\]; expected \(obs, share_obs, available_actions\)"),
        ("step", r"step\(\) returned \[1\]; expected \(obs, share_obs, rewards, dones, infos, available_actions\)"),
    ],
)
def test_other_forms_of_harls_are_refused(method: str, message: str) -> None:
    kind = type("Kind", (Harl,), {method: lambda self, *actions: [1]})

    def play() -> None:
        env = wb.envs.harl(kind, n_envs=1)
        env.reset(seed=0)
        env.step({agent: np.array([0]) for agent in env.agents})

    with pytest.raises(IncompatibleEnvironmentError, match=message):
        play()
