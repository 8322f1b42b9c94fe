"""Panels of the M-factors' distributions, in update order: violins, boxes or histograms.

Densities, quartiles and counts are taken here, over every sample, and only they are drawn: a violin of 4,000 samples is
some 100 points. Each reaches from the least sample to the largest, since the tails are what the predecessors' ratio
makes long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.figures.plots import Floats, Plot, empty
from workbench.jupyter.figures.positions import NEUTRAL, place_axis
from workbench.jupyter.figures.run_columns import RunColumns, members, unit_label
from workbench.jupyter.look import Spec

Kind = Literal["violin", "box", "histogram"]
KINDS = ("violin", "box", "histogram")
Scale = Literal["auto", "linear", "asinh"]
SCALES = ("auto", "linear", "asinh")

TITLE = "M-factor by agent, in update order"
HALF_WIDTH = 0.42  # of a violin, where 1 is the distance to the next
BINS = 60
DENSITY_BINS = 1024
LONG_TAIL = 12.0  # times the 90 % quantile of |M|: beyond it a linear axis shows the tail alone
MANY = 10  # agents, beyond which marks are slimmer


@dataclass(frozen=True)
class Samples:
    """An agent's M over the rollout, finite and in ascending order, and what is said of them."""

    values: Floats

    @classmethod
    def of(cls, m: Any) -> Samples:
        flat = np.sort(np.asarray(m, dtype=np.float64), axis=None)
        return cls(flat[np.isfinite(flat)])

    def quantile(self, share: float) -> float:
        """The value below which a share of the samples lies, linearly interpolated."""
        place = share * (len(self.values) - 1)
        low = int(place)
        high = min(low + 1, len(self.values) - 1)
        return float(self.values[low] + (place - low) * (self.values[high] - self.values[low]))

    def summary(self) -> str:
        """Two lines for the pointer."""
        v = self.values
        return (
            f"median {self.quantile(0.5):.3g}, mean {v.mean():.3g}, std {v.std():.3g}<br>"
            f"from {v[0]:.3g} to {v[-1]:.3g}, {len(v):,} samples"
        )


def m_factors(run: RunColumns, kind: Kind = "violin", scale: Scale = "auto") -> Plot:
    """The distribution of M of every agent that has one, in update order; places are kept for those still to come.

    ``scale``: of the axis; "auto" takes asinh(M/u), which is linear near zero and logarithmic far from it, where the
    largest |M| is more than ``LONG_TAIL`` times u, the 90 % quantile of |M|.
    """
    for what, name, known in (("kind of distribution", kind, KINDS), ("scale", scale, SCALES)):
        if name not in known:
            raise unknown_name(what, name, known)
    samples = {agent: Samples.of(m) for agent, m in run.m_factors.items()}
    if not any(len(m.values) for m in samples.values()):
        return empty(TITLE, "nothing yet: no advantage is estimated")
    if kind == "histogram":
        return _histogram(run, samples)
    later = [agent for agent in members(run.agents, run.order) if agent not in samples]
    places = place_axis(run, (*samples, *later))
    unit = _asinh_unit(samples, scale)
    draw = _violin if kind == "violin" else _box
    traces = [trace for k, (agent, m) in enumerate(samples.items()) for trace in draw(run, agent, k, m, unit)]
    axis = {"title": {"text": f"M ({run.unit})"}, "zeroline": True, "zerolinecolor": NEUTRAL, "zerolinewidth": 1}
    if unit is not None:
        axis |= _asinh_ticks(samples, unit) | {"title": {"text": f"M ({run.unit}), asinh"}}
    return Plot(TITLE, traces, places, axis)


def has_asinh(plot: Plot) -> bool:
    """Whether a panel of M-factors has the stretched scale."""
    return "ticktext" in plot.yaxis


def _asinh_unit(samples: Mapping[str, Samples], scale: Scale) -> float | None:
    """u of asinh(M/u), or None for a linear axis."""
    if scale == "linear":
        return None
    tenth = [max(-m.quantile(0.05), m.quantile(0.95)) for m in samples.values() if len(m.values)]
    largest = max(max(-m.values[0], m.values[-1]) for m in samples.values() if len(m.values))
    unit = float(np.median(tenth))
    if unit <= 0 or (scale == "auto" and largest <= LONG_TAIL * unit):
        return None
    return unit


def _stretched(values: Any, unit: float | None) -> Any:
    return values if unit is None else np.arcsinh(np.asarray(values) / unit)


def _asinh_ticks(samples: Mapping[str, Samples], unit: float) -> Spec:
    """Zero and powers of ten of either sign, with twos and fives where those are few."""
    low = min(m.values[0] for m in samples.values() if len(m.values))
    high = max(m.values[-1] for m in samples.values() if len(m.values))
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
    samples = Samples(ascending)
    sigma = float(ascending.std())
    spread = min(sigma, (samples.quantile(0.75) - samples.quantile(0.25)) / 1.349) or sigma
    step = (high - low) / DENSITY_BINS
    width = min(max(0.9 * spread * n**-0.2, 1.5 * step), (high - low) / 8)
    counts = np.bincount(
        np.minimum(((ascending - low) / step).astype(np.intp), DENSITY_BINS - 1), minlength=DENSITY_BINS
    )
    reach = int(np.ceil(4 * width / step))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
    smooth = np.convolve(counts, kernel, mode="full")[reach : reach + DENSITY_BINS]
    even = np.linspace(low, high, points - points // 2)
    by_share = ascending[((np.arange(points // 2) + 0.5) / (points // 2) * n).astype(np.intp)]
    at = np.sort(np.concatenate([even, by_share]))
    middles = low + (np.arange(DENSITY_BINS) + 0.5) * step
    return at, np.interp(at, middles, smooth) / (smooth.sum() * step)


def _violin(run: RunColumns, agent: str, k: int, m: Samples, unit: float | None) -> list[Spec]:
    """The outline, and on it the quartiles (bar) and the median (dot)."""
    if not len(m.values):
        return []
    color, slim = look.agent_color(run.agents, agent), len(run.agents) > MANY
    at, height = density(_stretched(m.values, unit))
    half = HALF_WIDTH * height / height.max()
    outline = {
        "mode": "lines",
        "x": np.concatenate([k - half, (k + half)[::-1], [k - half[0]]]),
        "y": np.concatenate([at, at[::-1], [at[0]]]),
        "fill": "toself",
        "fillcolor": look.faded(color, 0.4),
        "line": {"color": color, "width": 1.4},
        "hoverinfo": "skip",
    }
    low, middle, high = _stretched([m.quantile(share) for share in (0.25, 0.5, 0.75)], unit)
    bar = {"mode": "lines", "x": [k, k], "y": [low, high], "line": {"color": color, "width": 3 if slim else 5}}
    dot = {
        "mode": "markers",
        "x": [k],
        "y": [middle],
        "marker": {"size": 4 if slim else 7, "color": "#ffffff", "line": {"color": color, "width": 1 if slim else 2}},
        "hovertemplate": f"{m.summary()}<extra>{agent}</extra>",
    }
    shared = {"type": "scatter", "legendgroup": agent, "name": agent, "showlegend": False}
    return [{**shared, **trace} for trace in (outline, {**bar, "hoverinfo": "skip"}, dot)]


def _box(run: RunColumns, agent: str, k: int, m: Samples, unit: float | None) -> list[Spec]:
    """Quartiles and median, whiskers at 1 % and 99 %, the least and the largest sample as marks."""
    if not len(m.values):
        return []
    color = look.agent_color(run.agents, agent)
    shares = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
    least, low, q1, middle, q3, high, largest = map(float, _stretched([m.quantile(share) for share in shares], unit))
    levels = {"lowerfence": [low], "q1": [q1], "median": [middle], "q3": [q3], "upperfence": [high]}
    box = {"type": "box", "x": [k], **levels, "line": {"color": color, "width": 1.6}, "width": 0.6}
    ends = {
        "type": "scatter",
        "mode": "markers",
        "x": [k, k],
        "y": [least, largest],
        "marker": {"symbol": "circle", "size": 5, "color": color},
        "hovertemplate": f"{m.summary()}<extra>{agent}</extra>",
    }
    shared = {"legendgroup": agent, "name": agent, "showlegend": False}
    return [{**shared, **box, "fillcolor": look.faded(color, 0.35), "hoverinfo": "skip"}, {**shared, **ends}]


def _histogram(run: RunColumns, samples: Mapping[str, Samples]) -> Plot:
    """Outlines over common bins, on a logarithmic scale, where tails of one sample in thousands can be seen.

    An agent without samples yet has an empty outline, so that the legend names all, always in the same order.
    """
    none = Samples(np.array([]))
    held = {agent: samples.get(agent, none).values for agent in run.agents}
    known = [m for m in held.values() if len(m)]
    low, high = min(float(m[0]) for m in known), max(float(m[-1]) for m in known)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    traces = []
    for agent, m in held.items():
        style = look.agent_style(run.agents, agent)
        share = np.histogram(m, edges)[0] / max(len(m), 1)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": edges,
                "y": np.where(share > 0, share, np.nan)[[*range(BINS), BINS - 1]],
                "line": {"shape": "hv", "color": style.color, "dash": style.dash, "width": look.LINE_WIDTH},
                "name": unit_label(run.agents, agent),
                "hovertemplate": f"%{{y:.2%}} near %{{x:.3g}}<extra>{agent}</extra>",
            }
        )
    scale = {"title": {"text": "share of samples"}, "type": "log", "tickformat": "~g", "dtick": 1}
    return Plot("M-factor by agent", traces, {"title": {"text": f"M ({run.unit})"}}, scale)
