"""What a tired user may hand to the theory's functions: one error that names the argument, the value and the remedy."""

from __future__ import annotations

import numpy as np
import pytest

from workbench import theory as t

GAME = t.random_game(2, 3, (2, 3), seed=0)
START = t.uniform_policies(GAME)
OTHER = t.simultaneous_game()
ELSEWHERE = t.evaluate(OTHER, t.uniform_policies(OTHER))

REFUSED = {
    "game and policies swapped": (
        lambda: t.evaluate(START, GAME),
        "game is .*, expected a TabularGame: it comes first",
    ),
    "the same of algorithm1": (lambda: t.algorithm1(START, GAME), "game is .*, expected a TabularGame"),
    "no policies": (lambda: t.evaluate(GAME, None), r"policies is None, expected 2 arrays \(S, Ai\)"),
    "a trace": (lambda: t.evaluate(GAME, t.algorithm1(GAME, START, 1)), "those of a trace are trace.policies"),
    "policies by name": (lambda: t.nash_gap(GAME, dict(zip(GAME.agents, START, strict=True))), "expected 2 arrays"),
    "a word for policies": (lambda: t.evaluate(GAME, "uniform"), "policies is 'uniform', expected 2 arrays"),
    "no log-policies": (lambda: t.algorithm1(GAME, None, 1, log_space=True), "policies is None, expected"),
    "words for log-policies": (lambda: t.algorithm1(GAME, ("a", "b"), 1, log_space=True), "log-probabilities"),
    "a floor in words": (lambda: t.nash_gap(GAME, START, floor="low"), "floor is 'low', expected a number"),
    "no floor": (lambda: t.algorithm1(GAME, START, 1, floor=None), "floor is None, expected a number"),
    "a floor too high": (lambda: t.raise_to_floor(START[0], 0.6), "floor is 0.6, expected 0 <= floor < 1/2"),
    "half an iteration": (lambda: t.algorithm1(GAME, START, 10.5), "iterations is 10.5, expected an integer"),
    "iterations in words": (
        lambda: t.simultaneous_update(GAME, START, "10"),
        "iterations is '10', expected an integer",
    ),
    "a seed below 0": (lambda: t.algorithm1(GAME, START, 1, seed=-1), "seed is -1, expected 0 or more"),
    "no seed": (lambda: t.random_policies(GAME, None), "seed is None, expected an integer"),
    "ragged orders": (
        lambda: t.algorithm1(GAME, START, 2, orders=[(0, 1), (0,)]),
        r"orders holds \(0,\), expected every",
    ),
    "too few orders": (lambda: t.algorithm1(GAME, START, 3, orders=[(0, 1)]), "orders has 1 rows"),
    "an order of strangers": (lambda: t.algorithm1(GAME, START, 1, orders=("a", "b")), "unknown agent 'a'"),
    "actions that are no number": (lambda: t.random_game(2, 3, 2.0), "n_actions is 2.0, expected an integer"),
    "agents in words": (lambda: t.random_game("2"), "n_agents is '2', expected an integer"),
    "no states": (lambda: t.random_game(2, 0), "n_states is 0, expected 1 or more"),
    "no spread": (lambda: t.random_game(concentration=-1), "concentration is -1, expected a number above 0"),
    "an infinite spread": (lambda: t.random_policies(GAME, 0, np.inf), "concentration is inf"),
    "payoffs in words": (lambda: t.matrix_game("abc"), "reward cannot be read as an array of numbers"),
    "ragged payoffs": (lambda: t.matrix_game([[1, 2], [3]]), "reward cannot be read as an array of numbers"),
    "complex payoffs": (lambda: t.matrix_game([[1j, 2]]), "reward cannot be read .* type complex128"),
    "half an agent": (lambda: t.sharing_game(4.0), "n_agents is 4.0, expected an integer"),
    "half a row": (lambda: t.meeting_game(2.5, 2), "rows is 2.5, expected an integer"),
    "goals in a list": (
        lambda: t.meeting_game(goals=[(0, 0)]),
        r"goals is \[\(0, 0\)\], expected {\(row, column\): reward}",
    ),
    "slip in words": (lambda: t.meeting_game(slip="some"), "slip is 'some', expected a probability"),
    "slip above 1": (lambda: t.meeting_game(slip=1.5), "slip is 1.5, expected a probability"),
    "ε in words": (
        lambda: t.happo_surrogate(GAME, START, START, (0, 1), "0.2"),
        "clip_epsilon is '0.2', expected a number",
    ),
    "weights in words": (
        lambda: t.hatrpo_surrogate(GAME, START, START, (0, 1), state_weights="a"),
        "state_weights cannot",
    ),
    "an order for a surrogate": (lambda: t.hatrpo_surrogate(GAME, START, START, "random"), "unknown agent 'random'"),
    "a tolerance of NaN": (lambda: t.best_shared_policy(OTHER, np.nan), "tolerance is nan, expected 0 or more"),
    "an agent that is a float": (lambda: t.best_response(GAME, START, 1.0), "agent 1.0 is not in this game"),
    "an agent that is a flag": (lambda: t.best_response(GAME, START, True), "agent True is not in this game"),
    "nobody": (lambda: t.multi_agent_advantage(GAME, START, None, 1), "agent None is not in this game"),
    "another game's values": (
        lambda: t.multi_agent_advantage(GAME, START, [0], [1], evaluation=ELSEWHERE),
        "evaluation has action values of shape .* another game",
    ),
    "another game's values for M": (
        lambda: t.m_factor(GAME, START, START, [0], evaluation=ELSEWHERE),
        "evaluation has action values of shape .* another game",
    ),
    "one action for all": (lambda: t.deterministic_policies(GAME, 0), "actions is 0, expected 2 entries"),
    "a discount that is a flag": (lambda: t.random_game(discount=True), "discount is True, expected a number"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused_in_one_sentence(call, message):
    with pytest.raises((ValueError, TypeError), match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_numpys_own_numbers_are_numbers():
    game = t.random_game(np.int64(2), np.int32(3), np.int64(2), np.float32(0.5), concentration=np.float64(1))
    assert game.n_actions == (2, 2)
    assert t.algorithm1(game, t.uniform_policies(game), np.int64(2), seed=np.uint8(3)).orders.shape == (2, 2)
    assert t.random_game(n_actions=np.array([2, 3])).n_actions == (2, 3)


def test_agents_are_named_wherever_they_are_counted():
    by_name = t.algorithm1(GAME, START, 3, orders=("agent_1", "agent_0"))
    assert by_name.orders.tolist() == [[1, 0]] * 3
    each = t.algorithm1(GAME, START, 2, orders=[("agent_1", 0), np.array([0, 1])])
    assert each.orders.tolist() == [[1, 0], [0, 1]]
    assert t.algorithm1(GAME, START, 2, orders=np.array([[0, 1], [1, 0]])).orders.tolist() == [[0, 1], [1, 0]]
