"""The one door to PettingZoo: older forms mean what they can only mean, all else is refused by agent and remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from mpe2 import simple_spread_v3
from parallel_games import Scripted, one
from pettingzoo.classic import connect_four_v3, rps_v2, tictactoe_v3
from pettingzoo.utils.conversions import turn_based_aec_to_parallel

import workbench as wb
from workbench.envs.parallel import IncompatibleEnvironmentError
from workbench.errors import EnvironmentFailedError, NonFiniteError, WorkbenchError

BOTH = {"a": np.array([0]), "b": np.array([0])}


def changed(method: str, change: Callable[..., Any], **attributes: Any) -> type[Scripted]:
    """The scripted game, what one of its methods returns changed on the way."""

    def replaced(self: Scripted, *arguments: Any, **keywords: Any) -> Any:
        return change(getattr(Scripted, method)(self, *arguments, **keywords))

    return type("Changed", (Scripted,), {method: replaced, **attributes})


def with_agents(agents: Any) -> type[Scripted]:
    """The scripted game, which says after ``reset`` that others act."""

    def reset(self: Scripted, seed: int | None = None, options: Any = None) -> Any:
        shown = Scripted.reset(self, seed)
        self.agents = agents
        return shown

    return type("Changed", (Scripted,), {"reset": reset})


def listing(possible_agents: Any) -> type[Scripted]:
    """The scripted game, which lists other agents."""
    return type("Listing", (Scripted,), {"possible_agents": property(lambda self: possible_agents, lambda *a: None)})


def step_part(index: int, value: Any) -> type[Scripted]:
    """The scripted game, one of the five things that ``step`` returns replaced."""
    return changed("step", lambda given: (*given[:index], value(given[index]), *given[index + 1 :]))


def of_the_game_as_it_is() -> list[Any]:
    env, first = one(Scripted)
    return [first.observations["b"].tolist(), *(outcome(env.step(BOTH)) for _ in range(4))]


def outcome(step: wb.envs.TimeStep) -> Any:
    return step.observations["b"].tolist(), step.reward.tolist(), step.terminated.tolist(), step.truncated.tolist()


class WithoutSeed(Scripted):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class SeededBefore(Scripted):
    """Of the time when ``seed`` was a method."""

    given: int | None = None

    def seed(self, seed: int | None = None) -> None:
        self.given = seed

    def reset(self, options: Any) -> Any:  # type: ignore[override]
        assert options is None
        return super().reset()


def test_one_that_is_seeded_by_a_method_is_seeded() -> None:
    made: list[SeededBefore] = []
    env = wb.envs.pettingzoo(lambda: made.append(SeededBefore()) or made[-1], n_envs=2)
    env.reset(seed=5)
    assert [inner.given for inner in made] == [5, 6]


@pytest.mark.parametrize(
    "make",
    [
        WithoutSeed,
        SeededBefore,
        changed("reset", lambda given: (given[0], None)),
        changed("reset", lambda given: (given[0], dict.fromkeys(given[0]))),
        changed("reset", lambda given: (list(given[0].values()), list(given[1].values()))),
        changed("reset", lambda given: (np.stack(list(given[0].values())), {})),
        changed("reset", lambda given: (given[0], [{}, {"more": [[1], [2, 3]]}])),
        changed("step", list),
        step_part(0, lambda seen: list(seen.values())),
        step_part(1, lambda rewards: rewards["a"]),
        step_part(1, lambda rewards: {agent: np.array([[reward]]) for agent, reward in rewards.items()}),
        step_part(1, lambda rewards: np.array(list(rewards.values()))),
        step_part(2, lambda flags: any(flags.values())),
        step_part(2, lambda flags: {}),
        step_part(2, lambda flags: {agent: int(flag) for agent, flag in flags.items()}),
        step_part(3, lambda flags: {"__all__": np.bool_(all(flags.values()))}),
        step_part(4, lambda infos: None),
        type(
            "Keyed",
            (Scripted,),
            {"observation_space": {"a": spaces.Box(-10, 1000, (3,)), "b": spaces.Box(-10, 1000, (3,))}},
        ),
        type("One", (Scripted,), {"observation_space": spaces.Box(-10, 1000, (3,))}),
    ],
)
def test_other_forms_are_taken_where_they_mean_one_thing(make: Any) -> None:
    env, first = one(make)
    assert [first.observations["b"].tolist(), *(outcome(env.step(BOTH)) for _ in range(4))] == of_the_game_as_it_is()


class OldSpace:
    """As the package gym's."""

    __module__ = "gym.spaces.discrete"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (changed("reset", lambda given: (given[0], {**given[1], "a": [1]})), r"info of 'a' after reset\(\) is \[1\]"),
        (changed("reset", lambda given: (given[0]["a"], given[1])), r"observations after reset\(\) are array"),
        (changed("reset", lambda given: ({**given[0], "c": 1}, {})), r"after reset\(\) has 'c', whom possible_agents"),
        (with_agents([]), r"env.agents is empty after reset"),
        (
            with_agents(["a", "z"]),
            r"env.agents after reset\(\) has \['z'\], whom possible_agents does not list: it has \['a', 'b'\]",
        ),
        (with_agents(3), r"env.agents is 3 after reset"),
        (
            changed("step", lambda given: (given[0], given[1], given[2], given[4])),
            r"step\(\) returned 4 values; .*dones",
        ),
        (changed("step", lambda given: None), r"step\(\) returned a NoneType; expected \(observations, rewards"),
        (
            step_part(0, lambda seen: [1, 2, 3]),
            r"observations after step\(\) are \[1, 2, 3\]; expected a dict with one",
        ),
        (step_part(0, lambda seen: {**seen, "a": seen["a"][:2]}), r"'a' was shown an array of shape \(2,\)"),
        (step_part(0, lambda seen: {**seen, "a": None}), r"'a' was shown None, not numbers"),
        (step_part(0, lambda seen: {**seen, "a": {"x": 1}}), r"'a' was shown \{'x': 1\}; expected Box"),
        (step_part(0, lambda seen: {**seen, "a": [[1], [2, 3]]}), r"'a' was shown .* not numbers"),
        (
            step_part(1, lambda rewards: {**rewards, "b": np.ones(2)}),
            r"reward of 'b' is array\(\[1., 1.\]\); expected a",
        ),
        (step_part(1, lambda rewards: {**rewards, "b": "1"}), r"the reward of 'b' is '1'; expected a single number"),
        (step_part(1, lambda rewards: {"a": 1.0}), r"rewards after step\(\) has none for 'b', who acted"),
        (step_part(1, lambda rewards: None), r"rewards after step\(\) are None"),
        (step_part(2, lambda flags: {**flags, "b": 2}), r"terminations of 'b' is 2; expected True or False"),
        (step_part(3, lambda flags: {**flags, "b": None}), r"truncations of 'b' is None; expected a single number"),
        (step_part(3, lambda flags: "no"), r"truncations after step\(\) are 'no'"),
        (step_part(4, lambda infos: 7), r"infos after step\(\) are 7"),
        (step_part(4, lambda infos: {"a": {"legal_moves": [0, 1]}}), r"info of 'a' has 'legal_moves', .*'action_mask'"),
        (listing("ab"), r"possible_agents is 'ab'; expected at least one agent in a list"),
        (listing(["a", "a"]), r"possible_agents is \['a', 'a'\]; expected .* no two of one name"),
        (type("NoStep", (Scripted,), {"step": None}), r"NoStep has no step; expected a PettingZoo parallel"),
        (type("NoReset", (Scripted,), {"reset": 1}), r"NoReset has no reset; expected a PettingZoo parallel"),
        (
            changed("observation_space", lambda space: OldSpace()),
            r"observation_space\('a'\) is a space of the old .*gym",
        ),
        (changed("action_space", lambda space: 3), r"action_space\('a'\) is 3; expected a space of gymnasium.spaces"),
        (changed("action_space", lambda space: spaces.Box(-1, 1, (0,))), r"action space of 'a' .*at least one number"),
        (changed("action_space", lambda space: spaces.MultiDiscrete([])), r"action space of 'a' .*at least one number"),
        (changed("observation_space", lambda space: spaces.Box(-1, 1, (0,))), r"space of 'a' .*length of at least 1"),
    ],
)
def test_what_is_unclear_is_refused_with_agent_or_method(make: Any, message: str) -> None:
    with pytest.raises(IncompatibleEnvironmentError, match=message):
        one(make)[0].step(BOTH)


@pytest.mark.parametrize("kind", ["reset", "step", "observation_space", "action_space", "render"])
def test_an_error_of_the_environments_own_names_the_method(kind: str) -> None:
    class Breaking(Scripted):
        render_mode = "rgb_array"

    def breaks(self: Any, *arguments: Any, **keywords: Any) -> Any:
        raise KeyError("lost")

    setattr(Breaking, kind, breaks)

    def play() -> None:
        env, _ = one(Breaking)
        env.step(BOTH)
        env.render_state()

    with pytest.raises(EnvironmentFailedError, match=kind + r"\(.*\) raised KeyError: 'lost'") as caught:
        play()
    assert isinstance(caught.value.__cause__, KeyError)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="observation of 'a' holds NaN or inf"):
        one(step_part(0, lambda seen: {**seen, "a": seen["a"] * np.nan}))[0].step(BOTH)
    with pytest.raises(NonFiniteError, match=r"state\(\) gave NaN or inf"):
        one(type("Nan", (Scripted,), {"state": lambda self: np.full(2, np.nan)}))


# ---- who is there ----


def test_the_order_of_a_set_of_agents_is_the_same_in_every_process() -> None:
    program = (
        "import workbench as wb; from parallel_games import Scripted; "
        "many = {f'agent_{i}': (3, 'truncated') for i in range(9)}; "
        "names = type('Names', (set,), {'index': lambda self, name: 0})(many); "
        "game = type('Game', (Scripted,), {'possible_agents': property(lambda self: names, lambda *a: None)}); "
        "print(wb.envs.pettingzoo(lambda: game(many), n_envs=1).agents)"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert shown == {f"{tuple(f'agent_{i}' for i in range(9))}\n"}


class Visiting(Scripted):
    """b is there at first, goes, flagged or not, and is back two steps later; c comes late, with a mask."""

    flagged = False

    def __init__(self) -> None:
        super().__init__(dict.fromkeys("abc", (6, "truncated")), mask=lambda agent, t: [1, 1, agent == "a"])

    def who(self) -> list[str]:
        return (
            ["a", *("b" for _ in "b" if self.t not in (2, 3)), *("c" for _ in "c" if self.t >= 3)] if self.t < 6 else []
        )

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed)
        self.agents = self.who()
        return self._observations(), self._infos()

    def step(self, actions: dict[str, Any]) -> Any:
        acted = list(self.agents)
        super().step(actions)
        self.agents = self.who() or acted
        shown = self._observations(), self._infos()
        self.agents = self.who()
        gone = {agent: self.flagged and self.t == 2 and agent == "b" for agent in acted}
        return shown[0], dict.fromkeys(acted, 1.0), gone, dict.fromkeys(acted, self.t == 6), shown[1]


@pytest.mark.parametrize("flagged", [False, True])
def test_who_returns_or_joins_late_acts_under_its_mask(flagged: bool) -> None:
    made: list[Any] = []
    kind = type("Kind", (Visiting,), {"flagged": flagged})
    env, first = one(lambda: made.append(kind()) or made[-1])
    made[0].received.clear()
    steps = [first, *(env.step({agent: np.array([0]) for agent in "abc"}) for _ in range(6))]
    assert ["".join(given) for given in made[0].received] == ["ab", "ab", "a", "ac", "abc", "abc"]
    assert ["".join(agent for agent in "abc" if step.active[agent][0]) for step in steps[:-1]] == [
        *("ab", "ab", "a", "ac", "abc", "abc")
    ]
    assert [step.action_masks["c"][0].tolist() for step in steps[2:4]] == [[True] * 3, [True, True, False]]
    assert [bool(step.truncated[0]) for step in steps[1:]] == [False] * 5 + [True]
    env = wb.envs.pettingzoo(kind, n_envs=3, workers=2)
    wb.envs.check(env)
    wb.happo(env, n_steps=12, hidden_sizes=(8,)).run(iterations=1, progress=False)
    env.close()


# ---- masks and turns ----


@pytest.mark.parametrize("name", ["action_masks", "available_actions", "avail_actions"])
def test_masks_by_their_other_names(name: str) -> None:
    def renamed(infos: dict[str, Any]) -> dict[str, Any]:
        return {agent: {name: [0, 1, 1]} for agent in infos}

    _, first = one(changed("_infos", renamed))
    assert first.action_masks["b"].tolist() == [[False, True, True]]
    vector = spaces.Box(-10, 1000, (3,))
    parts = {"obs": vector, name: spaces.MultiBinary(3)}
    make = type(
        "Declared",
        (changed("_observations", lambda seen: {a: {"obs": v, name: [1, 0, 1]} for a, v in seen.items()}),),
        {"observation_space": lambda self, agent: spaces.Dict(parts)},
    )
    env, first = one(make)
    assert first.action_masks["a"].tolist() == [[True, False, True]]
    assert env.observation_spaces["a"].shape == (3,)


def test_a_mask_that_is_not_declared_is_taken_from_beside_the_observation() -> None:
    """As in PettingZoo's own tutorial."""
    shown = changed(
        "_observations", lambda seen: {a: {"observation": v, "action_mask": [1, 0, 1]} for a, v in seen.items()}
    )
    _, first = one(shown)
    assert first.observations["b"].tolist() == [[0, 1, -1]]
    assert first.action_masks["b"].tolist() == [[True, False, True]]
    two = changed(
        "_observations", lambda seen: {a: {"x": v, "y": v, "action_mask": [1, 0, 1]} for a, v in seen.items()}
    )
    with pytest.raises(IncompatibleEnvironmentError, match=r"'a' was shown \['x', 'y', 'action_mask'\].* declare Dict"):
        one(two)
    parts = {"x": spaces.Discrete(2), "y": spaces.Discrete(3)}
    beside = changed(
        "_observations",
        lambda seen: {a: {"x": 1, "y": 0, "action_mask": [1, 0, 1]} for a in seen},
        observation_space=lambda self, agent: spaces.Dict(parts),
    )
    _, first = one(beside)
    assert first.observations["b"].tolist() == [[0, 1, 1, 0, 0]]
    assert first.action_masks["b"].tolist() == [[True, False, True]]


def test_a_mask_that_is_missing_later_is_refused() -> None:
    env, _ = one(lambda: Scripted(mask=lambda agent, t: None if t == 1 else [1, 1, 0]))
    with pytest.raises(
        IncompatibleEnvironmentError, match=r"'a' got an action mask after reset\(\), but none after step"
    ):
        env.step(BOTH)


def test_who_may_do_nothing_waits() -> None:
    """It is shown its observation, and what it does counts for nothing."""
    made: list[Scripted] = []
    env, first = one(
        lambda: made.append(Scripted(mask=lambda agent, t: [(t % 2 == 0) == (agent == "a")] * 3)) or made[-1]
    )
    step = env.step(BOTH)
    assert [[bool(shown.active[agent][0]) for agent in "ab"] for shown in (first, step)] == [
        [True, False],
        [False, True],
    ]
    assert step.observations["a"].tolist() == [[1, 0, 0]]
    assert step.action_masks["a"].tolist() == [[True, False, False]]
    assert list(made[0].received[-1]) == ["a", "b"]  # some environments want an action of everybody


@pytest.mark.parametrize("game", [tictactoe_v3, connect_four_v3])
@pytest.mark.parametrize("convert", [turn_based_aec_to_parallel, lambda env: env], ids=["converted", "as it is"])
def test_games_of_turns_are_played_by_their_rules(game: Any, convert: Any) -> None:
    env = wb.envs.pettingzoo(lambda: convert(game.env()), n_envs=3, reward="sum")
    wb.envs.check(env)
    first = env.reset(seed=0)
    assert [int(first.active[agent].sum()) for agent in env.agents] == [3, 0]
    trainer = wb.happo(env, n_steps=30, hidden_sizes=(8,)).run(iterations=2, progress=False)
    # PettingZoo ends a game at an illegal move; by legal ones tic-tac-toe takes five and connect four seven.
    assert trainer.history["episode_length"].min() >= (5 if game is tictactoe_v3 else 7)


def test_turns_without_masks() -> None:
    env = wb.envs.pettingzoo(lambda: turn_based_aec_to_parallel(rps_v2.env()), n_envs=1, reward="sum")
    step = env.reset(seed=0)
    for turn in range(4):
        assert [bool(step.active[agent][0]) for agent in env.agents] == [turn % 2 == 0, turn % 2 == 1]
        step = env.step({agent: np.array([0]) for agent in env.agents})


def test_environments_of_turns_that_can_be_parallel_are() -> None:
    env = wb.envs.pettingzoo(lambda: simple_spread_v3.env(N=2, max_cycles=5), n_envs=1, reward="mean")
    step = env.reset(seed=0)
    assert all(active.all() for active in step.active.values())


# ---- what is seen ----


@pytest.mark.parametrize(
    ("space", "value", "found"),
    [
        (spaces.Discrete(3), 3, r"3, outside Discrete\(3\)"),
        (spaces.Discrete(3), 1.5, r"1.5, not whole numbers of Discrete\(3\)"),
        (spaces.Discrete(3), [0, 1], r"an array of shape \(2,\), while Discrete\(3\) has shape \(\)"),
        (spaces.Discrete(3, start=1), 0, r"0, outside Discrete"),
        (spaces.MultiDiscrete([4, 4]), [4, 0], r"\[4, 0\], outside MultiDiscrete"),
        (spaces.MultiBinary(2), [0, 2], r"\[0, 2\], not zeros and ones"),
        (spaces.Box(0, 255, (2,), np.uint8), [0, 256], r"\[0, 256\], outside Box"),
        (spaces.Box(0, 255, (2,), np.uint8), [0.5, 1], r"\[0.5, 1\], not whole numbers"),
        (spaces.Box(-1, 1, (2, 3)), np.zeros((3, 2)), r"shape \(3, 2\), while Box"),
        (
            spaces.Dict({"x": spaces.Discrete(2), "y": spaces.Discrete(2)}),
            {"x": 1},
            r"the parts \['x'\], not a dict of",
        ),
        (spaces.Dict({"x": spaces.Discrete(2), "y": spaces.Discrete(2)}), {"x": 1, "y": -1}, r"-1, .* in its part 'y'"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), (1,), r"\(1,\), not 2 parts in a tuple"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), 7, r"7, not 2 parts in a tuple"),
        (spaces.Text(3, min_length=3), 5, r"5, not in Text"),
    ],
    ids=str,
)
def test_every_part_of_an_observation_is_held_against_its_space(space: Any, value: Any, found: str) -> None:
    shown = changed(
        "_observations", lambda seen: dict.fromkeys(seen, value), observation_space=lambda self, agent: space
    )
    with pytest.raises(IncompatibleEnvironmentError, match=f"'a' was shown .*{found}"):
        one(shown)


# ---- the state ----


@pytest.mark.parametrize(
    "state", [np.zeros(4), {"a": 1}, lambda self: None, lambda self: np.zeros(0), lambda self: self.missing.state()]
)
def test_what_is_no_state_is_none(state: Any) -> None:
    class Missing:
        pass

    env, first = one(type("Kind", (Scripted,), {"state": state, "missing": Missing()}))
    assert env.state_space.shape == (6,)
    assert first.state.tolist() == [[0, 0, -1, 0, 1, -1]]


def test_a_state_that_fails_is_shown() -> None:
    with pytest.raises(EnvironmentFailedError, match=r"own state\(\) raised AttributeError: .* no attribute 'board'"):
        one(type("Kind", (Scripted,), {"state": lambda self: self.board}))
    assert issubclass(EnvironmentFailedError, WorkbenchError)


# ---- time limits ----


def test_an_episode_can_be_given_a_limit() -> None:
    leaving = {"a": (2, "terminated"), "b": (9, "terminated")}
    env, first = one(lambda: Scripted(leaving), max_episode_steps=3)
    assert not first.done.any()
    steps = [env.step(BOTH) for _ in range(7)]
    assert [(bool(step.terminated[0]), bool(step.truncated[0])) for step in steps] == (
        [(False, False), (False, False), (False, True)] * 2 + [(False, False)]
    )
    final = steps[2].final
    assert final is not None
    assert final.observations["b"].tolist() == [[3, 1, 0]]
    assert steps[2].observations["b"].tolist() == [[0, 1, -1]]
    env, _ = one(lambda: Scripted({"a": (3, "terminated"), "b": (3, "terminated")}), max_episode_steps=3)
    assert [bool(env.step(BOTH).terminated[0]) for _ in range(3)] == [False, False, True]
    with pytest.raises(ValueError, match="max_episode_steps is 0; expected an integer ≥ 1"):
        one(Scripted, max_episode_steps=0)


def test_a_limit_goes_on_in_a_copy() -> None:
    def take(env: Scripted) -> dict[str, Any]:
        return {"t": env.t, "agents": env.agents, "last": env.last}

    def put(env: Scripted, state: dict[str, Any]) -> None:
        vars(env).update(state)

    env, _ = one(lambda: Scripted({"a": (99, "truncated")}), max_episode_steps=3, snapshot=take, restore=put)
    env.step({"a": np.array([0])})
    snapshot = env.snapshot()
    other = env.remake(1)
    other.restore(snapshot)
    assert [bool(other.step({"a": np.array([0])}).truncated[0]) for _ in range(2)] == [False, True]
