"""``check(env)``: the ``TeamEnv`` contract as a test that anyone can run on their own environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from workbench.envs.arguments import environment_seeds, positive_integer
from workbench.envs.base import Array, TeamEnv, TimeStep
from workbench.envs.registry import make
from workbench.errors import WorkbenchError

Space = gymnasium.Space[Any]
JointAction = dict[str, Array]


class ContractError(WorkbenchError):
    """An environment does not keep the ``TeamEnv`` contract; the message says what is broken and what to do."""


def check(env: TeamEnv, *, steps: int = 50, seed: int = 0) -> None:
    """Hold ``env`` against the ``TeamEnv`` contract; return if it keeps it, else raise ``ContractError``.

    It is reset with ``seed`` and takes ``steps`` random steps several times over: call ``reset`` before using it. What
    happens when an episode ends is seen only if one ends within ``steps``: make episodes short, or ``steps`` large.

    Raises ``ContractError`` naming what is broken, what was expected, and the remedy.

    >>> import workbench as wb
    >>> wb.envs.check(wb.envs.mujoco("Hopper", "3x1", n_envs=2, max_episode_steps=20))
    """
    if not isinstance(env, TeamEnv):
        raise TypeError(
            f"env is {env!r}; expected a TeamEnv: subclass wb.envs.TeamEnv, or wrap what you have with "
            "wb.envs.pettingzoo."
        )
    steps, (seed, *_) = positive_integer("steps", steps), environment_seeds(seed, 1)
    contract = _Contract(env)
    contract.check_names_and_spaces()
    contract.check_steps(steps, seed)
    contract.check_seeds(min(steps, 20), seed)
    contract.check_refusals(seed)
    if env.can_snapshot:
        contract.check_snapshots(steps, seed)
    contract.check_copies(min(steps, 20), seed)


class _Contract:
    """The checks, each of which says the environment's name when it fails."""

    def __init__(self, env: TeamEnv) -> None:
        self.env = env

    def require(self, kept: bool | np.bool_, broken: str, remedy: str) -> None:
        if not kept:
            raise ContractError(f"{type(self.env).__name__} breaks the TeamEnv contract: {broken}. {remedy}")

    # ---- what the environment says of itself ----

    def check_names_and_spaces(self) -> None:
        env = self.env
        count: Any = env.n_envs
        self.require(
            isinstance(count, int) and count >= 1, f"n_envs is {count!r}", "Make it the number of copies, an int ≥ 1."
        )
        agents: Any = env.agents
        self.require(
            isinstance(agents, tuple) and len(agents) > 0 and all(isinstance(agent, str) for agent in agents),
            f"agents is {agents!r}",
            "Make it a tuple of names, at least one.",
        )
        self.require(
            len(set(agents)) == len(agents), f"agents {agents} has a name twice", "Give each agent its own name."
        )
        for what, spaces in (("observation_spaces", env.observation_spaces), ("action_spaces", env.action_spaces)):
            self.require(
                set(spaces) == set(agents),
                f"{what} has {sorted(map(str, spaces))}, agents has {sorted(agents)}",
                "Give exactly one space for each agent.",
            )
        for agent in agents:
            self._check_box(f"observation_spaces[{agent!r}]", env.observation_spaces[agent])
            space = env.action_spaces[agent]
            flat = not isinstance(space, Box | MultiDiscrete) or len(space.shape) == 1
            self.require(
                isinstance(space, Box | Discrete | MultiDiscrete) and flat,
                f"action_spaces[{agent!r}] is {space}",
                "Use a flat Box, a Discrete or a flat MultiDiscrete.",
            )
        self._check_box("state_space", env.state_space)

    def _check_box(self, what: str, space: Space) -> None:
        self.require(
            isinstance(space, Box) and len(space.shape) == 1 and np.dtype(space.dtype).kind == "f",
            f"{what} is {space}",
            "Use a Box of floats with one axis; flatten what has more, one-hot encode what is discrete.",
        )

    # ---- what it shows ----

    def check_steps(self, steps: int, seed: int) -> None:
        """A run of random steps: every TimeStep by itself, and each against the next."""
        rng = np.random.default_rng(seed)
        step = self.env.reset(seed)
        self.check_time_step(step, "reset()")
        self.require(
            not step.reward.any() and not step.done.any() and step.final is None,
            "reset() hands back a reward, an end or a final observation",
            "After reset the reward is 0, nothing has ended and final is None.",
        )
        states_seen = {row.tobytes() for row in step.state}
        unchanged = ended = 0
        for index in range(steps):
            before, kept = step, {name: array.copy() for name, array in _parts(step).items()}
            step = self.env.step(self.random_actions(step, rng))
            self.check_time_step(step, f"step {index + 1}")
            overwritten = _difference(before, kept)
            self.require(
                not overwritten,
                f"step {index + 1} overwrote {overwritten} of the TimeStep before it",
                "Return fresh arrays: rollouts keep every step's.",
            )
            states_seen |= {row.tobytes() for row in step.state}
            if step.final is not None:
                ended += len(step.final.envs)
                unchanged += int((step.final.state == step.state[step.final.envs]).all(axis=1).sum())
        # A game of few states may start where it ended; one of many that always does is not reset.
        self.require(
            ended < 3 or unchanged < ended or len(states_seen) < 20,
            f"all {ended} environments that ended go on from their final state",
            "Reset an environment in the step that ends it: final holds the old episode's last state, state and "
            "observations the new one's first.",
        )

    def check_time_step(self, step: TimeStep, when: str) -> None:
        returned: Any = step
        self.require(isinstance(returned, TimeStep), f"{when} returns {_kind(returned)}", "Return a TimeStep.")
        env, n = self.env, self.env.n_envs
        self._check_views(step.observations, step.state, n, when)
        expected: dict[str, tuple[Array, type]] = {
            "reward": (step.reward, np.float64),
            "terminated": (step.terminated, np.bool_),
            "truncated": (step.truncated, np.bool_),
        }
        for name, (array, dtype) in expected.items():
            self._check_array(array, (n,), np.dtype(dtype), f"{name} after {when}")
        self.require(
            not (step.terminated & step.truncated).any(),
            f"after {when} an environment is both terminated and truncated",
            "Where the game ended, the clock did not end it: set truncated &= ~terminated.",
        )
        self._check_final(step, when)
        for agent, mask in step.action_masks.items():
            self._check_mask(agent, mask, when)
        for agent, active in step.active.items():
            self.require(agent in env.agents, f"active after {when} names {agent!r}", "Name agents only.")
            self._check_array(active, (n,), np.dtype(np.bool_), f"active[{agent!r}] after {when}")
        for name, values in step.info.items():
            self.require(
                np.shape(values)[:1] == (n,),
                f"info[{name!r}] after {when} is no array with a row for each of {n} environments",
                "Put further numbers there as arrays (n_envs, ...).",
            )

    def _check_views(self, observations: Mapping[str, Array], state: Array, n: int, when: str) -> None:
        """Observations and state of ``n`` environments against their spaces."""
        self.require(
            tuple(observations) == self.env.agents,
            f"observations after {when} are of {tuple(observations)}",
            f"Give one for each agent, in the order of agents, {self.env.agents}.",
        )
        for agent, observation in observations.items():
            self._check_view(
                observation, self.env.observation_spaces[agent], n, f"observations[{agent!r}] after {when}"
            )
        self._check_view(state, self.env.state_space, n, f"state after {when}")

    def _check_view(self, view: Array, space: Space, n: int, what: str) -> None:
        assert isinstance(space, Box)
        self._check_array(view, (n, *space.shape), np.dtype(space.dtype), what)
        self.require(
            np.isfinite(view).all(),
            f"{what} holds NaN or inf",
            "Look for a division by zero or an unstable simulation.",
        )
        self.require(
            bool(((view >= space.low) & (view <= space.high)).all()),
            f"{what} leaves its space {space}",
            "Widen the space's limits, or clip what is shown.",
        )

    def _check_array(self, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> None:
        self.require(
            isinstance(array, np.ndarray) and array.shape == shape and array.dtype == dtype,
            f"{what} is {_kind(array)}",
            f"Make it an array of shape {shape} and dtype {dtype}.",
        )
        if dtype.kind == "f":
            self.require(np.isfinite(array).all(), f"{what} holds NaN or inf", "Look for where it was computed.")

    def _check_final(self, step: TimeStep, when: str) -> None:
        ended = np.flatnonzero(step.done)
        if step.final is None:
            self.require(
                ended.size == 0,
                f"after {when} environments {ended.tolist()} ended, but final is None",
                "Put their true last observations and state there: a truncated episode's value is estimated from them.",
            )
            return
        self.require(
            ended.size > 0 and np.array_equal(step.final.envs, ended),
            f"after {when} final.envs is {step.final.envs!r}, while environments {ended.tolist()} ended",
            "List those that ended, ascending, and make final None where none did.",
        )
        self._check_views(step.final.observations, step.final.state, len(ended), f"{when} (final)")

    def _check_mask(self, agent: str, mask: Array, when: str) -> None:
        space = self.env.action_spaces.get(agent)
        self.require(
            isinstance(space, Discrete | MultiDiscrete),
            f"action_masks after {when} has {agent!r}, whose action space is {space}",
            "Give masks for agents with Discrete or MultiDiscrete actions only.",
        )
        sizes = space.nvec if isinstance(space, MultiDiscrete) else np.array([getattr(space, "n", 0)])
        self._check_array(mask, (self.env.n_envs, int(sizes.sum())), np.dtype(np.bool_), f"action_masks[{agent!r}]")
        self.require(
            np.logical_or.reduceat(mask, sizes.cumsum() - sizes, axis=1).all(),
            f"action_masks[{agent!r}] after {when} leaves an environment without any action",
            "Allow at least one; an agent that has left may be allowed all.",
        )

    # ---- what follows from the same seed, and from the same state ----

    def check_seeds(self, steps: int, seed: int) -> None:
        first, second = self.run(self.env, steps, seed), self.run(self.env, steps, seed)
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            name = _difference(one, other)
            self.require(
                not name,
                f"{name} after {index} steps differ between two runs from reset(seed={seed}) with the same actions",
                "Draw all chance from generators that reset(seed) seeds, and keep nothing else across resets.",
            )

    def check_snapshots(self, steps: int, seed: int) -> None:
        """The same future from a snapshot, twice, and from every point of it."""
        rng = np.random.default_rng(seed)
        step = self.env.reset(seed)
        for _ in range(max(1, steps // 5)):
            saved = self.env.snapshot()
            self._check_plain(saved)
            copy = {name: array.copy() for name, array in saved.items()}
            actions = [self.random_actions(step, rng)]
            future = [self.env.step(actions[0])]
            for _ in range(4):
                actions.append(self.random_actions(future[-1], rng))
                future.append(self.env.step(actions[-1]))
            for name, array in saved.items():
                self.require(
                    np.array_equal(array, copy[name], equal_nan=array.dtype.kind == "f"),
                    f"stepping changed {name!r} of a snapshot taken before",
                    "Return copies from snapshot().",
                )
            for _ in range(2):
                self._check_replay(self.env, saved, actions, future)
            step = future[-1]

    def _check_replay(
        self, env: TeamEnv, saved: Mapping[str, Array], actions: list[JointAction], future: list[TimeStep]
    ) -> None:
        env.restore(saved)
        for index, (action, expected) in enumerate(zip(actions, future, strict=True)):
            name = _difference(env.step(action), expected)
            self.require(
                not name,
                f"{name} of step {index + 1} after restore() differ from those after snapshot(), with the same actions",
                "Save everything that determines the future: physics with warm starts, clocks, random generators.",
            )

    def _check_plain(self, saved: Mapping[str, Array]) -> None:
        returned: Any = saved
        self.require(isinstance(returned, Mapping), f"snapshot() is {_kind(returned)}", "Return a flat dict of arrays.")
        for name, array in returned.items():
            self.require(
                isinstance(name, str) and isinstance(array, np.ndarray) and array.dtype.kind in "biufcSU",
                f"snapshot()[{name!r}] is {_kind(array)}",
                "Return plain arrays only: reading them back must run no code.",
            )

    def check_copies(self, steps: int, seed: int) -> None:
        """Fresh environments of the same kind: same spaces, same episodes, independent of how many there are."""
        env = self.env
        try:
            alone = env.remake(1)
        except NotImplementedError:
            return
        self.require(
            alone.n_envs == 1 and alone.agents == env.agents and alone.action_spaces == env.action_spaces,
            "remake(1) returns an environment of another kind",
            "Keep agents and spaces, and change n_envs only.",
        )
        twin = env.remake(env.n_envs)
        for index, (one, other) in enumerate(zip(self.run(env, steps, seed), self.run(twin, steps, seed), strict=True)):
            name = _difference(one, other)
            self.require(
                not name,
                f"{name} after {index} steps differ between the environment and remake(), with the same actions",
                "Let remake() and description carry every option.",
            )
        if env.can_snapshot:
            rng = np.random.default_rng(seed)
            actions = self.random_actions(env.reset(seed), rng)
            saved = env.snapshot()
            self._check_replay(twin, saved, [actions], [env.step(actions)])
        twin.close()
        self._check_company(alone, steps, seed)
        self._check_selection(alone, seed)
        alone.close()
        alone.close()
        self._check_description()

    def _check_company(self, alone: TeamEnv, steps: int, seed: int) -> None:
        """The first copy, which all others follow, and the last do the same alone as among the others."""
        company = self.env if self.env.n_envs > 1 else self.env.remake(2)
        rng = np.random.default_rng(seed)
        shown, actions = [company.reset(seed)], []
        for _ in range(steps):
            actions.append(self.random_actions(shown[-1], rng))
            shown.append(company.step(actions[-1]))
        if company is not self.env:
            company.close()
        for copy in dict.fromkeys((company.n_envs - 1, 0)):
            step = alone.reset(seed + copy)
            self.require(
                np.array_equal(step.state[0], shown[0].state[copy]),
                f"environment {copy} of reset(seed) starts differently from a single one with seed + {copy}",
                "Seed environment i with seed + i, with a generator of its own.",
            )
            for index, (action, expected) in enumerate(zip(actions, shown[1:], strict=True)):
                step = alone.step({agent: joint[[copy]] for agent, joint in action.items()})
                name = _difference(step.select([0]), expected.select([copy]))
                self.require(
                    not name,
                    f"{name} of environment {copy} after {index + 1} steps differ from those of the same one alone, "
                    "with the same seed and actions",
                    "Let copies share nothing that changes: make in __init__ what the class body or the module holds, "
                    "and give each a generator of its own.",
                )

    def _check_selection(self, alone: TeamEnv, seed: int) -> None:
        """One environment taken out of a snapshot goes on alone as it does among the others."""
        env, last = self.env, self.env.n_envs - 1
        if not env.can_snapshot or type(env).select is TeamEnv.select:
            return
        actions = self.random_actions(env.reset(seed), np.random.default_rng(seed))
        saved = env.snapshot()
        expected = env.step(actions).select([last])
        alone.restore(env.select(saved, [last]))
        found = alone.step({agent: action[[last]] for agent, action in actions.items()}).select([0])
        name = _difference(found, expected)
        self.require(
            not name,
            f"{name} of environment {last}, taken out of a snapshot by select(), differ from what it shows among all",
            "Return from select() the snapshot that an environment of those copies alone would have given.",
        )

    def _check_description(self) -> None:
        description = self.env.description
        if description is None:
            return
        try:
            read_back = json.loads(json.dumps(dict(description)))
        except TypeError as cause:
            raise ContractError(
                f"{type(self.env).__name__} breaks the TeamEnv contract: its description is not JSON ({cause}). "
                "Use numbers, strings, lists and dicts only, or make description None."
            ) from cause
        made = make(**read_back)
        self.require(
            made.n_envs == self.env.n_envs
            and made.agents == self.env.agents
            and made.observation_spaces == self.env.observation_spaces,
            "wb.envs.make(**description) makes an environment with other agents or spaces",
            "Let description carry every option that is not a default.",
        )
        made.close()

    def run(self, env: TeamEnv, steps: int, seed: int) -> list[TimeStep]:
        """Reset with ``seed`` and take ``steps`` steps whose actions follow from it."""
        rng = np.random.default_rng(seed)
        run = [env.reset(seed)]
        for _ in range(steps):
            run.append(env.step(self.random_actions(run[-1], rng)))
        return run

    # ---- what it refuses ----

    def check_refusals(self, seed: int) -> None:
        """Actions that are none are refused, naming the agent, and change nothing."""
        env = self.env
        rng = np.random.default_rng(seed)
        good = self.random_actions(env.reset(seed), rng)
        expected = env.step(good)
        env.reset(seed)
        for agent in env.agents:
            self._check_refused({name: action for name, action in good.items() if name != agent}, agent, "is missing")
            self._check_refused({**good, agent: good[agent][:-1]}, agent, "has a row too few")
            if isinstance(env.action_spaces[agent], Box):
                poisoned = good[agent].copy()
                poisoned[-1, -1] = np.nan
                self._check_refused({**good, agent: poisoned}, agent, "holds a NaN")
        name = _difference(env.step(good), expected)
        self.require(
            not name, f"{name} change after actions that were refused", "Look at all actions before stepping anything."
        )

    def _check_refused(self, actions: JointAction, agent: str, how: str) -> None:
        remedy = "Raise ValueError naming the agent before anything is stepped."
        try:
            self.env.step(actions)
        except ValueError as refusal:
            self.require(
                agent in str(refusal),
                f"the error for an action of {agent!r} that {how} does not name the agent",
                remedy,
            )
        except Exception as other:
            raise ContractError(
                f"{type(self.env).__name__} breaks the TeamEnv contract: an action of {agent!r} that {how} raises "
                f"{type(other).__name__} ({other}). {remedy}"
            ) from other
        else:
            self.require(False, f"an action of {agent!r} that {how} is accepted", remedy)

    def random_actions(self, step: TimeStep, rng: np.random.Generator) -> JointAction:
        """One action for each agent and environment, among those that its mask allows."""
        spaces = self.env.action_spaces
        return {
            agent: _sample(spaces[agent], len(step.reward), step.action_masks.get(agent), rng)
            for agent in self.env.agents
        }


def _sample(space: Space, n: int, mask: Array | None, rng: np.random.Generator) -> Array:
    if isinstance(space, Box):
        low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
        return rng.uniform(low, high, (n, *space.shape)).astype(space.dtype)
    assert isinstance(space, Discrete | MultiDiscrete)
    sizes = space.nvec if isinstance(space, MultiDiscrete) else np.array([int(space.n)])
    allowed = np.ones((n, int(sizes.sum())), bool) if mask is None else mask
    # A uniform choice among those allowed: the largest of as many uniform draws.
    draws = np.split(rng.uniform(0.5, 1.0, allowed.shape) * allowed, sizes.cumsum()[:-1], axis=1)
    choices = np.column_stack([part.argmax(axis=1) for part in draws]) + space.start
    return choices if isinstance(space, MultiDiscrete) else choices[:, 0]


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"a {type(value).__name__}"


def _parts(step: TimeStep) -> dict[str, Array]:
    """All arrays of a TimeStep under names to be told to a person."""
    parts: dict[str, Array] = {}
    for field in fields(step):
        value = getattr(step, field.name)
        if isinstance(value, np.ndarray):
            parts[field.name] = value
        elif isinstance(value, Mapping):
            parts |= {f"{field.name}[{name!r}]": array for name, array in value.items()}
        elif value is not None:
            parts |= {"final.envs": value.envs, "final.state": value.state}
            parts |= {f"final.observations[{agent!r}]": array for agent, array in value.observations.items()}
    return parts


def _difference(one: TimeStep, other: TimeStep | dict[str, Array]) -> str:
    """The name of an array in which two TimeSteps differ in any bit that counts, or an empty string."""
    ours = _parts(one)
    theirs = other if isinstance(other, dict) else _parts(other)
    if ours.keys() != theirs.keys():
        return " and ".join(sorted(ours.keys() ^ theirs.keys()))
    for name, array in ours.items():
        if not np.array_equal(array, theirs[name], equal_nan=array.dtype.kind == "f"):
            return name
    return ""
