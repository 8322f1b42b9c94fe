"""The contract between a team's environment and everything that trains in it.

A ``TeamEnv`` is a batch of ``n_envs`` copies of one cooperative Markov game: n agents, known by name, see
``observations``, take ``actions`` together, and share **one** joint reward. The critic sees ``state``.

Glossary
--------
terminated      the game itself ended (a fall, a goal): nothing follows, the value of what follows is 0
truncated       a clock stopped an episode that would have gone on: what follows is worth V(final state)
same-step reset an environment that ends is reset within the same ``step``: the observations handed back are the new
                episode's first, and the true last ones are in ``TimeStep.final``
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from workbench.envs.registry import make
from workbench.errors import SnapshotUnsupported

if TYPE_CHECKING:
    from workbench.envs.parallel_view import ParallelView
    from workbench.envs.scene import Scene

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
Actions = Mapping[str, Array]
Snapshot = Mapping[str, Array]

# Of records that files hold, annotations give the shapes, and whose names the keys are: files are checked by them.
Agent = Annotated[str, "agents"]
SomeAgents = Annotated[str, "agents", "some"]


@dataclass(frozen=True, slots=True)
class Final:
    """What the environments that ended in this step last looked like, before their reset.

    envs          (k,) int, the indices of the environments that ended, ascending
    observations  {agent: (k, *observation shape)}
    state         (k, *state shape)
    """

    envs: npt.NDArray[np.intp]
    observations: Mapping[str, Array]
    state: Array


@dataclass(frozen=True, slots=True)
class TimeStep:
    """What the environments show after ``reset`` or ``step``. Fresh arrays: a later step never writes into them.

    observations  {agent: (n_envs, *observation shape)}, in the order of ``env.agents``
    state         (n_envs, *state shape), what a central critic may see
    reward        (n_envs,) float64, the joint reward of the step taken; 0 after ``reset``
    terminated    (n_envs,) bool, the game ended
    truncated     (n_envs,) bool, a time limit ended it; never true where ``terminated`` is
    final         the true last observations and state of those that ended, or None where none did
    action_masks  {agent: (n_envs, n_actions) bool}, True where an action may be taken; agents without limits are absent
                  (a ``MultiDiscrete``'s components lie end to end: (n_envs, sum(nvec)))
    active        {agent: (n_envs,) bool}, False where an agent has left before its team, or has no choice now, its mask
                  then allowing one action only; what it does there counts for nothing. Absent agents always act
    info          {name: (n_envs,) array}, further numbers about the step taken, such as the terms of the reward
    """

    observations: Mapping[Agent, Annotated[Array, "n_envs observation"]]
    state: Annotated[Array, "n_envs state"]
    reward: Annotated[npt.NDArray[np.float64], "n_envs"]
    terminated: Annotated[BoolArray, "n_envs"]
    truncated: Annotated[BoolArray, "n_envs"]
    final: Final | None = None
    action_masks: Mapping[SomeAgents, Annotated[BoolArray, "n_envs n_actions"]] = field(default_factory=dict)
    active: Mapping[SomeAgents, Annotated[BoolArray, "n_envs"]] = field(default_factory=dict)
    info: Mapping[str, Array] = field(default_factory=dict)

    @property
    def done(self) -> BoolArray:
        """(n_envs,) bool: ended, in either way."""
        return self.terminated | self.truncated

    def __repr__(self) -> str:
        shapes = ", ".join(f"{agent} {np.shape(seen)}" for agent, seen in self.observations.items())
        ended = "" if self.final is None else f", {len(self.final.envs)} ended"
        return f"TimeStep(observations: {shapes}; state {np.shape(self.state)}; reward {np.shape(self.reward)}{ended})"

    def shown(self) -> TimeStep:
        """What is left of a step for who acts on it: nothing of what the last one brought."""
        never = np.zeros(len(self.reward), np.bool_)
        nothing, masks = np.zeros(len(self.reward)), self.action_masks
        return TimeStep(self.observations, self.state, nothing, never, never, action_masks=masks, active=self.active)

    def select(self, envs: Sequence[int]) -> TimeStep:
        """What copies of some environments show, one for each of ``envs``; of what ended there, nothing."""
        chosen = list(envs)

        def rows(arrays: Mapping[str, Array]) -> dict[str, Array]:
            return {name: array[chosen] for name, array in arrays.items()}

        return TimeStep(
            rows(self.observations),
            self.state[chosen],
            self.reward[chosen],
            self.terminated[chosen],
            self.truncated[chosen],
            action_masks=rows(self.action_masks),
            active=rows(self.active),
            info=rows(self.info),
        )


class TeamEnv(ABC):
    """``n_envs`` copies of a cooperative game, stepped together. ``wb.envs.check(env)`` tests all that is said here.

    Attributes
    ----------
    n_envs              number of copies
    agents              the agents' names, in the order that integers stand for
    observation_spaces  {agent: space of one environment's observation}: flat ``Box``, shape (observation_dim,)
    action_spaces       {agent: space of one environment's action}: ``Box`` (dim,), ``Discrete`` or ``MultiDiscrete``
    state_space         ``Box``, shape (state_dim,)
    generator_rows      names of the arrays of a ``snapshot()`` that are random generators, a row for each copy
    rescales_actions    whether actions in a finite ``Box`` are learned in units of [−1, 1] and put into it on the way
                        out; False: policies act in the environment's own units
    """

    n_envs: int
    agents: tuple[str, ...]
    observation_spaces: Mapping[str, gymnasium.Space[Any]]
    action_spaces: Mapping[str, gymnasium.Space[Any]]
    state_space: gymnasium.spaces.Box
    generator_rows: ClassVar[tuple[str, ...]] = ()
    rescales_actions: ClassVar[bool] = True

    @property
    def one_hot_features(self) -> Mapping[str, BoolArray]:
        """{agent: (observation_dim,) bool}, True where a feature is part of a one-hot code, which learners leave as it
        is; of an absent agent none is.
        """
        return {}

    @property
    def one_hot_state(self) -> BoolArray | None:
        """(state_dim,) bool, the same of the state; None: no feature is."""
        return None

    @abstractmethod
    def reset(self, seed: int | None = None) -> TimeStep:
        """Start a new episode in every environment.

        With a ``seed``, environment i is seeded with ``seed + i``, as Gymnasium's vector environments do; without one,
        the generators go on from where they are.
        """

    @abstractmethod
    def step(self, actions: Actions) -> TimeStep:
        """Take one joint step in every environment; environments that end are reset in the same step.

        ``actions`` maps every agent to an array: (n_envs, action_dim) for ``Box``, (n_envs,) integers for ``Discrete``,
        (n_envs, k) integers for ``MultiDiscrete``. Raises ``ValueError`` naming the agent for a missing agent, a wrong
        shape or a NaN, and changes nothing then.
        """

    def snapshot(self) -> Snapshot:
        """Everything that determines the future, random generators included, as a flat mapping of plain arrays, copied.

        Plain arrays, so that a checkpoint can hold them and reading one executes no code.
        """
        raise SnapshotUnsupported(
            f"{type(self).__name__} cannot be copied: it has no snapshot(). Return every value that determines the "
            "future as a flat dict of NumPy arrays from snapshot(), and take them back in restore()."
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a ``snapshot()``, which is not consumed: the same actions then give the same bits."""
        raise SnapshotUnsupported(
            f"{type(self).__name__} cannot be copied: it has no restore(). Take back what snapshot() returned."
        )

    def select(self, snapshot: Snapshot, envs: Sequence[int]) -> Snapshot:
        """A snapshot of ``len(envs)`` copies: copy k is environment ``envs[k]`` of ``snapshot``, its generator too.

        So a replay takes one environment out of many, and a fork puts many where one was.
        """
        raise SnapshotUnsupported(
            f"{type(self).__name__} cannot take single environments out of a snapshot: it has no select(). Return the "
            "snapshot that an environment with n_envs=len(envs) would have given of those copies."
        )

    def render_state(self) -> Array | None:
        """What a viewer is shown (n_envs, …) after ``reset`` or ``step``; where an episode just ended, its last moment.

        Pictures (n_envs, height, width, 3) uint8, or what the environment's ``scene()`` makes poses of; None: nothing.
        """
        return None

    def scene(self) -> Scene | None:
        """The solids that ``render_state()`` moves, where it is no picture."""
        return None

    @property
    def description(self) -> Mapping[str, Any] | None:
        """Plain values (JSON) from which ``wb.envs.make(**description)`` builds an equal environment, or None."""
        return None

    def remake(self, n_envs: int) -> TeamEnv:
        """A fresh environment of the same kind with ``n_envs`` copies, for evaluation and replay.

        Raises ``NotImplementedError`` with the remedy where there is no ``description`` to build from.
        """
        if self.description is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no description to be rebuilt from. Override remake(n_envs) to return a "
                "fresh environment of the same kind, or description if it is one that wb.envs.make knows."
            )
        return make(**{**self.description, "n_envs": n_envs})

    def as_parallel_env(self) -> ParallelView:
        """One copy as a PettingZoo ``ParallelEnv``, for other libraries: this one if ``n_envs`` is 1, or ``remake(1)``.

        >>> import workbench as wb
        >>> single = wb.envs.mujoco("Hopper", "3x1").as_parallel_env()
        >>> observations, infos = single.reset(seed=0)
        >>> single.agents, observations["agent_0"].shape
        (['agent_0', 'agent_1', 'agent_2'], (14,))
        """
        from workbench.envs.parallel_view import ParallelView

        return ParallelView(self if self.n_envs == 1 else self.remake(1))

    def close(self) -> None:  # noqa: B027 - most hold nothing to release
        """Release what the environment holds (threads, processes, windows). Safe to call twice."""

    @property
    def can_snapshot(self) -> bool:
        """Whether ``snapshot`` and ``restore`` are there."""
        return type(self).snapshot is not TeamEnv.snapshot
