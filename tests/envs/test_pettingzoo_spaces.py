"""PettingZoo's spaces and masks, as a team sees them and as the environment gets them back."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from parallel_games import Scripted, one
from pettingzoo import ParallelEnv

from workbench.envs.parallel import IncompatibleEnvironmentError

# ---- action masks ----


@pytest.mark.parametrize("place", ["infos", "observations"])
def test_masks_come_from_observations_or_infos(place: str) -> None:
    def mask(agent: str, t: int) -> list[int]:
        return [1, t % 2, agent == "b"]

    env, first = one(lambda: Scripted({"a": (1, "terminated"), "b": (3, "truncated")}, mask=mask, mask_in=place))
    assert env.observation_spaces["a"].shape == (3,)
    assert first.observations["b"].tolist() == [[0, 1, -1]]
    assert first.action_masks["a"].tolist() == [[True, False, False]]
    step = env.step({"a": np.array([0]), "b": np.array([0])})
    assert step.action_masks["b"].tolist() == [[True, True, True]]
    assert step.action_masks["b"].dtype == np.bool_
    assert step.action_masks["a"].tolist() == [[True, True, True]]  # a has left: nothing it does matters
    assert env.step({"a": np.array([0]), "b": np.array([0])}).action_masks["b"].tolist() == [[True, False, True]]


def test_masks_of_several_components_lie_end_to_end() -> None:
    space = spaces.MultiDiscrete([2, 3])
    for given in ((np.array([1, 0]), np.array([0, 1, 1])), np.array([1, 0, 0, 1, 1])):
        _, first = one(lambda given=given: Scripted(action_space=space, mask=lambda agent, t: given))
        assert first.action_masks["a"].tolist() == [[True, False, False, True, True]]


def test_without_masks_there_are_none() -> None:
    assert one(Scripted)[1].action_masks == {}


@pytest.mark.parametrize(
    ("space", "mask", "message"),
    [
        (spaces.MultiDiscrete([2, 3]), [1, 1, 0, 0, 0], r"action mask of 'a' allows no action at all in one component"),
        (spaces.Discrete(3), [1, 1], r"action mask of 'a' has 2 entries; expected 3"),
        (spaces.Discrete(3), [-np.inf, 0, 0], r"action mask of 'a' is \[-inf, 0, 0\]; expected 1 for each action that"),
        (spaces.Discrete(3), [np.nan, 1, 1], r"action mask of 'a' is .* or booleans"),
        (spaces.Discrete(3), ["yes", "no", "no"], r"action mask of 'a' is .* or booleans"),
        (spaces.Discrete(3), {"0": 1}, r"action mask of 'a' is .* or booleans"),
    ],
)
def test_useless_masks_are_refused(space: Any, mask: list[int], message: str) -> None:
    with pytest.raises(IncompatibleEnvironmentError, match=message):
        one(lambda: Scripted(action_space=space, mask=lambda agent, t: mask))


def test_the_mask_of_one_who_is_done_does_not_matter() -> None:
    env, _ = one(lambda: Scripted({"a": (1, "terminated")}, mask=lambda agent, t: [t == 0] * 3))
    assert bool(env.step({"a": np.array([0])}).terminated[0])


def test_a_mask_that_comes_too_late_for_the_first_action_is_refused() -> None:
    env, _ = one(lambda: Scripted(mask=lambda agent, t: None if t == 0 else [1, 1, 1]))
    with pytest.raises(
        IncompatibleEnvironmentError, match=r"'a' got an action mask after step\(\), but none after reset"
    ):
        env.step({"a": np.array([0]), "b": np.array([0])})


# ---- what is seen ----


class Seeing(ParallelEnv):
    """One agent that is shown samples of a space."""

    def __init__(self, space: gymnasium.Space[Any], state: Any = None) -> None:
        self.possible_agents, self.space, self.given, self.own_state = [7], space, [], state

    def observation_space(self, agent: int) -> gymnasium.Space[Any]:
        return self.space

    def action_space(self, agent: int) -> gymnasium.Space[Any]:
        return spaces.Discrete(2)

    def _show(self) -> dict[int, Any]:
        self.given.append(self.space.sample())
        return {7: self.given[-1]}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = [7]
        self.space.seed(seed)
        return self._show(), {7: {}}

    def step(self, actions: Any) -> Any:
        return self._show(), {7: 0.0}, {7: False}, {7: False}, {7: {}}

    def state(self) -> Any:
        if self.own_state is None:
            raise NotImplementedError
        return self.own_state


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (4,)),
        spaces.Box(0, 255, (2, 3, 2), np.uint8),
        spaces.Box(-1, 1, (), np.float64),
        spaces.Discrete(5, start=2),
        spaces.MultiDiscrete([3, 2]),
        spaces.MultiBinary(6),
        spaces.Dict({"place": spaces.Box(0, 1, (2, 2)), "carries": spaces.Discrete(3)}),
        spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(3)]),
    ],
    ids=str,
)
def test_any_observation_of_fixed_length_becomes_one_vector(space: gymnasium.Space[Any]) -> None:
    inner = Seeing(space)
    env, first = one(lambda: inner)
    step = env.step({"7": np.array([0])})
    for seen, given in ((first, inner.given[-2]), (step, inner.given[-1])):
        expected = np.asarray(spaces.flatten(space, given), np.float32).ravel()
        assert np.array_equal(seen.observations["7"], expected[None])
        assert np.array_equal(seen.state, expected[None])
        assert seen.observations["7"].dtype == np.float32
        assert env.observation_spaces["7"].contains(seen.observations["7"][0])


def test_observations_of_no_fixed_length_are_refused() -> None:
    with pytest.raises(
        IncompatibleEnvironmentError, match=r"observation space of '7' is Sequence.*has no fixed length"
    ):
        one(lambda: Seeing(spaces.Sequence(spaces.Discrete(2))))


def test_an_observation_unlike_its_space_is_refused() -> None:
    class Lying(Seeing):
        def _show(self) -> dict[int, Any]:
            return {7: np.zeros(5, np.float32)}

    with pytest.raises(
        IncompatibleEnvironmentError, match=r"'7' was shown an array of shape \(5,\), while Box.* has shape \(4,\)"
    ):
        one(lambda: Lying(spaces.Box(-1, 1, (4,))))


def test_the_critic_sees_the_environments_state_or_all_observations() -> None:
    box = spaces.Box(-1, 1, (2,))
    own = np.arange(6.0).reshape(2, 3)
    env, first = one(lambda: Seeing(box, own))
    assert env.state_space.shape == (6,)
    assert first.state.tolist() == [[0, 1, 2, 3, 4, 5]]
    env, first = one(lambda: Seeing(box, own), state="observations")
    assert np.array_equal(first.state, first.observations["7"])
    assert env.state_space == env.observation_spaces["7"]
    with pytest.raises(
        IncompatibleEnvironmentError, match=r'state\(\) gave a dict, expected an array; pass state="obs'
    ):
        one(lambda: Seeing(box, {"x": 1}))


# ---- what the environment gets ----


@pytest.mark.parametrize(
    ("given", "shown", "action", "received"),
    [
        (spaces.Discrete(3, start=-1), spaces.Discrete(3), 2, 1),
        (
            spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [0, 0]]),
            spaces.MultiDiscrete([2, 3, 4, 5]),
            [1, 2, 3, 4],
            [[1, 3], [3, 4]],
        ),
        (spaces.MultiBinary(3), spaces.MultiDiscrete([2, 2, 2]), [1, 0, 1], [1, 0, 1]),
        (spaces.Box(-1, 1, (2, 2)), spaces.Box(-1, 1, (4,)), [0.5, 2.0, -3.0, 0.0], [[0.5, 1.0], [-1.0, 0.0]]),
        (spaces.Box(0, np.inf, (1,), np.float64), spaces.Box(0, np.inf, (1,)), [-0.5], [0.0]),
    ],
    ids=str,
)
def test_actions_arrive_as_the_environment_has_them(given: Any, shown: Any, action: Any, received: Any) -> None:
    inner = Scripted(action_space=given)
    env, _ = one(lambda: inner)
    assert env.action_spaces["a"] == shown
    inner.received.clear()
    env.step({agent: np.array([action]) for agent in env.agents})
    arrived = inner.received[0]["a"]
    assert given.contains(arrived)
    assert np.asarray(arrived).tolist() == received


def test_actions_go_through_unclipped_if_asked() -> None:
    inner = Scripted(action_space=spaces.Box(-1, 1, (1,)))
    env, _ = one(lambda: inner, clip_actions=False)
    inner.received.clear()
    env.step({agent: np.array([[3.0]]) for agent in env.agents})
    assert inner.received[0]["a"].tolist() == [3.0]


@pytest.mark.parametrize("space", [spaces.Box(0, 5, (2,), np.int64), spaces.Dict({"x": spaces.Discrete(2)})], ids=str)
def test_other_actions_are_refused(space: Any) -> None:
    with pytest.raises(IncompatibleEnvironmentError, match=r"action space of 'a' is .*; expected a Box of floats"):
        one(lambda: Scripted(action_space=space))


def test_a_bad_action_is_refused_before_anything_moves() -> None:
    inner = Scripted(action_space=spaces.Box(-1, 1, (2,)))
    env, _ = one(lambda: inner)
    inner.received.clear()
    good = np.zeros((1, 2))
    for bad, message in (
        ({"a": good}, r"actions has none for 'b'"),
        ({"a": good, "b": np.array([[0.0, np.nan]])}, r"action of 'b' is nan in environment 0"),
        ({"a": good, "b": np.zeros(2)}, r"action of 'b' has shape \(2,\); expected \(1, 2\)"),
        ({"a": good, "b": good, "z": good}, r"unknown agent in actions: 'z'"),
    ):
        with pytest.raises(ValueError, match=message):
            env.step(bad)
    assert inner.received == []
    env.step({"a": good, "b": good})
