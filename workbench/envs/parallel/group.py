"""Several copies side by side: what one process steps, and what it hands back in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.envs.base import Array
from workbench.envs.parallel.interface import asking
from workbench.envs.parallel.one_copy import Copy, CopyView, Layout, Options, StepOutcome
from workbench.envs.parallel.plain_values import Arrays
from workbench.envs.parallel.spaces import IncompatibleEnvironmentError, Mask, Vector

MakeEnv = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """What k copies show after ``reset`` or ``step``, agents in the layout's order.

    observations, state, masks   of the episode that goes on, by agent (k, …)
    active                       (k, n) bool
    rewards, joint_reward        (k, n), (k,) float64
    terminated, truncated        (k,) bool
    final_observations, final_state   the last sights of the copies that ended, in their order
    """

    observations: dict[str, Vector]
    state: Vector
    masks: dict[str, Mask]
    active: Mask
    rewards: npt.NDArray[np.float64]
    joint_reward: npt.NDArray[np.float64]
    terminated: Mask
    truncated: Mask
    final_observations: dict[str, Vector]
    final_state: Vector


class Group:
    """The copies of environments ``indices``, in one process; whatever one raises is noted with its index."""

    def __init__(self, make_env: MakeEnv, indices: Sequence[int], options: Options) -> None:
        self.indices = tuple(indices)
        self._make_env, self._options = make_env, options
        self.copies: list[Copy] = []
        self._made: list[Any] = []
        try:
            for index in self.indices:
                with self._naming(index):
                    self.copies.append(self._copy(self._new(), index))
        except BaseException:
            self.close()
            raise
        self.layout: Layout = self.copies[0].layout
        self.expect_masks(self.layout.masked.union(*(copy.masked for copy in self.copies)))

    def _new(self) -> Any:
        with asking("maker, the function given,"):
            return self._make_env()

    def _copy(self, env: Any, index: int) -> Copy:
        if any(env is other for other in self._made):
            raise IncompatibleEnvironmentError(
                "make_parallel_env returned the same environment twice; it must make a new one at every call."
            )
        self._made.append(env)
        copy = Copy(env, self._options, first_seed=index)
        if self.copies and copy.layout != self.copies[0].layout:
            raise IncompatibleEnvironmentError(
                f"its agents or spaces are not those of environment {self.indices[0]}; make all copies alike."
            )
        return copy

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"This came from environment {index}.")
            raise

    def get_layout(self) -> Layout:
        return replace(self.layout, masked=self.copies[0].masked)

    def expect_masks(self, agents: frozenset[str]) -> None:
        """Those of ``agents`` may be limited in some copy, so that all have masks."""
        for copy in self.copies:
            copy.masked = agents

    def reset(self, seeds: Sequence[int | None]) -> Rows:
        for row, (index, seed) in enumerate(zip(self.indices, seeds, strict=True)):
            with self._naming(index):
                if seed is not None and self.copies[row].used:
                    self._renew(row)
                self.copies[row].last_picture = None
                self.copies[row].reset(seed)
        nothing = StepOutcome(np.zeros(len(self.layout.agents)), 0.0, False, False)
        return self._rows([nothing] * len(self.copies), [])

    def _renew(self, row: int) -> None:
        """Make a copy anew: some environments carry something over from one episode to the next, whatever the seed."""
        env, old = self._new(), self._made[row]
        if env is not old:
            _close(old)
            self._made[row] = env
            self.copies[row] = self.copies[row].like(env, self.indices[row])

    def step(self, actions: Mapping[str, Array]) -> Rows:
        """One step of every copy; those that end are reset, their last sights handed back."""
        outcomes, finals = [], []
        for row, (index, copy) in enumerate(zip(self.indices, self.copies, strict=True)):
            with self._naming(index):
                outcome = copy.step({agent: joint[row] for agent, joint in actions.items()})
                if outcome.terminated or outcome.truncated:
                    finals.append(copy.look)
                    copy.keep_picture()
                    copy.reset()
            outcomes.append(outcome)
        return self._rows(outcomes, finals)

    def _rows(self, outcomes: Sequence[StepOutcome], finals: Sequence[CopyView]) -> Rows:
        looks = [copy.look for copy in self.copies]
        agents, spaces = self.layout.agents, self.layout.observation_spaces
        last = {agent: [look.observations[agent] for look in finals] for agent in agents}
        return Rows(
            observations={agent: np.stack([look.observations[agent] for look in looks]) for agent in agents},
            state=np.stack([look.state for look in looks]),
            masks={
                agent: np.stack([look.masks[agent] for look in looks])
                for agent in agents
                if agent in self.copies[0].masked
            },
            active=np.stack([look.active for look in looks]),
            rewards=np.stack([outcome.rewards for outcome in outcomes]),
            joint_reward=np.array([outcome.joint_reward for outcome in outcomes]),
            terminated=np.array([outcome.terminated for outcome in outcomes]),
            truncated=np.array([outcome.truncated for outcome in outcomes]),
            final_observations={agent: _stacked(last[agent], spaces[agent].shape) for agent in agents},
            final_state=_stacked([look.state for look in finals], self.layout.state_space.shape),
        )

    def render_state(self) -> npt.NDArray[np.uint8] | None:
        """Every copy's picture, or None where they make none."""
        pictures = []
        for index, copy in zip(self.indices, self.copies, strict=True):
            with self._naming(index):
                pictures.append(copy.picture())
        return None if any(picture is None for picture in pictures) else np.stack(pictures)  # type: ignore[arg-type]

    def snapshot(self) -> Arrays:
        """Every copy's arrays, under its index."""
        arrays: Arrays = {}
        for index, copy in zip(self.indices, self.copies, strict=True):
            with self._naming(index):
                arrays |= {f"{index}/{name}": array for name, array in copy.snapshot().items()}
        return arrays

    def restore(self, arrays: Mapping[str, Array]) -> None:
        for index, copy in zip(self.indices, self.copies, strict=True):
            start = f"{index}/"
            with self._naming(index):
                copy.last_picture = None
                copy.restore({name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)})

    def close(self) -> None:
        while self._made:
            _close(self._made.pop())


def _close(env: object) -> None:
    if hasattr(env, "close"):
        env.close()


def _stacked(vectors: Sequence[Vector], shape: tuple[int, ...]) -> Vector:
    return np.stack(vectors) if vectors else np.zeros((0, *shape), np.float32)


def concatenated(parts: Sequence[Rows]) -> Rows:
    """The rows of several groups, one after the other."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], dict):
            return {key: np.concatenate([value[key] for value in values]) for key in values[0]}
        return np.concatenate(values)

    return Rows(**{name: joined(name) for name in Rows.__dataclass_fields__})
