"""Panels in update order: what the predecessors' ratio does to agent after agent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.jupyter import look
from workbench.jupyter.figures.plots import Floats, Plot, empty, note, trace
from workbench.jupyter.figures.run_columns import RunColumns, unit_label
from workbench.jupyter.look import Spec

NEUTRAL = look.INKS["neutral"].muted  # for what belongs to no agent
POSITION = "position in the update order"
INDEPENDENT = "independent agents"


@dataclass(frozen=True)
class Positions:
    """The newest iteration's updates by position; NaN where a unit is still to be updated.

    units  who stands where; ``columns`` the agent history's numbers, (n_units,) each
    """

    units: tuple[str, ...]
    columns: dict[str, Floats]

    @property
    def places(self) -> Floats:
        return np.arange(len(self.units), dtype=np.float64)

    def independent_variance(self) -> Floats:
        """mσ² as it would be if the agents' ratios were independent: Σ_{j<m} σ_j², with σ_j² = 2·KL_j.

        For a log-ratio distributed N(−σ²/2, σ²) under the old policy, KL(old ‖ new) = σ²/2. (n_units,), 0 at first.
        """
        return np.concatenate([[0.0], np.cumsum(2 * self.columns["kl"])[:-1]])


NUMBERS = ("kl", "clipped_fraction", "effective_sample_size", "m_variance")


def newest(run: RunColumns) -> Positions:
    """The updates of the newest iteration that has any (up to ``run.upto``); its units stand in update order."""
    last = {unit: _newest_row(run, unit) for unit in run.updates}
    iterations = {unit: run.updates_of(unit, "iteration")[row] for unit, row in last.items() if row is not None}
    units = [unit for unit, iteration in iterations.items() if iteration == max(iterations.values())]
    units.sort(key=lambda unit: run.updates_of(unit, "position")[last[unit]])
    # The order may be that of this very iteration, with the agents still to be updated at its end.
    places = run.order if list(run.order[: len(units)]) == units else tuple(units)
    columns = {}
    for name in NUMBERS:
        columns[name] = np.full(len(places), np.nan)
        columns[name][: len(units)] = [run.updates_of(unit, name)[last[unit]] for unit in units]
    return Positions(places if units else (), columns)


def _newest_row(run: RunColumns, unit: str) -> int | None:
    iteration = run.updates_of(unit, "iteration")
    rows = len(iteration) if run.upto is None else int(np.searchsorted(iteration, run.upto, side="right"))
    return rows - 1 if rows else None


def place_axis(run: RunColumns, units: tuple[str, ...]) -> Spec:
    """The axis of positions: number and name of each unit."""
    labels = [f"{k}<br>{unit_label(run.agents, unit)}" for k, unit in enumerate(units, 1)]
    n = len(units)
    ticks = {"tickvals": list(range(n)), "ticktext": labels, "range": [-0.6, n - 0.4], "showgrid": False}
    return {"title": {"text": POSITION}, **ticks}


def clipped_and_effective(run: RunColumns) -> Plot:
    """Above: the effective sample size of the preceding ratio, (Σw)²/(N·Σw²), beside what it would be for independent
    agents, e^{−mσ²} (dashed). Below, as bars: the clipped fraction of each agent's own ratio."""
    title = "Clipping and effective sample size"
    at = newest(run)
    if not at.units:
        return empty(title, "nothing yet: no agent has been updated")
    if not np.isfinite(at.columns["clipped_fraction"]).any():  # a method that does not clip
        return effective_sample_size(run)
    if len(at.units) == 1:  # no predecessors
        return clipped_fraction(run)
    traces = _effective(run, at)
    effective = {"title": {"text": "ESS"}, **_below_one(traces), "nticks": 4}
    clipped = {"title": {"text": "clipped"}, **_from_zero(at.columns["clipped_fraction"]), "nticks": 4}
    traces.append(_bars(run, at, "clipped_fraction", "y2"))
    return Plot(title, traces, place_axis(run, at.units), effective, yaxis2=clipped, notes=[_reference_note("top")])


def clipped_fraction(run: RunColumns) -> Plot:
    """Share of samples whose own ratio lies outside 1 ± ε, by position in the order."""
    at = newest(run)
    title = "Clipped fraction by position in the order"
    if not np.isfinite(at.columns["clipped_fraction"]).any():
        return empty(title, "nothing yet: no agent has been updated" if not at.units else f"{run.name} does not clip")
    scale = {"title": {"text": "share with |r − 1| > ε"}, **_from_zero(at.columns["clipped_fraction"])}
    return Plot(title, [_bars(run, at, "clipped_fraction", "y")], place_axis(run, at.units), scale)


def effective_sample_size(run: RunColumns) -> Plot:
    """(Σw)²/(N·Σw²) of the preceding ratio w, by position; dashed: e^{−mσ²}, were the agents' ratios independent."""
    at = newest(run)
    title = "Effective sample size of the preceding ratio"
    if not at.units:
        return empty(title, "nothing yet: no agent has been updated")
    traces = _effective(run, at)
    scale = {"title": {"text": "(Σw)² / (N·Σw²)"}, **_below_one(traces)}
    return Plot(title, traces, place_axis(run, at.units), scale, notes=[_reference_note("top")])


def _below_one(traces: list[Spec]) -> Spec:
    """The axis of shares that begin at 1, with room above for the note."""
    least = min((float(each["y"].min()) for each in traces if len(each["y"])), default=0.0)
    depth = max(1 - least, 1e-4)
    return {"tickformat": "~%", "range": [1 - 1.12 * depth, 1 + 0.3 * depth]}


def _from_zero(shares: Floats) -> Spec:
    """The axis of shares from 0 up, to 1 % at least.

    Given in numbers: where a frame leaves to Plotly what the one before gave, it draws the bars first without a scale.
    """
    return {"tickformat": "~%", "range": [0, 1.06 * max(np.nanmax(shares, initial=0), 0.01)]}


def m_variance(run: RunColumns) -> Plot:
    """Var(M) by position; dashed: Var(A)·e^{mσ²}, were the agents' ratios independent of each other and of A."""
    at = newest(run)
    if not at.units:
        return empty("Variance of M", "nothing yet: no agent has been updated")
    first = at.columns["m_variance"][0]
    reference = _reference(at.places, first * np.exp(at.independent_variance()), "Var(A)·exp(mσ²)")
    traces = [reference, _marks(run, at, "m_variance", "Var(M)")]
    scale = {"title": {"text": "Var(M), with Var(A) first"}}
    title = "Variance of M by position in the order"
    return Plot(title, traces, place_axis(run, at.units), scale, notes=[_reference_note("bottom")])


def _known(run: RunColumns, at: Positions, column: str) -> Spec:
    """Places, numbers and names of the units that have a number, and their colours in ``marker``."""
    rows = np.flatnonzero(np.isfinite(at.columns[column]))
    units = [at.units[row] for row in rows]
    return {
        "x": at.places[rows],
        "y": at.columns[column][rows],
        "text": [unit_label(run.agents, unit) for unit in units],
        "marker": {"color": [look.agent_color(run.agents, unit) for unit in units]},
    }


def _bars(run: RunColumns, at: Positions, column: str, axis: str) -> Spec:
    known = _known(run, at, column)
    colors = known["marker"]["color"]
    marker = {"color": [look.faded(color, 0.4) for color in colors], "line": {"color": colors, "width": 1.4}}
    hover = {"textposition": "none", "hovertemplate": "%{y:.2%}<extra>%{text}</extra>"}
    return {"type": "bar", **known, "yaxis": axis, "width": 0.62, "marker": marker, "showlegend": False, **hover}


def _effective(run: RunColumns, at: Positions) -> list[Spec]:
    reference = _reference(at.places, np.exp(-at.independent_variance()), "exp(−mσ²)")
    return [reference, _marks(run, at, "effective_sample_size", "effective sample size")]


def _marks(run: RunColumns, at: Positions, column: str, name: str) -> Spec:
    known = _known(run, at, column)
    known["marker"] |= {"size": 9, "symbol": "diamond", "line": {"color": NEUTRAL, "width": 1}}
    hover, stroke = f"{name} %{{y:.4g}}<extra>%{{text}}</extra>", {"color": NEUTRAL, "width": 1.4}
    return trace("lines+markers", **known, name=name, showlegend=False, line=stroke, hovertemplate=hover)


def _reference(x: Floats, y: Floats, formula: str) -> Spec:
    known, stroke = np.isfinite(y), {"color": NEUTRAL, "width": 1.4, "dash": "dash"}
    hover = f"{formula}: %{{y:.4g}}<extra>{INDEPENDENT}</extra>"
    return trace("lines", x[known], y[known], name=INDEPENDENT, showlegend=False, line=stroke, hovertemplate=hover)


def _reference_note(side: str) -> Spec:
    """What the dashed line is, in the corner that the curves leave free."""
    corner = ("x domain", 1.0, "right"), ("y domain", float(side == "top"), side)
    return note(f"dashed: {INDEPENDENT}", *corner, font={"size": look.TICK_SIZE, "color": NEUTRAL})
