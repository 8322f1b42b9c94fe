"""Panels of the M-factors' distributions, in update order: violins, boxes or histograms.

Densities, quartiles and counts are taken here, over every sample, and only they are drawn: a violin of 4,000 samples is
some 100 points. Each reaches from the least sample to the largest, since the tails are what the predecessors' ratio
makes long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import gaussian_filter1d

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.figures.plots import Floats, Plot, empty, trace
from workbench.jupyter.figures.positions import NEUTRAL, place_axis
from workbench.jupyter.figures.run_columns import Column, RunColumns, members, unit_label
from workbench.jupyter.look import Spec

Kind = Literal["violin", "box", "histogram"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Scale = Literal["auto", "linear", "asinh"]
SCALES: tuple[Scale, ...] = get_args(Scale)

TITLE = "M-factor by agent, in update order"
HALF_WIDTH = 0.42  # of a violin, where 1 is the distance to the next
BINS = 60
DENSITY_BINS = 1024
LONG_TAIL = 12.0  # times the 90 % quantile of |M|: beyond it a linear axis shows the tail alone
MANY = 10  # agents, beyond which marks are slimmer


def ascending(m: Column) -> Floats:
    """An agent's M over the rollout: its finite samples in ascending order."""
    flat = np.sort(np.asarray(m, dtype=np.float64), axis=None)
    return flat[np.isfinite(flat)]


def summary(samples: Floats) -> str:
    """Two lines for the pointer."""
    return (
        f"median {np.median(samples):.3g}, mean {samples.mean():.3g}, std {samples.std():.3g}<br>"
        f"from {samples[0]:.3g} to {samples[-1]:.3g}, {len(samples):,} samples"
    )


def m_factors(run: RunColumns, kind: Kind = "violin", scale: Scale = "auto") -> Plot:
    """The distribution of M of every agent that has one, in update order; places are kept for those still to come.

    ``scale``: of the axis; "auto" takes asinh(M/u), which is linear near zero and logarithmic far from it, where the
    largest |M| is more than ``LONG_TAIL`` times u, the 90 % quantile of |M|.
    """
    for what, name, names in (("kind of distribution", kind, KINDS), ("scale", scale, SCALES)):
        if name not in names:
            raise unknown_name(what, name, names)
    samples = {agent: ascending(m) for agent, m in run.m_factors.items()}
    known = [m for m in samples.values() if len(m)]
    if not known:
        return empty(TITLE, "nothing yet: no advantage is estimated")
    if kind == "histogram":
        return _histogram(run, samples)
    later = [agent for agent in members(run.agents, run.order) if agent not in samples]
    places = place_axis(run, (*samples, *later))
    unit = _asinh_unit(known, scale)
    draw = _violin if kind == "violin" else _box
    traces = [each for k, (agent, m) in enumerate(samples.items()) if len(m) for each in draw(run, agent, k, m, unit)]
    axis = {"title": {"text": f"M ({run.unit})"}, "zeroline": True, "zerolinecolor": NEUTRAL, "zerolinewidth": 1}
    if unit is not None:
        axis |= _asinh_ticks(known, unit) | {"title": {"text": f"M ({run.unit}), asinh"}}
    return Plot(TITLE, traces, places, axis)


def has_asinh(plot: Plot) -> bool:
    """Whether a panel of M-factors has the stretched scale."""
    return "ticktext" in plot.yaxis


def _asinh_unit(known: Sequence[Floats], scale: Scale) -> float | None:
    """u of asinh(M/u), or None for a linear axis."""
    unit = float(np.median([np.abs(np.quantile(m, (0.05, 0.95))).max() for m in known]))
    largest = max(max(-m[0], m[-1]) for m in known)
    if scale == "linear" or unit <= 0 or (scale == "auto" and largest <= LONG_TAIL * unit):
        return None
    return unit


def _stretched(values: Floats | Sequence[float], unit: float | None) -> Floats:
    return np.asarray(values) if unit is None else np.arcsinh(np.asarray(values) / unit)


def _asinh_ticks(known: Sequence[Floats], unit: float) -> Spec:
    """Zero and powers of ten of either sign, with twos and fives where those are few."""
    low, high = min(m[0] for m in known), max(m[-1] for m in known)
    length = float(np.arcsinh(high / unit) - np.arcsinh(low / unit))
    for factors, share in (((1,), 14), ((1, 2, 5), 9)):
        up, down = (_spaced(end, unit, length / share, factors) for end in (high, -low))
        ticks = [-tick for tick in reversed(down)] + [0.0] + up
        if len(ticks) > 4:
            break
    return {"tickvals": _stretched(ticks, unit).tolist(), "ticktext": [f"{t:g}".replace("-", "−") for t in ticks]}


def _spaced(end: float, unit: float, room: float, factors: tuple[int, ...]) -> list[float]:
    """Round numbers up to ``end``, ``room`` apart on the asinh scale."""
    ticks: list[float] = []
    for value in (factor * 10.0**power for power in range(-6, 9) for factor in factors):
        last = ticks[-1] if ticks else 0.0
        if value <= end and np.arcsinh(value / unit) - np.arcsinh(last / unit) >= room:
            ticks.append(value)
    return ticks


def density(ascending: Floats, points: int = 96) -> tuple[Floats, Floats]:
    """Gaussian kernel density of all samples: (places, density), (points,) each, from the least to the largest sample.

    Silverman's bandwidth, 0.9·min(σ, IQR/1.349)·N^(−1/5); the sums run over 1,024 bins instead of samples, which is
    many times faster and cannot be told apart by eye. Half of the places lie at equal distances, half at equal shares
    of the samples, so that a long tail does not make the body coarse. ``ascending`` must be sorted.
    """
    n = len(ascending)
    low, high = float(ascending[0]), float(ascending[-1])
    if low == high:
        low, high = low - 0.5, high + 0.5
    first, third = np.quantile(ascending, (0.25, 0.75))
    spread = min(ascending.std(), (third - first) / 1.349) or ascending.std()
    step = (high - low) / DENSITY_BINS
    width = min(max(0.9 * spread * n**-0.2, 1.5 * step), (high - low) / 8)
    counts, edges = np.histogram(ascending, DENSITY_BINS, (low, high))
    smooth = gaussian_filter1d(counts.astype(np.float64), width / step, mode="constant")
    even = np.linspace(low, high, points - points // 2)
    by_share = ascending[((np.arange(points // 2) + 0.5) / (points // 2) * n).astype(np.intp)]
    at = np.sort(np.concatenate([even, by_share]))
    return at, np.interp(at, edges[:-1] + step / 2, smooth) / (smooth.sum() * step)


def _violin(run: RunColumns, agent: str, k: int, m: Floats, unit: float | None) -> list[Spec]:
    """The outline, and on it the quartiles (bar) and the median (dot)."""
    color, slim = look.agent_color(run.agents, agent), len(run.agents) > MANY
    at, height = density(_stretched(m, unit))
    half = HALF_WIDTH * height / height.max()
    x = np.concatenate([k - half, (k + half)[::-1], [k - half[0]]])
    y = np.concatenate([at, at[::-1], [at[0]]])
    low, middle, high = _stretched(np.quantile(m, (0.25, 0.5, 0.75)), unit)
    shared = {"legendgroup": agent, "name": agent, "showlegend": False}
    skip, area = {**shared, "hoverinfo": "skip"}, {"fill": "toself", "fillcolor": look.faded(color, 0.4)}
    marker = {"size": 4 if slim else 7, "color": "#ffffff", "line": {"color": color, "width": 1 if slim else 2}}
    return [
        trace("lines", x, y, line={"color": color, "width": 1.4}, **area, **skip),
        trace("lines", [k, k], [low, high], line={"color": color, "width": 3 if slim else 5}, **skip),
        trace("markers", [k], [middle], marker=marker, hovertemplate=f"{summary(m)}<extra>{agent}</extra>", **shared),
    ]


def _box(run: RunColumns, agent: str, k: int, m: Floats, unit: float | None) -> list[Spec]:
    """Quartiles and median, whiskers at 1 % and 99 %, the least and the largest sample as marks."""
    color = look.agent_color(run.agents, agent)
    shares = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
    least, low, q1, middle, q3, high, largest = _stretched(np.quantile(m, shares), unit).tolist()
    levels = {"lowerfence": [low], "q1": [q1], "median": [middle], "q3": [q3], "upperfence": [high]}
    style = {"line": {"color": color, "width": 1.6}, "width": 0.6, "fillcolor": look.faded(color, 0.35)}
    marker, hover = {"symbol": "circle", "size": 5, "color": color}, f"{summary(m)}<extra>{agent}</extra>"
    shared = {"legendgroup": agent, "name": agent, "showlegend": False}
    return [
        {**shared, "type": "box", "x": [k], **levels, **style, "hoverinfo": "skip"},
        trace("markers", [k, k], [least, largest], marker=marker, hovertemplate=hover, **shared),
    ]


def _histogram(run: RunColumns, samples: Mapping[str, Floats]) -> Plot:
    """Outlines over common bins, on a logarithmic scale, where tails of one sample in thousands can be seen.

    An agent without samples yet has an empty outline, so that the legend names all, always in the same order.
    """
    known = [m for m in samples.values() if len(m)]
    low, high = min(float(m[0]) for m in known), max(float(m[-1]) for m in known)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    traces = []
    for agent in run.agents:
        style, m = look.agent_style(run.agents, agent), samples.get(agent, np.array([]))
        share = np.histogram(m, edges)[0] / max(len(m), 1)
        y = np.where(share > 0, share, np.nan)[[*range(BINS), BINS - 1]]
        stroke = {"shape": "hv", "color": style.color, "dash": style.dash, "width": look.LINE_WIDTH}
        hover, name = f"%{{y:.2%}} near %{{x:.3g}}<extra>{agent}</extra>", unit_label(run.agents, agent)
        traces.append(trace("lines", edges, y, line=stroke, name=name, hovertemplate=hover))
    scale = {"title": {"text": "share of samples"}, "type": "log", "tickformat": "~g", "dtick": 1}
    return Plot("M-factor by agent", traces, {"title": {"text": f"M ({run.unit})"}}, scale)
