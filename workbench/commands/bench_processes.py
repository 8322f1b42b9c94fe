"""What ``bench`` measures in processes of their own: seeds side by side, memory, and imports."""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.envs.workers import WorkerPool
from workbench.sweeps.files import Json

if TYPE_CHECKING:
    from workbench.running.trainer import Trainer

IMPORTS = {
    "torch": "import torch",
    "workbench": "import workbench",
    "trainer": "import workbench; workbench.happo",  # what else is loaded as soon as somebody trains
}
IMPORT_ROUNDS = 3
ITERATIONS_A_ROUND = 3
ITERATIONS = 25  # until the past that is kept has reached its full length


@dataclass(frozen=True)
class SeedsTogether:
    """Two processes of one core each, training two seeds at the same time: environment steps a second of both.

    training, physics  medians of the rounds; ``physics`` is the raw limit of all cores, measured in between
    share              the median of the rounds' ratios
    """

    training: float
    physics: float
    share: float
    rounds: dict[str, list[float]] = field(repr=False)


@dataclass(frozen=True)
class Footprint:
    """What training takes beside time.

    peak_memory_mb   the most memory (2²⁰ bytes) that a training process has held
    ..._seconds      medians of what an import takes in a fresh interpreter: of torch, of workbench, and of workbench
                     with all that ``workbench.happo`` loads, torch included
    """

    peak_memory_mb: float
    torch_seconds: float
    workbench_seconds: float
    trainer_seconds: float


def median_ratio(rates: Sequence[float], limits: Sequence[float]) -> float:
    """The median of the ratios within a round."""
    return statistics.median(rate / limit for rate, limit in zip(rates, limits, strict=True))


def training_rate(trainer: Trainer, n_iterations: int) -> float:
    """Environment steps a second over some iterations."""
    before, started = trainer.env_steps, time.perf_counter()
    for _ in range(n_iterations):
        trainer.iterate()
    return (trainer.env_steps - before) / (time.perf_counter() - started)


class Training:
    """HAPPO, trained in a process of its own.

    env, settings   arguments of ``wb.envs.mujoco`` and ``wb.happo``
    cpus            those that it may use; empty: all
    threads         of everything; None: as many as it would take by itself
    """

    def __init__(
        self, env: Json, settings: Json, seed: int = 0, cpus: Sequence[int] = (), threads: int | None = None
    ) -> None:
        if cpus:
            os.sched_setaffinity(0, cpus)
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)  # of worker processes it is 1
        from workbench import envs
        from workbench.running.methods import happo

        self._trainer = happo(envs.mujoco(**env, n_threads=threads), seed=seed, threads=threads, **settings)
        self._trainer.iterate()  # warms allocators and caches

    def rate(self, n_iterations: int) -> float:
        """Environment steps a second, by its own clock."""
        return training_rate(self._trainer, n_iterations)

    def peak_memory_mb(self) -> float:
        return _peak_memory_mb()

    def close(self) -> None:
        self._trainer.env.close()


def seeds_together(env: Json, settings: Json, rounds: int, physics: Callable[[], float]) -> SeedsTogether:
    """Measure two seeds side by side, each by its own clock; ``physics`` measures the raw limit once."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    seeds = [functools.partial(Training, env, settings, seed, cpus[seed : seed + 1], threads=1) for seed in range(2)]
    found: dict[str, list[float]] = {"training": [], "physics": []}
    with closing(WorkerPool(seeds, ["the benchmark's seed 0", "the benchmark's seed 1"])) as pool:
        for _ in range(rounds):
            found["physics"].append(physics())
            found["training"].append(sum(pool.call("rate", [(ITERATIONS_A_ROUND,)] * 2)))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    return SeedsTogether(**medians, share=median_ratio(found["training"], found["physics"]), rounds=found)


def footprint(env: Json, settings: Json) -> Footprint:
    """Measure the peak memory of training with all cores, and imports in fresh interpreters."""
    with closing(WorkerPool([functools.partial(Training, env, settings)], ["the benchmark's memory"])) as pool:
        pool.call("rate", [(ITERATIONS,)])
        (peak,) = pool.call("peak_memory_mb", [()])
    seconds: dict[str, list[float]] = {f"{name}_seconds": [] for name in IMPORTS}
    for _ in range(IMPORT_ROUNDS):
        for name, statement in IMPORTS.items():
            code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
            seconds[f"{name}_seconds"].append(float(subprocess.check_output([sys.executable, "-c", code], text=True)))
    return Footprint(peak, **{name: statistics.median(values) for name, values in seconds.items()})


def _peak_memory_mb() -> float:
    """The most memory that this process has held; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's, from before this program was loaded
        lines = status.read_text().splitlines()
        return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), float("nan"))
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
