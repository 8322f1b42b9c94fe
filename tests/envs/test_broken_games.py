"""Environments broken at random: each trains, or an error of the project's says which agent or method is at fault."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

import workbench as wb
from workbench.errors import WorkbenchError

AGENTS = ("a", "b", "c")
METHODS = ("reset", "step", "observation_space", "action_space", "state", "possible_agents", "agents")
NAMES = (
    *(f"'{agent}'" for agent in AGENTS),
    *METHODS,
    *("observations", "rewards", "terminat", "truncat", "info", "mask"),
)
RESULTS = {"trains", "IncompatibleEnvironmentError", "EnvironmentFailedError", "ContractError", "NonFiniteError"}
SPACES = (
    spaces.Box(-1, 1, (3,)),
    spaces.Box(0, 255, (2, 2), np.uint8),
    spaces.Discrete(4),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "y": spaces.Discrete(3)}),
    spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (1,))]),
)
JUNK: tuple[Any, ...] = (
    *(
        None,
        7,
        -1,
        2.5,
        "x",
        b"x",
        True,
        object(),
        [],
        {},
        (),
        [1, 2, 3],
        {"a": 1},
        float("nan"),
        float("inf"),
        10**400,
    ),
    *(np.zeros((0,)), np.zeros((2, 3)), np.zeros(3), np.array(["x"]), np.array([None]), np.array(np.nan), 1j, range(2)),
    *(
        [[1], [2, 3]],
        {1: 2},
        {"a": None, "b": None, "c": None},
        spaces.Discrete(2),
        Exception("x"),
        lambda *given: None,
    ),
)


class Sound:
    """A sound game of three agents: observations of any kind, masks in one way or another, ends after four steps."""

    metadata = {"name": "sound"}  # noqa: RUF012 - PettingZoo's own attribute

    def __init__(self, rng: np.random.Generator) -> None:
        self.possible_agents = list(AGENTS)
        self.seen = {agent: copy.deepcopy(SPACES[rng.integers(len(SPACES))]) for agent in AGENTS}
        self.acting = {agent: (spaces.Discrete(3), spaces.Box(-1, 1, (2,)))[rng.integers(2)] for agent in AGENTS}
        self.masked = bool(rng.integers(2))

    def observation_space(self, agent: str) -> Any:
        return self.seen[agent]

    def action_space(self, agent: str) -> Any:
        return self.acting[agent]

    def state(self) -> Any:
        return np.array([self.t, 1.0])

    def _shown(self) -> tuple[Any, Any]:
        infos = {
            agent: {"action_mask": [1, 0, 1]} if self.masked and isinstance(self.acting[agent], spaces.Discrete) else {}
            for agent in self.agents
        }
        return {agent: self.seen[agent].sample() for agent in self.agents}, infos

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.agents = 0, list(self.possible_agents)
        for number, space in enumerate(self.seen.values()):
            if seed is not None:
                space.seed(seed + 100 * number)
        return self._shown()

    def step(self, actions: Any) -> Any:
        self.t += 1
        late = self.t == 4
        observations, infos = self._shown()
        each = [dict.fromkeys(self.agents, value) for value in (1.0, False, late)]
        self.agents = [] if late else self.agents
        return observations, *each, infos


def broken(seed: int) -> Callable[[], Any]:
    """A maker of games broken in the one way that ``seed`` says."""
    rng = np.random.default_rng(seed)
    game_seed, after, where = int(rng.integers(2**31)), int(rng.integers(0, 6)), rng.integers(4)
    junk, agent = JUNK[rng.integers(len(JUNK))], AGENTS[rng.integers(len(AGENTS))]
    method, way, place = METHODS[rng.integers(len(METHODS))], int(rng.integers(6)), int(rng.integers(5))

    def spoil(value: Any) -> Any:
        """Something of a returned dict or tuple, replaced, left out, added, turned round, or made another type."""
        if not isinstance(value, dict):
            return junk
        if way == 0:
            return {**value, agent: junk}
        if way == 1:
            return {key: part for key, part in value.items() if key != agent}
        if way == 2:
            return {**value, "stranger": junk}
        if way == 3:
            return dict(reversed(value.items()))
        if way == 4:
            return {key: {"action_mask": junk} if part == {} else [part] for key, part in value.items()}
        return junk

    def spoiled(given: Any) -> Any:
        if not isinstance(given, tuple):
            return spoil(given)
        parts = list(given)
        if way == 5 and place == 4:
            return tuple(parts[:-1])
        parts[place % len(parts)] = spoil(parts[place % len(parts)])
        return tuple(parts)

    class Broken(Sound):
        calls = 0

    def replaced(name: str) -> Callable[..., Any]:
        def method_of(self: Any, *arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            given = getattr(Sound, name)(self, *arguments, **keywords)
            return spoiled(given) if self.calls > after else given

        return method_of

    if where == 0:  # something is missing, or is another thing
        setattr(Broken, method, None if way < 2 else property(lambda self: junk, lambda self, value: None))
    elif where == 1 and method in ("reset", "step", "observation_space", "action_space", "state"):

        def fails(self: Any, *arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            if self.calls > after:
                raise (KeyError, TypeError, ZeroDivisionError, AttributeError, IndexError, AssertionError)[way]("lost")
            return getattr(Sound, method)(self, *arguments, **keywords)

        setattr(Broken, method, fails)
    else:
        name = ("reset", "step", "step", "step", "observation_space", "action_space", "state")[int(rng.integers(7))]
        setattr(Broken, name, replaced(name))
    return lambda: Broken(np.random.default_rng(game_seed))


def trial(seed: int) -> str:
    """What comes of a broken game: that it trains, an error's class, or the text of an error that is no such."""
    make = broken(seed)
    try:
        env = wb.envs.pettingzoo(make, n_envs=2, max_episode_steps=10)
        wb.envs.check(env, steps=6)
        wb.happo(env, n_steps=6, hidden_sizes=(4,)).run(iterations=1, progress=False)
    except WorkbenchError as error:
        return type(error).__name__ if any(name in str(error) for name in NAMES) else f"seed {seed}: {error}"
    except Exception as error:
        return f"seed {seed}, a raw error: {error!r}"
    return "trains"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tens", range(10))
def test_what_is_broken_at_random_says_so_or_trains(tens: int) -> None:
    assert {trial(seed) for seed in range(10 * tens, 10 * tens + 10)} <= RESULTS


@pytest.mark.stress
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_broken_games() -> None:
    counts = Counter(trial(seed) for seed in range(1000, 2000))
    print(counts)
    assert counts.keys() <= RESULTS
    assert 100 < counts["trains"] < 600
