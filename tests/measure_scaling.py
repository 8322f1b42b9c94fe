"""How the cost of training grows: with agents, environments, samples, and the length of the history.

    python tests/measure_scaling.py agents     # Humanoid's 17 joints shared out among 1 to 17 agents
    python tests/measure_scaling.py envs       # HalfCheetah 2x3 in 8 to 1024 copies
    python tests/measure_scaling.py batch      # HalfCheetah 2x3, 20 copies, 1,000 to 16,000 samples an iteration
    python tests/measure_scaling.py history    # 10,000 iterations of a small game: pace and memory, early and late

HAPPO with 5 epochs of one minibatch and networks of [128, 128], but for ``history``. Medians of 5 iterations, after two
that do not count. No part of the tests: times are the machine's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

import numpy as np
import psutil

import workbench as wb

SIZES = {"hidden_sizes": (128, 128), "epochs": 5}


def phases(trainer: Any, iterations: int = 5, warm_up: int = 2) -> dict[str, float]:
    """Milliseconds of each phase in an iteration, that of all agents together."""
    took: dict[str, list[float]] = defaultdict(list)
    for k in range(warm_up + iterations):
        here: dict[str, float] = defaultdict(float)
        ended = False
        while not ended:
            phase, started = trainer.phase, time.perf_counter()
            trainer.step()
            here[phase] += 1000 * (time.perf_counter() - started)
            ended = phase == "update_critic"
        if k >= warm_up:
            for phase, milliseconds in here.items():
                took[phase].append(milliseconds)
    return {phase: statistics.median(values) for phase, values in took.items()}


def tell(first: object, trainer: Any) -> None:
    """A row: what an iteration takes, phase by phase, and what a sample does."""
    took = phases(trainer)
    steps = trainer.env.n_envs * trainer.settings.n_steps
    each = took["update_agent"] / len(trainer.units)
    print(
        f"{first!s:>9} | collect {took['collect']:7.1f} ms | agents {took['update_agent']:7.1f} ms, {each:5.1f} each | "
        f"critic {took['update_critic']:6.1f} ms | {1000 * sum(took.values()) / steps:7.1f} µs a sample",
        flush=True,
    )
    trainer.env.close()


def agents() -> None:
    whole = wb.envs.mujoco("Humanoid", "17x1", n_envs=1)
    joints = [owned.joint for agent in whole.agents for owned in whole.partition[agent]]
    whole.close()
    for n in (1, 2, 4, 8, 17):
        parts = [tuple(part.tolist()) for part in np.array_split(np.array(joints), n)]
        env = wb.envs.mujoco("Humanoid", n_envs=20, agent_factorization=parts)
        trainer = wb.happo(env, n_steps=50, **SIZES)
        tell(f"{n} agents", trainer)


def envs() -> None:
    for n in (8, 32, 128, 512, 1024):
        trainer = wb.happo(wb.envs.mujoco("HalfCheetah", "2x3", n_envs=n), n_steps=25, **SIZES)
        tell(n, trainer)


def batch() -> None:
    for n_steps in (50, 100, 200, 400, 800):
        trainer = wb.happo(wb.envs.mujoco("HalfCheetah", "2x3", n_envs=20), n_steps=n_steps, **SIZES)
        tell(20 * n_steps, trainer)


def history(iterations: int = 10_000, part: int = 1000) -> None:
    game = wb.theory.random_game(n_agents=2, n_states=3, n_actions=2, seed=0)
    trainer = wb.happo(wb.envs.tabular(game, n_envs=4), n_steps=4, hidden_sizes=(8,), epochs=1, critic_epochs=1)
    process = psutil.Process()
    for _ in range(iterations // part):
        took = []
        for _ in range(part):
            started = time.perf_counter()
            trainer.iterate()
            took.append(time.perf_counter() - started)
        rows = len(trainer.agent_history)
        print(
            f"{trainer.iteration:6} iterations | {1000 * statistics.median(took):.2f} ms an iteration | "
            f"{process.memory_info().rss / 1e6:.0f} MB | {rows} rows of agents' history",
            flush=True,
        )


PARTS = {part.__name__: part for part in (agents, envs, batch, history)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    for part in parser.parse_args().parts:
        print(part)
        PARTS[part]()


if __name__ == "__main__":
    main()
