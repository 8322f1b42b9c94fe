"""Sampled games: the draws follow the game's own probabilities, episodes end as said, and copies repeat to the bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

import workbench as wb
from workbench.envs.sampled_game import SampledGame, default_horizon, distribution_functions, outcomes
from workbench.theory import TabularGame


def random_game(discount: float = 0.8, seed: int = 0) -> TabularGame:
    """Four states, agents with two and three actions; a fifth of the transitions have probability 0."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(4), size=(4, 2, 3))
    transition[rng.random(transition.shape) < 0.2] = 0.0
    transition /= transition.sum(-1, keepdims=True)
    return TabularGame(rng.normal(size=(4, 2, 3)), transition, rng.dirichlet(np.ones(4)), discount)


def corridor(random_start: bool = False) -> TabularGame:
    """0 → 1 → 2 when both agents push (action 1), else nothing moves; state 2 is the end, worth 1 on arrival."""
    transition = np.zeros((3, 2, 2, 3))
    reward = np.zeros((3, 2, 2))
    for state in range(2):
        transition[state, ..., state] = 1.0
        transition[state, 1, 1] = np.eye(3)[state + 1]
    transition[2, ..., 2] = 1.0
    reward[1, 1, 1] = 1.0
    return TabularGame(reward, transition, [0.5, 0.5, 0.0] if random_start else [1.0, 0.0, 0.0], 0.9)


def actions_for(env: wb.envs.TeamEnv, rng: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    return {agent: rng.integers(env.action_spaces[agent].n, size=env.n_envs) for agent in env.agents}


def push(env: wb.envs.TeamEnv) -> dict[str, npt.NDArray[Any]]:
    return {agent: np.ones(env.n_envs, int) for agent in env.agents}


def equal(a: wb.envs.TimeStep, b: wb.envs.TimeStep) -> bool:
    same = [
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("state", "reward", "terminated", "truncated")
    ]
    return all(same) and all(np.array_equal(a.observations[agent], b.observations[agent]) for agent in a.observations)


# ---- the game's own probabilities ----


def test_transitions_rewards_and_first_states_follow_the_game() -> None:
    """χ² for each of 24 rows and d, each at 10⁻³/25: all pass with probability 99.9 % if the sampling is right."""
    game, level = random_game(), 1e-3 / 25
    env = SampledGame(game, n_envs=400, max_episode_steps=5)
    rng = np.random.default_rng(1)
    counts = np.zeros(game.transition.shape)
    firsts = np.zeros(4)
    state = env.reset(seed=2).state.argmax(-1)
    firsts += np.bincount(state, minlength=4)
    for _ in range(300):
        actions = actions_for(env, rng)
        step = env.step(actions)
        arrived = step.state.argmax(-1)
        if step.final is not None:
            firsts += np.bincount(arrived[step.final.envs], minlength=4)
            arrived = arrived.copy()
            arrived[step.final.envs] = step.final.state.argmax(-1)
        np.add.at(counts, (state, actions["agent_0"], actions["agent_1"], arrived), 1)
        assert np.array_equal(step.reward, game.reward[state, actions["agent_0"], actions["agent_1"]])
        state = step.state.argmax(-1)
    rows = [*zip(counts.reshape(-1, 4), game.transition.reshape(-1, 4), strict=True), (firsts, game.initial)]
    for observed, probabilities in rows:
        possible = probabilities > 0
        assert observed[~possible].sum() == 0
        assert observed.sum() > 500
        expected = probabilities[possible] * observed.sum()
        assert stats.chisquare(observed[possible], expected).pvalue > level


def test_the_mean_discounted_return_is_the_exact_objective() -> None:
    """J(π) = d·(I − γ P_π)⁻¹ r_π for the uniform policy, within the 99.9 % interval of 4,000 episodes of 60 steps."""
    game = random_game(discount=0.8)
    exact = game.initial @ np.linalg.solve(np.eye(4) - 0.8 * game.transition.mean((1, 2)), game.reward.mean((1, 2)))
    env = SampledGame(game, n_envs=4000, max_episode_steps=60)
    rng = np.random.default_rng(3)
    env.reset(seed=4)
    returns = sum(0.8**t * env.step(actions_for(env, rng)).reward for t in range(60))
    error = stats.norm.ppf(1 - 0.001 / 2) * returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - exact) < error + 0.8**60 * 10
    assert error < 0.1  # the interval is narrow enough to mean something


def test_outcomes_of_probability_zero_never_come_up() -> None:
    """At both ends of [0, 1): the first draw there is, and the last, even where rounding leaves the sum below 1."""
    row = np.array([0.0] + [0.1] * 10 + [0.0])
    assert np.cumsum(row)[-1] < 1.0
    ends = np.array([0.0, 1.0 - 2.0**-53])
    assert outcomes(ends, distribution_functions(row)).tolist() == [1, 10]
    assert outcomes(np.array([0.0999, 0.1001]), distribution_functions(row)).tolist() == [1, 2]


# ---- how episodes end ----


def test_an_absorbing_state_terminates_and_the_true_last_state_is_handed_back() -> None:
    env = SampledGame(corridor(), n_envs=3)
    env.reset(seed=0)
    first, second = env.step(push(env)), env.step(push(env))
    assert not first.done.any()
    assert second.terminated.all()
    assert not second.truncated.any()
    assert second.reward.tolist() == [1.0, 1.0, 1.0]
    assert second.final is not None
    assert second.final.envs.tolist() == [0, 1, 2]
    assert second.final.state.argmax(-1).tolist() == [2, 2, 2]
    assert second.state.argmax(-1).tolist() == [0, 0, 0]


def test_absorbing_states_can_be_left_to_the_clock() -> None:
    env = SampledGame(corridor(), n_envs=1, end_at_absorbing=False, max_episode_steps=4)
    env.reset(seed=0)
    steps = [env.step(push(env)) for _ in range(4)]
    assert [bool(step.terminated[0]) for step in steps] == [False] * 4
    assert [bool(step.truncated[0]) for step in steps] == [False, False, False, True]


def test_termination_wins_over_the_clock() -> None:
    env = SampledGame(corridor(), n_envs=1, max_episode_steps=2)
    env.reset(seed=0)
    env.step(push(env))
    step = env.step(push(env))
    assert bool(step.terminated[0])
    assert not step.truncated[0]


@pytest.mark.parametrize(("discount", "steps"), [(0.5, 10), (0.8, 31), (0.99, 688)])
def test_the_default_length_neglects_a_thousandth_of_the_return(discount: float, steps: int) -> None:
    assert default_horizon(discount) == steps
    assert discount**steps <= 1e-3 < discount ** (steps - 1)
    env = SampledGame(random_game(discount), n_envs=1)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    ends = [env.step(actions_for(env, rng)) for _ in range(2 * steps)]
    assert [bool(step.truncated[0]) for step in ends] == ([False] * (steps - 1) + [True]) * 2
    assert not any(step.terminated[0] for step in ends)


def test_without_a_future_every_step_is_an_episode() -> None:
    env = SampledGame(random_game(discount=0.0), n_envs=50)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(3):
        step = env.step(actions_for(env, rng))
        assert step.terminated.all()
        assert not step.truncated.any()
    asked_for = SampledGame(random_game(discount=0.0), n_envs=1, max_episode_steps=2)
    asked_for.reset(seed=0)
    assert [bool(asked_for.step(actions_for(asked_for, rng)).truncated[0]) for _ in range(2)] == [False, True]


# ---- streams, copies, descriptions ----


def test_environment_i_depends_on_its_own_seed_alone() -> None:
    """Also where the others' episodes end at other times, as in a corridor with random starts and pushes."""
    rng = np.random.default_rng(0)
    together = SampledGame(corridor(random_start=True), n_envs=3)
    alone = SampledGame(corridor(random_start=True), n_envs=1)
    together.reset(seed=10)
    alone.reset(seed=12)
    ends = []
    for _ in range(60):
        actions = actions_for(together, rng)
        a, b = together.step(actions), alone.step({agent: chosen[2:] for agent, chosen in actions.items()})
        assert np.array_equal(a.state[2:], b.state)
        assert np.array_equal(a.reward[2:], b.reward)
        ends.append(a.done)
    assert len({tuple(times) for times in np.stack(ends, 1).tolist()}) == 3


def test_a_reset_without_seed_goes_on_and_with_one_starts_over() -> None:
    env = SampledGame(random_game(), n_envs=64)
    first, second, again = env.reset(seed=5), env.reset(), env.reset(seed=5)
    assert equal(first, again)
    assert not equal(first, second)


def test_neighbouring_streams_are_uncorrelated() -> None:
    """1,000 neighbours over 200 draws: the mean product of centred draws is within 5 standard errors of 0."""
    coin = TabularGame(np.zeros((2, 1)), np.full((2, 1, 2), 0.5), [0.5, 0.5], 0.5)
    env = SampledGame(coin, n_envs=1001, max_episode_steps=10**6, end_at_absorbing=False)
    env.reset(seed=0)
    draws = np.stack([env.step({"agent_0": np.zeros(1001, int)}).state[:, 0] for _ in range(200)]) - 0.5
    for products in (draws[:, 1:] * draws[:, :-1], draws[1:] * draws[:-1], draws):
        assert abs(products.mean()) < 5 * products.std() / np.sqrt(products.size)


def test_a_snapshot_repeats_to_the_bit_and_is_not_consumed() -> None:
    env = SampledGame(random_game(), n_envs=7, max_episode_steps=3)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = [actions_for(env, rng) for _ in range(20)]
    for chosen in actions[:5]:
        env.step(chosen)
    snapshot = env.snapshot()
    first = [env.step(chosen) for chosen in actions]
    other = env.remake(7)
    for again in (env, other):
        again.restore(snapshot)
        assert all(equal(step, again.step(chosen)) for step, chosen in zip(first, actions, strict=True))
    with pytest.raises(ValueError, match=r"of 7 environments, this is of 2; make one with n_envs=7"):
        env.remake(2).restore(snapshot)


def test_the_description_survives_json() -> None:
    env = SampledGame(random_game(), n_envs=4, max_episode_steps=np.int64(9), end_at_absorbing=False)
    again = wb.envs.make(**json.loads(json.dumps(env.description)))
    assert isinstance(again, SampledGame)
    assert again.description == env.description
    assert equal(env.reset(seed=3), again.reset(seed=3))
    actions = actions_for(env, np.random.default_rng(0))
    assert equal(env.step(actions), again.step(actions))


def test_it_keeps_the_contract() -> None:
    wb.envs.check(wb.envs.tabular(random_game(), n_envs=4))
    wb.envs.check(wb.envs.tabular(corridor(), n_envs=4))
    wb.envs.check(wb.envs.tabular(random_game(discount=0.0), n_envs=4))


# ---- bad input ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent_0": None}, r"actions has none for 'agent_0'; give one array for each of"),
        ({"agent_1": np.zeros(3, int)}, r"action of 'agent_1' has shape \(3,\); expected \(2,\)"),
        ({"agent_1": np.array([0.0, np.nan])}, r"action of 'agent_1' has dtype float64; expected integers"),
        ({"agent_1": np.array([0, 3])}, r"action of 'agent_1' is 3 in environment 1; expected 0 to 2"),
        ({"agent_1": np.array([-1, 0])}, r"action of 'agent_1' is -1 in environment 0; expected 0 to 2"),
        ({"agent_2": np.zeros(2, int)}, r"unknown agent in actions: 'agent_2'"),
    ],
)
def test_a_bad_action_is_refused_and_changes_nothing(change: dict[str, Any], message: str) -> None:
    env = SampledGame(random_game(), n_envs=2)
    env.reset(seed=0)
    good = {agent: np.zeros(2, int) for agent in env.agents}
    before = env.snapshot()
    with pytest.raises(ValueError, match=message):
        env.step({agent: array for agent, array in {**good, **change}.items() if array is not None})
    assert all(np.array_equal(before[name], array) for name, array in env.snapshot().items())


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="n_envs is 0; expected an integer ≥ 1"):
        wb.envs.tabular(random_game(), n_envs=0)
    with pytest.raises(ValueError, match=r"max_episode_steps is 2\.5; expected an integer ≥ 1"):
        wb.envs.tabular(random_game(), max_episode_steps=2.5)
    with pytest.raises(TypeError, match=r"game is a list; expected a workbench\.theory\.TabularGame"):
        wb.envs.tabular([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"seed is -1; expected an integer ≥ 0"):
        wb.envs.tabular(random_game()).reset(seed=-1)
    with pytest.raises(ValueError, match=r"actions is array.*expected a mapping"):
        wb.envs.tabular(random_game()).step(np.zeros(64))  # type: ignore[arg-type]
