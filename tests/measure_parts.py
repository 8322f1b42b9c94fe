"""Where the time of an iteration goes: its phases, physics apart, and the parts of a joint step beside the physics.

    python tests/measure_parts.py                      # Ant 4x2, Walker2d 6x1 and HalfCheetah 2x3
    taskset -c 0 python tests/measure_parts.py "Ant 4x2"     # on one core

HAPPO, 20 copies × 200 steps, 5 epochs of one minibatch, networks of [128, 128]. Phases are medians of 5 iterations; the
parts of a step are repeated by themselves, and so in a warm cache, which they do not find in a rollout: what a step
takes in all beside the physics is the line before. No part of the tests: times are the machine's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from measure_scaling import SIZES, phases

import workbench as wb
from workbench.envs.multi_agent_mujoco.observations import Readings
from workbench.learning import rollout
from workbench.learning.state import actor_of, state_transform
from workbench.networks.gradients import torch_threads

TASKS = ("Ant 4x2", "Walker2d 6x1", "HalfCheetah 2x3")


def clocked(function: Callable[[], Any], times: list[float]) -> Callable[[], Any]:
    """The function, which notes how many milliseconds each call took."""

    def call() -> Any:
        started = time.perf_counter()
        result = function()
        times.append(1000 * (time.perf_counter() - started))
        return result

    return call


def microseconds(function: Callable[[], Any], calls: int = 300, rounds: int = 7) -> float:
    """What a call takes of this thread's time, the median of some rounds."""

    def round_() -> float:
        started = time.thread_time()
        for _ in range(calls):
            function()
        return 1e6 * (time.thread_time() - started) / calls

    return statistics.median(round_() for _ in range(rounds))


def iteration(trainer: Any) -> None:
    """A line: the phases of an iteration, physics apart."""
    engine, steps = trainer.env.engine, []
    engine.step = clocked(engine.step, steps)
    took = phases(trainer)
    del engine.step
    n = trainer.settings.n_steps
    physics = statistics.median(sum(steps[k : k + n]) for k in range(2 * n, len(steps), n))
    rest = took["collect"] - physics
    print(
        f"  all {sum(took.values()):6.1f} ms | physics {physics:6.1f} | rest of collection {rest:5.1f}, "
        f"{1000 * rest / n:4.0f} µs a step | estimate {took['estimate']:4.1f} | agents {took['update_agent']:5.1f} | "
        f"critic {took['update_critic']:5.1f}",
        flush=True,
    )


@torch.no_grad()
def step(trainer: Any) -> None:
    """A line: what a joint step takes beside the physics, part by part, in microseconds."""
    setup, state, env = trainer._setup, trainer._state, trainer.env
    actor, shown, transform = actor_of(setup, state), state.running.current, state_transform(setup, state)
    recording = rollout._RolloutBuffer(env, setup.team, actor, transform, state.running, 1, setup.streams, 0, 1)
    recording.show(0, shown)
    actions = recording.act(0, shown)
    joint_action, look = env._actuator_controls(actions), env.robot.look()
    readings = Readings(look.observation, env._observer.gather(env.engine))

    def inference() -> None:
        for stacked, inputs in zip(actor.stacks, recording.inputs, strict=True):
            actor.distribution(stacked, inputs[:, 0])

    def act() -> None:
        recording.masks.clear()
        recording.active.clear()
        recording.act(0, shown)

    parts = {
        "inference": microseconds(inference),
        "drawing actions": microseconds(act),
        "controls": microseconds(lambda: env._actuator_controls(actions)),
        "reward, ends": microseconds(
            lambda: env.robot.reward_and_termination(joint_action, env._place, env.robot.look())
        ),
        "observation": microseconds(lambda: env._observer.look(readings)),
        "not finite?": microseconds(lambda: rollout._refuse_non_finite(env, shown, 0, 0)),
        "recording": microseconds(lambda: (recording.show(1, shown), recording.outcome(0, shown))),
    }
    parts["drawing actions"] -= parts["inference"]
    told = " | ".join(f"{name} {value:.0f}" for name, value in parts.items())
    print(f"  a step, warm: {sum(parts.values()):.0f} µs: {told}", flush=True)


def main() -> None:
    for task in sys.argv[1:] or TASKS:
        scenario, conf = task.split()
        trainer = wb.happo(wb.envs.mujoco(scenario, conf, n_envs=20), n_steps=200, **SIZES)
        print(task)
        iteration(trainer)
        with torch_threads(1):  # as in a rollout
            step(trainer)


if __name__ == "__main__":
    main()
