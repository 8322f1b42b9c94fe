"""Panels that compare groups of runs: what ``workbench.statistics`` says, drawn. A group has one colour in all of them.

A band or bar is an interval over seeds, and the single runs are drawn faintly beside it, so that nobody takes the one
for the other. What the figure rests on stands below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.jupyter import look
from workbench.jupyter.figures.curves import ENV_STEPS, ITERATION_COLUMNS
from workbench.jupyter.figures.plots import Floats, Plot, empty, line, trace
from workbench.jupyter.look import Spec
from workbench.statistics import Comparison, Curve, Estimate
from workbench.statistics.selection import NO_TASK

MOST_RUNS = 60  # drawn one by one in a panel; more are a fog
RUN_POINTS = 60
ROW_HEIGHT = 40  # pixels of a row of a panel of intervals
BAR_WIDTH = 9
ROOM = 0.06  # the share of the axis left free beside the outermost point
NEUTRAL = look.INKS["neutral"].muted


def learning_curves(comparison: Comparison) -> list[Plot]:
    """The interquartile mean along the runs with its band, and the single runs, panel by panel."""
    by_panel: dict[str, list[Curve]] = {panel: [] for panel in comparison.panels}
    for curve in comparison.curves():
        by_panel[curve.task].append(curve)
    return [_curves(comparison, panel, curves) for panel, curves in by_panel.items()]


def _curves(comparison: Comparison, panel: str, curves: Sequence[Curve]) -> Plot:
    scale = {"title": {"text": _label(comparison)}}
    several = sum(len(curve.runs) for curve in curves) <= MOST_RUNS
    bands = [_band(comparison, curve.group, curve.steps, curve.estimate) for curve in curves]
    singles = [each for curve in curves if several for each in _single_runs(comparison, curve)]
    means = [_line(comparison, curve.group, curve.steps, curve.estimate.value, "%{x:,} steps") for curve in curves]
    return Plot(_title(comparison, panel), [*bands, *singles, *means], ENV_STEPS, scale)


def _single_runs(comparison: Comparison, curve: Curve) -> list[Spec]:
    style = _style(comparison, curve.group)
    traces = []
    for series in curve.runs:
        last = series.steps <= curve.steps[-1]
        kept = np.unique(np.linspace(0, last.sum() - 1, min(RUN_POINTS, int(last.sum()))).round().astype(int))
        x, y = series.steps[last][kept], series.values[last][kept]
        stroke = {"color": look.faded(style.color, 0.35), "width": 1}
        hover = f"%{{y:.5g}}<extra>{curve.group}, seed {series.seed}</extra>"
        traces.append(trace("lines", x, y, line=stroke, hovertemplate=hover, **_unnamed(curve.group, curve.group)))
    return traces


def performance_profiles(comparison: Comparison, thresholds: Sequence[float] | None = None) -> list[Plot]:
    """F(τ), the share of runs that score more than τ, with its band, panel by panel."""
    plots: dict[str, Plot] = {}
    for panel in comparison.panels:
        scale = {"title": {"text": "share of runs above τ"}, "tickformat": "~%", "range": [-0.02, 1.02]}
        plots[panel] = Plot(_title(comparison, panel), [], {"title": {"text": f"τ, {_label(comparison)}"}}, scale)
    profiles = comparison.profiles(thresholds)
    for profile in profiles:
        band = _band(comparison, profile.group, profile.thresholds, profile.estimate)
        plots[profile.task].traces.append(band)
    for profile in profiles:
        drawn = _line(
            comparison, profile.group, profile.thresholds, profile.estimate.value, "τ = %{x:.4g}", marked=False
        )
        plots[profile.task].traces.append({**drawn, "hovertemplate": drawn["hovertemplate"].replace(":.5g", ":.1%")})
    return list(plots.values())


def intervals(comparison: Comparison) -> list[Plot]:
    """Point and bar of each group's interquartile mean, its seeds as dots; of normalised scores also the gap."""
    plots = []
    for panel in comparison.panels:
        held = [group for group in comparison.groups if comparison.runs(group, panel)]

        def scores(group: str, panel: str = panel) -> Floats:
            of_tasks = comparison.scores[group]
            return np.concatenate([of_tasks[task] for task in comparison.runs(group, panel)])

        label = f"{_label(comparison)}, interquartile mean"
        rows = [(group, comparison.estimate(group, panel), scores(group), group) for group in held]
        plots.append(_rows(comparison, _title(comparison, panel), label, rows))
        if comparison.selection.scale is not None:
            rows = [(group, comparison.estimate(group, panel, gap=True), np.array([]), group) for group in held]
            plots.append(_rows(comparison, f"Optimality gap{_where(panel)}", "mean shortfall, less is better", rows))
    return plots


def probability_of_improvement(comparison: Comparison, pairs: Sequence[tuple[str, str]] | None = None) -> Plot:
    """Point and bar of P(X > Y) for each pair of groups; dashed: ½, where neither is better."""
    title = "Probability of improvement"
    if pairs is None and len(comparison.groups) < 2:
        return empty(title, "there is but one group: nothing to compare it with")
    table = comparison.improvement(pairs).table
    rows = [
        (f"{row.x} over {row.y}", Estimate(*map(np.asarray, (row.probability, row.low, row.high))), np.array([]), row.x)
        for row in table.itertuples()
    ]
    plot = _rows(comparison, title, "P(a run of the first beats one of the second)", rows, at=0.5)
    plot.xaxis.update({"range": [-0.03, 1.03]})
    return plot


def paired_differences(comparison: Comparison, baseline: str) -> list[Plot]:
    """Point and bar of each group's differences to a baseline, pair by pair; the pairs as dots; dashed: none."""
    table = comparison.paired(baseline).table
    plots = []
    for panel in comparison.panels:
        rows = []
        of_panel = table[table["task"] == panel] if "task" in table else table
        for row in of_panel.to_dict("records"):
            group = row[comparison.selection.by]
            tasks = comparison.runs(group, panel)
            pairs = np.concatenate([comparison.differences(group, baseline, task) for task in tasks])
            estimate = Estimate(*(np.asarray(row[name]) for name in ("iqm", "low", "high")))
            rows.append((group, estimate, pairs, group))
        title = f"Difference to {baseline}{_where(panel)}"
        if rows:
            plots.append(_rows(comparison, title, f"difference in {_label(comparison)}, seed by seed", rows, at=0.0))
        else:
            plots.append(empty(title, "no seed is common to both"))
    return plots


Row = tuple[str, Estimate, Floats, str]  # label, statistic, single values, group


def _rows(comparison: Comparison, title: str, label: str, rows: Sequence[Row], at: float | None = None) -> Plot:
    """One row for each statistic: its interval as a bar, itself as a point, single values as dots below."""
    traces = []
    for k, (name, estimate, singles, group) in enumerate(rows):
        style = _style(comparison, group)
        value, low, high = map(float, estimate)
        held = _unnamed(name, group)
        if len(singles):
            dots = {"size": 4, "color": look.faded(style.color, 0.6)}
            traces.append(trace("markers", singles, np.full(len(singles), k + 0.3), marker=dots, hoverinfo="x", **held))
        if np.isfinite(low):
            bar = {"color": look.faded(style.color, 0.4), "width": BAR_WIDTH}
            traces.append(trace("lines", [low, high], [k, k], line=bar, hoverinfo="skip", **held))
        interval = f"<br>{low:.5g} to {high:.5g}" if np.isfinite(low) else "<br>no interval from a single seed"
        hover, point = f"%{{x:.5g}}{interval}<extra>{name}</extra>", {"size": 9, "color": style.color}
        traces.append(trace("markers", [value], [k], marker=point, hovertemplate=hover, **held))
    seen = np.concatenate([[*map(float, estimate), *singles] for _, estimate, singles, _ in rows])
    seen = seen if at is None else np.append(seen, at)
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    room = ROOM * (high - low) or 1.0
    names = {"tickvals": list(range(len(rows))), "ticktext": [row[0] for row in rows], "showgrid": False}
    across = {"title": {"text": label}, "range": [low - room, high + room]}
    down = {**names, "range": [len(rows) - 0.4, -0.6], "title": {"text": ""}}
    plot = Plot(title, traces, across, down)
    if at is not None:
        ends = {"xref": "x", "x0": at, "x1": at, "yref": "y domain", "y0": 0, "y1": 1}
        plot.shapes.append({"type": "line", **ends, "line": {"dash": "dash"}})
    return plot


def rows_height(plots: Sequence[Plot]) -> int:
    """Pixels for the axes of panels of intervals: as many as their rows need."""
    most = max((len(plot.yaxis.get("tickvals", ())) for plot in plots), default=1)
    return ROW_HEIGHT * max(most, 2) + 16


def _band(comparison: Comparison, group: str, x: Floats, estimate: Estimate) -> Spec:
    """The area between the ends of the intervals; nothing where there are none."""
    known, color = np.isfinite(estimate.low), _style(comparison, group).color
    around = np.concatenate([x[known], x[known][::-1]])
    outline = np.concatenate([estimate.low[known], estimate.high[known][::-1]])
    area = {"fill": "toself", "fillcolor": look.faded(color, 0.2), "line": {"width": 0, "color": look.faded(color, 0)}}
    return trace("lines", around, outline, hoverinfo="skip", **area, **_unnamed(group, group))


def _unnamed(name: str, group: str) -> Spec:
    """A trace that the legend shows by another of its group."""
    return {"name": name, "legendgroup": group, "showlegend": False}


def _line(comparison: Comparison, group: str, x: Floats, y: Floats, at: str, marked: bool = True) -> Spec:
    style = _style(comparison, group)
    marks = {"color": style.color, "dash": style.dash, "symbol": style.symbol}
    drawn = line(x, y, marks, name=group, hovertemplate=f"%{{y:.5g}}<extra>{group}, {at}</extra>")
    drawn["line"]["width"] = 2.2
    return drawn if marked else {**drawn, "mode": "lines"}


def _style(comparison: Comparison, group: str) -> look.AgentStyle:
    """By the group's place in the whole table, so that it keeps its colour when others get their first runs."""
    return look.run_style(1 + comparison.selection.groups.index(group))  # grey is for a run among others


def _label(comparison: Comparison) -> str:
    """The metric in words."""
    metric = comparison.selection.metric
    label = ITERATION_COLUMNS.get(metric, ("", metric.replace("_", " ")))[1]
    return f"normalised {metric.replace('_', ' ')}" if comparison.selection.scale is not None else label


def _title(comparison: Comparison, panel: str) -> str:
    metric = comparison.selection.metric
    title = ITERATION_COLUMNS.get(metric, (metric.replace("_", " ").capitalize(), ""))[0]
    return f"{title}{_where(panel)}"


def _where(panel: str) -> str:
    return "" if panel == NO_TASK else f", {panel}"
