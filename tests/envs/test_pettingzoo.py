"""PettingZoo environments as a team's: who has left, whose reward, what is seen, what the environment gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium_robotics import mamujoco_v1
from mpe2 import simple_spread_v3
from parallel_games import Carrying, Foraging, Opaque, Scripted, Walk, actions_for, one, raise_error, same

import workbench as wb
from workbench.envs.parallel import IncompatibleEnvironmentError
from workbench.errors import EnvironmentFailedError, NonFiniteError, SnapshotUnsupported

LEAVING = {"a": (1, "terminated"), "b": (3, "truncated"), "c": (2, "truncated")}


# ---- leaving early ----


def test_those_who_left_see_zeros_and_act_no_more_until_all_are_done() -> None:
    made: list[Scripted] = []
    env, first = one(lambda: made.append(Scripted(LEAVING)) or made[-1])
    assert env.agents == ("a", "b", "c")
    assert [bool(first.active[agent][0]) for agent in "abc"] == [True, True, True]
    made[0].received.clear()
    steps = [env.step({"a": np.array([1]), "b": np.array([2]), "c": np.array([0])}) for _ in range(3)]
    assert made[0].received == [{"a": 1, "b": 2, "c": 0}, {"b": 2, "c": 0}, {"b": 2}]
    assert [[bool(step.active[agent][0]) for agent in "abc"] for step in steps] == [
        [False, True, True],
        [False, True, False],
        [True, True, True],  # the next episode
    ]
    assert [step.observations["b"][0].tolist() for step in steps] == [[1, 1, 2], [2, 1, 2], [0, 1, -1]]
    assert [step.observations["a"][0].tolist() for step in steps] == [[0, 0, 0], [0, 0, 0], [0, 0, -1]]
    assert [step.final is None for step in steps] == [True, True, False]
    final = steps[2].final
    assert final is not None
    assert final.envs.tolist() == [0]
    assert final.observations["b"].tolist() == [[3, 1, 2]]
    assert final.observations["a"].tolist() == [[0, 0, 0]]
    assert final.state.tolist() == [[0, 0, 0, 3, 1, 2, 0, 0, 0]]


def test_those_who_left_may_stay_among_the_environments_agents() -> None:
    made: list[Scripted] = []
    env, _ = one(lambda: made.append(Scripted(LEAVING, keeps_agents=True)) or made[-1])
    made[0].received.clear()
    steps = [env.step({agent: np.array([0]) for agent in "abc"}) for _ in range(3)]
    assert [set(given) for given in made[0].received] == [{"a", "b", "c"}, {"b", "c"}, {"b"}]
    assert [bool(step.done[0]) for step in steps] == [False, False, True]


@pytest.mark.parametrize(
    ("leaving", "terminated"),
    [
        ({"a": (2, "terminated"), "b": (2, "terminated")}, True),
        ({"a": (2, "truncated"), "b": (2, "truncated")}, False),
        ({"a": (2, "terminated"), "b": (2, "truncated")}, False),  # b would have gone on
        ({"a": (1, "terminated"), "b": (2, "truncated")}, False),
        ({"a": (1, "truncated"), "b": (2, "terminated")}, True),  # nobody would have gone on at the end
        ({"a": (2, "both"), "b": (2, "both")}, True),  # nothing follows, so the clock does not matter
    ],
)
def test_an_episode_is_truncated_where_someone_would_have_gone_on(
    leaving: dict[str, tuple[int, str]], terminated: bool
) -> None:
    env, _ = one(lambda: Scripted(leaving))
    action = {"a": np.array([0]), "b": np.array([0])}
    before, end = env.step(action), env.step(action)
    assert not before.done.any()
    assert (bool(end.terminated[0]), bool(end.truncated[0])) == (terminated, not terminated)


def test_agents_that_vanish_without_a_word_are_refused() -> None:
    env, _ = one(lambda: Scripted({"a": (1, "vanished"), "b": (1, "vanished")}))
    with pytest.raises(IncompatibleEnvironmentError, match=r"left without being terminated or truncated"):
        env.step({"a": np.array([0]), "b": np.array([0])})


def test_copies_end_each_at_its_own_time() -> None:
    ends = iter([1, 2, 3])
    env = wb.envs.pettingzoo(lambda: Scripted({"a": (next(ends), "terminated")}), n_envs=3)
    env.reset(seed=0)
    steps = [env.step({"a": np.zeros(3, int)}) for _ in range(4)]
    assert [np.flatnonzero(step.terminated).tolist() for step in steps] == [[0], [0, 1], [0, 2], [0, 1]]
    assert [step.final.envs.tolist() for step in steps if step.final] == [[0], [0, 1], [0, 2], [0, 1]]
    assert steps[1].final is not None
    assert steps[1].final.observations["a"][:, 0].tolist() == [1, 2]


# ---- one joint reward ----


def test_equal_rewards_are_the_joint_reward() -> None:
    env, _ = one(lambda: Scripted(LEAVING, reward=lambda agent, t: 10.0 + t))
    action = {agent: np.array([0]) for agent in "abc"}
    steps = [env.step(action) for _ in range(3)]
    assert [float(step.reward[0]) for step in steps] == [11.0, 12.0, 13.0]
    assert steps[0].info == {}


def test_rewards_that_differ_are_refused_with_names_values_and_remedy() -> None:
    env = wb.envs.pettingzoo(lambda: Scripted(reward=lambda agent, t: 1.5 if agent == "a" else -2.0), n_envs=2)
    env.reset(seed=0)
    with pytest.raises(IncompatibleEnvironmentError) as caught:
        env.step({"a": np.zeros(2, int), "b": np.zeros(2, int)})
    message = str(caught.value)
    assert "'a' 1.5, 'b' -2" in message
    assert 'reward="sum" or reward="mean"' in message
    assert caught.value.__notes__ == ["This came from environment 0."]


def test_rewards_equal_up_to_rounding_are_one() -> None:
    env, _ = one(lambda: Scripted(reward=lambda agent, t: 0.1 + 0.2 if agent == "a" else 0.3))
    assert env.step({"a": np.array([0]), "b": np.array([0])}).reward[0] == pytest.approx(0.3)


@pytest.mark.parametrize(("reward", "expected"), [("sum", [6.0, 5.0, 2.0]), ("mean", [2.0, 5 / 3, 2 / 3])])
def test_joined_rewards(reward: str, expected: list[float]) -> None:
    """a, b, c get 1, 2, 3 as long as they are there: a leaves after the first step and c after the second."""
    env, _ = one(lambda: Scripted(LEAVING, reward=lambda agent, t: 1.0 + "abc".index(agent)), reward=reward)
    steps = [env.step({agent: np.array([0]) for agent in "abc"}) for _ in range(3)]
    assert [float(step.reward[0]) for step in steps] == pytest.approx(expected)
    assert [[float(step.info[f"reward/{agent}"][0]) for agent in "abc"] for step in steps] == [
        [1, 2, 3],
        [0, 2, 3],
        [0, 2, 0],
    ]


def test_a_reward_that_is_no_number_is_refused() -> None:
    env, _ = one(lambda: Scripted(reward=lambda agent, t: float("nan")))
    with pytest.raises(NonFiniteError, match=r"the reward of 'a' is nan"):
        env.step({"a": np.array([0]), "b": np.array([0])})


# ---- seeds and copies ----


def test_environment_i_is_seeded_with_seed_plus_i() -> None:
    made: list[Scripted] = []
    env = wb.envs.pettingzoo(lambda: made.append(Scripted()) or made[-1], n_envs=3)
    env.reset(seed=5)
    env.reset()
    env.reset(seed=6)
    assert [inner.seeds[1:] for inner in made] == [[5, None, 6], [6, None, 7], [7, None, 8]]


def test_a_copy_repeats_to_the_bit() -> None:
    env = wb.envs.pettingzoo(Walk, n_envs=12)
    assert env.can_snapshot
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = [actions_for(env, rng) for _ in range(40)]
    for chosen in actions[:7]:
        env.step(chosen)
    snapshot = env.snapshot()
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "biufc" for array in snapshot.values())
    kept = {name: array.copy() for name, array in snapshot.items()}
    first = [env.step(chosen) for chosen in actions]
    assert any(step.final is not None for step in first)
    for other in (env, env.remake(12)):
        other.restore(snapshot)
        assert all(same(step, other.step(chosen)) for step, chosen in zip(first, actions, strict=True))
    assert all(np.array_equal(kept[name], array) for name, array in snapshot.items())


def test_users_say_how_to_copy() -> None:
    env, _ = one(Opaque, snapshot=Walk.get_state, restore=Walk.set_state)
    action = {agent: np.zeros((1, 1)) for agent in env.agents}
    snapshot = env.snapshot()
    first = env.step(action)
    env.restore(snapshot)
    assert same(first, env.step(action))


@pytest.mark.parametrize("keeps_agents", [False, True])
def test_a_copy_remembers_who_has_left(keeps_agents: bool) -> None:
    def take(env: Scripted) -> dict[str, Any]:
        return {"t": env.t, "agents": env.agents, "last": env.last}

    inner = Scripted(LEAVING, keeps_agents=keeps_agents)
    env, _ = one(lambda: inner, snapshot=take, restore=lambda env, state: vars(env).update(state))
    action = {agent: np.array([0]) for agent in "abc"}
    env.step(action)
    snapshot = env.snapshot()
    first = [env.step(action) for _ in range(2)]
    received = inner.received[-2:]
    env.reset()
    env.restore(snapshot)
    assert all(same(step, env.step(action)) for step in first)
    assert inner.received[-2:] == received


def test_what_cannot_be_copied_says_so() -> None:
    env, _ = one(Opaque)
    assert not env.can_snapshot
    for attempt in (env.snapshot, lambda: env.restore({})):
        with pytest.raises(SnapshotUnsupported, match=r"no get_state\(\) and set_state\(\). Pass snapshot=function"):
            attempt()
    env, _ = one(Opaque, snapshot=lambda env: {"inner": [env]}, restore=lambda env, state: None)
    with pytest.raises(SnapshotUnsupported, match=r"it\['inner'\]\[0\] is a Opaque; expected arrays, numbers"):
        env.snapshot()
    env, _ = one(Opaque, snapshot=lambda env: {"who": {7: 1}}, restore=lambda env, state: None)
    with pytest.raises(SnapshotUnsupported, match=r"it\['who'\] has the key 7; expected text"):
        env.snapshot()
    env, _ = one(Walk)
    with pytest.raises(ValueError, match="nothing of environment 0"):
        env.restore({"1/structure": np.zeros(1)})
    with pytest.raises(RuntimeError, match=r"no episode is under way.*call reset\(\) or restore\(\) first"):
        wb.envs.pettingzoo(Walk, n_envs=1).snapshot()


class Worn(Opaque):
    """The walk, which drifts the more the longer it has been in use, whatever the seed."""

    used = 0

    def step(self, actions: dict[str, Any]) -> Any:
        self.used += 1
        self.x = self.x + 0.01 * self.used
        return super().step(actions)


def test_a_seeded_reset_leaves_nothing_of_earlier_episodes() -> None:
    """As PettingZoo's knights_archers_zombies does, whose zombies come by a clock that goes on."""
    env = wb.envs.pettingzoo(Worn, n_envs=2)
    wb.envs.check(env, steps=10)
    made: list[Worn] = []
    same_again = wb.envs.pettingzoo(lambda: made[0] if made else made.append(Worn()) or made[0], n_envs=1)
    for _ in range(2):
        same_again.reset(seed=0)
        same_again.step({agent: np.zeros((1, 1)) for agent in same_again.agents})
    assert made[0].used == 2


def test_a_copy_that_failed_waits_for_a_reset() -> None:
    env = wb.envs.pettingzoo(lambda: Scripted(fail_at=(2, raise_error)), n_envs=2)
    action = {agent: np.zeros(2, int) for agent in env.agents}
    with pytest.raises(RuntimeError, match=r"no episode is under way.*call reset"):
        env.step(action)
    env.reset(seed=0)
    env.step(action)
    with pytest.raises(EnvironmentFailedError, match=r"own step\(\) raised KeyError: 'the key was lost'") as caught:
        env.step(action)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__notes__ == ["This came from environment 0."]
    with pytest.raises(RuntimeError, match=r"a copy failed in its midst: call reset\(\) or restore\(\) first"):
        env.step(action)
    env.reset()
    env.step(action)


# ---- what is refused at the door ----


class NoParallelEnv:
    pass


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (Scripted(), {}, TypeError, r"make_parallel_env is a Scripted; expected a function"),
        (NoParallelEnv, {}, ValueError, r"NoParallelEnv has no possible_agents; expected a PettingZoo parallel env"),
        (Scripted, {"reward": "max"}, ValueError, r"unknown reward 'max'.*Known: sum, mean"),
        (Scripted, {"state": "auot"}, ValueError, r"unknown state 'auot'; did you mean 'auto'"),
        (Scripted, {"n_envs": 0}, ValueError, r"n_envs is 0; expected an integer ≥ 1"),
        (Scripted, {"workers": 9}, ValueError, r"workers is 9, more than the 8 environments"),
        (Scripted, {"workers": -1}, ValueError, r"workers is -1; expected an integer ≥ 1"),
        (Walk, {"snapshot": Walk.get_state}, ValueError, r"snapshot and restore go together"),
    ],
)
def test_bad_options_are_refused(make: Any, options: Mapping[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wb.envs.pettingzoo(make, **options)


class OfOldForm(Scripted):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed)[0]


class Blinding(Scripted):
    """Shows nobody anything from the first step on."""

    def _observations(self) -> dict[str, Any]:
        return {} if self.t else super()._observations()


class Growing(Scripted):
    """Its state has a number more at every step."""

    def state(self) -> Any:
        return np.zeros(2 + self.t)


class Nobody(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (OfOldForm, r"reset\(\) returned a dict; expected \(observations, infos\)"),
        (Blinding, "'a' was shown no observation, though it would go on"),
        (Growing, r"state\(\) gave 3 numbers, and at first 2; pass state=\"observations\""),
        (Nobody, r"possible_agents is \[\]; expected at least one agent"),
    ],
)
def test_environments_that_break_the_api_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(IncompatibleEnvironmentError, match=message):
        one(make)[0].step({"a": np.array([0]), "b": np.array([0])})


def test_those_who_are_done_need_no_last_observation() -> None:
    env, _ = one(lambda: Blinding({"a": (1, "terminated")}))
    final = env.step({"a": np.array([0])}).final
    assert final is not None
    assert final.observations["a"].tolist() == [[0, 0, 0]]


def test_copies_must_be_new_and_alike() -> None:
    only = Scripted()
    with pytest.raises(IncompatibleEnvironmentError, match="the same environment twice"):
        wb.envs.pettingzoo(lambda: only, n_envs=2)
    sizes = iter([2, 3])
    with pytest.raises(IncompatibleEnvironmentError, match=r"not those of environment 0; make all copies alike"):
        wb.envs.pettingzoo(lambda: Scripted(action_space=spaces.Discrete(next(sizes))), n_envs=2)


# ---- real ones ----


def spread() -> Any:
    return simple_spread_v3.parallel_env(N=3, max_cycles=10, local_ratio=0.0)


def ant() -> Any:
    return mamujoco_v1.parallel_env("Ant", "4x2", agent_obsk=1, max_episode_steps=15)


@pytest.mark.parametrize(
    ("make", "options"),
    [(spread, {}), (ant, {"clip_actions": False}), (Foraging, {"reward": "sum"})],
    ids=["simple_spread", "mamujoco", "foraging"],
)
def test_the_team_sees_what_the_environment_shows(make: Callable[[], Any], options: dict[str, Any]) -> None:
    """Against the environment stepped by hand, over several episodes."""
    env = wb.envs.pettingzoo(make, n_envs=2, **options)
    step = env.reset(seed=3)
    rng = np.random.default_rng(0)
    raw = make()
    observations, _ = raw.reset(seed=4)
    ended = 0
    for _ in range(60):
        for agent in env.agents:
            assert np.array_equal(step.observations[agent][1], np.asarray(observations[agent], np.float32).ravel())
        actions = actions_for(env, rng)
        step = env.step(actions)
        own = {agent: actions[agent][1] for agent in env.agents}
        observations, rewards, terminations, truncations, _ = raw.step(own)
        joint = sum(rewards.values()) if options.get("reward") else next(iter(rewards.values()))
        assert step.reward[1] == pytest.approx(joint, rel=1e-6)
        assert bool(step.terminated[1]) == all(terminations.values())
        assert bool(step.truncated[1]) == (all(truncations.values()) and not all(terminations.values()))
        if step.done[1]:
            assert step.final is not None
            row = step.final.envs.tolist().index(1)
            for agent in env.agents:
                last = np.asarray(observations[agent], np.float32).ravel()
                assert np.array_equal(step.final.observations[agent][row], last)
            observations, _ = raw.reset()
            ended += 1
    assert ended >= 1
    env.close()
    raw.close()


@pytest.mark.parametrize("make", [spread, ant, Foraging, Walk, Carrying])
def test_a_seed_is_all_that_a_run_depends_on(make: Callable[[], Any]) -> None:
    """Also where an episode depends on the one before it, as the first depends on the one that showed the spaces."""
    runs = []
    for _ in range(2):
        env = wb.envs.pettingzoo(make, n_envs=2, reward="mean")
        rng = np.random.default_rng(0)
        runs.append([env.reset(seed=3), *(env.step(actions_for(env, rng)) for _ in range(25))])
        env.close()
    assert all(map(same, *runs))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (spread, {}),
        (ant, {}),
        (Foraging, {"reward": "sum"}),
        (Walk, {"workers": 2}),
        (
            lambda: Scripted(LEAVING, action_space=spaces.MultiDiscrete([2, 3]), mask=lambda agent, t: [1, 0, 1, 1, 0]),
            {},
        ),
    ],
    ids=["simple_spread", "mamujoco", "foraging", "walk in workers", "leaving early"],
)
def test_it_keeps_the_contract(make: Callable[[], Any], options: dict[str, Any]) -> None:
    env = wb.envs.pettingzoo(make, n_envs=3, **options)
    wb.envs.check(env)
    env.close()
