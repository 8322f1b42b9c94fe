"""The keywords of Gymnasium's robots, with Gymnasium's defaults, and their validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from workbench.errors import unknown_name

Keywords = dict[str, Any]


def _sensed(*names: str) -> Keywords:
    return {f"include_{name}_in_observation": True for name in names}


_HEALTH: Keywords = {"healthy_reward": 1.0, "terminate_when_unhealthy": True}
_EXCLUDE: Keywords = {"exclude_current_positions_from_observation": True}
_BODY_SENSES = _sensed("cinert", "cvel", "qfrc_actuator", "cfrc_ext")

_ANT: Keywords = {
    "ctrl_cost_weight": 0.5,
    "contact_cost_weight": 5e-4,
    **_HEALTH,
    "healthy_z_range": (0.2, 1.0),
    "contact_force_range": (-1.0, 1.0),
    "reset_noise_scale": 0.1,
    **_EXCLUDE,
}
_HALF_CHEETAH: Keywords = {
    "forward_reward_weight": 1.0,
    "ctrl_cost_weight": 0.1,
    "reset_noise_scale": 0.1,
    **_EXCLUDE,
}
_WALKER2D: Keywords = {
    "forward_reward_weight": 1.0,
    "ctrl_cost_weight": 1e-3,
    **_HEALTH,
    "healthy_z_range": (0.8, 2.0),
    "healthy_angle_range": (-1.0, 1.0),
    "reset_noise_scale": 5e-3,
    **_EXCLUDE,
}
_HOPPER: Keywords = {
    **_WALKER2D,
    "healthy_state_range": (-100.0, 100.0),
    "healthy_z_range": (0.7, math.inf),
    "healthy_angle_range": (-0.2, 0.2),
}
_SWIMMER: Keywords = {**_HALF_CHEETAH, "ctrl_cost_weight": 1e-4}
_HUMANOID: Keywords = {
    "forward_reward_weight": 1.25,
    "ctrl_cost_weight": 0.1,
    **_HEALTH,
    "healthy_reward": 5.0,
    "healthy_z_range": (1.0, 2.0),
    "reset_noise_scale": 1e-2,
    **_EXCLUDE,
}
_STANDUP: Keywords = {
    "uph_cost_weight": 1.0,
    "ctrl_cost_weight": 0.1,
    "impact_cost_weight": 0.5e-6,
    "impact_cost_range": (-math.inf, 10.0),
    "reset_noise_scale": 1e-2,
    **_EXCLUDE,
    **_BODY_SENSES,
}
_CONTACTS: Keywords = {"contact_cost_weight": 5e-7, "contact_cost_range": (-math.inf, 10.0)}

KEYWORDS: Mapping[str, Mapping[str, Keywords]] = {
    "v5": {
        "Ant": {
            "xml_file": "ant.xml",
            "frame_skip": 5,
            "forward_reward_weight": 1.0,
            "main_body": 1,
            **_ANT,
            **_sensed("cfrc_ext"),
        },
        "HalfCheetah": {"xml_file": "half_cheetah.xml", "frame_skip": 5, **_HALF_CHEETAH},
        "Hopper": {"xml_file": "hopper.xml", "frame_skip": 4, **_HOPPER},
        "Humanoid": {"xml_file": "humanoid.xml", "frame_skip": 5, **_HUMANOID, **_CONTACTS, **_BODY_SENSES},
        "HumanoidStandup": {"xml_file": "humanoidstandup.xml", "frame_skip": 5, **_STANDUP},
        "Swimmer": {"xml_file": "swimmer.xml", "frame_skip": 4, **_SWIMMER},
        "Walker2d": {"xml_file": "walker2d_v5.xml", "frame_skip": 4, **_WALKER2D},
    },
    "v4": {
        "Ant": {"xml_file": "ant.xml", "use_contact_forces": False, **_ANT},
        "HalfCheetah": _HALF_CHEETAH,
        "Hopper": _HOPPER,
        "Humanoid": _HUMANOID,
        "HumanoidStandup": {},
        "Swimmer": _SWIMMER,
        "Walker2d": _WALKER2D,
    },
}

# What Gymnasium's v4 fixes and its v5 lets one choose.
_FIXED: Mapping[str, Keywords] = {"HumanoidStandup": {"reset_noise_scale": 1e-2}}
_OLD_FILES = {"Walker2d": "walker2d.xml"}


def validated(robot: str, version: str, given: Keywords, further: Iterable[str] = ()) -> Keywords:
    """All keywords of ``robot``: those ``given``, else Gymnasium's defaults, else what its version fixes.

    Raises ``UnknownNameError`` for a version or keyword that is none (``further`` are the environment's own, named in
    the message), ``ValueError`` for a value that Gymnasium could not use.
    """
    if version not in KEYWORDS:
        raise unknown_name("version", version, KEYWORDS)
    defaults = KEYWORDS[version][robot]
    for name, value in given.items():
        if name not in defaults:
            raise unknown_name(f"keyword of {robot} {version}", name, [*defaults, *further])
        _check(name, value, defaults[name])
    newest = KEYWORDS["v5"][robot]
    files = {"xml_file": _OLD_FILES.get(robot, newest["xml_file"]) if version == "v4" else newest["xml_file"]}
    return {"frame_skip": newest["frame_skip"], **files, **_FIXED.get(robot, {}), **defaults, **given}


def _check(name: str, value: Any, default: object) -> None:
    """Raise where ``value`` is of no use as keyword ``name``, whose default shows the kind of value."""
    if name == "main_body":
        expected, fits = "a body's number or name", isinstance(value, int | str)
    elif isinstance(default, str):
        expected, fits = "a path", isinstance(value, str)
    elif isinstance(default, bool):
        expected, fits = "True or False", isinstance(value, bool | np.bool_)
    elif isinstance(default, tuple):
        expected, fits = "a pair (low, high) of numbers, low < high", _is_range(value)
    elif isinstance(default, int):
        expected, fits = "an integer ≥ 1", isinstance(value, int) and not isinstance(value, bool) and value >= 1
    else:
        expected, fits = "a finite number", _is_number(value) and math.isfinite(value)
    if not fits:
        raise ValueError(f"{name}={value!r}: expected {expected}, such as the default {default!r}.")
    if name == "reset_noise_scale" and value < 0:
        raise ValueError(f"{name}={value!r}: expected a number ≥ 0, such as the default {default!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_range(value: Any) -> bool:
    pair = isinstance(value, tuple | list) and len(value) == 2 and all(_is_number(number) for number in value)
    return pair and value[0] < value[1]
