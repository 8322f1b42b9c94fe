"""``Trainer``: a run that can be stepped, looked into, changed, rewound, forked, saved.

It holds one immutable state and a cursor over the phases (``phases.py`` has them, ``state.py`` the glossary).
``step()`` replaces the state; everything else reads it, or puts another one in its place.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.std import tqdm

from workbench.episodes import EpisodeSnapshot, at_beginning, standing_at
from workbench.errors import CheckpointError, SnapshotUnsupported, path_of, unknown_name
from workbench.learning import orders
from workbench.learning.events import Event, Events, Intervention
from workbench.learning.orders import draw_order
from workbench.learning.phases import PHASES
from workbench.learning.policy_evaluation import MAX_ENVS, evaluate
from workbench.learning.rollout import refuse_unfit_rollout
from workbench.learning.settings import whole, whole_or_none
from workbench.learning.state import Setup, State, actor_of
from workbench.networks.gradients import plain_torch
from workbench.randomness import Streams
from workbench.running import checkpoint, resume
from workbench.running.improvement import take_apart, with_other_generators
from workbench.running.interrupt import PhaseBoundaryInterrupt
from workbench.running.live_log import Logger, check_logger, logging_to
from workbench.running.resume import CheckpointDirectory, RunRecord
from workbench.running.rewind import Past
from workbench.running.run_view import Run
from workbench.running.script import FORK, noted

Listener = Callable[[Event], None]
FailureListener = Callable[[Listener, Exception], None]


class Trainer(Run):
    """A run of one method on one environment; the recipes (``wb.happo`` and others) make one.

    Settings are attributes: ``trainer.clip_epsilon`` reads one, ``trainer.clip_epsilon = 0.1`` changes it from the next
    phase on, and is kept in ``interventions``. A name that is no setting is refused.

    >>> import workbench as wb
    >>> env = wb.envs.mujoco("Hopper", "3x1", n_envs=2)
    >>> trainer = wb.happo(env, seed=0, n_steps=8, order="fixed", hidden_sizes=(16,))
    >>> trainer.phase, trainer.remaining
    ('collect', ('agent_0', 'agent_1', 'agent_2'))
    >>> [event.phase for event in trainer.iterate()]
    ['collect', 'estimate', 'update_agent', 'update_agent', 'update_agent', 'update_critic']
    """

    def __init__(self, setup: Setup, state: State, *, record: RunRecord | None = None) -> None:
        fields: dict[str, Any] = {
            "_setup": setup,
            "_state": state,
            "_record": record or RunRecord(made_with=checkpoint.plain_settings(state.settings)),
            "_lock": threading.RLock(),
            "_past": Past(len(setup.team.units)),
            "_listeners": [],
            "_failure_listeners": [],
        }
        # __setattr__ is for settings; these are the trainer's own.
        self.__dict__.update(fields)
        self._check_order(state.settings.order)

    _lock: threading.RLock
    _past: Past
    _listeners: list[Listener]
    _failure_listeners: list[FailureListener]

    # --- stepping -------------------------------------------------------------------------------------------------

    def step(self) -> Event:
        """Do one phase and return its event.

        A phase that fails (an environment that raises or shows NaN, a loss that is not finite) raises, and leaves the
        trainer where it was before it.
        """
        with self._lock, plain_torch():
            before = self._state
            after, event = PHASES[before.phase](self._setup, before)
            self._past.append(before)
            self.__dict__["_state"] = after
        self._tell(event)
        return event

    def iterate(self) -> Events:
        """Do the rest of this iteration: from wherever the cursor stands to the end of ``update_critic``."""
        events = [self.step()]
        while self.phase != "collect":
            events.append(self.step())
        return Events(events)

    def run(
        self,
        iterations: int | None = None,
        *,
        env_steps: int | None = None,
        evaluate_every: int | None = None,
        evaluate_episodes: int = 10,
        sampled_episodes: int = 0,
        measure_improvement_every: int | None = None,
        improvement_episodes: int = 100,
        directory: str | Path | None = None,
        save_every: int = 10,
        progress: bool = True,
        after_iteration: Callable[[Trainer], object] | None = None,
        log: str | Logger | None = None,
    ) -> Trainer:
        """Train for ``iterations`` more, or until ``env_steps`` in all, with a progress bar; returns the trainer.

        ``evaluate_every`` k iterations the policies are evaluated on ``evaluate_episodes`` episodes, and on
        ``sampled_episodes`` in which actions are drawn, into ``evaluations``; ``measure_improvement_every`` k of them
        ``wb.improvement(trainer, improvement_episodes)`` goes into ``improvements``. An interrupt (Ctrl-C, the
        notebook's stop button) stops at the next phase boundary and raises ``KeyboardInterrupt`` there, with the
        trainer ready to go on; a second one stops at once, and what the unfinished phase did is dropped.

        With a ``directory`` a checkpoint is kept there every ``save_every`` iterations and at the end (the last two
        stay), and at a termination signal before the process ends; so is the run at its best evaluation so far, in
        ``best.safetensors``. If the directory holds a checkpoint of this run already, the run goes on from there: the
        same lines, started again after a kill, end with the same bits.

        ``after_iteration(trainer)`` is called when an iteration is complete, before its checkpoint is written: to
        evaluate in another rhythm, to write results down. Where it returns True the run ends there, as if it had come
        to its goal; what it raises ends the run too.

        ``log="tensorboard"`` writes every iteration's numbers as it ends, to ``directory``/tensorboard, or without a
        directory where TensorBoard itself puts a run: a folder of runs/. Or any object with ``log(numbers, step)``, as
        Weights & Biases and trackio have it: {"run/return": …, "agents/agent_0/kl": …} by environment steps.
        """
        goal = self._goal(iterations, env_steps)
        whole("save_every", save_every, 1), whole("evaluate_episodes", evaluate_episodes, 1)
        whole("sampled_episodes", sampled_episodes, 0)
        if after_iteration is not None:
            _function("after_iteration", after_iteration, "trainer")
        whole("improvement_episodes", improvement_episodes, 2)
        measure_improvement_every = whole_or_none("measure_improvement_every", measure_improvement_every, 1)
        evaluate_every = whole_or_none("evaluate_every", evaluate_every, 1)
        kept = None if directory is None else CheckpointDirectory(path_of("directory", directory))
        check_logger(log)
        if kept is not None:
            self._go_on_from(kept.make())
        with (
            PhaseBoundaryInterrupt(terminate=kept is not None) as interrupt,
            self._progress_bar(goal, progress) as bar,
            logging_to(log, None if kept is None else kept.path, self.env_steps) as tell,
        ):
            ended = False
            while not ended and (self.env_steps < goal or self.phase != "collect"):
                self.step()
                bar.update(min(self.env_steps, goal) - bar.n)
                complete = self.phase == "collect"
                if complete:
                    evaluated = len(self._state.evaluations)
                    if evaluate_every and self.iteration % evaluate_every == 0:
                        self.evaluate(evaluate_episodes, sampled_episodes=sampled_episodes)
                    if measure_improvement_every and self.iteration % measure_improvement_every == 0:
                        self._keep_improvement(improvement_episodes)
                    ended = after_iteration is not None and _is_true(after_iteration(self))
                    if kept is not None and len(self._state.evaluations) > evaluated and self._best_so_far():
                        kept.write_best(*self._document())
                    tell(self._state, evaluated)
                    bar.set_postfix_str(self._latest_return(ended), refresh=False)
                due = complete and (self.iteration % save_every == 0 or self.env_steps >= goal or ended)
                if kept is not None and (due or interrupt.terminating):
                    kept.write(*self._document())
                interrupt.raise_if_asked(self._stopping_place())
        return self

    def _goal(self, iterations: int | None, env_steps: int | None) -> int:
        """The environment steps, in all, at which a run ends."""
        if (iterations is None) == (env_steps is None):
            raise ValueError("run() takes either iterations= or env_steps=, such as run(iterations=50).")
        if env_steps is not None:
            return whole("env_steps", env_steps, 0)
        return self.env_steps + whole("iterations", iterations, 0) * self._setup.env.n_envs * self.settings.n_steps

    def _stopping_place(self) -> str:
        """Where the cursor stands, for people, who count iterations from 1."""
        if self.phase == "collect":
            return f"after iteration {self.iteration}"
        return f"in iteration {self.iteration + 1}, before {self._following()}"

    def _progress_bar(self, goal: int, shown: bool) -> Any:
        bar = tqdm
        if shown and "ipykernel" in sys.modules:
            from workbench.jupyter.run_progress import NotebookBar, in_notebook

            bar = NotebookBar if in_notebook() else tqdm
        return bar(
            total=goal,
            initial=min(self.env_steps, goal),
            unit=" env steps",
            unit_scale=True,
            desc=self._setup.method.name,
            disable=not shown,
            file=sys.stderr,
            mininterval=0.5,
        )

    def _best_so_far(self) -> bool:
        """Whether the newest evaluation is better than all before it on as many episodes."""
        *earlier, newest = self._state.evaluations
        alike = [row for row in earlier if all(row[name] == newest[name] for name in ("episodes", "deterministic"))]
        return all(newest["return"] > row["return"] for row in alike)

    def _latest_return(self, ended: bool) -> str:
        """What stands beside the bar: the newest return, and that ``after_iteration`` ended the run, if so."""
        known = [f"return {row['return']:.4g}" for row in self._state.history if row["episodes"]][-1:]
        said = f"after_iteration ended it after iteration {self.iteration}"
        return " · ".join([*known, *([said] if ended else [])])

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener(event)`` after each phase; returns what unsubscribes it.

        A listener gets plain values and cannot alter the run; if it raises, a warning says so and training goes on.
        """
        self._listeners.append(_function("listener", listener, "event"))
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def on_listener_failure(self, report: FailureListener) -> Callable[[], None]:
        """Call ``report(listener, error)`` where a listener fails, in place of the warning; returns what ends that."""
        self._failure_listeners.append(_function("report", report, "listener, error"))
        return lambda: self._failure_listeners.remove(report) if report in self._failure_listeners else None

    def _tell(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception as error:
                for report in tuple(self._failure_listeners):
                    report(listener, error)
                if not self._failure_listeners:
                    warnings.warn(f"the listener {listener!r} failed: {error!r}; training goes on.", stacklevel=3)

    def evaluate(
        self,
        episodes: int = 10,
        *,
        deterministic: bool = True,
        seed: int = 0,
        sampled_episodes: int = 0,
        max_steps: int | None = None,
    ) -> npt.NDArray[np.float64]:
        """Undiscounted returns (episodes,) of whole episodes in which every agent takes its most probable action.

        With ``deterministic=False`` actions are drawn, as in training. Played in an environment of its own, so that
        nothing of the run changes; the same ``seed`` starts the same episodes. The mean goes into ``evaluations``,
        and beside it, as ``sampled_return``, that of ``sampled_episodes`` more in which actions are drawn.

        ``max_steps``: an episode counts as it stands after so many, for games that end only once they are solved.
        Without, an episode of 20,000 steps is taken for one without an end, and raises ``EnvironmentFailedError``.
        """
        max_steps = whole_or_none("max_steps", max_steps, 1)
        episodes, seed = whole("episodes", episodes, 1), whole("seed", seed, 0)
        sampled_episodes = whole("sampled_episodes", sampled_episodes, 0)
        with self._lock, plain_torch():
            state = self._state
            returns, lengths = self._played(episodes, deterministic, seed, max_steps)
            row = {
                "iteration": state.iteration,
                "env_steps": state.env_steps,
                "return": float(returns.mean()),
                "return_std": float(returns.std()),
                "episode_length": float(lengths.mean()),
                "episodes": episodes,
                "deterministic": bool(deterministic),
                "returns": tuple(returns.tolist()),
            }
            if sampled_episodes:
                row["sampled_return"] = float(self._played(sampled_episodes, False, seed, max_steps)[0].mean())
            self.__dict__["_state"] = replace(state, evaluations=state.evaluations.append(row))
        return returns

    def _played(
        self, episodes: int, deterministic: bool, seed: int, max_steps: int | None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Returns and lengths of episodes by the policies as they are."""
        env, streams = self.env.remake(min(episodes, MAX_ENVS)), self._setup.streams
        agents = enumerate(self.env.agents)
        drawn = {agent: streams.torch("evaluation actions", seed, index) for index, agent in agents}
        try:
            start, actor = streams.integer("evaluation", index=seed), actor_of(self._setup, self._state)
            return evaluate(env, actor, episodes, start, None if deterministic else drawn, max_steps)
        finally:
            env.close()

    # --- changing -------------------------------------------------------------------------------------------------

    def _set(self, name: str, value: object) -> None:
        with self._lock:
            before = self._state
            if name == "order" and before.phase == "update_agent":
                after, outcome = self._reordered(value)
            else:
                if name == "order":
                    self._check_order(value)
                after = replace(before, settings=before.settings.changed(**{name: value}))
                if name == "n_steps":
                    refuse_unfit_rollout(self._setup.env, self._setup.team, after.settings)
                outcome = f"in effect from the next {before.phase} on"
            for_this_iteration = after.settings is before.settings  # the order of those who are left, and no setting
            new = after.order[before.position :] if for_this_iteration else getattr(after.settings, name)
            self.__dict__["_state"] = noted(after, name, new)
            untouched = before.iteration == 0 and before.phase == "collect"
            if untouched:  # before the first phase a change is configuration, and the run is what it says it is
                made_with = checkpoint.plain_settings(after.settings)
                self.__dict__["_record"] = replace(self._record, made_with=made_with)
            else:
                self._log(name, getattr(before.settings, name), new, outcome)

    def _reordered(self, order: Any) -> tuple[State, str]:
        """The state with those who are left in the order asked for."""
        state, left = self._state, self.remaining
        some = [] if isinstance(order, str) or callable(order) else list(order)
        if len(some) == len(left) < len(self.units):
            chosen = orders.resolve_permutation(some, left, self._setup.team.resolve)
            outcome = f"this iteration goes on with {' → '.join(chosen)}; the setting stays as it was"
            return replace(state, order=state.order[: state.position] + chosen, manual_order=True), outcome
        self._check_order(order)
        changed = replace(state, settings=state.settings.changed(order=order))
        chosen = draw_order(self._setup, changed, left)
        outcome = f"this iteration goes on with {' → '.join(chosen)}"
        return replace(changed, order=state.order[: state.position] + chosen, manual_order=False), outcome

    def _check_order(self, order: Any) -> None:
        """Refuse what is no order of this team before anything is changed."""
        resolve = self._setup.team.resolve
        if not isinstance(order, str) and not callable(order):
            orders.resolve_permutation(tuple(order), self.units, resolve)
        orders.rule_for(order, resolve)

    def _log(self, name: str, old: object, new: object, outcome: str) -> None:
        state = self._state
        change = Intervention(state.iteration, state.phase, state.position, name, old, new, outcome)
        self.__dict__["_record"] = replace(self._record, interventions=(*self.interventions, change))

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are no attribute: the settings.
        state = self.__dict__.get("_state")
        if state is not None and name in state.settings.names():
            return getattr(state.settings, name)
        if state is None or name.startswith("__"):
            raise AttributeError(name)
        raise unknown_name(
            f"attribute of a {self.method} trainer", name, [each for each in dir(self) if not each.startswith("_")]
        )

    def __setattr__(self, name: str, value: object) -> None:
        if name == "order":
            self._set(name, value)
        elif name in self.settings.names():
            if not self.settings.is_live(name):
                raise AttributeError(
                    f"{name} is fixed when a run is made; make another one: wb.{self._setup.method_name}"
                    f"(env, {name}={value!r})."
                )
            self._set(name, value)
        elif hasattr(type(self), name):
            raise AttributeError(f"{name} can be read, not set.")
        else:
            raise unknown_name(f"setting of {self.method}", name, self.settings.names())

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.settings.names()})

    # --- going back, branching, keeping ---------------------------------------------------------------------------

    def rewind(self, phases: int | None = None, *, iterations: int | None = None) -> Trainer:
        """Go back by so many phases, or to the beginning of an iteration so many before this one; returns the trainer.

        ``rewind(iterations=0)`` goes to the beginning of the iteration under way. Everything goes back, settings and
        history too; only ``interventions`` keeps what was done. Raises ``ValueError`` where the past that is kept does
        not reach so far, ``SnapshotUnsupported`` where the environment cannot go back.
        """
        if phases is not None and iterations is not None:
            raise ValueError("rewind() takes either phases= or iterations=, such as rewind(phases=1).")
        if iterations is not None:
            iterations = whole("iterations", iterations, 0)
        else:
            phases = 1 if phases is None else whole("phases", phases, 1)
        with self._lock:
            self._require_snapshots("rewind")
            before = self._state
            if phases is not None:
                reached = self._past.back(phases)
            else:
                reached = self._past.beginning_of(self.iteration - int(iterations or 0), before)
            if reached is not before:
                self._past.go_back_to(reached)
            self.__dict__["_state"] = reached
            asked = f"{phases} phases" if phases is not None else f"{iterations} iterations"
            self._log("rewind", before.iteration, reached.iteration, f"went back by {asked}")
        return self

    @property
    def past(self) -> Past:
        """The states that ``rewind`` can reach, with their number and memory; ``past.limit(…)`` changes the bounds."""
        return self._past

    def fork(self, **changes: Any) -> Trainer:
        """A copy from here on, with changes: ``trainer.fork(clip_epsilon=0.05)``. This trainer stays as it is.

        What has not changed is shared, the environment too (each goes on from its own snapshot of it). ``lineage`` says
        whose fork it is and from where; changes are in its ``interventions``.
        """
        with self._lock:
            self._require_snapshots("fork")
            copy = self._branch(noted(self._state, FORK), changes)
            copy.__dict__["_past"] = self._past.copy()
        for name, value in changes.items():
            setattr(copy, name, value)
        return copy

    def _branch(self, state: State, changes: Mapping[str, object]) -> Trainer:
        """A trainer of its own that goes on from ``state``, a moment of this run."""
        there = Trainer(self._setup, state, record=self._record)
        parent = {
            "method": self.method,
            "seed": self.seed,
            "iteration": state.iteration,
            "phase": state.phase,
            "position": state.position,
            "fingerprint": there.fingerprint(),
            "changes": dict(changes),
        }
        there.__dict__["_record"] = replace(self._record, lineage=(*self.lineage, parent))
        return there

    def _with_other_noise(self, purpose: str, seed: int, repeat: int) -> Trainer:
        """A fork that goes on with other random numbers, and knows nothing of the past."""
        self._require_snapshots(purpose)
        with self._lock:
            streams = Streams(self._setup.streams.integer(f"{purpose} {seed}", self.iteration, repeat))
            state = with_other_generators(self._setup, self._state, streams)
            return Trainer(replace(self._setup, streams=streams), state, record=self._record)

    def start_at(
        self, place: EpisodeSnapshot, actions: Sequence[Mapping[str, Any]] = (), state: State | None = None
    ) -> Trainer:
        """A fork at the beginning of an iteration, every environment standing where ``actions`` lead to from ``place``.

        What a replay's ``start_here()`` does. ``state`` is the moment of the run whose policies go on, by default now;
        an iteration that it is in the middle of is left out. The first environment keeps the random generator of
        ``place``, the others go on with their own.
        """
        with self._lock, plain_torch():
            moment = at_beginning(self._state if state is None else state)
            steps = place.length + len(actions)
            fork = self._branch(moment, {"start": steps})
            gap = "a replay's start_here() parted from the run here: fork.start_at(place) takes the frame"
            fork.__dict__["_state"] = noted(standing_at(self._setup, moment, place, actions), "start", gap=gap)
            fork._log("start", None, steps, f"all environments stand {steps} steps into one episode")
        return fork

    # --- watching -------------------------------------------------------------------------------------------------

    def replay(
        self,
        episodes: int = 1,
        deterministic: bool = True,
        *,
        seed: int = 0,
        past: object = None,
        ghost: object = None,
        max_steps: int | None = None,
    ) -> Any:
        """Episodes by the policies as they are, to watch: in three dimensions, coloured by the agent that moves what.

        Played in environments of their own, so that nothing of the run changes.

        episodes       how many; episode k starts as every one with ``seed + k`` does
        deterministic  every agent's most probable action; else actions are drawn
        past           earlier moments for a second scrubber: True for all iterations that ``past`` reaches, a number
                       for so many of them, or ``wb.Snapshots``
        ghost          a fork, another run, or policies, shown translucent in the same scene from the same start
        max_steps      where to stop an episode that has not ended by then
        """
        from workbench.jupyter.replay.create import of_trainer

        with self._lock:
            return of_trainer(self, episodes, deterministic, seed=seed, past=past, ghost=ghost, max_steps=max_steps)

    def replay_rollout(
        self, env: int = 0, start: int = 0, stop: int | None = None, *, iteration: int | None = None
    ) -> Any:
        """Steps ``start`` to ``stop`` of one environment in a rollout that the run trained on, to watch.

        The last rollout, or that of an ``iteration`` that ``past`` still reaches. Each episode within it is one to
        choose; it is stepped again from the rollout's beginning, to the same bits.
        """
        from workbench.jupyter.replay.create import of_rollout

        with self._lock:
            return of_rollout(self, env, start, stop, iteration)

    def _keep_improvement(self, episodes: int) -> None:
        """Take the iteration that is just complete apart, into ``improvements``."""
        rows = take_apart(self._setup, self._last_iteration(), episodes).table.to_dict("records")
        state = self._state
        self.__dict__["_state"] = replace(state, improvements=state.improvements.append(*rows))

    def _last_iteration(self) -> list[State]:
        """The states before each phase of the iteration that is just complete, and the present one."""
        self._require_snapshots("improvement")
        with self._lock:
            kept = [state for state in self._past if state.iteration == self.iteration - 1]
            if not kept or kept[0].phase != "collect":
                raise ValueError(
                    f"the iteration before {self.iteration} is not kept: trainer.iterate() first, or trainer.past.limit"
                    "(iterations=1) where nothing is; which='next' takes the one to come."
                )
            return [*kept, self._state]

    def _require_snapshots(self, what: str) -> None:
        if self._state.env is None:
            try:
                self.env.snapshot()
            except SnapshotUnsupported as reason:
                raise SnapshotUnsupported(f"no {what}: {reason}") from None

    def save(self, path: str | Path) -> Path:
        """Write everything to one file, whole or not at all; ``wb.load(path)`` goes on from it bit for bit."""
        with self._lock:
            arrays, held = self._document()
        return checkpoint.write(path_of("path", path), arrays, held)

    def _document(self) -> tuple[checkpoint.Arrays, checkpoint.Values]:
        return resume.document(self._setup, self._state, self._record, _version())

    def _go_on_from(self, directory: CheckpointDirectory) -> None:
        """Take up the newest checkpoint of a directory, if it holds one that is further than this trainer."""
        found = directory.newest()
        if found is None:
            return
        path, arrays, held = found
        with resume.refusing(path):
            resume.check_document(arrays, held)
        resume.refuse_another_run(path, held, self._setup, self._record)
        if (held["state"]["iteration"], held["state"]["env_steps"]) < (self.iteration, self.env_steps):
            raise CheckpointError(
                f"{str(path)!r} is behind this trainer, which is at iteration {self.iteration}. Choose another "
                "directory, or make the trainer anew to go on from there."
            )
        order = self.order if callable(self.order) else None
        with resume.refusing(path):
            settings = self.settings.changed(**resume.settings_of(path, held, order))
        with self._lock, plain_torch():
            self.__dict__["_state"] = resume.state_of(path, arrays, held, self._setup, settings)
            self.__dict__["_record"] = resume.record_of(held)
            self._past.clear()


def _function(name: str, value: object, takes: str) -> Any:
    """``value`` if it can be called."""
    if not callable(value):
        raise TypeError(f"{name} is {value!r}; expected a function of ({takes}).")
    return value


def _is_true(answer: object) -> bool:
    """Whether a function said True, and not merely something: an array has no truth, and a table is no answer."""
    return isinstance(answer, bool | np.bool_) and bool(answer)


def _version() -> str:
    from workbench import __version__

    return __version__
