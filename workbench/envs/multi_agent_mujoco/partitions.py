"""Which agent moves which joints.

The named partitions are those of gymnasium-robotics' ``mamujoco_v1``, and those the papers use beside them (Ant 8x1,
Walker2d 3x2 and 6x1, HalfCheetah 3x2, Humanoid 17x1, after Kuba et al. 2022, "Trust Region Policy Optimisation in
Multi-Agent Reinforcement Learning", https://arxiv.org/abs/2109.11251).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

Joints = tuple[str, ...]
Parts = tuple[Joints, ...]


class OwnedActuator(NamedTuple):
    """One actuator of an agent: its number in the model, the joint it turns and the number of the body it moves."""

    actuator: int
    joint: str
    body: int


def _legs(*groups: str) -> Parts:
    """Ant's legs by number: ``_legs("12", "34")`` gives two agents two neighbouring legs each."""
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

PARTITIONS: Mapping[str, Mapping[str, Parts]] = {
    "Ant": {
        "2x4": _legs("12", "34"),  # neighbouring legs together
        "2x4d": _legs("14", "23"),  # opposite legs together
        "4x2": _legs("1", "2", "3", "4"),
        "8x1": _each(*(joint for leg in _legs("1", "2", "3", "4") for joint in leg)),
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
    "Humanoid": {"9|8": (_UPPER, _LOWER), "17x1": _each(*_UPPER, *_LOWER)},
    "HumanoidStandup": {"9|8": (_UPPER, _LOWER), "17x1": _each(*_UPPER, *_LOWER)},
    "Swimmer": {"2x1": _each("motor1_rot", "motor2_rot")},
}
