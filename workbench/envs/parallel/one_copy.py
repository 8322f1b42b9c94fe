"""One copy of a PettingZoo parallel environment, seen as one team's game."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from workbench.envs.base import Array
from workbench.envs.parallel.adapters import Adapter
from workbench.envs.parallel.interface import ParallelInterface, Reply, asking
from workbench.envs.parallel.plain_values import Arrays, from_arrays, to_arrays
from workbench.envs.parallel.spaces import (
    MASK_NAMES,
    UNCLEAR_NAMES,
    ActionCoder,
    AnySpace,
    IncompatibleEnvironmentError,
    Mask,
    ObservationCoder,
    Vector,
    one_hot_part,
)
from workbench.errors import NonFiniteError, SnapshotUnsupported

AGREEMENT = 1e-6  # rewards that differ by less than this share of the largest count as one joint reward


@dataclass(frozen=True)
class Options:
    """How a parallel environment is turned into a team's: ``PettingZooTeamEnv`` explains them."""

    reward: str | None = None
    state: str = "auto"
    clip_actions: bool = True
    max_episode_steps: int | None = None
    snapshot: Callable[[Any], Any] | None = None
    restore: Callable[[Any, Any], None] | None = None


@dataclass(frozen=True)
class Layout:
    """What all copies must have in common, and ``masked``, those whose actions may be limited in this one."""

    agents: tuple[str, ...]
    observation_spaces: Mapping[str, spaces.Box]
    action_spaces: Mapping[str, AnySpace]
    state_space: spaces.Box
    can_snapshot: bool
    masked: frozenset[str] = field(compare=False)
    one_hot: Mapping[str, Mask] = field(compare=False)
    one_hot_state: Mask | None = field(compare=False)


@dataclass(frozen=True, slots=True)
class CopyView:
    """What a copy shows: vectors by agent (zero for those who have left), state, masks, and who acts next (n,)."""

    observations: Mapping[str, Vector]
    state: Vector
    masks: Mapping[str, Mask]
    active: Mask


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one step gave: each agent's reward (n,), the joint one, and how the episode ended, if it did."""

    rewards: npt.NDArray[np.float64]
    joint_reward: float
    terminated: bool
    truncated: bool


class Copy:
    """One parallel environment, its agents' comings and goings followed through an episode.

    An agent leaves when it terminates, is truncated, or is no longer among ``env.agents``, and is back when it is there
    again after an absence; the episode is over when none is left. It was *truncated* if any of those who acted in the
    last step was truncated and not terminated: they would have gone on. Otherwise it was *terminated*, even if others
    had been truncated earlier.
    """

    def __init__(self, env: object, options: Options, first_seed: int) -> None:
        self._made, self.options = env, options
        self._interface = ParallelInterface(env)
        self.env, names = self._interface.env, list(self._interface.ids)
        self._observations = {
            name: ObservationCoder.of(name, self._interface.space("observation", name)) for name in names
        }
        self._actions = {
            name: ActionCoder.of(name, self._interface.space("action", name), options.clip_actions) for name in names
        }
        self._alive: list[str] = []
        self._left: set[str] = set()  # who is done, but still among env.agents
        self._elapsed = 0
        self._watched = False
        self.used = False  # whether it has been stepped or restored
        self.last_picture: npt.NDArray[np.uint8] | None = None  # of an episode that ended with the last step
        # Masks in the infos and a state of its own show only in an episode. It is seeded, since some environments carry
        # something over from one episode to the next, and a run must not hang on what that first one drew.
        self._began = False
        first = self._begin(first_seed)
        limited = [name for name in names if self._actions[name].parts]
        self._always_masked = {
            name for name in limited if name in self._alive and self._mask(name, first, *self._split(name, first)[1:])
        }
        declared = {name for name in limited if self._observations[name].mask_key}
        # Whoever is yet to come may bring a mask.
        self.masked = frozenset(self._always_masked | declared | {name for name in limited if name not in self._alive})
        self._began = True
        self._state_space = self._own_state_space() if options.state == "auto" else None
        self.look = self._look(first, seen=self._alive, needed=self._alive)

    @property
    def layout(self) -> Layout:
        observed = {name: coder.space for name, coder in self._observations.items()}
        together = spaces.Box(
            np.concatenate([space.low for space in observed.values()]),
            np.concatenate([space.high for space in observed.values()]),
        )
        one_hot = {name: one_hot_part(coder.inner) for name, coder in self._observations.items()}
        return Layout(
            agents=tuple(observed),
            observation_spaces=observed,
            action_spaces={name: coder.space for name, coder in self._actions.items()},
            state_space=together if self._state_space is None else self._state_space,
            can_snapshot=self.options.snapshot is not None or _copies_itself(self.given),
            masked=self.masked,
            one_hot=one_hot,
            one_hot_state=np.concatenate(list(one_hot.values())) if self._state_space is None else None,
        )

    def like(self, env: object, first_seed: int) -> Copy:
        """A copy of another environment of the same maker's."""
        other = Copy(env, self.options, first_seed)
        if other.layout != self.layout:
            raise IncompatibleEnvironmentError("its agents or spaces are not those it had before; make all alike.")
        other.masked, other._watched = self.masked, self._watched
        return other

    @property
    def given(self) -> Any:
        """The environment as its maker made it."""
        return self._made.inner if isinstance(self._made, Adapter) else self._made

    # ---- an episode ----

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; ``look`` is what it shows."""
        self.look = self._look(self._begin(seed), seen=self._alive, needed=self._alive)

    def _begin(self, seed: int | None) -> Reply:
        reply = self._interface.reset(seed)
        self._left.clear()
        self._alive, self._elapsed = reply.present, 0
        return reply

    def step(self, rows: Mapping[str, Array]) -> StepOutcome:
        """One joint step by those who are still there; ``look`` is what follows, or the last one when it is over."""
        acting = self._alive
        self.last_picture, self.used = None, True
        reply = self._interface.step({name: self._actions[name].back(rows[name]) for name in acting})
        self._elapsed += 1
        truncated = reply.truncated - reply.terminated
        done = reply.terminated | truncated
        self._left = {name for name in self._left | done if name in reply.present}
        self._alive = [name for name in reply.present if name not in self._left and name not in done]
        over = not self._alive
        if over and not done:
            raise IncompatibleEnvironmentError(
                f"{acting} left without being terminated or truncated; the environment must say which of the two."
            )
        late = not over and self._elapsed == self.options.max_episode_steps
        # What follows an episode's end counts only for those who would have gone on.
        seen, needed = (acting, truncated) if over else (self._alive, self._alive)
        self.look = self._look(reply, seen, needed)
        by_agent = np.array([reply.rewards.get(name, 0.0) for name in self._observations])
        joint = self._joint_reward(reply.rewards)
        return StepOutcome(by_agent, joint, over and not truncated, late or (over and bool(truncated)))

    def _joint_reward(self, rewards: Mapping[str, float]) -> float:
        values = list(rewards.values())
        if self.options.reward == "sum":
            return math.fsum(values)
        if self.options.reward == "mean":
            return math.fsum(values) / len(self._observations)
        if values and max(values) - min(values) > AGREEMENT * max(map(abs, values)):
            listed = ", ".join(f"{name!r} {reward:g}" for name, reward in rewards.items())
            raise IncompatibleEnvironmentError(
                f"the agents' rewards differ ({listed}), but a team has one joint reward: say how to join them, with "
                'reward="sum" or reward="mean".'
            )
        return values[0] if values else 0.0

    # ---- what it shows ----

    def _look(self, reply: Reply, seen: Collection[str], needed: Collection[str]) -> CopyView:
        """What the environment handed out, as the team sees it: zeros for those not ``seen``, ``needed`` must be there.

        Whoever has no choice now is not active: what it is said to do counts for nothing.
        """
        vectors = {name: np.zeros(coder.space.shape, np.float32) for name, coder in self._observations.items()}
        masks = {name: self._actions[name].free for name in self.masked}
        turn = self._interface.turn()
        active = np.zeros(len(vectors), np.bool_)
        for place, name in enumerate(vectors):
            observation, *mask = self._split(name, reply)
            if name in seen and name in reply.observations:
                vectors[name] = self._observations[name].flat(observation)
            elif name in needed:
                raise IncompatibleEnvironmentError(f"{name!r} was shown no observation, though it would go on.")
            if name not in self._alive:
                continue
            limits = self._mask(name, reply, *mask)
            active[place] = turn in (None, name)
            if limits:
                allowed = self._actions[name].mask(limits[0])
                active[place] &= allowed is not None
                masks[name] = self._actions[name].no_choice if allowed is None else allowed
        return CopyView(vectors, self._state(vectors), masks, active)

    def _split(self, name: str, reply: Reply) -> tuple[Any, Any]:
        return self._observations[name].split(reply.observations[name]) if name in reply.observations else (None, None)

    def _mask(self, name: str, reply: Reply, shown: object) -> tuple[Any, ...]:
        """The mask that came with the observation or in the infos, or nothing."""
        info = reply.infos.get(name, {})
        if not self._actions[name].parts:
            return ()
        if shown is None:
            shown = next((info[key] for key in MASK_NAMES if info.get(key) is not None), None)
        if shown is not None and self._began and name not in self.masked:
            raise IncompatibleEnvironmentError(
                f"{name!r} got an action mask after step(), but none after reset(); give it in reset()'s infos too."
            )
        if shown is None and self._began and name in self._always_masked:
            raise IncompatibleEnvironmentError(
                f"{name!r} got an action mask after reset(), but none after step(); give it after every step."
            )
        if shown is None and (unclear := [key for key in UNCLEAR_NAMES if key in info]):
            raise IncompatibleEnvironmentError(
                f"the info of {name!r} has {unclear[0]!r}, which may be a mask or a list of numbers; give it as "
                "'action_mask', with 1 for each action that may be taken and 0 for each that may not."
            )
        return () if shown is None else (shown,)

    def _state(self, vectors: Mapping[str, Vector]) -> Vector:
        if self._state_space is None:
            return np.concatenate(list(vectors.values()))
        state = self._own_state()
        if state is None or state.shape != self._state_space.shape:
            raise IncompatibleEnvironmentError(
                f"state() gave {0 if state is None else state.size} numbers, and at first "
                f'{self._state_space.shape[0]}; pass state="observations" to show the critic all observations instead.'
            )
        if not np.isfinite(state).all():
            raise NonFiniteError("state() gave NaN or inf; the environment must show finite numbers.")
        return state

    def _own_state(self) -> Vector | None:
        """What ``env.state()`` gives; None where there is no such method, or it is not implemented."""
        with asking("state()"):
            # What is no method, of the environment or of that within its wrappers, is its own affair.
            if not all(
                callable(getattr(env, "state", None))
                for env in (self.env, getattr(self.env, "unwrapped", None) or self.env)
            ):
                return None
            try:
                state = self.env.state()
            except NotImplementedError:
                return None
            except AttributeError as error:
                if error.name == "state":  # a wrapper's, around an environment that has none
                    return None
                raise
        if state is None:
            return None
        try:
            return np.array(state, np.float32).ravel()
        except Exception:  # whatever NumPy cannot make numbers of
            raise IncompatibleEnvironmentError(
                f"state() gave a {type(state).__name__}, expected an array; pass "
                'state="observations" to show the critic all observations instead.'
            ) from None

    def _own_state_space(self) -> spaces.Box | None:
        """The space of ``env.state()``, or None where there is none."""
        state = self._own_state()
        return spaces.Box(-np.inf, np.inf, state.shape, np.float32) if state is not None and state.size else None

    def picture(self) -> npt.NDArray[np.uint8] | None:
        """The picture of the last step, even where its episode ended and another has begun; None: it makes none."""
        self._watched = True
        return self._picture() if self.last_picture is None else self.last_picture

    def keep_picture(self) -> None:
        """Keep the picture for ``picture`` beyond the reset that is to follow, if anybody looks at all."""
        self.last_picture = self._picture() if self._watched else None

    def _picture(self) -> npt.NDArray[np.uint8] | None:
        if getattr(self.env, "render_mode", None) != "rgb_array":
            return None
        with asking("render()"):
            return np.array(self.env.render(), np.uint8)

    # ---- copies ----

    def snapshot(self) -> Arrays:
        take = self.options.snapshot or (lambda env: env.get_state())
        with asking("snapshot"):
            taken = take(self.given)
        try:
            inner = to_arrays(taken)
        except TypeError as error:
            raise SnapshotUnsupported(f"the environment's snapshot cannot be kept as plain arrays: {error}") from error
        alive = np.array([name in self._alive for name in self._observations])
        left = np.array([name in self._left for name in self._observations])
        elapsed = {} if self.options.max_episode_steps is None else {"elapsed": np.array([self._elapsed])}
        return {"alive": alive, "left": left, **elapsed, **inner}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        put = self.options.restore or (lambda env, state: env.set_state(state))
        with asking("restore"):
            put(self.given, from_arrays(arrays))
        self.used = True
        self._alive = [name for name, there in zip(self._observations, arrays["alive"], strict=True) if there]
        self._left = {name for name, gone in zip(self._observations, arrays["left"], strict=True) if gone}
        self._elapsed = int(arrays["elapsed"][0]) if "elapsed" in arrays else 0


def _copies_itself(env: object) -> bool:
    return callable(getattr(env, "get_state", None)) and callable(getattr(env, "set_state", None))
