"""How fast this machine is: raw physics, environment stepping, and training, measured in one run and given as ratios.

The raw physics limit is the same batched MuJoCo stepping with random controls and nothing else: no observation, no
reward, no reset, no policy. Nothing that steps the same simulation on the same cores can be faster. The three are
measured in alternating rounds from the same states, so that a change in the machine's pace meets all of them, and the
medians are compared.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import envs, recipes
from workbench.errors import unknown_name

if TYPE_CHECKING:
    from workbench.envs.multi_agent_mujoco import MujocoTeamEnv
    from workbench.trainer import Trainer

TASKS = {
    "Ant 4x2": ("Ant", "4x2"),
    "Walker2d 6x1": ("Walker2d", "6x1"),
    "HalfCheetah 2x3": ("HalfCheetah", "2x3"),
}
# The settings that speed figures are quoted for; the observation is the one of published results, without contacts.
TRAINING = {"n_steps": 200, "epochs": 5, "n_minibatches": 1, "hidden_sizes": (128, 128)}
TRAINING_ENVS = 20
STEPPING_ENVS = 64
STEPS_A_ROUND = 100
WITHOUT_CONTACTS = {"Ant": {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}}


@dataclass(frozen=True)
class Rates:
    """Environment steps a second on one task: the median of the rounds, and every round's.

    physics   raw physics limit with ``STEPPING_ENVS`` environments
    stepping  ``env.step`` with random actions, as many environments
    happo     HAPPO end to end, ``TRAINING_ENVS`` environments
    """

    task: str
    physics: float
    stepping: float
    happo: float
    rounds: dict[str, list[float]] = field(repr=False)


@dataclass(frozen=True)
class Costs:
    """What going back and branching cost with ``TRAINING_ENVS`` environments, in the middle of an iteration.

    fork_ms, rewind_ms  medians
    snapshot_mb         what one agent's update adds to the past that is kept
    iteration_mb        what a whole iteration adds, its rollout included
    """

    task: str
    fork_ms: float
    rewind_ms: float
    snapshot_mb: float
    iteration_mb: float


def costs(task: str = "Ant 4x2", *, repeats: int = 11) -> Costs:
    """Measure forking and rewinding a trainer that has updated half of its agents."""
    scenario, agent_conf = TASKS[task]
    trainer = recipes.happo(envs.mujoco(scenario, agent_conf, n_envs=TRAINING_ENVS), seed=0, **TRAINING)
    trainer.iterate()
    one_iteration = trainer.past.bytes
    trainer.iterate()
    iteration_mb = (trainer.past.bytes - one_iteration) / 2**20
    while trainer.phase != "update_agent" or len(trainer.remaining) > len(trainer.units) // 2:
        trainer.step()
    before = trainer.past.bytes
    trainer.step()
    snapshot_mb = (trainer.past.bytes - before) / 2**20
    forks = [_seconds(trainer.fork) for _ in range(repeats)]
    rewinds = []
    for _ in range(repeats):
        rewinds.append(_seconds(trainer.rewind))
        trainer.step()
    trainer.env.close()
    return Costs(task, 1000 * statistics.median(forks), 1000 * statistics.median(rewinds), snapshot_mb, iteration_mb)


def bench(
    tasks: Sequence[str] = tuple(TASKS), *, rounds: int = 5, say: Callable[[str], None] = print
) -> tuple[list[Rates], Costs]:
    """Measure ``tasks`` in ``rounds`` alternating rounds each, saying each task's table row as it is known."""
    for task in tasks:
        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
    say(describe_machine())
    say(f"{'env steps/s':<18}{'physics':>10}{'stepping':>16}{'HAPPO':>16}   medians of {rounds} rounds (of physics)")
    measured = []
    for task in tasks:
        rates = _measure(task, rounds)
        measured.append(rates)
        shares = f"{rates.stepping:>9,.0f} ({rates.stepping / rates.physics:4.0%})"
        shares += f"{rates.happo:>9,.0f} ({rates.happo / rates.physics:4.0%})"
        say(f"{task:<18}{rates.physics:>10,.0f}{shares}")
    spent = costs()
    say(
        f"going back and branching, {spent.task}: fork {spent.fork_ms:.1f} ms, rewind {spent.rewind_ms:.2f} ms, "
        f"snapshot {spent.snapshot_mb:.2f} MB beyond the rollout, {spent.iteration_mb:.1f} MB an iteration with it"
    )
    return measured, spent


def _measure(task: str, rounds: int) -> Rates:
    scenario, agent_conf = TASKS[task]
    options = WITHOUT_CONTACTS.get(scenario, {})
    env = envs.mujoco(scenario, agent_conf, n_envs=STEPPING_ENVS, **options)
    trainer = recipes.happo(envs.mujoco(scenario, agent_conf, n_envs=TRAINING_ENVS, **options), seed=0, **TRAINING)
    trainer.iterate()  # warms allocators and caches
    env.reset(seed=0)
    found: dict[str, list[float]] = {"physics": [], "stepping": [], "happo": []}
    n_steps = STEPS_A_ROUND
    for index in range(rounds):
        rng = np.random.default_rng(index)
        actions = _random_actions(env, n_steps, rng)
        start = env.snapshot()
        found["physics"].append(n_steps * env.n_envs / _seconds(_physics, env, rng, n_steps))
        env.restore(start)
        found["stepping"].append(n_steps * env.n_envs / _seconds(_stepping, env, actions))
        found["happo"].append(TRAINING_ENVS * trainer.settings.n_steps / _seconds(_iteration, trainer))
    env.close()
    trainer.env.close()
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    return Rates(task, rounds=found, **medians)


def _seconds(act: Callable[..., object], *arguments: Any) -> float:
    started = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - started


def _physics(env: MujocoTeamEnv, rng: np.random.Generator, n_steps: int) -> None:
    controls = rng.uniform(-1, 1, (env.n_envs, env.engine.model.nu))
    for _ in range(n_steps):
        env.engine.physics_only_step(controls)
        np.negative(controls, out=controls)


def _stepping(env: MujocoTeamEnv, actions: list[dict[str, np.ndarray[Any, Any]]]) -> None:
    for joint_action in actions:
        env.step(joint_action)


def _iteration(trainer: Trainer) -> None:
    trainer.iterate()


def _random_actions(env: MujocoTeamEnv, n_steps: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Like the physics' controls: one draw, its sign turned at every step."""
    drawn = {
        agent: rng.uniform(-1, 1, (env.n_envs, *(space.shape or ()))).astype(np.float32)
        for agent, space in env.action_spaces.items()
    }
    turned = {agent: -action for agent, action in drawn.items()}
    return [turned if t % 2 else drawn for t in range(n_steps)]


def describe_machine() -> str:
    """Processor, cores and versions in one line."""
    import mujoco
    import torch

    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return (
        f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, "
        f"{torch.get_num_threads()} torch threads; Python {platform.python_version()}, torch {torch.__version__}, "
        f"MuJoCo {mujoco.__version__}"
    )


def as_json(measured: Sequence[Rates], spent: Costs) -> str:
    """The same for machines."""
    rates = [asdict(each) for each in measured]
    return json.dumps({"machine": describe_machine(), "rates": rates, "costs": asdict(spent)}, indent=2)
