"""What ``bench`` measures first: the defaults, as whoever writes ``wb.hatrpo(env)`` has them, and the time to walk.

Time to return is held against the reference implementation (HARL): the environment steps that its published curve
needs, read off the plots of Zhong et al., JMLR 25 (2024), at the rates measured for it on two cores.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from workbench import envs
from workbench.commands.bench_processes import median_ratio, training_rate
from workbench.running import methods as recipes
from workbench.running.trainer import Trainer

SCENARIO, AGENT_CONF = "Walker2d", "6x1"
N_ENVS = 16
DEFAULTS: dict[str, tuple[str, dict[str, object]]] = {
    "HATRPO": ("hatrpo", {}),
    "HAPPO": ("happo", {}),
    "HAPPO, 10 epochs of 64 rows": (
        "happo",
        {"n_steps": 64, "n_minibatches": 16, "epochs": 10, "team_target_kl": None},
    ),
}
ITERATIONS_A_ROUND = 4

RETURNS = (1000.0, 2000.0, 3000.0)
EVALUATE_EVERY = 20_000
EPISODES = 10
AT_MOST = 1_000_000
# {environment steps: return} on Walker2d 6x1, and env steps a second on two cores, the fastest measured.
REFERENCE_CURVE = {
    "hatrpo": {0.0: 0.0, 1e6: 450.0, 2e6: 560.0, 5e6: 1490.0, 10e6: 2200.0},
    "happo": {0.0: 0.0, 1e6: 1340.0, 2e6: 1620.0, 5e6: 2840.0, 10e6: 4490.0},
}
REFERENCE_RATE = {"hatrpo": 490.0, "happo": 1250.0}


@dataclass(frozen=True)
class DefaultRates:
    """Env steps a second on one core, Walker2d 6x1, 16 environments, medians of the rounds.

    physics   MuJoCo's batch alone, on one core
    training  {what is measured: end to end}
    shares    {the same: of ``physics``, the median of the rounds' ratios}
    passes    {the same: which arithmetic its updates use}
    """

    physics: float
    training: dict[str, float]
    shares: dict[str, float]
    passes: dict[str, str]
    rounds: dict[str, list[float]] = field(repr=False)


@dataclass(frozen=True)
class TimeToReturn:
    """Seconds of training until a mean return of 10 deterministic episodes, with the defaults, seed 0, all cores.

    seconds    {return: seconds, NaN where 10⁶ steps did not reach it}; evaluations are not counted
    env_steps  {return: environment steps}
    times      {return: how many times as long the reference implementation takes; inf: longer than its 10⁷ steps}
    """

    method: str
    seconds: dict[str, float]
    env_steps: dict[str, float]
    times: dict[str, float]


def trainer_of(method: str, settings: Mapping[str, object], n_threads: int | None = None) -> Trainer:
    """A trainer on Walker2d 6x1 by the defaults but for ``settings``, on ``n_threads`` cores; None: all."""
    env = envs.mujoco(SCENARIO, AGENT_CONF, n_envs=N_ENVS, n_threads=n_threads)
    return recipes.make_trainer(method, env, 0, {**settings, "threads": n_threads})


def time_to_return(method: str) -> TimeToReturn:
    """Train until the highest of ``RETURNS`` is reached, or ``AT_MOST`` steps."""
    trainer = trainer_of(method, {})
    seconds, reached, steps = 0.0, dict.fromkeys(RETURNS, math.nan), dict.fromkeys(RETURNS, math.nan)
    due = itertools.count(EVALUATE_EVERY, EVALUATE_EVERY)
    while math.isnan(reached[RETURNS[-1]]) and trainer.env_steps < AT_MOST:
        goal, started = next(due), time.perf_counter()
        while trainer.env_steps < goal:
            trainer.iterate()
        seconds += time.perf_counter() - started
        mean = float(trainer.evaluate(EPISODES).mean())
        for level in RETURNS:
            if math.isnan(reached[level]) and mean >= level:
                reached[level], steps[level] = seconds, float(trainer.env_steps)
    trainer.env.close()
    times = {level: reference_seconds(method, level) / reached[level] for level in RETURNS}
    return TimeToReturn(method, *({f"{level:.0f}": at[level] for level in RETURNS} for at in (reached, steps, times)))


def reference_seconds(method: str, level: float) -> float:
    """How long the reference implementation takes to a return, at its fastest; inf: longer than its published run.

    >>> round(reference_seconds("happo", 1340.0)), reference_seconds("hatrpo", 3000.0)
    (800, inf)
    """
    curve = REFERENCE_CURVE[method]
    if level > max(curve.values()):
        return math.inf
    return float(np.interp(level, list(curve.values()), list(curve))) / REFERENCE_RATE[method]


def measure_defaults(rounds: int, physics: Callable[[], float]) -> DefaultRates:
    """Alternating rounds of one core's ``physics`` and of each trainer."""
    trainers = {name: trainer_of(method, settings, 1) for name, (method, settings) in DEFAULTS.items()}
    found: dict[str, list[float]] = {name: [] for name in ("physics", *trainers)}
    for trainer in trainers.values():
        trainer.iterate()  # compiles, and warms caches
    for _ in range(rounds):
        found["physics"].append(physics())
        for name, trainer in trainers.items():
            found[name].append(training_rate(trainer, ITERATIONS_A_ROUND))
    medians = {name: float(np.median(rates)) for name, rates in found.items()}
    passes = {name: " · ".join(set(trainer.passes.values())) for name, trainer in trainers.items()}
    for trainer in trainers.values():
        trainer.env.close()
    shares = {name: median_ratio(found[name], found["physics"]) for name in trainers}
    return DefaultRates(medians.pop("physics"), medians, shares, passes, found)
