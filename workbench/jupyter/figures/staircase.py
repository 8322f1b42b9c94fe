"""An iteration taken apart: J after each update, and each update's gain beside what it had promised."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from workbench.jupyter import look
from workbench.jupyter.figures.plots import Floats, Plot, trace
from workbench.jupyter.figures.run_columns import unit_label
from workbench.jupyter.look import Spec
from workbench.running.improvement import WHOLE, Improvement

NEUTRAL = look.INKS["neutral"].muted
PROMISES = (
    ("gain", "gain", "square", 0.0),
    ("promised", "promised, own samples", "circle-open", -0.2),
    ("held_out", "promised, held-out", "diamond-open", 0.2),
    ("exact_gain", "exact gain", "x", 0.1),
    ("exact_promised", "exact promise", "cross", -0.1),
)


def stairs(improvement: Improvement) -> Plot:
    """J of the policies at each stage, with its interval, and exactly where that is known."""
    rows = _stages(improvement)
    places = np.arange(len(rows), dtype=np.float64)
    tread: Spec = {"line": {"shape": "hv", "color": NEUTRAL, "width": look.LINE_WIDTH}, "name": "J, fresh episodes"}
    bars = {"error_y": _interval(rows, "J"), "marker": {"color": _colors(improvement, rows), "size": 8}}
    traces = [trace("lines", places, rows["J"].to_numpy(), **tread)]
    traces.append(trace("markers", places, rows["J"].to_numpy(), showlegend=False, **bars))
    if "exact_J" in rows:
        line: Spec = {"shape": "hv", "dash": "dot", "color": NEUTRAL, "width": look.LINE_WIDTH}
        traces.append(trace("lines", places, rows["exact_J"].to_numpy(), name="J, exact", line=line))
    return Plot("J after each update", traces, _axis(improvement, rows), {"title": {"text": "J"}})


def gains(improvement: Improvement) -> Plot:
    """By how much each update raised J, with its interval, and what its surrogate had promised."""
    rows = _stages(improvement).iloc[1:]
    places = np.arange(len(rows), dtype=np.float64)
    traces = []
    for name, text, symbol, shift in PROMISES:
        if name in rows:
            values: Floats = rows[name].to_numpy()
            known = np.isfinite(values)
            style: Spec = {"marker": {"symbol": symbol, "size": 8, "color": NEUTRAL}}
            if name == "gain":
                style = {"error_y": _interval(rows, name), "marker": {**style["marker"], "color": look.PALETTE[0]}}
            traces.append(trace("markers", (places + shift)[known], values[known], name=text, **style))
    axis = _axis(improvement, rows)
    return Plot("Gain and promise of each update", traces, axis, {"title": {"text": "change of J"}, "zeroline": True})


def _stages(improvement: Improvement) -> pd.DataFrame:
    table = improvement.table
    return table[table["stage"] != WHOLE]


def _interval(rows: pd.DataFrame, name: str) -> Spec:
    array = (rows[f"{name}_high"] - rows[name]).to_numpy()
    return {"type": "data", "array": array, "thickness": 1.4, "width": 4}


def _colors(improvement: Improvement, rows: pd.DataFrame) -> list[str]:
    """Each update's agent's colour; grey for what is none."""
    agents = improvement.agents
    pairs = zip(rows["stage"], rows["position"], strict=True)
    return [NEUTRAL if math.isnan(place) else look.agent_color(agents, stage) for stage, place in pairs]


def _axis(improvement: Improvement, rows: pd.DataFrame) -> Spec:
    pairs = zip(rows["stage"], rows["position"], strict=True)
    words = [
        f"{stage}<br>" if math.isnan(place) else f"{place + 1:.0f}<br>{unit_label(improvement.agents, stage)}"
        for stage, place in pairs
    ]
    ticks = {"tickvals": list(range(len(words))), "ticktext": words, "range": [-0.6, len(words) - 0.4]}
    return {"title": {"text": "after the update of"}, **ticks, "showgrid": False}
