"""Training several seeds without a notebook: what ``python -m workbench train`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from workbench import envs
from workbench.errors import path_of
from workbench.running import methods as recipes
from workbench.running.presets import reference_environment, reference_settings
from workbench.sweeps.files import Json


def train(
    method: str,
    scenario: str,
    agent_conf: str,
    *,
    seeds: Sequence[int],
    env_steps: int,
    directory: str | Path,
    reference: bool = False,
    settings: Json | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train each seed to ``env_steps``, going on from what ``directory`` holds; returns and writes all histories.

    Every seed's checkpoints are in ``directory/seed-N``; ``directory/history.csv`` has one row for each (seed,
    iteration). With ``reference`` the settings are ``reference_settings(method, task)``, before ``settings``, in a
    ``reference_environment()``.
    """
    chosen = reference_settings(method, f"{scenario} {agent_conf}") if reference else {}
    chosen |= settings or {}
    directory = path_of("directory", directory)
    histories = []
    for seed in seeds:
        env = envs.mujoco(scenario, agent_conf, **(reference_environment() if reference else {}))
        trainer = recipes.make_trainer(method, env, seed, chosen)
        trainer.run(env_steps=env_steps, directory=directory / f"seed-{seed}", progress=progress)
        histories.append(trainer.history.assign(seed=seed))
        env.close()
    table = pd.concat(histories, ignore_index=True)
    table.to_csv(directory / "history.csv", index=False)
    return table
