"""What ``bench`` measures in processes of their own: seeds side by side, memory, and imports."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IMPORTS = {
    "torch": "import torch",
    "workbench": "import workbench",
    "trainer": "import workbench; workbench.happo",  # what else is loaded as soon as somebody trains
}
IMPORT_ROUNDS = 3
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


def seeds_together(plan: Mapping[str, object], rounds: int, physics: Callable[[], float]) -> SeedsTogether:
    """Measure two seeds of ``plan`` side by side, each by its own clock.

    plan     scenario, agent_conf, options, n_envs, and HAPPO's settings
    physics  measures the raw limit once
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    found: dict[str, list[float]] = {"training": [], "physics": []}
    n_iterations = 3
    with contextlib.ExitStack() as stack:
        plans = [{**plan, "seed": seed, "single": True, "core": cores[seed : seed + 1]} for seed in range(2)]
        runs = [stack.enter_context(_training(each)) for each in plans]
        for run in runs:
            run.answer()  # is warm
        for _ in range(rounds):
            found["physics"].append(physics())
            for run in runs:
                run.ask(n_iterations)
            answers = [run.answer() for run in runs]
            found["training"].append(sum(answer["env_steps"] / answer["seconds"] for answer in answers))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    return SeedsTogether(**medians, share=median_ratio(found["training"], found["physics"]), rounds=found)


def footprint(plan: Mapping[str, object]) -> Footprint:
    """Measure the peak memory of training ``plan`` with all cores, and imports in fresh interpreters."""
    with _training({**plan, "seed": 0, "single": False, "core": []}) as run:
        run.answer()
        run.ask(ITERATIONS)
        peak = run.answer()["peak_memory_mb"]
    seconds: dict[str, list[float]] = {f"{name}_seconds": [] for name in IMPORTS}
    for _ in range(IMPORT_ROUNDS):
        for name, statement in IMPORTS.items():
            code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
            seconds[f"{name}_seconds"].append(float(subprocess.check_output([sys.executable, "-c", code], text=True)))
    return Footprint(peak, **{name: statistics.median(values) for name, values in seconds.items()})


class TrainingProcess:
    """A training process, asked for iterations line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._input, self._output = process, process.stdin, process.stdout

    def ask(self, n_iterations: int) -> None:
        self._input.write(f"{n_iterations}\n")
        self._input.flush()

    def answer(self) -> dict[str, float]:
        line = self._output.readline()
        if not line:
            raise RuntimeError(f"a training process of the benchmark ended with status {self._process.wait()}.")
        answer: dict[str, float] = json.loads(line)
        return answer


@contextlib.contextmanager
def _training(plan: Mapping[str, object]) -> Iterator[TrainingProcess]:
    code = "from workbench.commands.bench_processes import train_when_asked; train_when_asked()"
    environ = {**os.environ, "OMP_NUM_THREADS": "1"} if plan["single"] else dict(os.environ)
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(plan)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    try:
        yield TrainingProcess(process)
    finally:
        process.communicate()  # closes its input, which ends it


def train_when_asked() -> None:
    """The training process: one iteration to begin with, then as many as each line of its input says."""
    plan = json.loads(sys.argv[1])
    if plan["core"]:
        os.sched_setaffinity(0, plan["core"])
    from workbench import envs
    from workbench.running import methods as recipes

    threads: dict[str, Any] = {"threads": 1} if plan["single"] else {}
    env = envs.mujoco(
        plan["scenario"],
        plan["agent_conf"],
        n_envs=plan["n_envs"],
        n_threads=1 if plan["single"] else None,
        **plan["options"],
    )
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in plan["settings"].items()}
    trainer = recipes.happo(env, seed=plan["seed"], **settings, **threads)
    trainer.iterate()
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        before, started = trainer.env_steps, time.perf_counter()
        for _ in range(int(line)):
            trainer.iterate()
        answer = {"env_steps": trainer.env_steps - before, "seconds": time.perf_counter() - started}
        print(json.dumps({**answer, "peak_memory_mb": _peak_memory_mb()}), flush=True)


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
