"""How fast this machine is: raw physics, environment stepping, and training, measured in one run and given as ratios.

The raw physics limit is MuJoCo's batch stepping with random controls and nothing else: no observation, no force of a
contact, no reward, no reset, no policy. Robots that fall and are not picked up are dearer than others, so that an
environment can be faster than that; it is compared with raw physics along its own trajectories. What is compared is
measured in alternating rounds, so that a change in the machine's pace meets all of it. Medians of the rounds are given,
of rates and of the ratios within a round.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workbench import envs
from workbench.commands import bench_defaults
from workbench.commands.bench_defaults import DefaultRates, TimeToReturn
from workbench.commands.bench_machine import Neighbours, machine_lines
from workbench.commands.bench_processes import Footprint, SeedsTogether, footprint, median_ratio, seeds_together
from workbench.running import methods as recipes
from workbench.sweeps.files import Json
from workbench.sweeps.spec import check_keys

if TYPE_CHECKING:
    from workbench.envs.multi_agent_mujoco import MujocoTeamEnv
    from workbench.envs.multi_agent_mujoco.physics import BatchEngine
    from workbench.running.trainer import Trainer

Floats = npt.NDArray[np.float64]
Trajectory = list[tuple[Floats, npt.NDArray[np.intp], Floats]]  # controls, what begins anew after the step, its states
Actions = list[dict[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Task:
    """What is stepped, and by which methods it is trained.

    options  of the environment
    """

    scenario: str
    agent_conf: str
    options: Json = field(default_factory=dict)
    methods: tuple[str, ...] = ("happo", "hatrpo")

    def env(self, n_envs: int) -> MujocoTeamEnv:
        """``n_envs`` copies."""
        return envs.mujoco(self.scenario, self.agent_conf, n_envs=n_envs, **self.options)


# Speed is quoted for the observation of published results, which is without the forces of contacts.
TASKS = {
    "Ant 4x2": Task("Ant", "4x2", {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}),
    "Walker2d 6x1": Task("Walker2d", "6x1"),
    "HalfCheetah 2x3": Task("HalfCheetah", "2x3"),
    "Humanoid 17x1": Task("Humanoid", "17x1", methods=()),
    "Ant 4x2, contacts": Task("Ant", "4x2", methods=()),
}
TRAINING: Json = {"n_steps": 200, "hidden_sizes": (128, 128)}
METHODS: dict[str, Json] = {
    "happo": {"epochs": 5, "n_minibatches": 1},
    "hatrpo": {"cg_iterations": 10, "fisher_fraction": 1.0},
}
COLUMNS = {"stepping": "stepping", "happo": "HAPPO", "hatrpo": "HATRPO"}
TRAINING_ENVS = 20
STEPPING_ENVS = 64
STEPS_A_ROUND = 100


@dataclass(frozen=True)
class Rates:
    """Environment steps a second on one task: the median of the rounds, and every round's.

    physics   raw physics limit with ``STEPPING_ENVS`` environments
    stepping  ``env.step`` with random actions, as many environments
    same      raw physics along the trajectories of ``stepping``: their controls, and their states after a reset
    training  {method: end to end, with ``TRAINING_ENVS`` environments}
    rounds    {"physics", "stepping", "same" or a method: each round's}
    shares    {"stepping" or a method: of ``same`` or of ``physics``}, the median of the rounds' ratios
    """

    task: str
    physics: float
    stepping: float
    same: float
    training: dict[str, float]
    rounds: dict[str, list[float]] = field(repr=False)
    shares: dict[str, float]


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
    trainer = _trainer(TASKS[task], "happo")
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


@dataclass(frozen=True)
class BenchResult:
    """All that was measured; ``defaults``, ``returns``, ``together`` and ``footprint`` of a whole run only.

    others  the share of the cores' time that other processes took meanwhile; NaN where the system does not tell
    """

    machine: list[str]
    rates: list[Rates]
    costs: Costs
    others: float
    defaults: DefaultRates | None = None
    returns: list[TimeToReturn] | None = None
    together: SeedsTogether | None = None
    footprint: Footprint | None = None

    def as_json(self) -> str:
        """The same for machines."""
        return json.dumps(asdict(self), indent=2)


def bench(tasks: Sequence[str] = (), *, rounds: int = 5, say: Callable[[str], None] = print) -> BenchResult:
    """Measure ``tasks`` in ``rounds`` alternating rounds each, saying each line of the table as it is known.

    With no tasks named it measures the defaults first, then all of them, what needs processes of their own (seeds side
    by side, memory and imports), and last how long the defaults take to walk.
    """
    check_keys("task", tasks, TASKS)
    machine, neighbours = machine_lines(), Neighbours()
    say("\n".join(machine))
    defaults = None if tasks else _defaults(rounds, say)
    columns = "".join(f"{shown:>16}" for shown in COLUMNS.values())
    say(
        f"{'env steps/s':<18}{'physics':>10}{columns}   medians of {rounds} rounds (of physics; "
        "stepping: of physics along the same trajectories)"
    )
    measured = []
    for task in tasks or TASKS:
        rates = _measure(task, rounds)
        measured.append(rates)
        found = {"stepping": rates.stepping, **rates.training}
        cells = {name: f"{rate:>9,.0f} ({rates.shares[name]:4.0%})" for name, rate in found.items()}
        say(f"{task:<18}{rates.physics:>10,.0f}" + "".join(cells.get(name, f"{'–':>16}") for name in COLUMNS))
    spent = costs()
    say(
        f"going back and branching, {spent.task}: fork {spent.fork_ms:.1f} ms, rewind {spent.rewind_ms:.2f} ms, "
        f"snapshot {spent.snapshot_mb:.2f} MB beyond the rollout, {spent.iteration_mb:.1f} MB an iteration with it"
    )
    together, taken = (None, None) if tasks else _in_processes(rounds, say)
    returns = None if tasks else _returns(say)
    others = neighbours.share()
    say(f"other processes took {others:.0%} of the cores' time meanwhile")
    return BenchResult(machine, measured, spent, others, defaults, returns, together, taken)


def _defaults(rounds: int, say: Callable[[str], None]) -> DefaultRates:
    env = envs.mujoco(bench_defaults.SCENARIO, bench_defaults.AGENT_CONF, n_envs=STEPPING_ENVS, n_threads=1)
    raw = _RawPhysics(env)
    env.reset(seed=0)

    found = bench_defaults.measure_defaults(rounds, lambda: raw.rate(env, np.random.default_rng(0)))
    env.close()
    say(f"the defaults on one core, Walker2d 6x1: physics {found.physics:,.0f} env steps/s")
    for name, each in found.training.items():
        say(f"  {name:<30}{each:>8,.0f} ({found.shares[name]:4.0%})   {found.passes[name]}")
    return found


def _returns(say: Callable[[str], None]) -> list[TimeToReturn]:
    found = [bench_defaults.time_to_return(method) for method in ("hatrpo", "happo")]
    for each in found:
        cells = [
            f"{level} in {seconds:.0f} s ({each.env_steps[level]:,.0f} steps; {_faster(each.times[level])})"
            for level, seconds in each.seconds.items()
        ]
        say(f"time to return, {each.method}, Walker2d 6x1, beside the reference: " + "; ".join(cells))
    return found


def _in_processes(rounds: int, say: Callable[[str], None]) -> tuple[SeedsTogether, Footprint]:
    ant = TASKS["Ant 4x2"]
    run = {"scenario": ant.scenario, "agent_conf": ant.agent_conf, "n_envs": TRAINING_ENVS, **ant.options}
    settings = {**TRAINING, **METHODS["happo"]}
    env = ant.env(STEPPING_ENVS)
    raw = _RawPhysics(env)
    env.reset(seed=0)
    together = seeds_together(run, settings, rounds, lambda: raw.rate(env, np.random.default_rng(0)))
    env.close()
    say(
        f"two seeds of Ant 4x2 side by side, a process of one core each: {together.training:,.0f} env steps/s, "
        f"{together.share:.0%} of physics, which is {together.physics:,.0f}"
    )
    taken = footprint(run, settings)
    say(
        f"training Ant 4x2 takes {taken.peak_memory_mb:.0f} MB at its peak; import: torch {taken.torch_seconds:.2f} s, "
        f"workbench {taken.workbench_seconds:.2f} s, with a trainer {taken.trainer_seconds:.2f} s "
        f"({taken.trainer_seconds / taken.torch_seconds:.2f} × torch)"
    )
    return together, taken


def _faster(times: float) -> str:
    return f"{times:.0f} × as fast" if times < math.inf else "the reference does not within 10⁷ steps"


def _trainer(task: Task, method: str) -> Trainer:
    return recipes.make_trainer(method, task.env(TRAINING_ENVS), 0, {**TRAINING, **METHODS[method]})


def _measure(name: str, rounds: int) -> Rates:
    task = TASKS[name]
    env = task.env(STEPPING_ENVS)
    raw = _RawPhysics(env)
    trainers = {method: _trainer(task, method) for method in task.methods}
    for trainer in trainers.values():
        trainer.iterate()  # warms allocators and caches
    env.reset(seed=0)
    found: dict[str, list[float]] = {name: [] for name in ("physics", "same", "stepping", *trainers)}
    for index in range(rounds):
        rng = np.random.default_rng(index)
        actions = _random_actions(env, STEPS_A_ROUND, rng)
        found["physics"].append(raw.rate(env, rng))
        start = env.snapshot()
        trajectory = _trajectory(env, actions)
        env.restore(start)
        found["same"].append(raw.rate_along(env, trajectory))
        found["stepping"].append(STEPS_A_ROUND * env.n_envs / _seconds(_stepping, env, actions))
        for method, trainer in trainers.items():
            found[method].append(TRAINING_ENVS * trainer.settings.n_steps / _seconds(trainer.iterate))
    for each in (env, *(trainer.env for trainer in trainers.values())):
        each.close()
    medians = {each: statistics.median(rates) for each, rates in found.items()}
    physics, same, stepping = (medians.pop(each) for each in ("physics", "same", "stepping"))
    limits = {"stepping": "same", **dict.fromkeys(trainers, "physics")}
    shares = {each: median_ratio(found[each], found[limit]) for each, limit in limits.items()}
    return Rates(name, physics, stepping, same, medians, found, shares)


class _RawPhysics:
    """An environment's simulations, to be stepped by MuJoCo's batch alone from where the environment stands."""

    def __init__(self, env: MujocoTeamEnv) -> None:
        from workbench.envs.multi_agent_mujoco.physics import BatchEngine

        own = env.engine
        self._engine: BatchEngine = BatchEngine(own.model, own.n_envs, own.n_threads, own.frame_skip)

    def rate(self, env: MujocoTeamEnv, rng: np.random.Generator) -> float:
        """Environment steps a second under random controls."""
        controls = rng.uniform(-1, 1, (env.n_envs, env.engine.model.nu))
        no_reset = np.empty(0, np.intp), np.empty((0, self._engine.state.shape[1]))
        return self.rate_along(env, [((-controls if t % 2 else controls), *no_reset) for t in range(STEPS_A_ROUND)])

    def rate_along(self, env: MujocoTeamEnv, trajectory: Trajectory) -> float:
        """The same along a trajectory that begins where ``env`` stands."""
        self._engine.load(env.engine.save())
        return len(trajectory) * env.n_envs / _seconds(self._run, trajectory)

    def _run(self, trajectory: Trajectory) -> None:
        for controls, begun, states in trajectory:
            self._engine.physics_only_step(controls)
            if begun.size:
                self._engine.load(states, begun)


def _trajectory(env: MujocoTeamEnv, actions: Actions) -> Trajectory:
    """What the simulations of ``env`` are given: controls of each step, and states of the episodes that begin then."""
    found: Trajectory = []
    for joint_action in actions:
        step = env.step(joint_action)
        begun = np.empty(0, np.intp) if step.final is None else step.final.envs
        found.append((env.controls(joint_action), begun, env.engine.save()[begun]))
    return found


def _seconds(act: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - started


def _stepping(env: MujocoTeamEnv, actions: Actions) -> None:
    for joint_action in actions:
        env.step(joint_action)


def _random_actions(env: MujocoTeamEnv, n_steps: int, rng: np.random.Generator) -> Actions:
    """Like the physics' controls: one draw, its sign turned at every step."""
    drawn = {
        agent: rng.uniform(-1, 1, (env.n_envs, *(space.shape or ()))).astype(np.float32)
        for agent, space in env.action_spaces.items()
    }
    turned = {agent: -action for agent, action in drawn.items()}
    return [turned if t % 2 else drawn for t in range(n_steps)]
