"""How fast training is with the learner on a GPU, beside the same training on the CPU: an iteration, phase by phase.

    python tests/measure_device.py                                    # Ant 4x2, 20, 256 and 1,024 copies
    python tests/measure_device.py "HalfCheetah 2x3" --n-envs 1024 4096 --methods happo
    python tests/measure_device.py --devices cpu                      # where there is no GPU

200 steps an iteration, networks of [128, 128]; HAPPO with 5 epochs of one minibatch, HATRPO with 10 full-batch CG
iterations; before each, the raw physics limit of as many copies. The devices take turns; medians of the iterations
after two that do not count. No part of the tests: times are the machine's.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

import numpy as np
import torch
from measure_scaling import phases

import workbench as wb
from workbench.commands.bench import METHODS, TASKS, TRAINING, _RawPhysics

ROUNDS = 2


def measured(task: str, method: str, n_envs: int, devices: list[str], iterations: int) -> None:
    """Raw physics, and a line for each device: environment steps a second, and the milliseconds of each phase."""
    trainers: dict[str, Any] = {
        device: getattr(wb, method)(TASKS[task].env(n_envs), seed=0, device=device, **TRAINING | METHODS[method])
        for device in devices
    }
    env = TASKS[task].env(n_envs)
    env.reset(seed=0)
    raw, rng = _RawPhysics(env), np.random.default_rng(0)
    physics = statistics.median(raw.rate(env, rng) for _ in range(3))
    print(f"{task} {n_envs:5} envs, physics {physics:,.0f} steps/s", flush=True)
    env.close()
    took: dict[str, list[dict[str, float]]] = {device: [] for device in devices}
    for index in range(ROUNDS):
        for device, trainer in trainers.items():
            took[device].append(phases(trainer, iterations, warm_up=0 if index else 2))
    for device, rounds in took.items():
        by_phase = {phase: statistics.median(each[phase] for each in rounds) for phase in rounds[0]}
        rate = 1000 * n_envs * TRAINING["n_steps"] / sum(by_phase.values())
        parts = " | ".join(f"{phase} {milliseconds:8.1f}" for phase, milliseconds in by_phase.items())
        print(f"{task} {method:6} {n_envs:5} envs {device:4} | {rate:9,.0f} steps/s | {parts} ms", flush=True)
    for trainer in trainers.values():
        trainer.env.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="Ant 4x2", choices=TASKS)
    parser.add_argument("--n-envs", nargs="+", type=int, default=[20, 256, 1024])
    parser.add_argument("--methods", nargs="+", default=["happo", "hatrpo"], choices=METHODS)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"])
    parser.add_argument("--iterations", type=int, default=3, help="in each of two rounds")
    asked = parser.parse_args()
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{len(os.sched_getaffinity(0))} CPUs, {card}, torch {torch.__version__}")
    for method in asked.methods:
        for n_envs in asked.n_envs:
            measured(asked.task, method, n_envs, asked.devices, asked.iterations)


if __name__ == "__main__":
    main()
