"""The kinds of environments that a description can name, and how each is made."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from workbench.errors import unknown_name

if TYPE_CHECKING:
    from workbench.envs.base import TeamEnv

# {kind: a module, and what makes one there}: by name, since the modules build on the contract, which knows this table.
_MAKERS = {
    "mujoco": ("workbench.envs.multi_agent_mujoco", "MujocoTeamEnv"),
    "tabular": ("workbench.envs.sampled_game", "described_game"),
}


def make(kind: str, **options: Any) -> TeamEnv:
    """The environment that ``description`` describes: ``make(**env.description)`` equals ``env``, freshly made."""
    if kind not in _MAKERS:
        raise unknown_name("kind of environment", kind, _MAKERS)
    module, name = _MAKERS[kind]
    env: TeamEnv = getattr(importlib.import_module(module), name)(**options)
    return env
