"""``run_seeds``: one method on one environment with several seeds, as a sweep that needs no notebook of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from workbench.envs.base import TeamEnv
from workbench.errors import path_of, unknown_name
from workbench.learning.settings import whole
from workbench.running.methods import METHODS, load, make_trainer
from workbench.running.resume import CheckpointDirectory
from workbench.running.trainer import Trainer
from workbench.sweeps import layout
from workbench.sweeps.notebook import TAG
from workbench.sweeps.sweep import Sweep

PARAMETERS = """\
method: str = "happo"
scenario: str = ""
agent_conf: str = ""
env: dict = {}
settings: dict = {}
seed: int = 0
env_steps: int = 1
evaluate_every: int | None = None
evaluate_episodes: int = 32
directory: str | None = None
"""
CODE = """\
import workbench as wb

trainer = getattr(wb, method)(wb.envs.make(**env), seed=seed, **settings)
wb.record(
    trainer,
    directory,
    env_steps=env_steps,
    evaluate_every=evaluate_every,
    evaluate_episodes=evaluate_episodes,
)
"""


class Seeds(Sweep):
    """Runs that differ in their seed alone (``wb.run_seeds`` makes them): a sweep, and a sequence of its trainers.

    So ``wb.views.learning_curves(seeds)``, ``wb.statistics.compare(seeds)`` and ``wb.views.returns(seeds)`` take it.
    """

    @property
    def trainers(self) -> list[Trainer]:
        """The trainers as far as their checkpoints have come, in the order of the seeds; read anew each time."""
        folders = (self._place(run) / layout.CHECKPOINTS for run in self.plan.runs)
        return [load(folder) for folder in folders if CheckpointDirectory(folder).files()]

    def __iter__(self) -> Iterator[Trainer]:
        return iter(self.trainers)


def run_seeds(
    method: Callable[..., Trainer] | str,
    env: TeamEnv,
    seeds: int | Iterable[int] = 5,
    *,
    env_steps: int,
    workers: int | None = None,
    evaluate_every: int | None = None,
    evaluate_episodes: int = 32,
    directory: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Seeds:
    """Train one method with several seeds, each in a process of its own; returns when all are done.

        seeds = wb.run_seeds(wb.hatrpo, wb.envs.mujoco("Hopper", "3x1"), seeds=5, env_steps=1_000_000)
        wb.views.learning_curves(seeds)

    method          ``wb.hatrpo`` or another, or its name; ``settings`` are what it takes
    env             an environment that has a ``description``, by which each process makes its own
    seeds           how many, from 0, or which
    env_steps       joint steps of each run
    workers         processes at a time; by default one a core
    evaluate_every  env steps between two evaluations on ``evaluate_episodes`` episodes; None: none
    directory       where the runs are kept; by default runs/METHOD-TASK

    A seed's run has the bits of ``method(env, seed, threads=1, **settings)`` trained alone. An interrupt stops the runs
    where they can be taken up again: the same call goes on, and does only what is not finished.
    """
    name = getattr(method, "__name__", method)
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    description = getattr(env, "description", None)
    if not isinstance(env, TeamEnv) or description is None:
        raise ValueError(
            f"env is {env!r}, which has no description that other processes could make it from. Train one seed after "
            f"another, every view takes that too: [wb.{name}(env, seed=s).run(env_steps=…) for s in range(5)]"
        )
    try:
        described, settings = json.loads(json.dumps([dict(description), settings]))
    except TypeError as error:
        raise ValueError(f"the settings {settings!r} cannot be told to other processes: {error}.") from None
    make_trainer(name, env, 0, settings)  # refuses what the method does not take
    numbers = range(whole("seeds", seeds, 1)) if isinstance(seeds, int) else list(seeds)
    task = {key: str(described[key]) for key in ("scenario", "agent_conf") if described.get(key)}
    default = Path("runs") / "-".join([name, *task.values()])
    place = default if directory is None else path_of("directory", directory)
    fixed = {**task, "method": name, "env": described, "settings": {"threads": 1, **settings}}
    fixed |= {"env_steps": env_steps, "evaluate_every": evaluate_every, "evaluate_episodes": evaluate_episodes}
    made = Seeds(_notebook(place), seeds=numbers, fixed=fixed, directory=place)
    return made.run(workers, progress=progress)


def _notebook(directory: Path) -> Path:
    """The notebook by which a run is done, always the same."""
    directory.mkdir(parents=True, exist_ok=True)
    blank: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": []}
    cells = [
        {**blank, "metadata": {"tags": [TAG]}, "source": PARAMETERS},
        {**blank, "metadata": {}, "source": CODE},
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    path = directory / "seeds.ipynb"
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path
