"""Panels of the M-factors' distributions, in update order: violins, boxes or histograms.

Densities, quartiles and counts are taken here, over every sample, and only they are drawn: a violin of 4,000 samples is
some 100 points. Each reaches from the least sample to the largest, since the tails are what the predecessors' ratio
makes long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.plots import Floats, Plot, empty
from workbench.jupyter.positions import NEUTRAL, place_axis
from workbench.jupyter.runs import Run, members, unit_label

Kind = Literal["violin", "box", "histogram"]
KINDS = ("violin", "box", "histogram")

TITLE = "M-factor by agent, in update order"
HALF_WIDTH = 0.42  # of a violin, where 1 is the distance to the next
BINS = 60
LEVELS = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


def m_factors(run: Run, kind: Kind = "violin") -> Plot:
    """The distribution of M of every agent that has one, in update order; places are kept for those still to come."""
    if kind not in KINDS:
        raise unknown_name("kind of distribution", kind, KINDS)
    samples = {agent: np.asarray(m, dtype=np.float64).ravel() for agent, m in run.m_factors.items()}
    samples = {agent: m[np.isfinite(m)] for agent, m in samples.items()}
    if not any(len(m) for m in samples.values()):
        return empty(TITLE, "nothing yet: no advantage is estimated")
    if kind == "histogram":
        return _histogram(run, samples)
    later = [agent for agent in members(run.agents, run.order) if agent not in samples]
    places = place_axis(run, (*samples, *later))
    draw = _violin if kind == "violin" else _box
    traces = [trace for k, (agent, m) in enumerate(samples.items()) for trace in draw(run, agent, k, m)]
    return Plot(TITLE, traces, places, {"title": {"text": f"M ({run.unit})"}, **_zero_line()})


def _zero_line() -> dict[str, Any]:
    return {"zeroline": True, "zerolinecolor": NEUTRAL, "zerolinewidth": 1}


def density(values: Floats, points: int = 96) -> tuple[Floats, Floats]:
    """Gaussian kernel density of all samples: (places, density), (points,) each, from the least to the largest sample.

    Silverman's bandwidth, 0.9·min(σ, IQR/1.349)·N^(−1/5); the sums run over 2,048 bins instead of samples, which is
    many times faster and cannot be told apart by eye. Half of the places lie at equal distances, half at equal shares
    of the samples, so that a long tail does not make the body coarse.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(float(values.std()), float(quartiles[1] - quartiles[0]) / 1.349) or float(values.std())
    n_bins = 2048
    step = (high - low) / n_bins
    width = max(0.9 * spread * len(values) ** -0.2, 2 * step)
    counts = np.histogram(values, n_bins, (low, high))[0]
    reach = int(np.ceil(4 * width / step))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
    size = n_bins + 2 * reach
    smooth = np.fft.irfft(np.fft.rfft(counts, size) * np.fft.rfft(kernel, size), size)[reach : reach + n_bins]
    middles = low + (np.arange(n_bins) + 0.5) * step
    even = np.linspace(low, high, points - points // 2)
    by_share = np.quantile(values, (np.arange(points // 2) + 0.5) / (points // 2))
    at = np.sort(np.concatenate([even, by_share]))
    return at, np.maximum(np.interp(at, middles, smooth), 0) / (smooth.sum() * step)


def _violin(run: Run, agent: str, k: int, m: Floats) -> list[dict[str, Any]]:
    """The outline, and on it the quartiles (bar) and the median (dot)."""
    color = look.agent_color(run.agents, agent)
    at, height = density(m)
    half = HALF_WIDTH * height / height.max()
    outline = {
        "type": "scatter",
        "mode": "lines",
        "x": np.concatenate([k - half, (k + half)[::-1], [k - half[0]]]),
        "y": np.concatenate([at, at[::-1], [at[0]]]),
        "fill": "toself",
        "fillcolor": look.faded(color, 0.4),
        "line": {"color": color, "width": 1.4},
        "hoverinfo": "skip",
    }
    low, middle, high = np.quantile(m, [0.25, 0.5, 0.75])
    slim = len(run.agents) > 10
    bar = {
        "mode": "lines",
        "x": [k, k],
        "y": [low, high],
        "line": {"color": color, "width": 3 if slim else 5},
        "hoverinfo": "skip",
    }
    dot = {
        "mode": "markers",
        "x": [k],
        "y": [middle],
        "marker": {"size": 4 if slim else 7, "color": "#ffffff", "line": {"color": color, "width": 1 if slim else 2}},
        "hovertemplate": f"{_summary(m)}<extra>{agent}</extra>",
    }
    shared = {"type": "scatter", "legendgroup": agent, "name": agent, "showlegend": False}
    return [{**shared, **trace} for trace in (outline, bar, dot)]


def _box(run: Run, agent: str, k: int, m: Floats) -> list[dict[str, Any]]:
    """Quartiles and median, whiskers at 1 % and 99 %, the least and the largest sample as marks."""
    color = look.agent_color(run.agents, agent)
    least, low, q1, middle, q3, high, largest = (float(v) for v in np.quantile(m, LEVELS))
    levels = {"lowerfence": [low], "q1": [q1], "median": [middle], "q3": [q3], "upperfence": [high]}
    box = {"type": "box", "x": [k], **levels, "line": {"color": color, "width": 1.6}, "width": 0.6}
    ends = {
        "type": "scatter",
        "mode": "markers",
        "x": [k, k],
        "y": [least, largest],
        "marker": {"symbol": "circle", "size": 5, "color": color},
        "hovertemplate": f"{_summary(m)}<extra>{agent}</extra>",
    }
    shared = {"legendgroup": agent, "name": agent, "showlegend": False}
    return [{**shared, **box, "fillcolor": look.faded(color, 0.35), "hoverinfo": "skip"}, {**shared, **ends}]


def _histogram(run: Run, samples: Mapping[str, Floats]) -> Plot:
    """Outlines over common bins, on a logarithmic scale, where tails of one sample in thousands can be seen."""
    low = min(float(m.min()) for m in samples.values() if len(m))
    high = max(float(m.max()) for m in samples.values() if len(m))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    traces = []
    for agent, m in samples.items():
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


def _summary(m: Floats) -> str:
    return (
        f"median {np.median(m):.3g}, mean {m.mean():.3g}, std {m.std():.3g}<br>"
        f"from {m.min():.3g} to {m.max():.3g}, {len(m):,} samples"
    )
