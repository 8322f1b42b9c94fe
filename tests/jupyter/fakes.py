"""Trainers made of numbers: what the views read, without training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd


def fake_trainer(
    n_agents: int = 4,
    iterations: int = 40,
    *,
    seed: int = 0,
    updated: int | None = None,
    max_kl: float | None = None,
    sharing: bool = False,
    n_steps: int = 50,
    n_envs: int = 20,
) -> Any:
    """A run of ``iterations`` complete iterations and, if ``updated`` is given, so many agents of the next one."""
    rng = np.random.default_rng(seed)
    agents = tuple(f"agent_{i}" for i in range(n_agents))
    units = ("+".join(agents),) if sharing else agents
    history: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    order: tuple[str, ...] = ()
    factors: dict[str, Any] = {}
    for k in range(iterations + (updated is not None)):
        partial = k == iterations
        order = tuple(rng.permutation(units).tolist())
        steps = (k + 1) * n_steps * n_envs
        advantages = rng.standard_normal((n_steps, n_envs))
        weights, factors = np.ones_like(advantages), {}
        for position, unit in enumerate(order):
            if partial and updated is not None and position > updated:
                break
            members = unit.split("+")
            factors |= dict.fromkeys(members, weights * advantages)
            if partial and position == updated:
                break
            kl = float(0.006 * rng.uniform(0.6, 1.4))
            own = rng.normal(-kl, np.sqrt(2 * kl), advantages.shape)
            rows.append(
                {
                    "iteration": k,
                    "env_steps": steps,
                    "agent": unit,
                    "position": position,
                    "kl": kl,
                    "entropy": 1.5 - 0.01 * k,
                    "std": 0.4 - 0.001 * k,
                    "clipped_fraction": np.nan if max_kl else float(rng.uniform(0.05, 0.15)),
                    "surrogate_gain": float(rng.uniform(0, 0.02)),
                    "grad_norm": float(rng.uniform(0.5, 1)),
                    "preceding_ratio_bias": float(weights.mean() - 1),
                    "preceding_log_ratio_variance": float(np.log(weights).var()),
                    "effective_sample_size": float(weights.sum() ** 2 / (weights.size * (weights**2).sum())),
                    "max_weight_share": float(weights.max() / weights.sum()),
                    "m_variance": float((weights * advantages).var()),
                }
            )
            weights = weights * np.exp(own)
        if partial:
            break
        ended = 0 if k < 3 else int(rng.integers(1, 6))
        history.append(
            {
                "iteration": k,
                "env_steps": steps,
                "return": float(150 * (1 - np.exp(-k / 15)) + rng.normal(0, 6)) if ended else np.nan,
                "episode_length": 900.0 if ended else np.nan,
                "episodes": ended,
                "reward": float(0.1 + 0.01 * k + rng.normal(0, 0.01)),
                "order": order,
                "kl": float(np.mean([row["kl"] for row in rows[-len(units) :]])),
                "value_loss": float(0.4 * np.exp(-k / 10) + rng.uniform(0, 0.05)),
                "explained_variance": float(1 - np.exp(-k / 8)),
                "seconds": 0.5,
                "env_steps_per_second": n_steps * n_envs / 0.5,
            }
        )
    evaluated = [
        {"iteration": row["iteration"], "env_steps": row["env_steps"], "return": 1.1 * row["return"], "episodes": 10}
        for row in history[9::10]
    ]
    columns = ["iteration", "env_steps", "return", "reward", "value_loss"]
    agent_columns = ["iteration", "env_steps", "agent", "position", "kl", "clipped_fraction", "effective_sample_size"]
    return SimpleNamespace(
        env=SimpleNamespace(agents=agents),
        units=units,
        method="HATRPO" if max_kl else "HAPPO",
        history=pd.DataFrame(history) if history else pd.DataFrame(columns=columns),
        agent_history=pd.DataFrame(rows) if rows else pd.DataFrame(columns=agent_columns),
        evaluations=pd.DataFrame(evaluated, columns=["iteration", "env_steps", "return", "episodes"]),
        m_factors=factors,
        iteration_order=order,
        settings=SimpleNamespace(max_kl=max_kl, max_kl_of=lambda n_agents: max_kl)
        if max_kl
        else SimpleNamespace(clip_epsilon=0.2),
    )
