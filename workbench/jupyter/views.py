"""Figures of a training run, each shown as a record: interactive, with a picture beside it that needs no kernel."""

from workbench.jupyter.record import Record, show

__all__ = ["Record", "show"]
