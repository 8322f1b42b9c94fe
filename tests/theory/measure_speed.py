"""How long Algorithm 1 and the exact evaluation take on this machine. Run it by hand; no test depends on it.

OMP_NUM_THREADS=1 python tests/theory/measure_speed.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from workbench.theory import TabularGame, algorithm1, evaluate, random_game, random_policies, uniform_policies


def median_seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """The median wall time of several calls, the first of them left out."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def milliseconds_per_iteration(n_states: int, floor: float, begin: int, iterations: int = 20) -> float:
    """Algorithm 1 with 3 agents of 3 actions at γ = 0.6, after ``begin`` iterations."""
    game = random_game(3, n_states, 3, 0.6, seed=1)
    policies = algorithm1(game, uniform_policies(game), begin, floor=floor).policies
    return median_seconds(lambda: algorithm1(game, policies, iterations, floor=floor), 5) / iterations * 1e3


def main() -> None:
    for floor in (1e-3, 0.0):
        for begin in (0, 1_000):
            figure = milliseconds_per_iteration(10, floor, begin)
            print(f"Algorithm 1, 10 states, floor {floor:g}, after {begin} iterations: {figure:.1f} ms each")
    for n_states in (10, 20, 40, 80, 160):
        figure = milliseconds_per_iteration(n_states, 1e-3, 0, iterations=5)
        print(f"Algorithm 1, {n_states} states: {figure:.1f} ms each")
    shape = (10,) * 6
    game = TabularGame(np.zeros(shape), np.full((*shape, 10), 0.1), np.full(10, 0.1), 0.9)
    policies = random_policies(game, 0)
    figure = median_seconds(lambda: evaluate(game, policies))
    print(f"evaluate, {game.reward.size:,} joint entries: {figure * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
