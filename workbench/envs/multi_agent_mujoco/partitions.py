"""Which agent moves which joints.

The named partitions are those of ``mamujoco_v1`` in gymnasium-robotics, and those that the papers use beside them (Ant
8x1, Walker2d 3x2 and 6x1, HalfCheetah 3x2, Humanoid 17x1, after Kuba et al. 2022, "Trust Region Policy Optimisation in
Multi-Agent Reinforcement Learning", https://arxiv.org/abs/2109.11251).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from workbench.errors import unknown_name

Joints = tuple[str, ...]
Parts = tuple[Joints, ...]
Shares = dict[str, tuple[int, ...]]


class OwnedActuator(NamedTuple):
    """An actuator of an agent: its number in the model, the joint it turns and the number of the body it moves."""

    actuator: int
    joint: str
    body: int


Named = str | int | OwnedActuator


def _legs(*groups: str) -> Parts:
    """Ant's legs by number: ``_legs("12", "34")`` gives each of two agents two legs."""
    return tuple(tuple(f"{part}_{leg}" for leg in group for part in ("hip", "ankle")) for group in groups)


def _each(*joints: str) -> Parts:
    return tuple((joint,) for joint in joints)


_RIGHT = ("foot_joint", "leg_joint", "thigh_joint")
_LEFT = ("foot_left_joint", "leg_left_joint", "thigh_left_joint")
_BACK = ("bthigh", "bshin", "bfoot")
_FRONT = ("fthigh", "fshin", "ffoot")
_UPPER = (
    *("abdomen_x", "abdomen_y", "abdomen_z"),
    *("right_shoulder1", "right_shoulder2", "right_elbow", "left_shoulder1", "left_shoulder2", "left_elbow"),
)
_LOWER = tuple(f"{side}_{joint}" for side in ("right", "left") for joint in ("hip_x", "hip_y", "hip_z", "knee"))
_HUMANOID = {"9|8": (_UPPER, _LOWER), "17x1": _each(*_UPPER, *_LOWER)}

PARTITIONS: Mapping[str, Mapping[str, Parts]] = {
    "Ant": {
        "2x4": _legs("12", "34"),  # left legs together
        "2x4d": _legs("14", "23"),  # front legs together, although "d" once stood for diagonal
        "4x2": _legs("1", "2", "3", "4"),
        "8x1": _each(*_legs("1234")[0]),
    },
    "Walker2d": {
        "2x3": (_RIGHT, _LEFT),
        "3x2": (_RIGHT[:2], (_RIGHT[2], _LEFT[0]), _LEFT[1:]),
        "6x1": _each(*_RIGHT, *_LEFT),
    },
    "HalfCheetah": {
        "2x3": (_BACK, _FRONT),
        "3x2": (("bfoot", "bshin"), ("bthigh", "ffoot"), ("fshin", "fthigh")),
        "6x1": _each(*_BACK, *_FRONT),
    },
    "Hopper": {"3x1": _each("thigh_joint", "leg_joint", "foot_joint")},
    "Humanoid": _HUMANOID,
    "HumanoidStandup": _HUMANOID,
    "Swimmer": {"2x1": _each("motor1_rot", "motor2_rot")},
}

# The joints of one segment of a chain, in the order in which mamujoco_v1 hands out their actuators.
SEGMENTS: Mapping[str, Joints] = {
    "ManySegmentSwimmer": ("rot{}",),
    "ManySegmentAnt": ("hip2_{}", "ankle2_{}", "hip1_{}", "ankle1_{}"),
}
FEWEST_SEGMENTS = {"ManySegmentSwimmer": 2, "ManySegmentAnt": 1}


def chain_lengths(scenario: str, agent_conf: str | None) -> tuple[int, int]:
    """Number of agents and of segments for each, from ``"10x2"``. Raises ``ValueError`` for anything else."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", agent_conf or "")
    n_agents, n_segments = map(int, match.groups()) if match else (0, 0)
    if n_agents * n_segments < FEWEST_SEGMENTS[scenario]:
        raise ValueError(
            f"partition {agent_conf!r} of {scenario}: expected '<agents>x<segments for each>', such as '10x2', with "
            f"{FEWEST_SEGMENTS[scenario]} or more segments in all."
        )
    return n_agents, n_segments


def named_parts(scenario: str, agent_conf: str) -> Parts:
    """The joints of each agent under the partition called ``agent_conf``; unknown names are refused."""
    if scenario in SEGMENTS:
        n_agents, n_segments = chain_lengths(scenario, agent_conf)
        return tuple(
            tuple(joint.format(agent * n_segments + i) for i in range(n_segments) for joint in SEGMENTS[scenario])
            for agent in range(n_agents)
        )
    if agent_conf not in PARTITIONS[scenario]:
        remedy = "Or pass agent_factorization= with the joints of each agent."
        raise unknown_name(f"partition of {scenario}", agent_conf, PARTITIONS[scenario], remedy)
    return PARTITIONS[scenario][agent_conf]


def owned_actuator(model: mujoco.MjModel, actuator: int) -> OwnedActuator:
    """What actuator number ``actuator`` moves; an actuator that turns no joint has an empty joint and body −1."""
    if model.actuator_trntype[actuator] != mujoco.mjtTrn.mjTRN_JOINT:
        return OwnedActuator(actuator, "", -1)
    joint = int(model.actuator_trnid[actuator, 0])
    return OwnedActuator(actuator, model.joint(joint).name, int(model.jnt_bodyid[joint]))


def shares(model: mujoco.MjModel, parts: Mapping[str, Iterable[Named]] | Sequence[Iterable[Named]]) -> Shares:
    """{agent: its actuators}, from the names or numbers of actuators, or names of joints, of each agent.

    Raises ``UnknownNameError`` for a name that is neither, ``TypeError`` for what is no name, ``ValueError`` where an
    actuator has no agent or two.
    """
    if not isinstance(parts, Iterable) or isinstance(parts, str):
        raise TypeError(
            f"agent_factorization is {parts!r}; expected {{agent: joints}}, or the joints of each agent in a sequence, "
            "such as [('hip_1', 'ankle_1'), …]."
        )
    named = parts.items() if isinstance(parts, Mapping) else ((f"agent_{i}", part) for i, part in enumerate(parts))
    known: dict[str | int, int] = {}
    for actuator in range(model.nu):
        for name in (actuator, model.actuator(actuator).name, owned_actuator(model, actuator).joint):
            if name != "":
                known.setdefault(name, actuator)
    owners: dict[int, str] = {}
    shared: Shares = {}
    for agent, part in named:
        if isinstance(part, str | int | np.integer | OwnedActuator):
            part = (part,)
        elif not isinstance(part, Iterable):
            raise TypeError(
                f"agent {agent!r} is given {part!r}: expected one or more names of joints, names or numbers of "
                "actuators, or what env.partition has."
            )
        part = tuple(part)
        if not part:
            raise ValueError(f"agent {agent!r} has no actuator: every agent needs one or more.")
        shared[agent] = ()
        for given in part:
            name = given.actuator if isinstance(given, OwnedActuator) else given
            if not isinstance(name, str | int | np.integer):
                raise TypeError(
                    f"agent {agent!r} is given {name!r}: expected names of joints, names or numbers of actuators, or "
                    "what env.partition has."
                )
            if name not in known:
                raise unknown_name("actuator or joint", name, known)
            if known[name] in owners:
                raise ValueError(
                    f"{name!r} belongs to {owners[known[name]]!r} and to {agent!r}: one agent only may move it."
                )
            owners[known[name]] = agent
            shared[agent] += (known[name],)
    if free := [owned_actuator(model, actuator).joint for actuator in range(model.nu) if actuator not in owners]:
        raise ValueError(f"nobody moves {', '.join(free)}: give every joint to one agent.")
    return shared
