"""What the method claims, computed exactly on games small enough to be written out in full (NumPy, float64)."""

from workbench.theory.games import TabularGame

__all__ = ["TabularGame"]
