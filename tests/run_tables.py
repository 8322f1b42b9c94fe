"""Tables of runs made of numbers: what a sweep hands over, without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def sweep_table(
    methods: Sequence[str] = ("happo", "mappo"),
    tasks: Sequence[str] = ("HalfCheetah 2x3",),
    seeds: int = 5,
    points: int = 12,
    *,
    interval: int = 20_000,
    episodes: int = 32,
    absolute: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Runs that learn, each a little differently, the later methods more slowly."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for m, method in enumerate(methods):
        for t, task in enumerate(tasks):
            for s in range(seeds):
                scenario, agent_conf = task.split()
                run = {"run": f"{method}-{t}-{s}", "method": method, "scenario": scenario, "agent_conf": agent_conf}
                run |= {"seed": s, "status": "finished", "steered": False}
                level = 2000 * (t + 1) * (1 - 0.25 * m) * rng.uniform(0.8, 1.2)
                steps = interval * np.arange(1, points + 1)
                values = level * (1 - np.exp(-steps / (4 * interval))) + rng.normal(0, 60, points)
                best = {"absolute_return": values.max() - 50, "absolute_episodes": 320} if absolute else {}
                for at, value in zip(steps.tolist(), values.tolist(), strict=True):
                    rows.append({**run, "env_steps": at, "return": value, "episodes": episodes, **best})
    return pd.DataFrame(rows)
