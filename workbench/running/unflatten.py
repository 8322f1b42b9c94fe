"""The state that a file holds, put together by the types of the records' fields; each value is held against the rest.

A digest tells damage, not who wrote a file: here what does not fit together is refused, before anything is made of it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import types
import typing
from collections import ChainMap
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from workbench.learning.history import Log
from workbench.learning.phases import PHASES
from workbench.learning.rollout import Rollout
from workbench.learning.settings import Settings
from workbench.learning.state import Setup, State
from workbench.networks.distributions import Categorical
from workbench.running.checkpoint import ARRAY, LOGS, RECORDS, Arrays, Values, kinds_of

Known = ChainMap[str, Any]  # {name in an annotation: its size, its dtype, or the names that keys may have}

Column = np.ndarray[Any, np.dtype[np.float64]]
MOST = 2**53  # of any count: beyond it a float is no integer


def unflatten(arrays: Arrays, held: Values, setup: Setup, settings: Settings) -> State:
    """The state in a document, for a setup that it is held against; ``ValueError`` says what does not fit."""
    values, past = held["state"], held["past"]
    known = _known(setup, settings)
    parts = Parts(arrays, settings.device)
    own = {name: kind for name, kind in kinds_of(State).items() if name not in ("settings", *RECORDS)}
    if unknown := {*own, "settings"} ^ set(values):
        raise ValueError(f"a state has no {sorted(unknown)}, or should have it")
    state: Values = {name: parts.make(kind, values[name], name, known) for name, kind in own.items()}
    logs: Values = {name: parts.log(name, past) for name in LOGS}
    if unused := sorted(set(arrays) - parts.used):
        raise ValueError(f"nothing is known of its arrays {unused[:3]}")
    made = State(settings=settings, partial_metrics=dict(typed(past["partial_metrics"], dict)), **state, **logs)
    for what, right in _agreements(made, held, setup, known):
        if not right:
            raise ValueError(f"{what} is not what the rest of it says")
    return made


def _known(setup: Setup, settings: Settings) -> Known:
    """What annotations name: of all, and {kind of key: {key: …}} of each agent, unit and critic."""
    env, team, normalized = setup.env, setup.team, settings.normalize_observations
    agents, units, critics = {}, {}, {}
    for agent in team.agents:
        policy = team.policy(agent)
        agents[agent] = {
            "inputs": policy.network.n_inputs,
            "observation": (env.observation_spaces[agent].shape or (0,))[0],
            "action": policy.head.action_dtype or settings.torch_dtype,
            "action_size": policy.head.action_size,
            "n_actions": policy.head.n_outputs,
            "memory_size": getattr(policy.network, "memory_size", 0),
        }
    for unit, policy in team.policies.items():
        units[unit] = {"size": policy.network.size, "features": policy.network.n_inputs}
    for name, network in setup.critics.items():
        critics[name] = {"size": network.size, "memory_size": getattr(network, "memory_size", 0)}
    (n_state,) = env.state_space.shape
    return ChainMap(
        {"agents": agents, "units": units, "critics": critics, "normalized": units if normalized else {}},
        {"n_envs": env.n_envs, "state": n_state, "features": n_state, "float": settings.torch_dtype},
        {"bool": torch.bool, "int64": torch.int64},
    )


class Parts:
    """Makes records of a tree of plain values and arrays; ``used`` are the arrays that it took."""

    def __init__(self, arrays: Arrays, device: str) -> None:
        self.arrays, self.device, self.used = arrays, device, set[str]()

    def make(self, kind: Any, tree: Any, path: str, known: Known) -> Any:
        """A value of the type that a field is declared with."""
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            if tree is None:
                return None
            (kind,) = (option for option in typing.get_args(kind) if option is not types.NoneType)
        kind, *notes = typing.get_args(kind) if typing.get_origin(kind) is Annotated else (kind,)
        origin = typing.get_origin(kind)
        if kind is Any:
            return tuple(tree) if isinstance(tree, list) else tree
        if kind is Tensor or origin is np.ndarray:
            return self._array(kind, tree, path, known, *notes)
        if dataclasses.is_dataclass(kind):
            return self._record(kind, tree, path, known)
        if origin is collections.abc.Mapping:
            key, inner = typing.get_args(kind)
            return self._mapping(key, inner, tree, path, known)
        if origin is tuple:
            return tuple(typed(each, str) for each in typed(tree, list))
        return _number(kind, tree, path) if kind in (int, float) else typed(tree, kind)

    def _record(self, kind: Any, tree: Any, path: str, known: Known) -> Any:
        fields = kinds_of(kind)
        if set(typed(tree, dict)) != set(fields):
            raise ValueError(f"{path} holds {sorted(tree)}, expected {sorted(fields)}")
        return kind(**{name: self.make(part, tree[name], f"{path}/{name}", known) for name, part in fields.items()})

    def _mapping(self, key: Any, inner: Any, tree: Any, path: str, known: Known) -> dict[str, Any]:
        """{name: …} in the order of the file; of all names of their kind in order, or of some of them."""
        _, whose, *some = typing.get_args(key) or (str, "")
        made = {typed(name, str): (name, each) for name, each in typed(tree, list)}
        if len(made) < len(tree):
            raise ValueError(f"{path} names one twice")
        if whose and (set(made) - set(known[whose]) if some else list(made) != list(known[whose])):
            raise ValueError(f"{path} is of {list(made)}, expected {', '.join(known[whose]) or 'none'}")
        return {
            name: self.make(inner, each, f"{path}/{name}", known.new_child(known[whose][name]) if whose else known)
            for name, each in made.values()
        }

    def _array(self, kind: Any, tree: Any, path: str, known: Known, shape: str = "", dtype: str = "float") -> Any:
        if tree != {ARRAY: path} or path not in self.arrays:
            raise ValueError(f"its array {path} is missing")
        array = self.arrays[path]
        self.used.add(path)
        if shape and not _fits(array.shape, shape, known):
            raise ValueError(f"{path} has shape {array.shape}, expected ({shape}) of {_told(shape, known)}")
        if kind is not Tensor:
            of = typing.get_args(typing.get_args(kind)[1])[0]
            if of is not Any and array.dtype != of:
                raise ValueError(f"{path} is of {array.dtype}, expected {np.dtype(of)}")
            return array
        tensor = torch.from_numpy(array)
        if tensor.dtype != known[dtype]:
            raise ValueError(f"{path} is of {tensor.dtype}, expected {known[dtype]}")
        return tensor.to(self.device)

    def log(self, name: str, past: Values) -> Log[Any]:
        """A history from its columns."""
        length, columns = _number(int, past["lengths"][name], name), typed(past["columns"][name], list)
        if len(set(columns)) < len(columns):
            raise ValueError(f"a column of {name} stands there twice")
        texts, integers = past.get("texts", {}), past.get("integers", {})
        cells: dict[str, list[Any]] = {}
        for column in columns:
            path = f"{name}/{typed(column, str)}"
            if path in texts:
                cells[column] = [tuple(cell) if isinstance(cell, list) else cell for cell in typed(texts[path], list)]
                numbers = [cell for cell in cells[column] if type(cell) in (int, float)]
                if len(numbers) == length or not all(abs(x) < MOST or isinstance(x, float) for x in numbers):
                    raise ValueError(f"{path} is not a column of texts")
            else:
                array = self._array(Column, {ARRAY: path}, path, ChainMap())
                whole = typed(integers[path], bool)
                if array.ndim != 1 or (whole and not (array == np.trunc(array)).all()):
                    raise ValueError(f"{path} is no column of {'integers' if whole else 'numbers'}")
                cells[column] = [int(x) if whole else x for x in array.tolist()]
            if len(cells[column]) != length:
                raise ValueError(f"{path} has {len(cells[column])} rows, expected {length}")
        return Log([{column: rows[i] for column, rows in cells.items()} for i in range(length if cells else 0)])


def _fits(shape: tuple[int, ...], expected: str, known: Known) -> bool:
    """Whether a shape is the one that is written; a name that is met for the first time stands for what is there."""
    dimensions = expected.split()
    if len(shape) != len(dimensions):
        return False
    for size, dimension in zip(shape, dimensions, strict=True):
        name, _, more = dimension.partition("+")
        found = size - int(more or 0)
        if found != (int(name) if name.isdecimal() else known.get(name, found)):
            return False
        known.maps[-1].setdefault(name, found)
    return True


def _told(shape: str, known: Known) -> str:
    """The sizes in a shape that are known."""
    names = [dimension.partition("+")[0] for dimension in shape.split()]
    return ", ".join(f"{name} {known[name]}" for name in names if name in known)


def typed(value: Any, kind: Any) -> Any:
    """``value``, if it is of a type that JSON has."""
    if type(value) is not kind:
        raise ValueError(f"it holds {str(value)[:40]!r} where {kind.__name__} was expected")
    return value


def _number(kind: Any, value: Any, path: str) -> Any:
    """A count, or a finite number."""
    if kind is int and (type(value) is not int or not 0 <= value < MOST):
        raise ValueError(f"{path} is {str(value)[:40]!r}, expected a count")
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{path} is {str(value)[:40]!r}, expected a finite number")
    return kind(value)


def _agreements(state: State, held: Values, setup: Setup, known: Known) -> Iterator[tuple[str, bool]]:
    """(what is looked at, whether it is right): where the cursor stands, and what has to be there for it."""
    units, rollout, under_way = tuple(setup.team.units), state.rollout, state.phase != "collect"
    updating = state.phase in ("update_agent", "update_critic")
    yield "the phase", state.phase in PHASES
    yield "the rollout", (rollout is not None) == under_way
    yield "the estimate", (state.estimate is not None, state.preceding_ratio is not None) == (updating, updating)
    yield "the order", sorted(state.order) == sorted(units if updating else ())
    positions = {"update_agent": range(len(units)), "update_critic": range(len(units), len(units) + 1)}
    yield "the position", state.position in positions.get(state.phase, range(1))
    done = state.order[: state.position]
    yield "the M-factors", set(state.m_factors) <= {agent for unit in done for agent in setup.team.units[unit]}
    yield "the statistics of the state", (state.state_statistics is not None) == state.settings.normalize_observations
    yield "the parameters", all(vector_is_finite(v.values) for v in (*state.policies.values(), *state.critics.values()))
    row = state.partial_metrics
    numbers = all(type(x) in (int, float) for name, x in row.items() if name != "order")
    cursor = (row.get("iteration"), row.get("env_steps"), type(row.get("seconds")))
    yield (
        "the row under way",
        numbers and (cursor == (state.iteration, state.env_steps, float) if under_way else not row),
    )
    yield from _history_agrees(state, held)
    if rollout is not None:
        yield from _rollout_agrees(rollout, setup)
        n_sequences = known.get("n_sequences")
        sequences = n_sequences is None or n_sequences * state.settings.sequence_length == rollout.n_steps
        yield "the number of sequences", sequences


def vector_is_finite(values: Tensor) -> bool:
    """Whether parameters are numbers."""
    return bool(torch.isfinite(values).all())


def _history_agrees(state: State, held: Values) -> Iterator[tuple[str, bool]]:
    """A row for each iteration; ``start_at`` leaves out the one under way."""
    left_out = state.iteration - len(state.history)
    starts = sum("start" in fork["changes"] for fork in held["lineage"])
    yield "the iteration", 0 <= left_out <= starts
    if left_out:
        return
    before = state.history[-1]["env_steps"] if len(state.history) else 0
    taken = 0 if state.rollout is None else state.rollout.rewards.numel()
    yield "the number of env steps", state.env_steps == before + taken
    units = len(state.policies)
    yield "the history of agents", len(state.agent_history) == units * state.iteration + state.position


def _rollout_agrees(rollout: Rollout, setup: Setup) -> Iterator[tuple[str, bool]]:
    """Ends of episodes are where they are said to be, and actions are some that there are."""
    yield "the ends of episodes", torch.equal(rollout.done.nonzero().cpu(), rollout.final_at.cpu())
    yield "an end of an episode", not bool((rollout.terminated & rollout.truncated).any())
    yield "who is active", all(bool(((x == 0) | (x == 1)).all()) for x in rollout.active.values())
    for agent, taken in rollout.actions.items():
        head = setup.team.policy(agent).head
        if isinstance(head, Categorical):
            sizes = torch.tensor(head.sizes, device=taken.device)
            yield f"an action of {agent}", bool(((taken >= 0) & (taken < sizes)).all())
            if agent in rollout.masks:
                masks, begin = rollout.masks[agent], (sizes.cumsum(0) - sizes)
                yield f"an action of {agent}", bool(masks.gather(-1, taken + begin).all())
        else:
            yield f"an action of {agent}", vector_is_finite(taken)
