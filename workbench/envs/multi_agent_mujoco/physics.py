"""Stepping many simulations of one model at once, to the bits that one ``MjData`` each would give.

All engines hold the same rows, ``mj_getState(mjSTATE_INTEGRATION)`` of every simulation, warm starts included, so that
what one saves another can load.

``BatchEngine``     MuJoCo's own batch: the fastest, but without the forces of contacts (``cfrc_ext``)
``ThreadedEngine``  one ``MjData`` for each simulation, stepped by Python threads: has ``cfrc_ext`` on every platform
``NativeEngine``    the batch through MuJoCo's C interface, with ``cfrc_ext``: see ``native.py``
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from mujoco import batch as mujoco_batch

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp] | slice

ALL: slice = slice(None)
STATE = mujoco.mjtState.mjSTATE_INTEGRATION
CONTACT_FORCES = "cfrc_ext"

# Neither changes a bit in the models shipped with Gymnasium; together they cost 7 to 13 % there.
_IDLE_FEATURES = mujoco.mjtDisableBit.mjDSBL_ISLAND | mujoco.mjtDisableBit.mjDSBL_MIDPHASE


def without_idle_features(model: mujoco.MjModel) -> mujoco.MjModel:
    """``model``, with constraint islands and mid-phase collision off: small robots gain nothing by them."""
    model.opt.disableflags |= _IDLE_FEATURES
    return model


def derived_size(model: mujoco.MjModel, name: str) -> int:
    """How many numbers one simulation's field ``name`` holds."""
    return int(np.size(getattr(mujoco.MjData(model), name)))


def state_columns(model: mujoco.MjModel, component: mujoco.mjtState) -> slice:
    """Where a component of the state lies within a row."""
    start = mujoco.mj_stateSize(model, int(STATE) & (int(component) - 1))
    return slice(start, start + mujoco.mj_stateSize(model, int(component)))


class PhysicsEngine(ABC):
    """``n_envs`` simulations.

    motion   (n_envs, nq + nv) float64, live: positions, then velocities; ``qpos`` and ``qvel`` are its two halves
    ctrl     (n_envs, nu) float64, live: the controls of the next step
    fields   {name: (n_envs, ...)}, live: the derived ``MjData`` fields asked for, as the last call left them
    """

    motion: Floats
    ctrl: Floats
    fields: dict[str, Floats]

    def __init__(self, model: mujoco.MjModel, n_envs: int, n_threads: int, frame_skip: int) -> None:
        self.model = model
        self.n_envs = n_envs
        self.n_threads = max(1, min(n_threads, n_envs))
        self.frame_skip = frame_skip

    def _split_motion(self) -> None:
        self.qpos = self.motion[:, : self.model.nq]
        self.qvel = self.motion[:, self.model.nq :]

    def physics_only_step(self, controls: Floats) -> None:
        """The physics of one environment step and nothing else: what no environment can be faster than."""
        self.ctrl[:] = controls
        self.step()

    @abstractmethod
    def step(self) -> None:
        """Advance every simulation by ``frame_skip`` time steps under ``ctrl``."""

    @abstractmethod
    def save(self) -> Floats:
        """(n_envs, size) float64, a copy of all states."""

    @abstractmethod
    def load(self, state: Floats, envs: Rows = ALL) -> None:
        """Give ``envs`` states that an engine saved, here or elsewhere; their fields are stale until the next step."""

    @abstractmethod
    def close(self) -> None:
        """Give Python threads back. Safe to call twice."""


class RowEngine(PhysicsEngine):
    """Engines whose live arrays are columns of one array of states, ``state`` (n_envs, size)."""

    state: Floats

    def _adopt(self, state: Floats) -> None:
        self.state = state
        qpos = state_columns(self.model, mujoco.mjtState.mjSTATE_QPOS)
        qvel = state_columns(self.model, mujoco.mjtState.mjSTATE_QVEL)
        self.motion = state[:, qpos.start : qvel.stop]
        self.ctrl = state[:, state_columns(self.model, mujoco.mjtState.mjSTATE_CTRL)]
        self._split_motion()

    def save(self) -> Floats:
        return self.state.copy()

    def load(self, state: Floats, envs: Rows = ALL) -> None:
        self.state[envs] = state

    def close(self) -> None:
        """Nothing to do: MuJoCo's threads and memory go when the engine goes."""


class BatchEngine(RowEngine):
    """``mujoco.batch.Batch``."""

    def __init__(
        self, model: mujoco.MjModel, n_envs: int, n_threads: int, frame_skip: int, fields: Iterable[str] = ()
    ) -> None:
        super().__init__(model, n_envs, n_threads, frame_skip)
        # One MjData for each thread is enough: steps compute every field bound here, and stay in the cache.
        self._batch = mujoco_batch.Batch(model, n_envs, self.n_threads)
        self._adopt(self._batch.state)
        self.fields = {name: self._batch.bind(name) for name in fields}

    def step(self) -> None:
        self._batch.step(nstep=self.frame_skip)

    def begin(self, envs: npt.NDArray[np.intp], motion: Floats) -> None:
        """Reset simulations ``envs`` (ascending) and put them at ``motion``, as Gymnasium resets and sets a state."""
        self._batch.reset(envs, stage=0)
        self.motion[envs] = motion
        # Leaves the warm start that Gymnasium's set_state leaves.
        self._batch.forward(envs)


class ThreadedEngine(PhysicsEngine):
    """One ``MjData`` for each simulation; MuJoCo releases Python's lock while it steps one."""

    def __init__(
        self, model: mujoco.MjModel, n_envs: int, n_threads: int, frame_skip: int, fields: Iterable[str] = ()
    ) -> None:
        super().__init__(model, n_envs, n_threads, frame_skip)
        self._data = [mujoco.MjData(model) for _ in range(n_envs)]
        self._controls = [data.ctrl for data in self._data]
        self._pool = ThreadPoolExecutor(self.n_threads - 1) if self.n_threads > 1 else None
        self.motion = np.zeros((n_envs, model.nq + model.nv))
        self.ctrl = np.zeros((n_envs, model.nu))
        self.fields = {}
        # Where each array is gathered from: one np.concatenate reads all simulations.
        self._sources: list[tuple[list[Any], Floats]] = [
            ([part for data in self._data for part in (data.qpos, data.qvel)], self.motion.reshape(-1))
        ]
        for name in fields:
            views = [getattr(data, name) for data in self._data]
            self.fields[name] = np.zeros((n_envs, *views[0].shape))
            self._sources.append((views, self.fields[name].reshape(-1, *views[0].shape[1:])))
        self._split_motion()

    def _gather(self) -> None:
        for views, target in self._sources:
            np.concatenate(views, out=target)

    def _advance(self, queue: itertools.count[int]) -> None:
        # next() of a count is atomic, so threads share one queue and none waits for a slow simulation.
        while (env := next(queue)) < self.n_envs:
            data = self._data[env]
            self._controls[env][:] = self.ctrl[env]
            mujoco.mj_step(self.model, data, nstep=self.frame_skip)
            mujoco.mj_rnePostConstraint(self.model, data)

    def step(self) -> None:
        queue = itertools.count()
        helpers = [self._pool.submit(self._advance, queue) for _ in range(self.n_threads - 1)] if self._pool else []
        self._advance(queue)
        for helper in helpers:
            helper.result()
        self._gather()

    def save(self) -> Floats:
        state = np.empty((self.n_envs, mujoco.mj_stateSize(self.model, int(STATE))))
        for row, data in zip(state, self._data, strict=True):
            mujoco.mj_getState(self.model, data, row, int(STATE))
        return state

    def load(self, state: Floats, envs: Rows = ALL) -> None:
        chosen = np.arange(self.n_envs)[envs]
        for row, env in zip(state, chosen, strict=True):
            mujoco.mj_setState(self.model, self._data[env], np.ascontiguousarray(row), int(STATE))
        first = state_columns(self.model, mujoco.mjtState.mjSTATE_QPOS).start
        self.motion[envs] = state[:, first : first + self.motion.shape[1]]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
