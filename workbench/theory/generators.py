"""Games to learn from: the two counterexamples, matrix games, random games, and a team that has to meet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from workbench.theory.games import TabularGame
from workbench.theory.policies import check_concentration
from workbench.theory.validation import FloatArray, Seed, float_array, generator_of, integer_of, real_number, short

LARGEST = 20_000_000  # entries of a transition tensor that a generator will make: 160 MB


def matrix_game(reward: npt.ArrayLike, *, discount: float = 0.0, name: str = "matrix game") -> TabularGame:
    """One state, played once (γ = 0) or over and over: r(a¹, …, aⁿ) = ``reward[a1, ..., an]``.

    >>> matrix_game([[2.0, 0.0], [0.0, 1.0]])
    TabularGame('matrix game', 2 agents, 1 state, actions (2, 2), discount 0)
    """
    payoff = float_array("reward", reward)
    return TabularGame(payoff[None], np.ones((1, *payoff.shape, 1)), np.ones(1), discount, name=name)


def sharing_game(n_agents: int) -> TabularGame:
    """r(a) = 1 at (0^{n/2}, 1^{n/2}) and at (1^{n/2}, 0^{n/2}), else 0: half of the team must differ from the rest.

    Agents who share one policy reach at most 2/2ⁿ of the optimum. Raises ``ValueError`` unless n is even, from 2 to 20.
    Source: Kuba et al., Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning, ICLR 2022,
    proposition 1.
    """
    n_agents = integer_of("n_agents", n_agents, 0)
    if n_agents % 2 or not 2 <= n_agents <= 20:
        raise ValueError(f"n_agents is {n_agents}, expected an even number from 2 to 20: two halves that must differ.")
    half = n_agents // 2
    reward = np.zeros((2,) * n_agents)
    reward[(0,) * half + (1,) * half] = reward[(1,) * half + (0,) * half] = 1.0
    return matrix_game(reward, name=f"sharing game, n = {n_agents}")


def simultaneous_game() -> TabularGame:
    """r(0,0) = 0, r(0,1) = r(1,0) = 2, r(1,1) = −1: one of the two should switch, and both do if they ask at once.

    From πⁱ(0) > 0.6 for both agents, action 1 is each one's best response, and together they fall to the minimum −1.
    """
    return matrix_game([[0.0, 2.0], [2.0, -1.0]], name="simultaneous game")


def random_game(
    n_agents: int = 2,
    n_states: int = 3,
    n_actions: int | Sequence[int] = 2,
    discount: float = 0.9,
    seed: Seed = 0,
    concentration: float = 1.0,
) -> TabularGame:
    """Rewards N(0, 1); next-state and first-state distributions from a symmetric Dirichlet distribution.

    n_actions      for all agents, or one number for each
    concentration  of the next-state distributions: low ones are nearly deterministic
    """
    n_agents, n_states = integer_of("n_agents", n_agents, 1), integer_of("n_states", n_states, 1)
    several = n_actions if isinstance(n_actions, Sequence | np.ndarray) else (n_actions,) * n_agents
    actions = tuple(integer_of("n_actions", k, 1) for k in several)
    if len(actions) != n_agents:
        raise ValueError(
            f"n_actions={n_actions} is for {len(actions)} agents, expected one number for each of {n_agents}."
        )
    _check_size(n_states, math.prod(actions))
    concentration, rng = check_concentration(concentration), generator_of(seed)
    shape = (n_states, *actions)
    return TabularGame(
        reward=rng.normal(size=shape),
        transition=rng.dirichlet(np.full(n_states, concentration), size=shape),
        initial=rng.dirichlet(np.ones(n_states)),
        discount=discount,
        name="random game",
    )


def meeting_game(
    rows: int = 3,
    columns: int = 3,
    n_agents: int = 2,
    *,
    goals: Mapping[tuple[int, int], float] | None = None,
    slip: float = 0.1,
    discount: float = 0.9,
) -> TabularGame:
    """A grid on which the whole team must stand on one goal at the same time; then the game is over.

    rows, columns  of the grid
    goals          {(row, column): reward for meeting there}; by default 1 in the first corner and 2 in the last
    slip           probability with which an agent, independently of the others, stays where it is instead of moving

    Actions are stay, up, down, left and right; walls stop a move. State ``Σᵢ cellᵢ·(rows·columns)ⁿ⁻¹⁻ⁱ`` is where
    everyone stands (cell = row·columns + column), the last state is the end. The team starts anywhere but met on a
    goal.
    """
    rows, columns = integer_of("rows", rows, 1), integer_of("columns", columns, 1)
    n_agents, n_cells = integer_of("n_agents", n_agents, 1), rows * columns
    slip = real_number("slip", slip, "a probability")
    if not 0.0 <= slip <= 1.0:
        raise ValueError(f"slip is {slip:g}, expected a probability, 0 <= slip <= 1.")
    prizes = {(0, 0): 1.0, (rows - 1, columns - 1): 2.0} if goals is None else goals
    if not isinstance(prizes, Mapping) or not all(isinstance(cell, tuple) and len(cell) == 2 for cell in prizes):
        raise ValueError(f"goals is {short(goals)}, expected {{(row, column): reward}}, such as {{(0, 0): 1.0}}.")
    for row, column in prizes:
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(f"goal {(row, column)} is off the grid of {rows} rows and {columns} columns.")
    n_states = n_cells**n_agents + 1
    _check_size(n_states, 5**n_agents)
    transition = _moves_together(_moves(rows, columns, slip), n_agents)
    # Meeting on a goal is rewarded on arrival, and the arrival is rerouted to the end.
    reward = np.zeros((n_states, 5**n_agents))
    met = {sum(cell * n_cells**i for i in range(n_agents)): prize for cell, prize in _by_cell(prizes, columns).items()}
    for state, prize in met.items():
        reward[:-1] += prize * transition[:-1, :, state]
        transition[:-1, :, -1] += transition[:-1, :, state]
        transition[:-1, :, state] = 0.0
    reward[list(met)] = 0.0
    transition[list(met)] = 0.0
    transition[list(met), :, -1] = 1.0
    initial = np.ones(n_states)
    initial[[*met, n_states - 1]] = 0.0
    if not initial.any():
        raise ValueError(
            f"every cell is a goal for {n_agents} agents ({sorted(prizes)}): the team has nowhere to start."
        )
    shape = (n_states, *(5,) * n_agents)
    name = f"meeting game, {rows}×{columns}"
    return TabularGame(
        reward.reshape(shape), transition.reshape(*shape, -1), initial / initial.sum(), discount, name=name
    )


def _by_cell(prizes: Mapping[tuple[int, int], float], columns: int) -> dict[int, float]:
    return {row * columns + column: float(prize) for (row, column), prize in prizes.items()}


def _moves(rows: int, columns: int, slip: float) -> FloatArray:
    """(cells, 5, cells): where one agent gets to by stay, up, down, left, right."""
    n_cells = rows * columns
    moves = np.zeros((n_cells, 5, n_cells))
    for row, column in itertools.product(range(rows), range(columns)):
        here = row * columns + column
        for action, (down, right) in enumerate(((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))):
            there = min(max(row + down, 0), rows - 1) * columns + min(max(column + right, 0), columns - 1)
            moves[here, action, there] += 1.0 - slip
            moves[here, action, here] += slip
    return moves


def _moves_together(moves: FloatArray, n_agents: int) -> FloatArray:
    """(cellsⁿ + 1, 5ⁿ, cellsⁿ + 1): the product of the agents' moves, and one last state that is never left."""
    together = np.ones((1, 1, 1))
    for _ in range(n_agents):
        wider = np.einsum("sat,ubv->suabtv", together, moves)
        together = wider.reshape(*(wider.shape[i] * wider.shape[i + 1] for i in (0, 2, 4)))
    n_states = together.shape[0] + 1
    transition = np.zeros((n_states, together.shape[1], n_states))
    transition[:-1, :, :-1] = together
    transition[-1, :, -1] = 1.0
    return transition


def _check_size(n_states: int, n_joint_actions: int) -> None:
    entries = n_states * n_joint_actions * n_states
    if entries > LARGEST:
        raise ValueError(
            f"{n_states} states and {n_joint_actions} joint actions make a transition tensor of {entries:,} entries, "
            f"more than {LARGEST:,}. Take fewer states, agents or actions."
        )
