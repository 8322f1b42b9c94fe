"""Figures of panels: a record draws them once, a live view again and again for every width of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from workbench.jupyter import look
from workbench.jupyter.figures import curves, m_distributions, positions
from workbench.jupyter.figures.m_distributions import Kind, Scale
from workbench.jupyter.figures.plots import Plot, arrange, captioned
from workbench.jupyter.figures.record import Record, plain_figure
from workbench.jupyter.figures.run_columns import RunColumns
from workbench.jupyter.look import Spec

NARROW, WIDE = 640, 1080  # pixels: below, panels stand one above the other; above, three may stand side by side


class Drawing(Record):
    """A record of panels that belong together.

    text     what a terminal shows; it depends on no number
    columns  panels side by side, by default all
    height   of a panel's axes, in pixels
    notes    lines of small print: what the figure rests on
    """

    def __init__(
        self,
        text: str,
        plots: Sequence[Plot],
        columns: int | None = None,
        height: int = look.PANEL_HEIGHT,
        notes: Sequence[str] = (),
    ) -> None:
        self.text, self.plots = text, plots
        self._columns, self._height, self._notes = columns or len(plots), height, notes

    @cached_property
    def _plain(self) -> Spec:
        return plain_figure(self._captioned(arrange(self.plots, self._columns, look.WIDTH, self._height)))

    def _shown(self) -> Spec:
        """As wide as its place on the page."""
        layout = {name: value for name, value in self._plain["layout"].items() if name != "width"}
        return {**self._plain, "layout": {**layout, "autosize": True}}

    def _captioned(self, figure: Spec) -> Spec:
        return captioned(figure, self._notes) if self._notes else figure

    def _sized(self, width: int | None, notes: bool) -> Spec:
        columns = self._columns if width is None else self._across(width)
        figure = arrange(self.plots, columns, width or look.WIDTH, self._height)
        return plain_figure(self._captioned(figure) if notes else figure)

    def _across(self, width: int) -> int:
        """How many panels may stand side by side."""
        return min(1 if width < NARROW else 2 if width < WIDE else self._columns, self._columns)

    def arranged(self, heights: Mapping[int, int]) -> dict[int, Spec]:
        """{width: figure} for a page, which has a legend of its own; ``heights``: of its panels, by its width."""
        return {
            width: arrange(self.plots, self._across(width), width, height, legend=False)
            for width, height in heights.items()
        }


def overview(runs: Sequence[RunColumns], kind: Kind = "violin", scale: Scale = "auto", main: int = 0) -> Drawing:
    """Returns of all runs; M-factors, positions and divergences of the ``main`` one."""
    plots = [
        curves.run_curves(runs),
        m_distributions.m_factors(runs[main], kind, scale),
        positions.clipped_and_effective(runs[main]),
        curves.agent_curves(runs[main], "kl"),
    ]
    return Drawing(f"Overview: {names(runs)}", plots, columns=2)


def diagnostics(runs: Sequence[RunColumns], main: int = 0) -> Drawing:
    """Var(M), gain, entropy and std of the ``main`` run's agents; the critics of all runs."""
    critic = [curves.run_curves(runs, column) for column in ("value_loss", "explained_variance")]
    lines = [curves.agent_curves(runs[main], column) for column in ("surrogate_gain", "entropy", "std")]
    return Drawing(f"Diagnostics: {names(runs)}", [positions.m_variance(runs[main]), *lines, *critic], columns=3)


def names(runs: Sequence[RunColumns]) -> str:
    """The runs as a text names them."""
    return ", ".join(run.name for run in runs)
