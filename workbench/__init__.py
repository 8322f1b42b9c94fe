"""A Jupyter-first workbench for cooperative multi-agent trust-region learning: HATRPO, HAPPO and their relatives."""

from workbench import envs

__version__ = "0.1.0"
__all__ = ["envs"]
