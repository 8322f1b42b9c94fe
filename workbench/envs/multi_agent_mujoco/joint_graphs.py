"""The graph of a robot's joints, and what an agent observes of the joints at most k steps away from its own.

As ``mamujoco_v1`` of gymnasium-robotics computes it, its slips included, so that results can be compared: Humanoid's
``abdomen_y`` and ``abdomen_z`` observe each other's angle, and see ``_ant_chain_graph``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import mujoco

from workbench.envs.multi_agent_mujoco.physics import CONTACT_FORCES

BODY_FIELDS = ("cinert", "cvel", CONTACT_FORCES)
Categories = Sequence[str]


class Feature(NamedTuple):
    """One number observed: an ``element`` of one simulation's flattened ``field``, clipped to [low, high]."""

    field: str
    element: int
    low: float = -math.inf
    high: float = math.inf


Features = tuple[Feature, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """A joint that an actuator turns, as others observe it. Two nodes are the same only if they are one object.

    label        orders the nodes that are equally far away
    actuator     the number of the actuator, or None
    features     {category: what is observed of the joint}
    bodies       the bodies whose ``cinert``, ``cvel`` and ``cfrc_ext`` are observed with it
    body_limits  what those are clipped to
    """

    label: str
    actuator: int | None
    features: Mapping[str, Features]
    bodies: tuple[int, ...] = ()
    body_limits: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True)
class Graph:
    """Joints, which of them are neighbours (all within one edge), and what every agent observes (``shared``)."""

    nodes: tuple[Node, ...]
    edges: tuple[frozenset[Node], ...]
    shared: Mapping[str, Features] = field(default_factory=dict)

    def by_distance(self, owned: Iterable[Node], k: int) -> list[list[Node]]:
        """The nodes 0, 1 … k steps away from those ``owned``, each distance in the order of the labels."""
        frontier = set(owned)
        explored = set(frontier)
        rings = [sorted(frontier, key=lambda node: node.label)]
        for _ in range(k):
            frontier = set().union(*(edge for edge in self.edges if edge & frontier)) - explored
            explored |= frontier
            rings.append(sorted(frontier, key=lambda node: node.label))
        return rings

    def observed(self, rings: Sequence[Sequence[Node]], local: Sequence[Categories], shared: Categories) -> Features:
        """What an agent observes: of ring r the categories ``local[r]`` (the last for all beyond), then ``shared``."""
        features: list[Feature] = []
        seen: set[Feature] = set()
        for distance, ring in enumerate(rings):
            for node in ring:
                for category in local[min(distance, len(local) - 1)]:
                    if category in node.features or category not in BODY_FIELDS:
                        features += node.features.get(category, ())
                    else:
                        features += _unseen_bodies(node, category, seen)
        for category in shared:
            features += self.shared.get(category, ())
        return tuple(features)


_ROWS = {"cinert": 10, "cvel": 6, CONTACT_FORCES: 6}


def _unseen_bodies(node: Node, category: str, seen: set[Feature]) -> list[Feature]:
    """The bodies of ``node`` that no nearer joint has shown yet; they are added to ``seen``."""
    features = []
    size = _ROWS[category]
    for body in node.bodies:
        first = Feature(category, body * size)
        if first not in seen:
            seen.add(first)
            features += [Feature(category, body * size + i, *node.body_limits) for i in range(size)]
    return features


def _span(name: str, *elements: int, limits: tuple[float, float] = (-math.inf, math.inf)) -> Features:
    return tuple(Feature(name, element, *limits) for element in elements)


class _Joints:
    """Makes nodes of a model's joints."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._actuators = {int(model.actuator_trnid[i, 0]): i for i in range(model.nu)}

    def node(
        self,
        joint: str,
        bodies: tuple[int, ...] = (),
        *,
        observed_as: str | None = None,
        velocity: Features | None = None,
        body_limits: tuple[float, float] = (-math.inf, math.inf),
    ) -> Node:
        """The node of a joint, whose angle and velocity are those of the joint ``observed_as``."""
        shown = self._model.joint(observed_as or joint)
        position, degree = int(shown.qposadr[0]), int(shown.dofadr[0])
        features = {
            "qpos": _span("qpos", position),
            "qvel": _span("qvel", degree) if velocity is None else velocity,
            "qfrc_actuator": _span("qfrc_actuator", degree),
        }
        return Node(joint, self._actuators[self._model.joint(joint).id], features, bodies, body_limits)

    def address(self, joint: str) -> int:
        return int(self._model.joint(joint).dofadr[0])


def _linked(nodes: Sequence[Node], *edges: str) -> tuple[frozenset[Node], ...]:
    """Edges written as their joints' names with spaces between."""
    named = {node.label: node for node in nodes}
    return tuple(frozenset(named[joint] for joint in edge.split()) for edge in edges)


_PLANAR_ROOT = {"qpos": _span("qpos", 1, 2), "qvel": _span("qvel", 0, 1, 2)}
_FREE_ROOT = {"qpos": _span("qpos", 2, 3, 4, 5, 6), "qvel": _span("qvel", 0, 1, 2, 3, 4, 5)}


def half_cheetah_graph(model: mujoco.MjModel) -> Graph:
    """One chain from the hind foot to the fore foot."""
    chain = ("bfoot", "bshin", "bthigh", "fthigh", "fshin", "ffoot")
    return _planar_chain(model, chain)


def walker2d_graph(model: mujoco.MjModel) -> Graph:
    """One chain from foot to foot."""
    chain = ("foot_joint", "leg_joint", "thigh_joint", "thigh_left_joint", "leg_left_joint", "foot_left_joint")
    return _planar_chain(model, chain)


def hopper_graph(model: mujoco.MjModel) -> Graph:
    """One chain; velocities are clipped to ± 10."""
    return _planar_chain(model, ("foot_joint", "leg_joint", "thigh_joint"), (-10.0, 10.0))


def _planar_chain(
    model: mujoco.MjModel, chain: Sequence[str], velocity_limits: tuple[float, float] = (-math.inf, math.inf)
) -> Graph:
    joints = _Joints(model)
    nodes = [
        joints.node(joint, velocity=_span("qvel", joints.address(joint), limits=velocity_limits)) for joint in chain
    ]
    shared = {"qpos": _PLANAR_ROOT["qpos"], "qvel": _span("qvel", 0, 1, 2, limits=velocity_limits)}
    return Graph(tuple(nodes), tuple(map(frozenset, pairwise(nodes))), shared)


def swimmer_graph(model: mujoco.MjModel) -> Graph:
    """Two joints; beside its own velocity each observes one of the body's."""
    joints = _Joints(model)
    first = joints.node("motor1_rot", velocity=_span("qvel", 0, 3))
    second = joints.node("motor2_rot", velocity=_span("qvel", 1, 4))
    return Graph((first, second), (frozenset((first, second)),), {"qpos": _span("qpos", 2), "qvel": _span("qvel", 2)})


def ant_graph(model: mujoco.MjModel) -> Graph:
    """Each ankle beside its hip, the four hips beside each other; forces of contacts are clipped to ± 1."""
    joints = _Joints(model)
    nodes = []
    for leg in (1, 2, 3, 4):
        strut = 3 * leg - 1
        nodes.append(joints.node(f"hip_{leg}", (1, strut), body_limits=(-1.0, 1.0)))
        nodes.append(joints.node(f"ankle_{leg}", (strut, strut + 1, strut + 2), body_limits=(-1.0, 1.0)))
    edges = _linked(nodes, *(f"ankle_{leg} hip_{leg}" for leg in (1, 2, 3, 4)), "hip_1 hip_2 hip_3 hip_4")
    return Graph(tuple(nodes), edges, _FREE_ROOT)


def humanoid_graph(model: mujoco.MjModel) -> Graph:
    """The abdomen beside shoulders and hips, hips beside knees, shoulders beside elbows."""
    joints = _Joints(model)
    torso, waist, pelvis = 1, 2, 3
    nodes = [
        joints.node("abdomen_y", (torso, waist, pelvis), observed_as="abdomen_z"),
        joints.node("abdomen_z", (torso, waist, pelvis), observed_as="abdomen_y"),
        joints.node("abdomen_x", (pelvis, 4, 7)),
    ]
    edges = ["abdomen_x abdomen_y abdomen_z"]
    for side, thigh, arm in (("right", 4, 10), ("left", 7, 12)):
        nodes += [joints.node(f"{side}_hip_{axis}", (thigh, thigh + 1)) for axis in "xzy"]
        nodes.append(joints.node(f"{side}_knee", (thigh + 1, thigh + 2)))
        nodes += [joints.node(f"{side}_shoulder{i}", (torso, arm, arm + 1)) for i in (1, 2)]
        nodes.append(joints.node(f"{side}_elbow", (arm + 1,)))
        hips = " ".join(f"{side}_hip_{axis}" for axis in "xyz")
        shoulders = f"{side}_shoulder1 {side}_shoulder2"
        edges += [hips, f"{side}_elbow {shoulders}", f"{side}_knee {hips}"]
        edges += [f"{shoulders} {edges[0]}", f"{edges[0]} {hips}"]
    return Graph(tuple(nodes), _linked(nodes, *edges), _FREE_ROOT)


def swimmer_chain_graph(model: mujoco.MjModel) -> Graph:
    """One chain; nothing is shared."""
    joints = _Joints(model)
    nodes = [joints.node(f"rot{i}") for i in range(model.nu)]
    return Graph(tuple(nodes), tuple(map(frozenset, pairwise(nodes))))


def ant_chain_graph(model: mujoco.MjModel) -> Graph:
    """Each ankle beside its hip, both hips of a segment beside each other and beside those of the segment before.

    Three slips of ``mamujoco_v1`` are kept. A joint carries the name of its neighbour's actuator. Only the last segment
    observes its own coordinates: the others, from the last but one to the first, observe the coordinates counted from
    the root's first. And the link to the segment before leads to *copies* of its hips, where every path ends.
    """
    n_segments = model.nu // 4
    nodes: list[Node] = []
    edges: list[frozenset[Node]] = []
    hips_before: tuple[Node, ...] = ()
    for segment in range(n_segments):
        legs = [_ant_chain_node(model, segment, part) for part in range(4)]
        hips = (legs[0], legs[2])
        nodes += legs
        edges += [frozenset(legs[:2]), frozenset(legs[2:]), frozenset(hips)]
        if hips_before:
            edges.append(frozenset((*map(replace, hips_before), *hips)))
        hips_before = hips
    return Graph(tuple(nodes), tuple(edges), _FREE_ROOT)


def _ant_chain_node(model: mujoco.MjModel, segment: int, part: int) -> Node:
    """Part 0 to 3 of a segment: first hip and ankle, second hip and ankle."""
    coordinate = 4 * (model.nu // 4 - 1 - segment) - 4 + part
    features = {
        "qpos": _span("qpos", coordinate % model.nq),
        "qvel": _span("qvel", coordinate % model.nv),
        "qfrc_actuator": _span("qfrc_actuator", coordinate % model.nv),
    }
    torso = 7 * segment + 1
    bodies = (
        (torso, torso + 1),
        (torso + 1, torso + 2, torso + 3),
        (torso, torso + 4),
        (torso + 4, torso + 5, torso + 6),
    )
    label = f"{('hip1', 'ankle1', 'hip2', 'ankle2')[part]}_{segment}"
    return Node(label, 4 * segment + (part + 2) % 4, features, bodies[part], (-1.0, 1.0))
