"""Every view as a function of runs: a record draws it once, a live view again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.jupyter import curves, distributions, positions
from workbench.jupyter.distributions import Kind, Scale
from workbench.jupyter.plots import Plot, arrange
from workbench.jupyter.record import Record
from workbench.jupyter.runs import Run

NARROW, WIDE = 640, 1080  # pixels: below, panels stand one above the other; above, three may stand side by side


@dataclass(frozen=True)
class Drawing:
    """Panels that belong together, with a text that hangs on no number; ``columns``: side by side unless given."""

    text: str
    plots: Sequence[Plot]
    columns: int | None = None

    def record(self) -> Record:
        """The panels as a record."""
        return Record(arrange(self.plots, self.columns or len(self.plots)), self.text)

    def arranged(self, heights: Mapping[int, int]) -> dict[int, dict[str, Any]]:
        """{width: figure} for a page, which has a legend of its own; ``heights``: of its panels, by its width."""
        columns = self.columns or len(self.plots)
        most = {width: 1 if width < NARROW else columns if width >= WIDE else min(columns, 2) for width in heights}
        return {
            width: arrange(self.plots, most[width], width, height, legend=False) for width, height in heights.items()
        }


def live_height(width: int) -> int:
    """Pixels of a live figure's panels: as high as a window of that width has room for, beside the controls."""
    return 165 if width < NARROW or width >= 1000 else 120


def returns(runs: Sequence[Run]) -> Drawing:
    return Drawing(f"Return against environment steps: {names(runs)}", [curves.run_curves(runs)])


def m_factors(runs: Sequence[Run], kind: Kind = "violin", scale: Scale = "auto") -> Drawing:
    return Drawing(f"M-factors in update order ({kind})", [distributions.m_factors(runs[0], kind, scale)])


def by_position(runs: Sequence[Run]) -> Drawing:
    text = "Clipped fraction and effective sample size by position in the order"
    return Drawing(text, [positions.clipped_and_effective(runs[0])])


def clipped_fraction(runs: Sequence[Run]) -> Drawing:
    return Drawing("Clipped fraction by position in the order", [positions.clipped_fraction(runs[0])])


def effective_sample_size(runs: Sequence[Run]) -> Drawing:
    return Drawing("Effective sample size by position in the order", [positions.effective_sample_size(runs[0])])


def m_variance(runs: Sequence[Run]) -> Drawing:
    return Drawing("Variance of M by position in the order", [positions.m_variance(runs[0])])


def kl(runs: Sequence[Run]) -> Drawing:
    return _agent_lines(runs, "kl")


def surrogate_gain(runs: Sequence[Run]) -> Drawing:
    return _agent_lines(runs, "surrogate_gain")


def entropy(runs: Sequence[Run]) -> Drawing:
    return _agent_lines(runs, "entropy", "std")


def value_loss(runs: Sequence[Run]) -> Drawing:
    plots = [curves.run_curves(runs, column) for column in ("value_loss", "explained_variance")]
    return Drawing("Value loss and explained variance of the critic", plots)


def explained_variance(runs: Sequence[Run]) -> Drawing:
    return Drawing("Explained variance of the critic", [curves.run_curves(runs, "explained_variance")])


def compare(runs: Sequence[Run], column: str = "return") -> Drawing:
    plot = curves.compared(runs, column)
    return Drawing(f"{plot.title}: {names(runs)}", [plot])


def overview(runs: Sequence[Run], kind: Kind = "violin", scale: Scale = "auto", main: int = 0) -> Drawing:
    """Returns of all; M-factors, positions and divergences of the ``main`` one."""
    plots = [
        curves.run_curves(runs, beside_agents=True),
        distributions.m_factors(runs[main], kind, scale),
        positions.clipped_and_effective(runs[main]),
        curves.agent_curves(runs[main], "kl"),
    ]
    return Drawing(f"Overview: {names(runs)}", plots, columns=2)


def diagnostics(runs: Sequence[Run], main: int = 0) -> Drawing:
    """Var(M), gain, entropy and std of the ``main`` one's agents; the critics of all."""
    critic = [curves.run_curves(runs, column, beside_agents=True) for column in ("value_loss", "explained_variance")]
    lines = [curves.agent_curves(runs[main], column) for column in ("surrogate_gain", "entropy", "std")]
    return Drawing(f"Diagnostics: {names(runs)}", [positions.m_variance(runs[main]), *lines, *critic], columns=3)


DRAWINGS: dict[str, Callable[..., Drawing]] = {
    draw.__name__: draw
    for draw in (
        *(returns, m_factors, by_position, clipped_fraction, effective_sample_size, m_variance, kl, surrogate_gain),
        *(entropy, value_loss, explained_variance, compare, overview, diagnostics),
    )
}
WITH_M_FACTORS = ("m_factors", "overview")


def names(runs: Sequence[Run]) -> str:
    """The runs as a text names them."""
    return ", ".join(run.name for run in runs)


def _agent_lines(runs: Sequence[Run], *columns: str) -> Drawing:
    plots: list[Any] = [curves.agent_curves(runs[0], column) for column in columns]
    return Drawing(", ".join(plot.title for plot in plots), plots)
