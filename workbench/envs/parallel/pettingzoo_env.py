"""Any PettingZoo parallel environment as a team's environment."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from workbench.envs.arguments import checked_actions, checked_snapshot, environment_seeds, positive_integer
from workbench.envs.base import Actions, Final, Snapshot, TeamEnv, TimeStep
from workbench.envs.parallel.group import Group, MakeEnv, Rows, concatenated
from workbench.envs.parallel.one_copy import Layout, Options
from workbench.envs.parallel.spaces import IncompatibleEnvironmentError, Mask
from workbench.envs.workers import WorkerPool
from workbench.errors import SnapshotUnsupported, unknown_name

REWARDS = ("sum", "mean")
STATES = ("auto", "observations")


class PettingZooTeamEnv(TeamEnv):
    """``n_envs`` copies of a PettingZoo parallel environment, in which the agents are one team.

    make_parallel_env  called once per copy; returns a new environment each time
    n_envs             number of copies
    reward             how the agents' rewards become the one joint reward: "sum", "mean" (over all n agents, those who
                       have left counting 0), or None where the environment gives all of them the same. Rewards that
                       differ by more than a millionth are then refused
    state              what the critic sees: "auto" is ``env.state()`` where there is one, else all agents' observations
                       end to end; "observations" is always the latter
    clip_actions       whether continuous actions are clipped to their space's bounds before the environment sees them
    max_episode_steps  an episode is truncated after so many steps, where the environment has not ended it; None: never
    workers            0: all copies in this process. k: shared out among k processes, for environments so slow that a
                       message there and back (some 0.1 ms) costs less than a step
    snapshot, restore  ``snapshot(env)`` returns all that determines one environment's future, its generators included,
                       as arrays, numbers, text, lists and dicts; ``restore(env, value)`` takes it back. Not needed
                       where the environment has ``get_state()`` and ``set_state(state)`` that do this. Without
                       either, the team's environment cannot be copied

    **Observations** of any fixed-length space are flattened to float32 vectors, discrete ones to one-hot. **Actions**
    are ``Box``, ``Discrete`` from 0, or ``MultiDiscrete``, whatever shape and start the environment's own have
    (``MultiBinary`` becomes a ``MultiDiscrete`` of twos). **Action masks** are taken from observations of the form
    {"observation", "action_mask"} or from infos["action_mask"]; several components' masks lie end to end. An agent
    whose mask allows nothing has no choice now, as those who wait for their turn: it is not ``active``, and what it is
    said to do counts for nothing. **Games of turns** (AEC) are converted by PettingZoo's own means.

    **Agents who leave early** are not ``active``, see zeros, and their actions go nowhere, until the others are done
    too, or until they are back in ``env.agents``; likewise those who join late. An episode is *truncated* if any of
    those who acted in its last step was truncated and not terminated: they would have gone on. Otherwise it is
    *terminated*.

    ``info`` has each agent's own reward, as "reward/NAME", where they are joined by "sum" or "mean".

    Raises ``IncompatibleEnvironmentError`` (a ``ValueError``) with the remedy for what cannot be a team's game, and
    ``workbench.envs.workers.WorkerError`` when a worker dies or its environment raises; ``reset()`` or ``restore()``
    then starts dead workers anew, and goes on.
    """

    def __init__(
        self,
        make_parallel_env: MakeEnv,
        n_envs: int = 8,
        *,
        reward: str | None = None,
        state: str = "auto",
        clip_actions: bool = True,
        max_episode_steps: int | None = None,
        workers: int = 0,
        snapshot: Callable[[object], object] | None = None,
        restore: Callable[[object, object], None] | None = None,
    ) -> None:
        if not callable(make_parallel_env):
            raise TypeError(
                f"make_parallel_env is a {type(make_parallel_env).__name__}; expected a function that makes a new "
                "environment at every call, such as lambda: simple_spread_v3.parallel_env()."
            )
        if reward is not None and reward not in REWARDS:
            raise unknown_name("reward", reward, REWARDS, "Leave it out where all agents get the same reward.")
        if state not in STATES:
            raise unknown_name("state", state, STATES)
        if (snapshot is None) != (restore is None):
            raise ValueError("snapshot and restore go together: give both or neither.")
        self.n_envs = positive_integer("n_envs", n_envs)
        if workers != 0 and positive_integer("workers", workers) > self.n_envs:
            raise ValueError(
                f"workers is {workers}, more than the {self.n_envs} environments; use {self.n_envs} at most."
            )
        self._make_env, self._workers = make_parallel_env, int(workers)
        if max_episode_steps is not None:
            max_episode_steps = positive_integer("max_episode_steps", max_episode_steps)
        self._options = Options(reward, state, bool(clip_actions), max_episode_steps, snapshot, restore)
        self._shares = np.array_split(np.arange(self.n_envs), max(1, self._workers))
        self._pool = self._make_pool()
        self._playing = False  # whether every copy is in an episode that step() may go on with
        try:
            self._layout = self._common_layout()
        except BaseException:
            self.close()
            raise
        self.agents = self._layout.agents
        self.observation_spaces = self._layout.observation_spaces
        self.action_spaces = self._layout.action_spaces
        self.state_space = self._layout.state_space

    def _make_pool(self) -> _Pool:
        groups = [functools.partial(Group, self._make_env, share.tolist(), self._options) for share in self._shares]
        if self._workers == 0:
            return _Here(groups[0]())
        names = [
            f"environments {share[0]} to {share[-1]}" if len(share) > 1 else f"environment {share[0]}"
            for share in self._shares
        ]
        return WorkerPool(groups, names)

    def _common_layout(self) -> Layout:
        first, *others = self._pool.call("get_layout", [()] * len(self._shares))
        if any(other != first for other in others):
            raise IncompatibleEnvironmentError(
                "the copies differ in agents or spaces; make all copies alike, and list agents in your own order, "
                "since that of a set differs between processes."
            )
        layout: Layout = replace(first, masked=first.masked.union(*(other.masked for other in others)))
        return layout

    def _revive(self) -> None:
        """Start dead workers anew, and let all know who may be limited in any copy."""
        self._pool.revive()
        if len(self._shares) > 1:
            self._pool.call("expect_masks", [(self._layout.masked,)] * len(self._shares))

    # ---- episodes ----

    def reset(self, seed: int | None = None) -> TimeStep:
        seeds: list[Any] = [None] * self.n_envs if seed is None else environment_seeds(seed, self.n_envs)
        self._revive()
        parts = self._pool.call("reset", [(seeds[share[0] : share[-1] + 1],) for share in self._shares])
        self._playing = True
        return self._time_step(concatenated(parts))

    def step(self, actions: Actions) -> TimeStep:
        joint_action = checked_actions(actions, self.action_spaces, self.n_envs)
        if not self._playing:
            raise RuntimeError(
                "no episode is under way, or a copy failed in its midst: call reset() or restore() first."
            )
        self._playing = False  # so it stays if a copy fails, while the others have stepped
        parts = self._pool.call(
            "step", [({agent: joint[share] for agent, joint in joint_action.items()},) for share in self._shares]
        )
        self._playing = True
        return self._time_step(concatenated(parts))

    def _time_step(self, rows: Rows) -> TimeStep:
        ended = np.flatnonzero(rows.terminated | rows.truncated)
        final = Final(ended, rows.final_observations, rows.final_state) if ended.size else None
        own_rewards = {
            f"reward/{agent}": rewards for agent, rewards in zip(self.agents, rows.rewards.T.copy(), strict=True)
        }
        return TimeStep(
            rows.observations,
            rows.state,
            rows.joint_reward,
            rows.terminated,
            rows.truncated,
            final,
            action_masks=rows.masks,
            active=dict(zip(self.agents, rows.active.T.copy(), strict=True)),
            info=own_rewards if self._options.reward else {},
        )

    @property
    def one_hot_features(self) -> Mapping[str, Mask]:
        return self._layout.one_hot

    @property
    def one_hot_state(self) -> Mask | None:
        return self._layout.one_hot_state

    # ---- copies ----

    @property
    def can_snapshot(self) -> bool:
        return self._layout.can_snapshot

    def snapshot(self) -> Snapshot:
        self._refuse_uncopiable()
        if not self._playing:
            raise RuntimeError(
                "no episode is under way, or a copy failed in its midst: call reset() or restore() first."
            )
        arrays: dict[str, Any] = {}
        for part in self._pool.call("snapshot", [()] * len(self._shares)):
            arrays |= part
        return arrays

    def select(self, snapshot: Snapshot, envs: Sequence[int]) -> Snapshot:
        arrays: dict[str, Any] = {}
        for copy, env in enumerate(envs):
            arrays |= {f"{copy}/{name.partition('/')[2]}": array for name, array in _of(snapshot, [env]).items()}
        return arrays

    def render_state(self) -> Any:
        """(n_envs, height, width, 3) uint8, the environments' own pictures; None where their render mode is another.

        Of episodes that just ended, the last picture, from the second call on: nothing is drawn before somebody looks.
        """
        parts = self._pool.call("render_state", [()] * len(self._shares))
        return None if any(part is None for part in parts) else np.concatenate(parts)

    def restore(self, snapshot: Snapshot) -> None:
        self._refuse_uncopiable()
        checked_snapshot(snapshot)
        if missing := [i for i in range(self.n_envs) if f"{i}/structure" not in snapshot]:
            raise ValueError(f"the snapshot has nothing of environment {missing[0]}; it is of another environment.")
        self._revive()
        self._playing = False
        self._pool.call("restore", [(_of(snapshot, share),) for share in self._shares])
        self._playing = True

    def _refuse_uncopiable(self) -> None:
        if not self.can_snapshot:
            raise SnapshotUnsupported(
                "this PettingZoo environment cannot be copied: it has no get_state() and set_state(). Pass "
                "snapshot=function(env) and restore=function(env, value) that take and put back all that determines "
                "its future, its random generators included."
            )

    def remake(self, n_envs: int) -> PettingZooTeamEnv:
        return PettingZooTeamEnv(self._make_env, n_envs, workers=min(self._workers, n_envs), **vars(self._options))

    def kill_worker(self, worker: int) -> None:
        """End the process of worker 0, 1 … as a crash would, and wait until it is gone: the next step then says so."""
        if worker not in range(self._workers) or not isinstance(self._pool, WorkerPool):
            raise ValueError(f"worker is {worker!r}; expected the number of one of the {self._workers} workers.")
        self._pool.kill(worker)

    def close(self) -> None:
        self._playing = False
        self._pool.close()

    def __repr__(self) -> str:
        return f"PettingZooTeamEnv({len(self.agents)} agents, n_envs={self.n_envs}, workers={self._workers})"


class _Pool(Protocol):
    def call(self, method: str, arguments: Sequence[tuple[object, ...]]) -> list[Any]: ...
    def revive(self) -> None: ...
    def close(self) -> None: ...


class _Here:
    """The pool of no workers: one group, in this process."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def call(self, method: str, arguments: Sequence[tuple[object, ...]]) -> list[Any]:
        return [getattr(self._group, method)(*given) for given in arguments]

    def revive(self) -> None:
        """Nothing here dies by itself."""

    def close(self) -> None:
        self._group.close()


def _of(snapshot: Snapshot, share: Any) -> dict[str, Any]:
    wanted = {str(i) for i in share}
    return {name: array for name, array in snapshot.items() if name.partition("/")[0] in wanted}
