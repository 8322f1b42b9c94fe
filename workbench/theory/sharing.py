"""What agents lose by sharing one policy: the global optimum over shared policies, with a proof."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workbench.theory.equilibrium import Optimum
from workbench.theory.evaluation import evaluate_checked
from workbench.theory.games import TabularGame
from workbench.theory.policies import check_game, uniform_policies
from workbench.theory.validation import FloatArray, real_number

_MOST_COEFFICIENTS = 500  # of a polynomial; its subdivision takes matrices of that size squared
_MOST_PIECES = 200_000  # of a simplex looked at before the bound is given as it stands


def best_shared_policy(game: TabularGame, tolerance: float = 1e-11) -> Optimum:
    """max over one policy p of J(p, …, p), the global optimum, by branch and bound with a proven upper bound.

    With one policy for all, r(p) = Σ_a r(a)·Π p(aⁱ) is a polynomial of degree n on the simplex of an agent's k actions.
    In Bernstein form its largest coefficient is an upper bound and the coefficients at the corners are values; halving
    an edge makes both sharper. Pieces that cannot hold the maximum are dropped until none is left.

    tolerance  of the proof, relative to the largest |reward|: ``upper_bound − objective`` is at most this, unless the
               search ends at 200,000 pieces with the wider bound it then has

    The game's actions must not move the state (one state, γ = 0, or transitions alike for all joint actions), so that
    every state is a matrix game of its own. Raises ``ValueError`` otherwise, and where agents have different numbers of
    actions, since they cannot share a policy.

    >>> from workbench.theory import sharing_game
    >>> best_shared_policy(sharing_game(4))
    Optimum(objective=0.125, proven to within 0)
    """
    check_game(game)
    tolerance = real_number("tolerance", tolerance, "a number, 0 or more")
    if not tolerance >= 0.0:
        raise ValueError(f"tolerance is {tolerance:g}, expected 0 or more.")
    weights = _state_weights(game)
    k, n = game.n_actions[0], game.n_agents
    if math.comb(n + k - 1, k - 1) > _MOST_COEFFICIENTS:
        raise ValueError(
            f"{n} agents with {k} actions make a polynomial of {math.comb(n + k - 1, k - 1)} coefficients, more than "
            f"{_MOST_COEFFICIENTS}. Take fewer agents or actions."
        )
    form = _Bernstein(n, k)
    shared = np.zeros((game.n_states, k))
    objective = bound = 0.0
    for state, weight in enumerate(weights):
        shared[state], value, upper = _maximise(form, form.coefficients(game.reward[state]), tolerance)
        objective, bound = objective + float(weight * value), bound + float(weight * upper)
    return Optimum(objective, (shared,) * n, bound)


def _state_weights(game: TabularGame) -> FloatArray:
    """(S,) the visitation of each state, which the policy must have no say in."""
    if len(set(game.n_actions)) > 1:
        raise ValueError(f"agents have {game.n_actions} actions: they cannot share a policy unless all have as many.")
    if game.discount == 0.0:
        return game.initial
    flat = game.transition.reshape(game.n_states, -1, game.n_states)
    if np.ptp(flat, axis=1).max() > 1e-12:
        raise ValueError(
            f"in {game} actions move the state, and J(p, ..., p) is no polynomial. best_shared_policy is for matrix "
            "games: one state, discount 0, or transitions that are alike for all joint actions."
        )
    return evaluate_checked(game, uniform_policies(game)).visitation


@dataclass
class _Bernstein:
    """Polynomials of degree n on a simplex with k corners: coefficient b_c for every c ≥ 0 with Σc = n."""

    degree: int
    corners: int
    exponents: list[tuple[int, ...]] = field(init=False)
    at_corners: list[int] = field(init=False)
    _halvings: dict[tuple[int, int], FloatArray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        ranges = itertools.product(range(self.degree + 1), repeat=self.corners - 1)
        self.exponents = [(*head, self.degree - sum(head)) for head in ranges if sum(head) <= self.degree]
        self._index = {exponent: i for i, exponent in enumerate(self.exponents)}
        corners = np.eye(self.corners, dtype=int) * self.degree
        self.at_corners = [self._index[tuple(corner.tolist())] for corner in corners]

    def coefficients(self, reward: FloatArray) -> FloatArray:
        """b_c: the mean reward of the joint actions in which action j is taken c_j times."""
        actions = np.indices(reward.shape).reshape(self.degree, -1)
        counts = np.stack([(actions == j).sum(axis=0) for j in range(self.corners)])
        which = np.array([self._index[tuple(c)] for c in counts.T.tolist()])
        times = np.bincount(which, minlength=len(self.exponents))
        return np.bincount(which, weights=reward.ravel(), minlength=len(self.exponents)) / times

    def halving(self, keep: int, move: int) -> FloatArray:
        """The matrix that takes coefficients to those on the piece whose corner ``move`` is half way to ``keep``.

        De Casteljau: ((v_keep + v_move)/2)^c = 2^{−c} Σ_r C(c, r) v_keep^r v_move^{c−r}.
        """
        if (keep, move) not in self._halvings:
            matrix = np.zeros((len(self.exponents),) * 2)
            for row, exponent in enumerate(self.exponents):
                for r in range(exponent[move] + 1):
                    source = list(exponent)
                    source[keep] += r
                    source[move] -= r
                    share = math.comb(exponent[move], r) / 2.0 ** exponent[move]
                    matrix[row, self._index[tuple(source)]] += share
            self._halvings[keep, move] = matrix
        return self._halvings[keep, move]


def _maximise(form: _Bernstein, coefficients: FloatArray, tolerance: float) -> tuple[FloatArray, float, float]:
    """The point of the simplex with the largest value found, the value, and a bound on every value."""
    slack = tolerance * max(float(np.abs(coefficients).max()), 1e-300)
    pieces, simplices = coefficients[None], np.eye(form.corners)[None]
    best, point, dropped, seen = -np.inf, simplices[0, 0], -np.inf, 0
    while len(pieces) and seen < _MOST_PIECES:
        seen += len(pieces)
        values = pieces[:, form.at_corners]
        if values.max() > best:
            piece, corner = np.unravel_index(values.argmax(), values.shape)
            best, point = float(values[piece, corner]), simplices[piece, corner]
        bounds = pieces.max(axis=1)
        open_ = bounds > best + slack
        dropped = max(dropped, float(bounds[~open_].max(initial=-np.inf)))
        pieces, simplices = _halve(form, pieces[open_], simplices[open_])
    remaining = float(pieces.max(initial=-np.inf))
    return point, best, max(best, dropped, remaining)


def _halve(form: _Bernstein, pieces: FloatArray, simplices: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both halves of every piece, cut at the middle of its longest edge."""
    edges = list(itertools.combinations(range(form.corners), 2))
    if not edges or not len(pieces):
        return pieces[:0], simplices[:0]
    lengths = np.stack([np.square(simplices[:, i] - simplices[:, j]).sum(axis=1) for i, j in edges])
    longest: npt.NDArray[np.intp] = lengths.argmax(axis=0)
    halves, corners = [], []
    for edge in np.unique(longest):
        mine = longest == edge
        for keep, move in (edges[edge], edges[edge][::-1]):
            halves.append(pieces[mine] @ form.halving(keep, move).T)
            moved = simplices[mine].copy()
            moved[:, move] = 0.5 * (moved[:, keep] + moved[:, move])
            corners.append(moved)
    return np.concatenate(halves), np.concatenate(corners)
