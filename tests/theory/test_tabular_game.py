"""Games and policies at the door: what is refused and how, what they look like, and that nothing turns into NaN."""

from __future__ import annotations

import dataclasses
import sys
import tracemalloc

import numpy as np
import pytest

from workbench.theory import (
    TabularGame,
    algorithm1,
    best_response,
    best_shared_policy,
    deterministic_policies,
    evaluate,
    happo_surrogate,
    hatrpo_surrogate,
    matrix_game,
    meeting_game,
    nash_gap,
    raise_to_floor,
    random_game,
    random_policies,
    sharing_game,
    simultaneous_game,
    uniform_policies,
)


def parts(**changes):
    """What makes a small valid game, with changes."""
    game = random_game(2, 3, (2, 4), seed=0)
    return {
        "reward": game.reward.copy(),
        "transition": game.transition.copy(),
        "initial": game.initial.copy(),
        "discount": 0.9,
        **changes,
    }


def changed(name, index, value):
    array = parts()[name]
    array[index] = value
    return {name: array}


BAD_GAMES = {
    "reward without agents": ({"reward": np.zeros(3)}, r"reward has shape \(3,\), expected \(S, A1"),
    "empty reward": ({"reward": np.zeros((3, 0, 4))}, r"reward has shape \(3, 0, 4\)"),
    "ragged reward": ({"reward": [[[1.0, 2.0], [3.0]]]}, "reward cannot be read as an array of numbers"),
    "words": ({"reward": [["good", "bad"]]}, "reward cannot be read as an array of numbers"),
    "infinite reward": (changed("reward", (1, 0, 3), np.inf), r"reward\[1, 0, 3\] is inf, expected a finite number"),
    "NaN transition": (changed("transition", (0, 1, 2, 0), np.nan), r"transition\[0, 1, 2, 0\] is nan"),
    "shapes disagree": ({"transition": np.ones((3, 2, 3, 3)) / 3}, r"expected \(3, 2, 4, 3\): reward's shape"),
    "no distribution": (changed("transition", (2, 1, 3), [0.5, 0.5, 0.5]), r"transition\[2, 1, 3\] sums to 1.5"),
    "negative": (changed("transition", (2, 1, 3), [-0.5, 1.0, 0.5]), r"transition\[2, 1, 3, 0\] is -0.5"),
    "initial shape": ({"initial": [0.5, 0.5]}, r"initial has shape \(2,\), expected \(3,\)"),
    "initial sum": ({"initial": [0.5, 0.5, 0.5]}, "initial sums to 1.5, expected 1"),
    "initial negative": ({"initial": [-0.5, 1.0, 0.5]}, r"initial\[0\] is -0.5"),
    "discount 1": ({"discount": 1.0}, "discount is 1, expected 0 <= discount < 1"),
    "discount below 0": ({"discount": -0.1}, "discount is -0.1"),
    "discount NaN": ({"discount": float("nan")}, "discount is nan"),
    "discount of words": ({"discount": "high"}, "discount is 'high'"),
}


@pytest.mark.parametrize(("change", "message"), BAD_GAMES.values(), ids=BAD_GAMES.keys())
def test_a_malformed_game_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TabularGame(**parts(**change))


BAD_POLICIES = {
    "too few": (lambda p: p[:1], "policies has 1 entries, expected 2"),
    "shape": (lambda p: (p[1], p[0]), r"policies\[0\] has shape \(3, 4\), expected \(3, 2\)"),
    "sum": (lambda p: (p[0] * 1.1, p[1]), r"policies\[0\]\[0\] is .* expected probabilities"),
    "negative": (lambda p: (p[0] - [[0.6, -0.6]], p[1]), r"policies\[0\]\[0\] is"),
    "NaN": (lambda p: (p[0], np.where(np.eye(3, 4) > 0, np.nan, p[1])), r"policies\[1\]\[0\] is \[ *nan"),
    "words": (lambda p: (p[0], [["a"]]), r"policies\[1\] cannot be read"),
}
TAKERS = {
    "evaluate": evaluate,
    "nash_gap": nash_gap,
    "algorithm1": lambda g, p: algorithm1(g, p, 1),
    "best_response": lambda g, p: best_response(g, p, 0),
    "hatrpo_surrogate": lambda g, p: hatrpo_surrogate(g, p, p, (0, 1)),
    "happo_surrogate": lambda g, p: happo_surrogate(g, p, p, (0, 1)),
}


@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS.keys())
@pytest.mark.parametrize(("change", "message"), BAD_POLICIES.values(), ids=BAD_POLICIES.keys())
def test_a_malformed_policy_is_refused_by_all_who_take_one(taker, change, message):
    game = TabularGame(**parts())
    with pytest.raises(ValueError, match=message):
        taker(game, change(uniform_policies(game)))


def test_what_else_is_refused():
    game = simultaneous_game()
    start = uniform_policies(game)
    with pytest.raises(ValueError, match=r"floor is 0.5, expected 0 <= floor < 1/2"):
        nash_gap(game, start, floor=0.5)
    with pytest.raises(ValueError, match=r"floor is -0\.1"):
        algorithm1(game, start, floor=-0.1)
    with pytest.raises(ValueError, match="iterations is -1"):
        algorithm1(game, start, iterations=-1)
    for orders in ((0, 0), (0, 1, 2), ((0, 1), (1, 1)), "random"):
        with pytest.raises(ValueError, match="orders h"):
            algorithm1(game, start, 2, orders=orders)
    with pytest.raises(ValueError, match=r"actions\[1\] is 2, expected actions from 0 to 1"):
        deterministic_policies(game, (0, 2))
    with pytest.raises(ValueError, match=r"actions\[0\] is 0.5, expected one integer"):
        deterministic_policies(game, (0.5, 0))
    with pytest.raises(ValueError, match="actions has 1 entries"):
        deterministic_policies(game, (0,))
    with pytest.raises(ValueError, match="concentration is 0"):
        random_policies(game, concentration=0.0)
    for n in (0, 3, 22):
        with pytest.raises(ValueError, match="expected an even number from 2 to 20"):
            sharing_game(n)
    with pytest.raises(ValueError, match="more than 20,000,000"):
        meeting_game(n_agents=4)
    with pytest.raises(ValueError, match="goal \\(3, 0\\) is off the grid"):
        meeting_game(goals={(3, 0): 1.0})
    with pytest.raises(ValueError, match="nowhere to start"):
        meeting_game(1, 1, goals={(0, 0): 1.0})
    with pytest.raises(ValueError, match="n_actions=\\(2, 2\\)"):
        random_game(3, n_actions=(2, 2))
    with pytest.raises(ValueError, match="cannot share a policy"):
        best_shared_policy(random_game(2, 1, (2, 3)))
    with pytest.raises(ValueError, match="actions move the state"):
        best_shared_policy(random_game(2, 2))
    with pytest.raises(ValueError, match="clip_epsilon is 0"):
        happo_surrogate(game, start, start, (0, 1), clip_epsilon=0.0)
    with pytest.raises(ValueError, match="state_weights is"):
        hatrpo_surrogate(game, start, start, (0, 1), state_weights=[1.0, 1.0])


def edge_games():
    """Absorbing states, no reward at all, γ next to 1, one action, one agent, one state."""
    loop = np.zeros((2, 2, 2, 2))
    loop[0, ..., 1] = loop[1, ..., 1] = 1.0
    reward = np.zeros((2, 2, 2))
    reward[0, 1, 1] = 1.0
    still = random_game(2, 3, seed=1)
    return {
        "absorbing": TabularGame(reward, loop, [1.0, 0.0], 0.99),
        "absorbed from the start": TabularGame(reward, loop, [0.0, 1.0], 0.5),
        "no reward": TabularGame(np.zeros_like(still.reward), still.transition, still.initial, 0.9),
        "γ near 1": dataclasses.replace(still, discount=1.0 - 1e-9),
        "γ tiny": dataclasses.replace(still, discount=1e-300),
        "rewards tiny": dataclasses.replace(still, reward=still.reward * 1e-300),
        "rewards large": dataclasses.replace(still, reward=still.reward * 1e150),
        "one action": random_game(2, 3, (1, 2), seed=1),
        "one agent": random_game(1, 3, 3, seed=1),
        "one state": matrix_game([[1.0, 1.0], [1.0, 1.0]], discount=0.9),
        "meeting": meeting_game(2, 2),
    }


@pytest.mark.parametrize(("name", "game"), edge_games().items(), ids=edge_games().keys())
@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_results_are_finite_at_every_edge(name, game, floor):
    for policies in (uniform_policies(game), deterministic_policies(game, (0,) * game.n_agents)):
        trace = algorithm1(game, policies, 8, floor=floor)
        evaluation = evaluate(game, trace.policies)
        for array in (*dataclasses.astuple(evaluation), *dataclasses.astuple(trace)[2:], *trace.policies[-1]):
            assert np.isfinite(array).all(), name
        # J itself is no more exact than the linear system's condition, 1/(1 − γ), allows.
        rounding = max(1e-10, 1e-15 / (1.0 - game.discount)) * max(1.0, np.abs(trace.objectives).max())
        assert np.diff(trace.objectives).min() >= -rounding
        assert np.isfinite(nash_gap(game, trace.policies, floor))
        assert np.isfinite(best_response(game, policies, 0, floor).objective)


def test_absorbing_states_are_known():
    games = edge_games()
    assert games["absorbing"].absorbing.tolist() == [False, True]
    assert games["no reward"].absorbing.tolist() == [False] * 3
    assert np.flatnonzero(games["meeting"].absorbing).tolist() == [16]


def test_a_game_cannot_be_changed_from_outside():
    given = parts()
    game = TabularGame(**given)
    given["reward"][0] = 99.0
    assert game.reward.max() < 99.0
    with pytest.raises(ValueError, match="read-only"):
        game.transition[0] = 0.0


def test_a_game_of_a_million_entries_has_its_transitions_copied_once_and_no_more():
    shape = (10, 10, 10, 10, 10, 10)
    reward, transition = np.zeros(shape), np.full((*shape, 10), 0.1)
    assert reward.size == 10**6
    tracemalloc.start()
    game = TabularGame(reward, transition, np.full(10, 0.1), 0.9)
    _, while_made = tracemalloc.get_traced_memory()
    policies = uniform_policies(game)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    evaluate(game, policies)
    best_response(game, policies, 4)
    algorithm1(game, policies, 1)
    _, while_evaluated = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert transition.nbytes < while_made < 1.5 * transition.nbytes
    assert while_evaluated - held < transition.nbytes


def test_what_a_game_looks_like():
    game = simultaneous_game()
    assert repr(game) == "TabularGame('simultaneous game', 2 agents, 1 state, actions (2, 2), discount 0)"
    page = game._repr_html_()
    assert "simultaneous game" in page
    assert ">−1</td>" in page
    assert "a⁰ = 1" in page
    assert "var(--jp-content-font-color1, inherit)" in page
    many = meeting_game()._repr_html_()
    assert "82 (1 absorbing)" in many
    assert "a⁰ = 1" not in many
    assert "<script" not in matrix_game([[0.0]], name="<script>")._repr_html_()


def test_the_named_games_are_what_they_say():
    game = simultaneous_game()
    assert game.reward[0].tolist() == [[0.0, 2.0], [2.0, -1.0]]
    four = sharing_game(4)
    assert np.argwhere(four.reward[0]).tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    met = meeting_game(2, 2, slip=0.0, discount=0.5, goals={(0, 0): 3.0})
    # From cells 1 and 2, left and up meet at cell 0: reward 3, and the game is over.
    state = 1 * 4 + 2
    assert met.reward[state, 3, 1] == 3.0
    assert met.transition[state, 3, 1, -1] == 1.0
    assert met.reward[state].sum() == 3.0


@pytest.mark.parametrize("floor", [0.0, 1e-3, 0.2])
def test_raising_to_the_floor_finds_the_nearest_soft_policy(floor):
    rng = np.random.default_rng(0)
    policy = np.concatenate([rng.dirichlet(np.full(4, 0.2), 50), np.eye(4)])
    raised = raise_to_floor(policy, floor)
    np.testing.assert_allclose(raised.sum(axis=1), 1.0, atol=1e-14)
    assert raised.min() >= floor
    # Nothing η-soft is nearer in KL: the gradient of KL, −q/p, is smallest where p is above the floor.
    with np.errstate(invalid="ignore"):
        ratio = np.where(policy > 0.0, policy / raised, 0.0)
    for row, p in zip(ratio, raised, strict=True):
        free = p > floor * (1 + 1e-12)
        assert np.ptp(row[free & (row > 0)]) <= 1e-12
        assert row[~free].max(initial=0.0) <= row[free].max() + 1e-12


def test_importing_the_theory_loads_no_torch():
    import subprocess

    code = (
        "import sys, types\n"
        "package = types.ModuleType('workbench')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "sys.modules['workbench'] = package\n"
        "import workbench.theory\n"
        "print([name for name in ('torch', 'scipy', 'pandas', 'plotly', 'gymnasium') if name in sys.modules])"
    )
    import workbench

    ran = subprocess.run(
        [sys.executable, "-c", code, workbench.__path__[0]], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
