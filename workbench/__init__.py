"""A Jupyter-first workbench for cooperative multi-agent trust-region learning: HATRPO, HAPPO and their relatives."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from workbench import envs, errors, theory
from workbench.recipes import haa2c, happo, hatrpo, ippo, load, mappo, options, shared_ppo
from workbench.reference import reference_settings

if TYPE_CHECKING:
    from workbench.jupyter import views as views

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "envs",
    "errors",
    "haa2c",
    "happo",
    "hatrpo",
    "ippo",
    "load",
    "mappo",
    "options",
    "reference_settings",
    "shared_ppo",
    "theory",
    "views",
]

# Widgets and plotting are loaded when they are first asked for, so that training on a cluster owes them nothing.
_LAZY = {"views": "workbench.jupyter.views"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    return importlib.import_module(_LAZY[name])
