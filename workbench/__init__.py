"""A Jupyter-first workbench for cooperative multi-agent trust-region learning: HATRPO, HAPPO and their relatives."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from workbench import envs, errors, theory

if TYPE_CHECKING:
    from workbench import statistics as statistics
    from workbench.jupyter import views as views
    from workbench.jupyter.panel.session import Session
    from workbench.jupyter.replay.create import replay
    from workbench.jupyter.replay.viewer import Replay
    from workbench.running.experiments import improvement, try_orders, what_if
    from workbench.running.export import export_policies, export_tables, export_tensorboard, load_policies
    from workbench.running.harl_config import from_harl
    from workbench.running.methods import haa2c, happo, hatrpo, ippo, load, mappo, options, shared_ppo
    from workbench.running.presets import reference_environment, reference_settings
    from workbench.running.rewind import Snapshots
    from workbench.sweeps.recorded_run import record
    from workbench.sweeps.search import Search
    from workbench.sweeps.seeds import run_seeds
    from workbench.sweeps.study import Study
    from workbench.sweeps.sweep import Sweep

__version__ = "0.1.0"
__all__ = [
    "Replay",
    "Search",
    "Session",
    "Snapshots",
    "Study",
    "Sweep",
    "__version__",
    "envs",
    "errors",
    "export_policies",
    "export_tables",
    "export_tensorboard",
    "from_harl",
    "haa2c",
    "happo",
    "hatrpo",
    "improvement",
    "ippo",
    "load",
    "load_policies",
    "mappo",
    "options",
    "record",
    "reference_environment",
    "reference_settings",
    "replay",
    "run_seeds",
    "shared_ppo",
    "statistics",
    "theory",
    "try_orders",
    "views",
    "what_if",
]

# Loaded when first asked for: training on a cluster owes widgets and plotting nothing, and theory, the command line and
# the worker processes of a slow environment do not wait three seconds for torch.
_LAZY = {
    "views": "workbench.jupyter.views",
    "statistics": "workbench.statistics",
    "Session": "workbench.jupyter.panel.session",
    "Replay": "workbench.jupyter.replay.viewer",
    "replay": "workbench.jupyter.replay.create",
    "Snapshots": "workbench.running.rewind",
    "from_harl": "workbench.running.harl_config",
    "reference_environment": "workbench.running.presets",
    "reference_settings": "workbench.running.presets",
    **dict.fromkeys(("improvement", "try_orders", "what_if"), "workbench.running.experiments"),
    "Search": "workbench.sweeps.search",
    "run_seeds": "workbench.sweeps.seeds",
    "Study": "workbench.sweeps.study",
    "Sweep": "workbench.sweeps.sweep",
    "record": "workbench.sweeps.recorded_run",
    **dict.fromkeys(
        ("export_policies", "export_tables", "export_tensorboard", "load_policies"), "workbench.running.export"
    ),
    **dict.fromkeys(
        ("haa2c", "happo", "hatrpo", "ippo", "load", "mappo", "options", "shared_ppo"), "workbench.running.methods"
    ),
}


def __getattr__(name: str) -> Any:
    if name.startswith("_"):  # asked for by Python and its tools, who only want to know
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    if name not in _LAZY:
        raise errors.unknown_name("name in workbench", name, __all__)
    module = importlib.import_module(_LAZY[name])
    return getattr(module, name, module)  # "views" is a module itself


def __dir__() -> list[str]:
    """The public names, for completion: not what this file itself imports."""
    return sorted(name for name in {*globals(), *_LAZY} if name in __all__ or name.startswith("__"))
