"""Environments of other interfaces in PettingZoo's form: Gymnasium's, of one agent or a tuple of them, and HARL's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from workbench.envs.parallel.spaces import IncompatibleEnvironmentError, short

ByAgent = dict[str, Any]


def from_gymnasium(make: str | Callable[[], gymnasium.Env[object, object]]) -> Callable[[], FromGymnasium]:
    """What makes the parallel environment of one that ``make`` makes, or that is registered under that name."""
    if isinstance(make, str):
        make = functools.partial(gymnasium.make, make, disable_env_checker=True)
    return functools.partial(FromGymnasium, _callable(make))


def from_harl(make: Callable[[], object]) -> Callable[[], FromHarl]:
    """What makes the parallel environment of one of HARL's that ``make`` makes."""
    made = _callable(make)
    return lambda: FromHarl(made())


def _callable(make: object) -> Callable[[], Any]:
    if not callable(make):
        raise TypeError(
            f"make is a {type(make).__name__}; expected a function that makes a new environment at every call, such as "
            'lambda: gymnasium.make("CartPole-v1").'
        )
    function: Callable[[], Any] = make
    return function


class Adapter:
    """A parallel environment of "agent_0", "agent_1", … over ``inner``, which counts them; nobody leaves early."""

    def __init__(self, inner: Any, n_agents: int) -> None:
        self.inner = inner
        self.possible_agents = [f"agent_{i}" for i in range(n_agents)]
        self.agents = self.possible_agents
        self.render_mode = getattr(inner, "render_mode", None)

    def _each(self, value: object) -> ByAgent:
        return dict.fromkeys(self.possible_agents, value)

    def _in_order(self, values: object, what: str) -> ByAgent:
        if not isinstance(values, tuple | list | np.ndarray) or len(values) != len(self.possible_agents):
            raise IncompatibleEnvironmentError(
                f"{what} are {short(values)}; expected one for each of {len(self.possible_agents)} agents."
            )
        return dict(zip(self.possible_agents, values, strict=True))

    def render(self) -> Any:
        return self.inner.render()

    def close(self) -> None:
        self.inner.close()


class FromGymnasium(Adapter):
    """A ``gymnasium.Env``: of one agent, or of as many as its Tuple spaces have parts (lbforaging, RWARE).

    ``reset(seed)`` begins in a new environment, since some carry something over from the episode before.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[object, object]]) -> None:
        self._make = make
        env = make()
        if not hasattr(env, "observation_space") or not hasattr(env, "action_space"):
            raise IncompatibleEnvironmentError(
                f"{type(env).__name__} has no observation_space and action_space; expected a gymnasium.Env."
            )
        action, seen = env.action_space, env.observation_space
        self._several = isinstance(action, spaces.Tuple)
        if isinstance(action, spaces.Tuple) and (not isinstance(seen, spaces.Tuple) or len(seen) != len(action)):
            raise IncompatibleEnvironmentError(
                f"the action space is of {len(action)} agents, but the observation space is {seen}; expected a Tuple "
                "of as many."
            )
        super().__init__(env, len(action) if isinstance(action, spaces.Tuple) else 1)
        self._used = False

    def _space(self, space: Any, agent: str) -> Any:
        return space[self.possible_agents.index(agent)] if self._several else space

    def observation_space(self, agent: str) -> Any:
        return self._space(self.inner.observation_space, agent)

    def action_space(self, agent: str) -> Any:
        return self._space(self.inner.action_space, agent)

    def reset(self, seed: int | None = None, options: object = None) -> tuple[Any, Any]:
        if seed is not None and self._used:
            self.inner.close()
            self.inner = self._make()
        self._used = True
        given = self.inner.reset(seed=seed)
        if not isinstance(given, tuple) or len(given) != 2:
            raise IncompatibleEnvironmentError(
                f"reset() returned a {type(given).__name__}; expected (observation, info), as Gymnasium's do. Wrap an "
                "environment of the old package gym."
            )
        return self._seen(given[0]), self._told(given[1])

    def _seen(self, observation: object) -> ByAgent:
        return self._in_order(observation, "observations") if self._several else self._each(observation)

    def _told(self, info: object) -> ByAgent:
        """A single agent's info may hold its mask; that of several is a dict of the environment's own kind."""
        if self._several and isinstance(info, list | tuple) and len(info) == len(self.possible_agents):
            return self._in_order(info, "infos")
        return self._each({} if self._several else info)

    def step(self, actions: ByAgent) -> tuple[Any, ...]:
        chosen = tuple(actions.values()) if self._several else next(iter(actions.values()))
        given = self.inner.step(chosen)
        if not isinstance(given, tuple) or len(given) != 5:
            raise IncompatibleEnvironmentError(
                f"step() returned {short(given)}; expected (observation, reward, terminated, truncated, info), as "
                "Gymnasium's do. Wrap an environment of the old package gym."
            )
        observation, reward, *flags, info = given
        if np.ndim(reward):
            reward = self._in_order(reward, "rewards")
        ends = [bool(np.all(flag)) for flag in flags]
        return self._seen(observation), reward, *ends, self._told(info)


class FromHarl(Adapter):
    """An environment as HARL's and MAPPO's code has them: lists by agent, ``share_obs`` and ``available_actions``.

    ``reset()`` returns (obs, share_obs, available_actions), and ``step(actions)`` (obs, share_obs, rewards, dones,
    infos, available_actions). An episode ends when all are done, and ``bad_transition`` in the infos says that a time
    limit did it. ``state()`` is the first agent's ``share_obs``, which HARL's central critic sees.
    """

    def __init__(self, env: Any) -> None:
        for part in ("observation_space", "action_space", "reset", "step"):
            if not hasattr(env, part):
                raise IncompatibleEnvironmentError(
                    f"{type(env).__name__} has no {part}; expected an environment of HARL's interface."
                )
        super().__init__(env, int(getattr(env, "n_agents", len(env.action_space))))
        self._shared: list[Any] = []

    def observation_space(self, agent: str) -> Any:
        return self._in_order(self.inner.observation_space, "observation spaces")[agent]

    def action_space(self, agent: str) -> Any:
        return self._in_order(self.inner.action_space, "action spaces")[agent]

    def reset(self, seed: int | None = None, options: object = None) -> tuple[Any, Any]:
        if seed is not None and callable(getattr(self.inner, "seed", None)):
            self.inner.seed(seed)
        given = self.inner.reset()
        if not isinstance(given, tuple) or len(given) != 3:
            raise IncompatibleEnvironmentError(
                f"reset() returned {short(given)}; expected (obs, share_obs, available_actions)."
            )
        observations, self._shared, available = given
        return self._in_order(observations, "observations"), self._masks(available)

    def _masks(self, available: Any) -> ByAgent:
        if available is None or all(mask is None for mask in available):
            return self._each({})
        return {agent: {"action_mask": mask} for agent, mask in self._in_order(available, "available actions").items()}

    def step(self, actions: ByAgent) -> tuple[Any, ...]:
        rows = [np.atleast_1d(action) for action in actions.values()]
        given = self.inner.step(rows if len({len(row) for row in rows}) > 1 else np.stack(rows))
        if not isinstance(given, tuple) or len(given) != 6:
            raise IncompatibleEnvironmentError(
                f"step() returned {short(given)}; expected (obs, share_obs, rewards, dones, infos, available_actions)."
            )
        observations, self._shared, rewards, dones, infos, available = given
        over = bool(np.all(dones))
        first = infos[0] if isinstance(infos, list | tuple | np.ndarray) and len(infos) else infos
        late = over and isinstance(first, dict) and bool(first.get("bad_transition", False))
        return (
            self._in_order(observations, "observations"),
            self._in_order(rewards, "rewards"),
            over and not late,
            late,
            self._masks(available),
        )

    def state(self) -> Any:
        return self._shared[0]
