"""One copy of a PettingZoo parallel environment, seen as one team's game."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from workbench.envs.parallel.plain_values import Arrays, from_arrays, to_arrays
from workbench.envs.parallel.spaces import Actor, AnySpace, IncompatibleEnvironmentError, Mask, Observer, Vector
from workbench.errors import NonFiniteError, SnapshotUnsupported

AGREEMENT = 1e-6  # rewards that differ by less than this share of the largest count as one joint reward


@dataclass(frozen=True)
class Options:
    """How a parallel environment is turned into a team's: ``PettingZooTeamEnv`` explains them."""

    reward: str | None = None
    state: str = "auto"
    clip_actions: bool = True
    snapshot: Callable[[Any], Any] | None = None
    restore: Callable[[Any, Any], None] | None = None


@dataclass(frozen=True)
class Layout:
    """What all copies must have in common."""

    agents: tuple[str, ...]
    observation_spaces: Mapping[str, spaces.Box]
    action_spaces: Mapping[str, AnySpace]
    state_space: spaces.Box
    masked: frozenset[str]
    can_snapshot: bool


@dataclass(frozen=True, slots=True)
class Look:
    """What a copy shows: vectors by agent (zero for those who have left), state, masks, and who is still there (n,)."""

    observations: Mapping[str, Vector]
    state: Vector
    masks: Mapping[str, Mask]
    active: Mask


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step gave: each agent's reward (n,), the joint one, and how the episode ended, if it did."""

    rewards: npt.NDArray[np.float64]
    joint_reward: float
    terminated: bool
    truncated: bool


class Copy:
    """One parallel environment, its agents' departures followed through an episode.

    An agent leaves when it terminates, is truncated, or is no longer among ``env.agents``; the episode is over when
    none is left. It was *truncated* if any of those who acted in the last step was truncated and not terminated: they
    would have gone on. Otherwise it was *terminated*, even if others had been truncated earlier.
    """

    def __init__(self, env: Any, options: Options, first_seed: int) -> None:
        self.env, self.options = env, options
        self._ids = _agent_ids(env)
        self._observers = {name: Observer.of(name, env.observation_space(id)) for name, id in self._ids.items()}
        self._actors = {
            name: Actor.of(name, env.action_space(id), options.clip_actions) for name, id in self._ids.items()
        }
        self._alive: list[str] = []
        self._left: set[str] = set()
        self._watched = False
        self.last_sight: npt.NDArray[np.uint8] | None = None  # of an episode that ended with the last step
        # Masks in the infos and a state of its own show only in an episode. It is seeded, since some environments carry
        # something over from one episode to the next, and a run must not hang on what that first one drew.
        observations, infos = self._begin(first_seed)
        self._masked = frozenset(
            name
            for name, id in self._ids.items()
            if self._actors[name].parts and (self._observers[name].masked or "action_mask" in infos.get(id, {}))
        )
        self._state_space = self._own_state_space() if options.state == "auto" else None
        self.look = self._sight(observations, infos, seen=self._alive, needed=self._alive)

    @property
    def layout(self) -> Layout:
        observed = {name: observer.space for name, observer in self._observers.items()}
        together = spaces.Box(
            np.concatenate([space.low for space in observed.values()]),
            np.concatenate([space.high for space in observed.values()]),
        )
        return Layout(
            agents=tuple(self._ids),
            observation_spaces=observed,
            action_spaces={name: actor.space for name, actor in self._actors.items()},
            state_space=together if self._state_space is None else self._state_space,
            masked=self._masked,
            can_snapshot=self.options.snapshot is not None or _copies_itself(self.env),
        )

    # ---- an episode ----

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; ``look`` is what it shows."""
        self.look = self._sight(*self._begin(seed), seen=self._alive, needed=self._alive)

    def _begin(self, seed: int | None) -> tuple[Any, Any]:
        given = self.env.reset(seed=seed)
        if not (isinstance(given, tuple) and len(given) == 2):
            raise IncompatibleEnvironmentError(
                f"reset() returned a {type(given).__name__}; expected (observations, infos), as PettingZoo's do from "
                "1.23 on. Update the environment or wrap it."
            )
        self._left.clear()
        self._alive = [name for name, id in self._ids.items() if id in self.env.agents]
        return given

    def step(self, rows: Mapping[str, npt.NDArray[Any]]) -> Outcome:
        """One joint step by those who are still there; ``look`` is what follows, or the last sight when it is over."""
        acting = self._alive
        self.last_sight = None
        joint_action = {self._ids[name]: self._actors[name].back(rows[name]) for name in acting}
        observations, rewards, terminations, truncations, infos = self.env.step(joint_action)
        terminated = {name for name in acting if terminations.get(self._ids[name])}
        truncated = {name for name in acting if truncations.get(self._ids[name])} - terminated
        self._left |= terminated | truncated
        self._alive = [name for name, id in self._ids.items() if id in self.env.agents and name not in self._left]
        over = not self._alive
        if over and not terminated | truncated:
            raise IncompatibleEnvironmentError(
                f"{acting} left without being terminated or truncated; the environment must say which of the two."
            )
        # What follows an episode's end counts only for those who would have gone on.
        seen, needed = (acting, truncated) if over else (self._alive, self._alive)
        self.look = self._sight(observations, infos, seen, needed)
        paid = {name: float(rewards[self._ids[name]]) for name in acting if self._ids[name] in rewards}
        by_agent = np.array([paid.get(name, 0.0) for name in self._ids])
        return Outcome(by_agent, self._joint_reward(paid), over and not truncated, over and bool(truncated))

    def _joint_reward(self, rewards: Mapping[str, float]) -> float:
        for name, reward in rewards.items():
            if not math.isfinite(reward):
                raise NonFiniteError(f"the reward of {name!r} is {reward}; the environment must give finite numbers.")
        values = list(rewards.values())
        if self.options.reward == "sum":
            return math.fsum(values)
        if self.options.reward == "mean":
            return math.fsum(values) / len(self._ids)
        if values and max(values) - min(values) > AGREEMENT * max(map(abs, values)):
            listed = ", ".join(f"{name!r} {reward:g}" for name, reward in rewards.items())
            raise IncompatibleEnvironmentError(
                f"the agents' rewards differ ({listed}), but a team has one joint reward: say how to join them, with "
                'reward="sum" or reward="mean".'
            )
        return values[0] if values else 0.0

    # ---- what it shows ----

    def _sight(self, observations: Any, infos: Any, seen: Collection[str], needed: Collection[str]) -> Look:
        """The look at what the environment handed out: zeros for those not ``seen``; ``needed`` must not be missing."""
        vectors = {name: np.zeros(observer.space.shape, np.float32) for name, observer in self._observers.items()}
        masks = {name: self._actors[name].free for name in self._masked}
        for name in seen:
            if self._ids[name] in observations:
                vectors[name] = self._observers[name].flat(observations[self._ids[name]])
            elif name in needed:
                raise IncompatibleEnvironmentError(f"{name!r} was shown no observation, though it would go on.")
            mask = self._mask(name, observations, infos)
            if mask is not None and name in self._alive:
                masks[name] = self._actors[name].mask(mask)
        active = np.array([name in self._alive for name in self._ids])
        return Look(vectors, self._state(vectors), masks, active)

    def _mask(self, name: str, observations: Any, infos: Any) -> Any:
        """The mask that came with the observation or in the infos, or None."""
        id = self._ids[name]
        if self._observers[name].masked:
            return observations[id]["action_mask"] if name in self._masked and id in observations else None
        mask = infos.get(id, {}).get("action_mask") if self._actors[name].parts else None
        if mask is not None and name not in self._masked:
            raise IncompatibleEnvironmentError(
                f"{name!r} got an action mask after step(), but none after reset(); give it in reset()'s infos too."
            )
        return mask

    def _state(self, vectors: Mapping[str, Vector]) -> Vector:
        if self._state_space is None:
            return np.concatenate(list(vectors.values()))
        state = np.array(self.env.state(), np.float32).ravel()
        if state.shape != self._state_space.shape:
            raise IncompatibleEnvironmentError(
                f"state() gave {state.size} numbers, and at first {self._state_space.shape[0]}; pass "
                'state="observations" to show the critic all observations instead.'
            )
        return state

    def _own_state_space(self) -> spaces.Box | None:
        """The space of ``env.state()``, or None where there is none."""
        try:
            state = self.env.state()
        except (NotImplementedError, AttributeError):
            return None
        try:
            size = np.asarray(state, np.float32).size
        except (TypeError, ValueError):
            raise IncompatibleEnvironmentError(
                f"state() gave a {type(state).__name__}, expected an array; pass "
                'state="observations" to show the critic all observations instead.'
            ) from None
        return spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def sight(self) -> npt.NDArray[np.uint8] | None:
        """The picture of the last step, even where its episode ended and another has begun; None: it makes none."""
        self._watched = True
        return self._picture() if self.last_sight is None else self.last_sight

    def keep_sight(self) -> None:
        """Keep the picture for ``sight`` beyond the reset that is to follow, if anybody looks at all."""
        self.last_sight = self._picture() if self._watched else None

    def _picture(self) -> npt.NDArray[np.uint8] | None:
        if getattr(self.env, "render_mode", None) != "rgb_array":
            return None
        return np.array(self.env.render(), np.uint8)

    # ---- copies ----

    def snapshot(self) -> Arrays:
        take = self.options.snapshot or (lambda env: env.get_state())
        try:
            inner = to_arrays(take(self.env))
        except TypeError as error:
            raise SnapshotUnsupported(f"the environment's snapshot cannot be kept as plain arrays: {error}") from error
        alive = np.array([name in self._alive for name in self._ids])
        left = np.array([name in self._left for name in self._ids])
        return {"alive": alive, "left": left, **inner}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        put = self.options.restore or (lambda env, state: env.set_state(state))
        put(self.env, from_arrays(arrays))
        self._alive = [name for name, there in zip(self._ids, arrays["alive"], strict=True) if there]
        self._left = {name for name, gone in zip(self._ids, arrays["left"], strict=True) if gone}


def _copies_itself(env: Any) -> bool:
    return callable(getattr(env, "get_state", None)) and callable(getattr(env, "set_state", None))


def _agent_ids(env: Any) -> dict[str, Any]:
    """{name: the environment's own id}, in the order of ``possible_agents``; refuses all but parallel environments."""
    if hasattr(env, "agent_iter"):
        raise IncompatibleEnvironmentError(
            f"{type(env).__name__} is an AEC environment, where agents take turns; make a parallel one of it with "
            "pettingzoo.utils.conversions.aec_to_parallel."
        )
    missing = [
        part for part in ("possible_agents", "observation_space", "action_space", "step") if not hasattr(env, part)
    ]
    if missing:
        raise IncompatibleEnvironmentError(
            f"{type(env).__name__} has no {missing[0]}; expected a PettingZoo parallel environment (ParallelEnv)."
        )
    ids = {str(id): id for id in env.possible_agents}
    if not ids or len(ids) != len(env.possible_agents):
        raise IncompatibleEnvironmentError(
            f"possible_agents is {list(env.possible_agents)}; expected at least one agent, and no two of one name."
        )
    return ids
