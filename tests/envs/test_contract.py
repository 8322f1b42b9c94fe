"""``wb.envs.check`` passes what keeps the contract, and names what an environment breaks, one break at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from parallel_games import Scripted

import workbench as wb
from workbench.envs.base import Final, TeamEnv, TimeStep
from workbench.envs.contract import ContractError
from workbench.errors import SnapshotUnsupported
from workbench.theory import TabularGame

N_ENVS = 4


class Walkers(TeamEnv):
    """Two agents push a point along a line: one by a number, one by a choice with a mask, both are paid for its place.

    Episodes are truncated after 7 steps and terminated beyond ± 1.5, so that both happen within a short check.
    """

    def __init__(self, n_envs: int = N_ENVS) -> None:
        self.n_envs = n_envs
        self.agents = ("pusher", "chooser")
        seen = Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_spaces = {"pusher": seen, "chooser": seen}
        self.action_spaces = {"pusher": Box(-1.0, 1.0, (1,), np.float32), "chooser": Discrete(3, start=1)}
        self.state_space = Box(-np.inf, np.inf, (1,), np.float64)
        self.generators = [np.random.Generator(np.random.PCG64(i)) for i in range(n_envs)]
        self.place, self.clock = np.zeros(n_envs), np.zeros(n_envs, int)

    def reset(self, seed: int | None = None) -> TimeStep:
        if seed is not None:
            self.generators = [np.random.Generator(np.random.PCG64(seed + i)) for i in range(self.n_envs)]
        self._begin(np.arange(self.n_envs))
        none = np.zeros(self.n_envs, bool)
        return self._show(np.zeros(self.n_envs), none, none.copy(), None)

    def _begin(self, envs: np.ndarray) -> None:
        self.place[envs] = [self.generators[env].normal() for env in envs]
        self.clock[envs] = 0

    def _seen(self, envs: np.ndarray) -> dict[str, np.ndarray]:
        return {
            agent: np.column_stack([self.place[envs], np.full(len(envs), number)]).astype(np.float32)
            for number, agent in enumerate(self.agents)
        }

    def _show(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, final: Final | None) -> TimeStep:
        every = np.arange(self.n_envs)
        mask = np.ones((self.n_envs, 3), bool)
        mask[:, 0] = self.place < 0.5
        active = {"pusher": np.ones(self.n_envs, bool)}
        info = {"clock": self.clock.copy()}
        state = self.place[:, None].copy()
        return TimeStep(self._seen(every), state, reward, terminated, truncated, final, {"chooser": mask}, active, info)

    def step(self, actions: Any) -> TimeStep:
        push, choice = self._checked(actions)
        noise = np.array([generator.normal() for generator in self.generators])
        self.place = self.place + 0.3 * push[:, 0] + 0.1 * (choice - 2) + 0.2 * noise
        self.clock += 1
        reward = -np.abs(self.place)
        terminated = np.abs(self.place) > 1.5
        truncated = (self.clock >= 7) & ~terminated
        ended = np.flatnonzero(terminated | truncated)
        final = None
        if ended.size:
            final = Final(ended, self._seen(ended), self.place[ended, None].copy())
            self._begin(ended)
        return self._show(reward, terminated, truncated, final)

    def _checked(self, actions: Any) -> tuple[np.ndarray, np.ndarray]:
        for agent, shape in (("pusher", (self.n_envs, 1)), ("chooser", (self.n_envs,))):
            if agent not in actions or np.shape(actions[agent]) != shape or not np.isfinite(actions[agent]).all():
                raise ValueError(f"action of {agent}")
        return actions["pusher"], actions["chooser"]

    def snapshot(self) -> dict[str, np.ndarray]:
        states = [generator.bit_generator.state["state"] for generator in self.generators]
        words = [[s["state"] >> 64, s["state"] % 2**64, s["inc"] >> 64, s["inc"] % 2**64] for s in states]
        return {"place": self.place.copy(), "clock": self.clock.copy(), "chance": np.array(words, np.uint64)}

    def restore(self, snapshot: Any) -> None:
        self.place, self.clock = snapshot["place"].copy(), snapshot["clock"].copy()
        for generator, (high, low, first, second) in zip(self.generators, snapshot["chance"].tolist(), strict=True):
            state = {"state": high << 64 | low, "inc": first << 64 | second}
            generator.bit_generator.state = {**generator.bit_generator.state, "state": state}

    def remake(self, n_envs: int) -> Walkers:
        return type(self)(n_envs)


# ---- what passes ----


def test_a_minimal_environment_passes() -> None:
    wb.envs.check(Walkers())


class WithoutCopies(Walkers):
    """Neither snapshots nor copies: allowed, since both are optional."""

    snapshot = TeamEnv.snapshot
    restore = TeamEnv.restore
    remake = TeamEnv.remake


def test_snapshots_and_copies_are_optional() -> None:
    env = WithoutCopies()
    assert not env.can_snapshot
    wb.envs.check(env)
    with pytest.raises(SnapshotUnsupported, match=r"WithoutCopies cannot be copied: it has no restore\(\)\. Take back"):
        env.restore({})


@pytest.mark.parametrize(
    ("scenario", "conf", "options"),
    [
        ("Ant", "4x2", {}),
        ("Humanoid", "17x1", {"agent_obsk": 1}),
        ("HalfCheetah", "2x3", {"standardize": False}),
        ("ManyAgentSwimmer", "10x2", {"version": "v4"}),
    ],
)
def test_robots_pass(scenario: str, conf: str, options: dict[str, Any]) -> None:
    wb.envs.check(wb.envs.mujoco(scenario, conf, n_envs=3, max_episode_steps=12, **options))


@pytest.mark.parametrize("n_states", [1, 3])
def test_tabular_games_pass(n_states: int) -> None:
    """Even of one state, which every episode starts from and ends in."""
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(n_states), size=(n_states, 2, 3))
    game = TabularGame(rng.normal(size=(n_states, 2, 3)), transition, np.eye(n_states)[0], 0.9)
    wb.envs.check(wb.envs.tabular(game, n_envs=3, max_episode_steps=5))


# ---- what does not ----


def showing(**changes: Callable[[Walkers, TimeStep], Any]) -> type[Walkers]:
    """Walkers whose every TimeStep has some of its fields replaced."""

    class Changed(Walkers):
        def _show(self, *arguments: Any) -> TimeStep:
            shown = super()._show(*arguments)
            return dataclasses.replace(shown, **{name: change(self, shown) for name, change in changes.items()})

    return Changed


def with_attribute(**attributes: Any) -> type[Walkers]:
    """Walkers who say something else of themselves."""

    class Changed(Walkers):
        def __init__(self, n_envs: int = N_ENVS) -> None:
            super().__init__(n_envs)
            for name, value in attributes.items():
                setattr(self, name, value)

    return Changed


class OverwritesWhatItShowed(Walkers):
    def __init__(self, n_envs: int = N_ENVS) -> None:
        super().__init__(n_envs)
        self._buffer = np.zeros((n_envs, 1))

    def _show(self, *arguments: Any) -> TimeStep:
        shown = super()._show(*arguments)
        self._buffer[:] = shown.state
        return dataclasses.replace(shown, state=self._buffer)


class NeverResets(Walkers):
    def _begin(self, envs: np.ndarray) -> None:
        if len(envs) == self.n_envs and not self.clock.any():
            super()._begin(envs)
        self.clock[envs] = 0

    def reset(self, seed: int | None = None) -> TimeStep:
        self.clock[:] = 0
        return super().reset(seed)


class ShowsTheNewStateAsFinal(Walkers):
    def step(self, actions: Any) -> TimeStep:
        step = super().step(actions)
        if step.final is None:
            return step
        envs = step.final.envs
        return dataclasses.replace(step, final=Final(envs, self._seen(envs), step.state[envs]))


class Unseeded(Walkers):
    def reset(self, seed: int | None = None) -> TimeStep:
        return super().reset(None)


class KeepsSomethingAcrossResets(Walkers):
    def _begin(self, envs: np.ndarray) -> None:
        last = self.place[envs].copy()
        super()._begin(envs)
        self.place[envs] += 0.01 * last


class SharesOneGenerator(Walkers):
    def reset(self, seed: int | None = None) -> TimeStep:
        step = super().reset(seed)
        self.generators = [self.generators[0]] * self.n_envs
        return step if seed is None else self.reset()


class ForgetsTheClock(Walkers):
    def restore(self, snapshot: Any) -> None:
        super().restore({**snapshot, "clock": self.clock})


class ForgetsChance(Walkers):
    def restore(self, snapshot: Any) -> None:
        self.place, self.clock = snapshot["place"].copy(), snapshot["clock"].copy()


class SnapshotsAreViews(Walkers):
    def snapshot(self) -> dict[str, np.ndarray]:
        return {**super().snapshot(), "clock": self.clock}


class SnapshotsAreNotPlain(Walkers):
    def snapshot(self) -> dict[str, np.ndarray]:
        return {**super().snapshot(), "generators": np.array(self.generators, object)}


class StepsBeforeItRefuses(Walkers):
    def _checked(self, actions: Any) -> tuple[np.ndarray, np.ndarray]:
        self.place = self.place + 0.1
        return super()._checked(actions)


class Refuses(Walkers):
    """Refuses wrong actions in its own way."""

    error: type[Exception] | None = None

    def _checked(self, actions: Any) -> tuple[np.ndarray, np.ndarray]:
        try:
            return super()._checked(actions)
        except ValueError:
            if self.error is not None:
                raise self.error("no") from None
            return np.zeros((self.n_envs, 1)), np.ones(self.n_envs, int)


def refusing(how: type[Exception] | None) -> type[Walkers]:
    return type("Changed", (Refuses,), {"error": how})


class SharesItsClocks(Walkers):
    """All copies count one clock, which no reset of a single one can show."""

    def _show(self, *arguments: Any) -> TimeStep:
        shown = super()._show(*arguments)
        return dataclasses.replace(shown, reward=shown.reward + (self.clock.sum() if shown.reward.any() else 0))


class RemakesWithoutItsOptions(Walkers):
    """The copy has other rules."""

    def remake(self, n_envs: int) -> Walkers:
        return Walkers(n_envs)

    def _show(self, reward: np.ndarray, *others: Any) -> TimeStep:
        return super()._show(2 * reward, *others)


class DescribesItselfInObjects(Walkers):
    description = {"kind": "tabular", "game": np.zeros(3)}  # noqa: RUF012 - read, never written


SEEN = Box(-np.inf, np.inf, (2,), np.float32)
SMALL = Box(-0.1, 0.1, (1,), np.float64)
BROKEN: dict[str, tuple[type[Walkers], str]] = {
    "no number of copies": (with_attribute(n_envs="4"), "n_envs is '4'"),
    "agents in a list": (with_attribute(agents=["pusher", "chooser"]), r"agents is \['pusher', 'chooser'\]"),
    "a name twice": (with_attribute(agents=("pusher", "pusher")), "has a name twice"),
    "an agent without a space": (with_attribute(observation_spaces={"pusher": SEEN}), "observation_spaces has"),
    "observations of two axes": (
        with_attribute(observation_spaces={"pusher": Box(0, 1, (2, 2)), "chooser": SEEN}),
        r"observation_spaces\['pusher'\] is Box",
    ),
    "integer observations": (with_attribute(state_space=Box(0, 9, (1,), np.int64)), "state_space is Box"),
    "actions in a dict": (
        with_attribute(action_spaces={"pusher": Dict({"push": SEEN}), "chooser": Discrete(3)}),
        r"action_spaces\['pusher'\] is Dict",
    ),
    "an observation missing": (
        showing(observations=lambda env, step: {"pusher": step.observations["pusher"]}),
        r"observations after reset\(\) are of \('pusher',\)",
    ),
    "observations in another order": (
        showing(observations=lambda env, step: dict(reversed(step.observations.items()))),
        "in the order of agents",
    ),
    "float64 for float32": (
        showing(observations=lambda env, step: {a: o.astype(float) for a, o in step.observations.items()}),
        "float64",
    ),
    "a state of another shape": (
        showing(state=lambda env, step: step.state[:, 0]),
        r"state after reset\(\) is an array",
    ),
    "a state beyond its space": (with_attribute(state_space=SMALL), "leaves its space"),
    "NaN in the state": (showing(state=lambda env, step: step.state * np.nan), "state after .* holds NaN or inf"),
    "a reward for each agent": (
        showing(reward=lambda env, step: np.column_stack([step.reward, step.reward])),
        r"reward after reset\(\) is an array of shape \(4, 2\)",
    ),
    "a float32 reward": (showing(reward=lambda env, step: step.reward.astype(np.float32)), "reward .*float32"),
    "NaN in the reward": (showing(reward=lambda env, step: step.reward + np.nan), "reward .* holds NaN or inf"),
    "a reward for nothing": (showing(reward=lambda env, step: step.reward + 1), r"reset\(\) hands back a reward"),
    "flags that are numbers": (showing(terminated=lambda env, step: step.terminated.astype(int)), "terminated .*int"),
    "both endings": (
        showing(truncated=lambda env, step: step.truncated | step.terminated),
        "both terminated and truncated",
    ),
    "no final": (showing(final=lambda env, step: None), "ended, but final is None"),
    "final of others": (
        showing(final=lambda env, step: step.final and dataclasses.replace(step.final, envs=step.final.envs + 1)),
        "final.envs is",
    ),
    "final observations of all": (
        showing(final=lambda env, step: step.final and dataclasses.replace(step.final, state=step.state)),
        r"state after step \d+ \(final\) is an array of shape \(4, 1\)",
    ),
    "the new state as final": (ShowsTheNewStateAsFinal, "go on from their final state"),
    "no reset at the end": (NeverResets, "go on from their final state"),
    "a mask for continuous actions": (
        showing(action_masks=lambda env, step: {"pusher": np.ones((4, 1), bool)}),
        "action_masks .* has 'pusher'",
    ),
    "a mask that allows nothing": (
        showing(action_masks=lambda env, step: {"chooser": np.zeros((env.n_envs, 3), bool)}),
        "without any action",
    ),
    "a stranger is active": (
        showing(active=lambda env, step: {"stranger": np.ones(env.n_envs, bool)}),
        "active after .* names 'stranger'",
    ),
    "info without rows": (showing(info=lambda env, step: {"clock": 3}), r"info\['clock'\]"),
    "overwritten arrays": (OverwritesWhatItShowed, "overwrote state of the TimeStep before"),
    "chance without a seed": (Unseeded, "differ between two runs"),
    "memory across resets": (KeepsSomethingAcrossResets, "differ between two runs"),
    "one generator for all": (SharesOneGenerator, "starts differently from a single one"),
    "a clock that is not restored": (ForgetsTheClock, r"after restore\(\) differ"),
    "chance that is not restored": (ForgetsChance, r"after restore\(\) differ"),
    "snapshots that change": (SnapshotsAreViews, "stepping changed 'clock' of a snapshot"),
    "snapshots of objects": (SnapshotsAreNotPlain, r"snapshot\(\)\['generators'\] is an array .* object"),
    "stepping before refusing": (StepsBeforeItRefuses, "change after actions that were refused"),
    "accepting anything": (refusing(None), "is accepted"),
    "another error": (refusing(KeyError), "raises KeyError"),
    "an error without a name": (refusing(ValueError), "does not name the agent"),
    "one clock for all": (
        SharesItsClocks,
        "reward of environment 3 after 1 steps differ from those of the same one alone",
    ),
    "copies without options": (RemakesWithoutItsOptions, r"differ between the environment and remake\(\)"),
    "a description of objects": (DescribesItselfInObjects, "its description is not JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name: str) -> None:
    broken, message = BROKEN[name]
    with pytest.raises(ContractError, match=message) as raised:
        wb.envs.check(broken(), steps=100)
    assert str(raised.value).startswith(f"{broken.__name__} breaks the TeamEnv contract: ")
    assert isinstance(raised.value, wb.errors.WorkbenchError)


class TwoChoices(Walkers):
    """The pusher chooses twice out of three."""

    def __init__(self, n_envs: int = N_ENVS) -> None:
        super().__init__(n_envs)
        self.action_spaces = {**self.action_spaces, "pusher": MultiDiscrete([3, 3])}

    def _checked(self, actions: Any) -> tuple[np.ndarray, np.ndarray]:
        if "pusher" in actions and np.shape(actions["pusher"]) != (self.n_envs, 2):
            raise ValueError("action of pusher")
        given = {**actions, "pusher": actions["pusher"][:, :1] - 1.0} if "pusher" in actions else actions
        return super()._checked(given)


def test_several_choices_at_once_pass() -> None:
    wb.envs.check(TwoChoices())


class MaskedTwoChoices(TwoChoices):
    """The components' masks lie end to end; what they forbid is never chosen."""

    mask = (True, False, True, False, True, True)

    def _show(self, *arguments: Any) -> TimeStep:
        shown = super()._show(*arguments)
        masks = {**shown.action_masks, "pusher": np.tile(self.mask, (self.n_envs, 1))}
        return dataclasses.replace(shown, action_masks=masks)

    def _checked(self, actions: Any) -> tuple[np.ndarray, np.ndarray]:
        checked = super()._checked(actions)
        first, second = actions["pusher"].T
        assert np.all(first != 1)
        assert np.all(second != 0)
        return checked


class NoSecondChoice(MaskedTwoChoices):
    mask = (True, True, True, False, False, False)


def test_masks_of_several_choices_are_kept_and_each_must_allow_something() -> None:
    wb.envs.check(MaskedTwoChoices())
    with pytest.raises(ContractError, match="without any action"):
        wb.envs.check(NoSecondChoice())


class SharedBoard(Scripted):
    """Made of PettingZoo's, with a dict in the class body, as newcomers write it."""

    found: dict[int, int] = {}  # noqa: RUF012 - the mistake

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.found.clear()
        return super().reset(seed)

    def step(self, actions: dict[str, Any]) -> Any:
        self.found[len(self.found)] = 1
        self.reward = lambda agent, t: float(len(self.found))
        return super().step(actions)


class GlobalChance(Scripted):
    """Seeds the generator that all of NumPy shares."""

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            np.random.seed(seed)  # noqa: NPY002 - the mistake
        return super().reset(seed)

    def step(self, actions: dict[str, Any]) -> Any:
        chance = np.random.normal()  # noqa: NPY002 - the mistake
        self.reward = lambda agent, t: chance
        return super().step(actions)


@pytest.mark.parametrize("make", [SharedBoard, GlobalChance])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_copies_that_share_something_are_found(make: Any, n_envs: int) -> None:
    with pytest.raises(
        ContractError, match=r"reward of environment \d after \d+ steps differ .*Let copies share nothing"
    ):
        wb.envs.check(wb.envs.pettingzoo(make, n_envs=n_envs))
