"""Panels of what changes from iteration to iteration: returns, divergences, gains, losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.figures.plots import Floats, Plot, empty, level, line, thinned, trace
from workbench.jupyter.figures.run_columns import RunColumns, unit_label
from workbench.jupyter.look import Spec

Smoothing = Literal["off", "light", "strong"]
WINDOWS = {"off": 0.0, "light": 0.025, "strong": 0.1}  # the moving mean's, as a share of the curve
MOST_CHANGES = 40  # marked in a panel

NOTHING_YET = "nothing yet: no iteration is complete"
ENV_STEPS = {"title": {"text": "environment steps"}}
ITERATION = {"title": {"text": "iteration"}, "minexponent": 5}

# What can be drawn against time: {column: (title, label of the axis)}.
ITERATION_COLUMNS = {
    "return": ("Return", "episode return"),
    "reward": ("Reward", "reward per step"),
    "episode_length": ("Episode length", "steps"),
    "kl": ("KL, mean over agents", "KL(old ‖ new), nats"),
    "value_loss": ("Value loss", "loss, normalised values"),
    "explained_variance": ("Explained variance of the critic", "1 − Var(R − V) / Var(R)"),
    "env_steps_per_second": ("Speed", "environment steps per second"),
}
AGENT_COLUMNS = {
    "kl": ("KL per agent", "KL(old ‖ new), nats"),
    "surrogate_gain": ("Surrogate gain per agent", "E[(r − 1)·M]"),
    "entropy": ("Entropy per agent", "entropy, nats"),
    "std": ("Standard deviation of actions per agent", "σ, mean over actions"),
    "clipped_fraction": ("Clipped fraction per agent", "share with |r − 1| > ε"),
    "grad_norm": ("Gradient norm per agent", "norm before clipping"),
    "preceding_ratio_bias": ("Bias of the preceding ratio", "E[w] − 1"),
    "preceding_log_ratio_variance": ("Variance of the preceding log-ratio", "Var(log w)"),
    "effective_sample_size": ("Effective sample size", "(Σw)² / (N·Σw²)"),
    "max_weight_share": ("Share of the largest weight", "max w / Σw"),
    "m_variance": ("Variance of M", "Var(M)"),
}


def run_curves(runs: Sequence[RunColumns], column: str = "return", smoothing: Smoothing = "off") -> Plot:
    """A column of the history against environment steps, one line a run; evaluations, where there are any, as diamonds.

    Of a column of the agent history the mean over the agents is drawn. What a fork shares with a run before it in
    ``runs`` is drawn once: its line begins where the two part. Changes by hand are marked.
    """
    check_smoothing(smoothing)
    if column not in ITERATION_COLUMNS and column not in AGENT_COLUMNS:
        raise unknown_name("column", column, [*ITERATION_COLUMNS, *AGENT_COLUMNS])
    title, label = ITERATION_COLUMNS.get(column) or AGENT_COLUMNS[column]
    traces: list[Spec] = []
    marks: list[tuple[float, str, str]] = []
    for i, run in enumerate(runs):
        own = look.run_style(i)
        style = {"color": own.color, "dash": own.dash}
        since = run.column("iterations", "env_steps")[: shared(runs, i)].max(initial=-1.0)
        x, y = _against_steps(run, column)
        rows = slice(max(_last_finite(y[x <= since]), 0), None)
        hover = f"%{{y:.5g}}<extra>{run.name}, %{{x:,}} steps</extra>"
        several = len(runs) > 1
        more = {"name": run.name, "showlegend": several, "hovertemplate": hover}
        traces += smoothed(x[rows], y[rows], style, smoothing, **more)
        ends = run.column("iterations", "env_steps")
        earlier = [change for other in runs[:i] for change in other.changes]  # a fork has its parent's too
        for k, words in (change for change in run.changes if change not in earlier):
            marks.append((float(ends[:k].max(initial=0.0)), f"{run.name}: {words}", own.color))
        if column == "return":
            traces += _evaluations(run, style, several, since)
    if not any(len(each["x"]) for each in traces):
        known = column in ITERATION_COLUMNS and any(len(run.column("iterations", "env_steps")) for run in runs)
        return empty(title, "no episode has ended yet" if known else NOTHING_YET)
    plot = Plot(title.replace(" per agent", ", mean over agents"), traces, ENV_STEPS, {"title": {"text": label}})
    return with_changes(plot, marks)


def _against_steps(run: RunColumns, column: str) -> tuple[Floats, Floats]:
    """Environment steps, and a column of the history or the mean over the agents of one of theirs."""
    if column in ITERATION_COLUMNS:
        return run.column("iterations", "env_steps"), run.column("iterations", column)
    none = np.array([])
    steps, values = (
        np.concatenate([none, *(run.updates_of(unit, name) for unit in run.updates)]) for name in ("env_steps", column)
    )
    known = np.isfinite(values)
    at = np.unique(steps[known])
    return at, np.array([values[known & (steps == step)].mean() for step in at])


def _evaluations(run: RunColumns, style: Spec, several: bool, since: float) -> list[Spec]:
    x, y = run.column("evaluations", "env_steps"), run.column("evaluations", "return")
    x, y = x[x > since], y[x > since]
    if not len(x):
        return []
    name = f"{run.name}, evaluated" if several else "evaluated"
    marker = {"symbol": "diamond", "size": 9, "color": style["color"]}
    return [
        trace("markers", x, y, name=name, marker=marker, hovertemplate="%{y:.5g}<extra>evaluated, %{x:,} steps</extra>")
    ]


def shared(runs: Sequence[RunColumns], i: int) -> int:
    """How many iterations the i-th run has in common with one before it."""
    return max((shared_rows(runs[i], other) for other in runs[:i]), default=0)


def shared_rows(run: RunColumns, other: RunColumns) -> int:
    """How many iterations two runs have in common from their beginning."""
    equal = np.array([True])
    for name in ("env_steps", "reward", "value_loss"):
        mine, theirs = run.column("iterations", name), other.column("iterations", name)
        n = min(len(mine), len(theirs))
        same = (mine[:n] == theirs[:n]) | (np.isnan(mine[:n]) & np.isnan(theirs[:n]))
        equal = same if name == "env_steps" else equal & same
    return int(equal.argmin()) if not equal.all() else len(equal)


def _last_finite(y: Floats) -> int:
    finite = np.flatnonzero(np.isfinite(y))
    return int(finite[-1]) if len(finite) else -1


def with_changes(plot: Plot, marks: Sequence[tuple[float, str, str]]) -> Plot:
    """The panel with changes by hand (where, what, colour) as dotted lines, each with a mark that tells it."""
    top = max(float(np.max(each["y"])) for each in plot.traces if len(each["y"]))
    told: dict[tuple[float, str], list[str]] = {}
    for x, words, color in marks[-MOST_CHANGES:]:
        told.setdefault((x, color), []).append(words)
    for (x, color), several in told.items():
        ends = {"xref": "x", "x0": x, "x1": x, "yref": "y domain", "y0": 0, "y1": 1}
        plot.shapes.append({"type": "line", **ends, "line": {"dash": "dot", "width": 1, "color": color}})
        marker, hover = {"symbol": "triangle-down", "size": 9, "color": color}, "<br>".join(several)
        mark = trace("markers", [x], [top], marker=marker, showlegend=False, hovertemplate=f"{hover}<extra></extra>")
        plot.traces.append(mark)
    return plot


def check_smoothing(smoothing: str) -> None:
    if smoothing not in WINDOWS:
        raise unknown_name("smoothing", smoothing, WINDOWS)


def smoothed(x: Floats, y: Floats, style: Spec, smoothing: str, **more: Any) -> list[Spec]:
    """A curve, or its moving mean over a share of it, centred, with the curve itself faintly behind."""
    finite = np.isfinite(y)
    window = 2 * round(WINDOWS[smoothing] * int(finite.sum()) / 2) + 1
    if window < 3:
        return [line(x, y, style, **more)]
    kept, y = x[finite], y[finite]
    mean = np.array([y[max(i - window // 2, 0) : i + window // 2 + 1].mean() for i in range(len(y))])
    name = {"name": more["name"], "legendgroup": more["name"], "showlegend": False, "hoverinfo": "skip"}
    faint = trace("lines", *thinned(kept, y), line={"color": look.faded(style["color"], 0.3), "width": 1}, **name)
    return [faint, {**line(kept, mean, style, **more), "mode": "lines"}]


def agent_curves(run: RunColumns, column: str, smoothing: Smoothing = "off") -> Plot:
    """A column of the agent history against the iteration, one line an agent; δ is drawn into the KL of HATRPO.

    An agent without any number yet has an empty line, so that the legend names all from the beginning.
    """
    check_smoothing(smoothing)
    title, label = AGENT_COLUMNS[column]
    traces: list[Spec] = []
    for unit in run.updates:
        style, name = look.agent_style(run.agents, unit), unit_label(run.agents, unit)
        marks = {"color": style.color, "dash": style.dash, "symbol": style.symbol}
        hover = f"%{{y:.4g}}<extra>{name}, iteration %{{x}}</extra>"
        x, y = run.updates_of(unit, "iteration"), run.updates_of(unit, column)
        traces += smoothed(x, y, marks, smoothing, name=name, hovertemplate=hover)
    if not any(len(each["x"]) for each in traces):
        updated = any(len(run.updates_of(unit, "iteration")) for unit in run.updates)
        return empty(title, f"{run.name} has no such number" if updated else NOTHING_YET, traces)
    newest = max(each["x"][-1] for each in traces if len(each["x"]))
    plot = Plot(title, traces, _iteration_axis(newest), {"title": {"text": label}})
    if column == "kl" and run.max_kl is not None:
        shape, note = level(run.max_kl, "δ")
        plot.shapes.append(shape)
        plot.notes.append(note)
    return with_changes(plot, [(float(k), words, look.INKS["neutral"].muted) for k, words in run.changes])


def _iteration_axis(newest: float) -> Spec:
    """Iterations are whole numbers, however few there are."""
    return {**ITERATION, "dtick": 1} if newest < 8 else ITERATION
