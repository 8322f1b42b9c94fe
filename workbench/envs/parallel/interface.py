"""The door to a PettingZoo environment: all that it hands out is held against the interface before it is believed.

Older forms are taken where they can mean one thing only: ``reset`` without ``seed``, infos None, one flag or one reward
for all, a list in the order of ``possible_agents``, an environment of turns (AEC), one space or a dict of them. All
else is refused, naming the agent or the method and the remedy.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from pettingzoo.utils.conversions import (
    aec_to_parallel,
    turn_based_aec_to_parallel,
    turn_based_aec_to_parallel_wrapper,
)

from workbench.envs.parallel.spaces import AnySpace, IncompatibleEnvironmentError, short
from workbench.errors import EnvironmentFailedError, NonFiniteError, WorkbenchError

ALL = "__all__"  # RLlib's flag for everybody


@dataclass(frozen=True, slots=True)
class Reply:
    """What the environment handed out, by the agents' names: as it came where the spaces are to judge it.

    rewards, terminated, truncated   of those who acted
    present                          those among ``env.agents`` afterwards, in order
    """

    observations: Mapping[str, Any]
    infos: Mapping[str, Mapping[Any, Any]]
    present: list[str]
    rewards: Mapping[str, float]
    terminated: set[str]
    truncated: set[str]


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Whatever the environment's own code raises, as an error of the project's that says what was asked."""
    try:
        yield
    except (WorkbenchError, ImportError):  # a missing package says so itself
        raise
    except Exception as error:
        raise EnvironmentFailedError(f"the environment's own {what} raised {type(error).__name__}: {error}") from error


class ParallelInterface:
    """One environment, asked in today's form.

    env   the parallel environment
    ids   {name: the environment's own id}, in the order of ``possible_agents``
    """

    def __init__(self, env: object) -> None:
        with asking("conversion from turns"):
            self.env = _parallel(env)
        with asking("possible_agents"):
            self.ids = _agent_ids(self.env)
        self._names = {id: name for name, id in self.ids.items()}
        self._reset_parameters = _parameters(self.env.reset)

    # ---- spaces ----

    def space(self, kind: str, name: str) -> AnySpace:
        """The "observation" or "action" space of an agent."""
        id = self.ids[name]
        with asking(f"{kind}_space({id!r})"):
            given = getattr(self.env, f"{kind}_space", None)
            if given is None:
                given = getattr(self.env, f"{kind}_spaces", None)
            if isinstance(given, Mapping) and not isinstance(given, gymnasium.Space):
                given = given[id]
            elif callable(given):
                given = given(id)
        if isinstance(given, gymnasium.Space):
            return given
        root = type(given).__module__.partition(".")[0]
        told = "a space of the old package gym" if root == "gym" else short(given)
        raise IncompatibleEnvironmentError(
            f"{kind}_space({id!r}) is {told}; expected a space of gymnasium.spaces for {name!r}."
        )

    # ---- an episode ----

    def reset(self, seed: int | None) -> Reply:
        options = {"options": None} if _has_no_default(self._reset_parameters, "options") else {}
        with asking("reset()"):
            if self._takes_seed:
                given = self.env.reset(seed=seed, **options)
            else:
                if seed is not None and callable(getattr(self.env, "seed", None)):
                    self.env.seed(seed)
                given = self.env.reset(**options)
        if not (isinstance(given, tuple) and len(given) == 2):
            raise IncompatibleEnvironmentError(
                f"reset() returned a {type(given).__name__}; expected (observations, infos), as PettingZoo's do from "
                "1.23 on. Update the environment or wrap it."
            )
        observations = self._by_agent(given[0], "observations", "reset()")
        present = self._present(observations, "reset()")
        if not present:
            raise IncompatibleEnvironmentError(
                "env.agents is empty after reset(); set it there to those of possible_agents who act first."
            )
        return Reply(observations, self._infos(given[1], "reset()"), present, {}, set(), set())

    @property
    def _takes_seed(self) -> bool:
        kinds = {parameter.kind for parameter in self._reset_parameters.values()}
        return "seed" in self._reset_parameters or inspect.Parameter.VAR_KEYWORD in kinds

    def step(self, joint_action: Mapping[str, object]) -> Reply:
        with asking("step()"):
            given = self.env.step({self.ids[name]: action for name, action in joint_action.items()})
        if not isinstance(given, tuple | list) or len(given) != 5:
            found = f"{len(given)} values" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
            raise IncompatibleEnvironmentError(
                f"step() returned {found}; expected (observations, rewards, terminations, truncations, infos). Where "
                "older forms have dones, say which are terminations, and which truncations by a time limit."
            )
        observations, rewards, terminations, truncations, infos = given
        seen = self._by_agent(observations, "observations", "step()")
        return Reply(
            seen,
            self._infos(infos, "step()"),
            self._present(seen, "step()"),
            self._rewards(rewards, joint_action),
            self._flags(terminations, "terminations", joint_action),
            self._flags(truncations, "truncations", joint_action),
        )

    def turn(self) -> str | None:
        """Whose turn it is, where PettingZoo's converter lets only one act at a time and says who."""
        if isinstance(self.env, turn_based_aec_to_parallel_wrapper):
            return self._names.get(self.env.aec_env.agent_selection)
        return None

    # ---- what comes back ----

    def _by_agent(self, values: object, what: str, method: str) -> dict[str, Any]:
        if isinstance(values, Mapping):
            if unknown := [id for id in values if id not in self._names and id != ALL]:
                raise self._unknown(f"{what} after {method} has {unknown[0]!r}")
            return {self._names[id]: value for id, value in values.items() if id != ALL}
        listed = isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim > 0)
        rows: Any = values if listed else ()  # of whatever shapes
        if len(rows) == len(self.ids):
            return dict(zip(self.ids, rows, strict=True))
        raise IncompatibleEnvironmentError(
            f"{what} after {method} are {short(values)}; expected a dict with one for each of {list(self.ids)}."
        )

    def _unknown(self, found: str) -> IncompatibleEnvironmentError:
        return IncompatibleEnvironmentError(
            f"{found}, whom possible_agents does not list: it has {list(self._names)}. List everybody there who may "
            "ever act."
        )

    def _infos(self, infos: object, method: str) -> dict[str, Mapping[Any, Any]]:
        if infos is None:
            return {name: {} for name in self.ids}
        if not isinstance(infos, Mapping):
            infos = {self.ids[name]: info for name, info in self._by_agent(infos, "infos", method).items()}
        found: dict[str, Mapping[Any, Any]] = {}
        for name, id in self.ids.items():
            info = infos.get(id)
            if info is not None and not isinstance(info, Mapping):
                raise IncompatibleEnvironmentError(
                    f"the info of {name!r} after {method} is {short(info)}; expected a dict, such as {{}}."
                )
            found[name] = {} if info is None else info
        return found

    def _present(self, observed: Mapping[str, object], method: str) -> list[str]:
        with asking("agents"):
            agents = getattr(self.env, "agents", None)
        if agents is None:
            return [name for name in self.ids if name in observed]
        try:
            there = set(() if isinstance(agents, str) else agents)
        except TypeError:
            raise IncompatibleEnvironmentError(
                f"env.agents is {short(agents)} after {method}; expected a list of those who act next."
            ) from None
        if unknown := [id for id in there if id not in self._names]:
            raise self._unknown(f"env.agents after {method} has {sorted(map(str, unknown))}")
        return [name for name, id in self.ids.items() if id in there]

    def _rewards(self, rewards: object, acted: Iterable[str]) -> dict[str, float]:
        if _is_number(rewards):
            return self._finite(dict.fromkeys(acted, _number(rewards, "the reward after step()")))
        paid = self._by_agent(rewards, "rewards", "step()")
        if unpaid := [name for name in acted if name not in paid]:
            raise IncompatibleEnvironmentError(
                f"rewards after step() has none for {unpaid[0]!r}, who acted; give one for each who did."
            )
        return self._finite({name: _number(paid[name], f"the reward of {name!r}") for name in acted})

    @staticmethod
    def _finite(rewards: dict[str, float]) -> dict[str, float]:
        for name, reward in rewards.items():
            if not np.isfinite(reward):
                raise NonFiniteError(f"the reward of {name!r} is {reward}; the environment must give finite numbers.")
        return rewards

    def _flags(self, flags: object, what: str, acted: Iterable[str]) -> set[str]:
        """Those who acted and are flagged."""
        if _is_number(flags):
            return set(acted) if _flag(flags, what) else set()
        given = self._by_agent(flags, what, "step()")
        everybody = isinstance(flags, Mapping) and ALL in flags and _flag(flags[ALL], f"{what}[{ALL!r}]")
        return {name for name in acted if (name in given and _flag(given[name], f"{what} of {name!r}")) or everybody}


def _parallel(env: Any) -> Any:
    """A parallel environment; of one of turns, what PettingZoo's converters make of it."""
    if not hasattr(env, "agent_iter"):
        return env
    convert = aec_to_parallel if env.metadata.get("is_parallelizable") else turn_based_aec_to_parallel
    return convert(env)


def _agent_ids(env: Any) -> dict[str, Any]:
    """{name: the environment's own id}, in the order of ``possible_agents``; refuses all but parallel environments."""
    for part in ("possible_agents", "reset", "step"):
        if getattr(env, part, None) is None or (part != "possible_agents" and not callable(getattr(env, part))):
            raise IncompatibleEnvironmentError(
                f"{type(env).__name__} has no {part}; expected a PettingZoo parallel environment (ParallelEnv)."
            )
    listed = env.possible_agents
    ids: dict[str, Any] = {}
    if isinstance(listed, Iterable) and not isinstance(listed, str | bytes):
        # A set's order differs between processes.
        listed = sorted(listed, key=str) if isinstance(listed, set | frozenset) else list(listed)
        ids = {str(id): id for id in listed}
    if not ids or len(ids) != len(set(listed)) or len(ids) != len(listed):
        raise IncompatibleEnvironmentError(
            f"possible_agents is {short(listed)}; expected at least one agent in a list, and no two of one name."
        )
    return ids


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    """The function's parameters; of one that does not tell, ``seed``."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {"seed": inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=None)}


def _has_no_default(parameters: Mapping[str, inspect.Parameter], name: str) -> bool:
    return name in parameters and parameters[name].default is inspect.Parameter.empty


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float | np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)


def _number(value: object, what: str) -> float:
    """``value`` as a float: a number, or an array of one."""
    if type(value) is float:
        return value
    try:
        array = np.asarray(value)
    except Exception:
        array = np.empty(0)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise IncompatibleEnvironmentError(f"{what} is {short(value)}; expected a single number.")
    return float(array.reshape(()))


def _flag(value: object, what: str) -> bool:
    if type(value) is bool:
        return value
    number = _number(value, what)
    if number not in (0.0, 1.0):
        raise IncompatibleEnvironmentError(f"{what} is {short(value)}; expected True or False.")
    return bool(number)
