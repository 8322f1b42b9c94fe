"""Factorisations in the form of gymnasium-robotics, ``{"partition": …, "edges": …, "globals": …}``, made our own.

Their nodes compute what is observed with functions of ``MjData``. A batch cannot call those for every simulation, so
each is called three times, on stand-ins for the data, which tells the elements it reads and the limits it clips to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, TypeGuard

import mujoco
import numpy as np

from workbench.envs.multi_agent_mujoco.joint_graphs import Feature, Features, Graph, Node
from workbench.envs.multi_agent_mujoco.physics import CONTACT_FORCES

_FIELDS = ("qpos", "qvel", "qfrc_actuator", "cinert", "cvel", CONTACT_FORCES)
_HUGE = 1e30
FORM = "a mapping with the keys 'partition', 'edges' and 'globals'"


def is_robotics_form(factorization: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether ``factorization`` is written as gymnasium-robotics wants it."""
    return isinstance(factorization, Mapping) and "partition" in factorization


def actuators(factorization: Mapping[str, Any]) -> list[list[int]]:
    """The actuators of each agent."""
    return [[int(node.act_ids) for node in part] for part in factorization["partition"]]


class Reader:
    """Finds out which elements of a simulation's data a function of it reads."""

    def __init__(self, model: mujoco.MjModel) -> None:
        data = mujoco.MjData(model)
        self.shapes = {name: getattr(data, name).shape for name in _FIELDS}
        self._places = [(name, i) for name, shape in self.shapes.items() for i in range(int(np.prod(shape)))]

    def _stand_in(self, fill: Callable[[int], float]) -> SimpleNamespace:
        values = iter(map(fill, range(len(self._places))))
        return SimpleNamespace(
            **{
                name: np.array([next(values) for _ in range(int(np.prod(shape)))]).reshape(shape)
                for name, shape in self.shapes.items()
            }
        )

    def read(self, function: Callable[[Any], Any], what: str) -> Features:
        """The features that ``function(data)`` returns; ``ValueError`` where they are not elements of the data."""
        # Small enough to lie within any limits, and all different, so that values tell where they came from.
        scale = 1e-3 / len(self._places)
        try:
            found, low, high = (
                np.ravel(function(self._stand_in(fill)))
                for fill in (lambda place: (place + 1) * scale, lambda _: -_HUGE, lambda _: _HUGE)
            )
            places = [int(place) for place in np.rint(found / scale) - 1]
            if min(places, default=0) < 0 or not np.allclose(
                [(place + 1) * scale for place in places], found, 1e-12, 0
            ):
                raise ValueError("values that are no elements of the data")
            names = [self._places[place] for place in places]
        except (AttributeError, ValueError, IndexError, TypeError) as cause:
            raise ValueError(
                f"{what} is not made of (clipped) elements of {', '.join(_FIELDS)}, which is all that a batch of "
                "simulations can show. Use agent_obsk=None, or leave it out."
            ) from cause
        limits = zip(np.where(low <= -_HUGE, -np.inf, low), np.where(high >= _HUGE, np.inf, high), strict=True)
        return tuple(
            Feature(*name, float(lowest), float(highest)) for name, (lowest, highest) in zip(names, limits, strict=True)
        )


def graph(factorization: Mapping[str, Any], model: mujoco.MjModel) -> Graph:
    """The graph of nodes of ours that ``factorization`` describes."""
    reader = Reader(model)
    own: dict[Any, Node] = {}
    edges = [tuple(edge.nodes) for edge in factorization["edges"]]
    for node in (node for group in (*factorization["partition"], *edges) for node in group):
        if node not in own:
            own[node] = _node(node, reader)
    shared: dict[str, Features] = {}
    for node in factorization["globals"]:
        for category, features in _node(node, reader).features.items():
            shared[category] = shared.get(category, ()) + features
    owned = tuple(own[node] for part in factorization["partition"] for node in part)
    return Graph(owned, tuple(frozenset(own[node] for node in edge) for edge in edges), shared)


def _node(node: Any, reader: Reader) -> Node:
    features: dict[str, Features] = {}
    for category, ids in (("qpos", "qpos_ids"), ("qvel", "qvel_ids"), ("qfrc_actuator", "qvel_ids")):
        if getattr(node, ids) is not None:
            size = reader.shapes[category][0]
            features[category] = tuple(Feature(category, int(i) % size) for i in np.ravel(getattr(node, ids)))
    for category, function in node.extra_obs.items():
        features[category] = reader.read(function, f"observation {category!r} of {node.label!r}")
    limits: tuple[float, float] = (-np.inf, np.inf)
    if node.body_fn is not None:
        forces = reader.read(lambda data: node.body_fn(0, data.cvel[0]), f"body_fn of {node.label!r}")
        limits = forces[0].low, forces[0].high
    return Node(node.label, node.act_ids, features, tuple(node.bodies), limits)
