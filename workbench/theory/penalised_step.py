"""One agent's step of Algorithm 1, solved to optimality for all states at once.

    maximise  Σ_s w(s) Σ_a p(a|s) g(s, a) − C · max_s KL(q(·|s) ‖ p(·|s))   over policies p with p(a|s) ≥ η

**One state, budget d.** The maximiser of Σ p·g with KL(q ‖ p) ≤ d is p = max(η, q / (t + βΔ)), where Δ = max g − g ≥ 0
and t normalises. Every point of that curve is found from one number z: the mass x = x_max·σ(z) that has moved to the
greedy actions (Δ = 0), of the x_max that can. Then t = q₊/(q₊ + x), q₊ being q's mass on the greedy actions, and
β follows from Σp = 1, an equation in one unknown that Newton's method climbs from below without overshooting.

**All states.** State s has the multiplier λ = w(s)/β; d is optimal where the multipliers add up to C. A state whose
greedy η-soft policy lies within d has λ = 0 (or, at a kink, any share up to w/β there).

**Small numbers.** With η = 0 probabilities shrink geometrically, far below what a float64 can hold, and may have to
grow again. So policies are logarithms throughout, KL is a sum of non-negative terms q·k(u), k(u) = log(1+u) − u/(1+u)
with 1 + u = q/p, and masses are in units of the likeliest action that is not greedy. Why x and not β is the unknown:
where q₊ is tiny, x runs through all its orders of magnitude while β does not change in its sixteenth digit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workbench.theory.validation import FloatArray

_ROUNDING = 8.0 * np.finfo(np.float64).eps
_SMALL = 1e-3  # below which k(u) is a series
_NEWTON_ITERATIONS = 20  # of the joint Newton method; four to six are usual
_ITERATIONS = 200  # of the sure searches
_LAST = 600.0  # with η = 0, a step divides no probability by more than about e^600, so that nothing overflows


@dataclass(frozen=True, eq=False)
class _States:
    """The states in which something can be gained; masses in units of e^{unit}. Shapes (S,) and (S, A)."""

    log_q: FloatArray  # (S, A), exact zeros replaced by something far below every other
    was_zero: npt.NDArray[np.bool_]  # (S, A), where they are
    greedy: npt.NDArray[np.bool_]  # (S, A), the actions with Δ = 0
    log_q_greedy: FloatArray  # (S,), log of their mass q₊
    unit: FloatArray  # (S,), log q of the likeliest action that is not greedy, "the main one"
    log_q_units: FloatArray  # (S, A), log_q − unit, −inf for greedy actions
    q: FloatArray  # (S, A), its exp
    floors: FloatArray  # (S, A), η / e^unit, 0 for greedy actions
    room: FloatArray  # (S,), x_max / e^unit
    gap_main: FloatArray  # (S,), Δ of the main action
    gap_ratio: FloatArray  # (S, A), Δ / gap_main − 1, 0 for greedy actions
    mean_ratio: FloatArray  # (S,), its mean under q
    log_weight: FloatArray  # (S,)
    log_distance: FloatArray  # (S, A), log(1 + gap_ratio)
    log_away: FloatArray  # (S, A), log |gap_ratio|


@dataclass(frozen=True, eq=False)
class _Point:
    """A point of each state's curve, with what the searches need to know about it."""

    log_growth: FloatArray  # (S, A), log(q/p) of the actions that are not greedy
    log_t: FloatArray  # (S,), log(q₊ / p₊)
    log_kl: FloatArray
    log_kl_slope: FloatArray  # d log KL / dz
    log_multiplier: FloatArray  # log λ = log w − log β
    log_multiplier_slope: FloatArray  # d log λ / dz


@np.errstate(all="ignore")  # probability 0, KL = inf and the ends of the curves are met on the way, and meant
def best_penalised_step(
    log_policy: FloatArray,
    gains: FloatArray,
    weights: FloatArray,
    penalty: float,
    floor: float = 0.0,
    tie: float = 0.0,
) -> FloatArray:
    """argmax_p Σ_s w(s) Σ_a p(a|s) g(s, a) − C·max_s KL(q(·|s) ‖ p(·|s)) over p ≥ η, as logarithms (S, A).

    log_policy  (S, A) log q; −inf stands for probability 0; every q ≥ η
    gains       (S, A) g
    weights     (S,) w ≥ 0
    penalty     C ≥ 0; with C = 0 the step is the best response
    floor       η ≥ 0, with η·A < 1
    tie         actions whose gain is this close to the best count as equally good

    Where nothing can be gained (w = 0, or all gains tied) q stays. Tied greedy actions keep their proportions.
    """
    gap = gains.max(axis=1, keepdims=True) - gains
    gap[gap <= tie] = 0.0
    spare = np.where(gap > 0.0, np.exp(log_policy) - floor, 0.0)
    # With η > 0 a state is finished when only rounding keeps it from its greedy η-soft policy.
    finished = (
        (spare.sum(axis=1) <= 1e-14 * floor) if floor > 0.0 else ~((gap > 0.0) & (log_policy > -np.inf)).any(axis=1)
    )
    active = (weights > 0.0) & ~finished
    if not active.any():
        return log_policy.copy()
    states = _prepare(log_policy[active], gap[active], weights[active], floor)
    updated = log_policy.copy()
    updated[active] = normalise_logs(
        _best_policy(states, float(np.log(penalty)), floor) if penalty > 0.0 else _greedy_policy(states, floor)
    )
    return updated


def _prepare(log_policy: FloatArray, gap: FloatArray, weights: FloatArray, floor: float) -> _States:
    finite = log_policy[log_policy > -np.inf]
    # Probability 0 behaves as the limit of ever smaller ones; 4× below the rest, it is told apart from them afterwards.
    log_q = np.maximum(log_policy, 4.0 * min(float(finite.min()), -1000.0))
    greedy = gap == 0.0
    rows = np.arange(len(gap))
    main = np.where(greedy, -np.inf, log_q).argmax(axis=1)
    unit, gap_main = log_q[rows, main], gap[rows, main]
    log_q_units = np.where(greedy, -np.inf, log_q - unit[:, None])
    q = np.exp(log_q_units)
    floors = np.where(greedy, 0.0, floor * np.exp(-unit)[:, None]) if floor > 0.0 else np.zeros_like(q)
    gap_ratio = np.where(greedy, 0.0, (gap - gap_main[:, None]) / gap_main[:, None])
    return _States(
        log_q=log_q,
        was_zero=np.isneginf(log_policy),
        greedy=greedy,
        log_q_greedy=_log_sum(np.where(greedy, log_q, -np.inf)),
        unit=unit,
        log_q_units=log_q_units,
        q=q,
        floors=floors,
        room=np.maximum(q - floors, 0.0).sum(axis=1),
        gap_main=gap_main,
        gap_ratio=gap_ratio,
        mean_ratio=(q * gap_ratio).sum(axis=1) / q.sum(axis=1),
        log_weight=np.log(weights),
        log_distance=np.log1p(gap_ratio),
        log_away=np.log(np.abs(gap_ratio)),
    )


def _best_policy(states: _States, log_penalty: float, floor: float) -> FloatArray:
    """log p at the optimal d: by Newton's method on all equations at once or, if that fails, by a sure search."""
    log_d = min(_first_guess(states, log_penalty), _upper_bound(states, log_penalty))
    last = np.full(len(states.room), np.inf if floor > 0.0 else _LAST)
    limit, ends = None, _ends_at_least(states)
    if (ends < log_d + 2.0).any():
        limit = _point(states, last)
        ends = limit.log_kl
    point, log_d, solved = _newton(states, log_penalty, log_d, ends)
    if solved and (ends > log_d).all():
        return _policy_at(states, point, floor)
    limit = limit or _point(states, last)
    if not solved:
        point, log_d = _search(states, log_penalty, log_d, limit)
    end = _greedy_policy(states, floor) if floor > 0.0 else _policy_at(states, limit, floor)
    open_ = (limit.log_kl > log_d)[:, None]
    return np.asarray(np.where(open_, _policy_at(states, point, floor), end))


def _greedy_policy(states: _States, floor: float) -> FloatArray:
    """log p of the best response: all that the floor leaves on the greedy actions, in the proportions they had."""
    room = np.log1p(-floor * (~states.greedy).sum(axis=1))
    return np.asarray(np.where(states.greedy, states.log_q + (room - states.log_q_greedy)[:, None], np.log(floor)))


def _policy_at(states: _States, point: _Point, floor: float) -> FloatArray:
    """log p at the points found."""
    others = np.maximum(states.log_q - point.log_growth, np.log(floor))
    log_p = np.where(states.greedy, states.log_q - point.log_t[:, None], others)
    # What stood in for probability 0 and has not been moved to is 0 again.
    log_p[states.was_zero & (log_p < 0.5 * states.log_q)] = -np.inf
    return log_p


def _newton(states: _States, log_penalty: float, log_d: float, ends: FloatArray) -> tuple[_Point, float, bool]:
    """Solve log KL(z) = log d in every state and Σλ = C together, eliminating z; says whether it has arrived.

    States whose curves end before d, and only those, must be the ones that do so at the first guess of it.
    """
    z = _first_points(states, log_d)
    open_ = ends > log_d
    nearest, best = np.inf, log_d
    for _ in range(_NEWTON_ITERATIONS if open_.any() else 1):
        point = _point(states, z)
        log_kl, log_multiplier = point.log_kl[open_], point.log_multiplier[open_]
        error = abs(np.logaddexp.reduce(log_multiplier, initial=-np.inf) - log_penalty)
        error = max(error, np.abs(log_kl - log_d).max(initial=0.0))
        if error <= _tolerance(log_d):
            return point, log_d, bool(((ends > log_d) == open_).all())
        if error < nearest:
            nearest, best = error, log_d
        slope = point.log_multiplier_slope[open_] / point.log_kl_slope[open_]
        log_d = _linear_root(log_multiplier - slope * log_kl, slope, log_penalty, log_d)
        z[open_] += (log_d - log_kl) / point.log_kl_slope[open_]
        if not np.isfinite(z[open_]).all():
            break
    return point, best, False


def _ends_at_least(states: _States) -> FloatArray:
    """A quick lower bound of log KL at the end of each curve: the main action's own term in it."""
    at_floor = states.floors.max(axis=1)
    growth = np.where(at_floor > 0.0, -np.log(at_floor), 0.9 * _LAST)  # log(q/p) of the main action, whose q is 1
    return np.asarray(states.unit + np.log(growth + np.expm1(-growth)))


def _tolerance(log_d: float) -> float:
    """Relative, on KL and on the sum of the multipliers; the error of the value is about its square."""
    return max(1e-9, 1e-13 * abs(log_d))


def _linear_root(offsets: FloatArray, slopes: FloatArray, log_penalty: float, log_d: float) -> float:
    """The D at which log Σ exp(offset + slope·D) = log C, from a D near it, by a few steps."""
    for _ in range(4):
        terms = offsets + slopes * log_d
        total = np.logaddexp.reduce(terms)
        log_d -= (total - log_penalty) / (np.exp(terms - total) @ slopes)
    return float(log_d)


def _search(states: _States, log_penalty: float, log_d: float, limit: _Point) -> tuple[_Point, float]:
    """The same by a bracketed search for d, at every d a bracketed search for z. Finds d at a kink, too."""
    kinks = limit.log_kl
    low, high = -np.inf, _upper_bound(states, log_penalty)
    z = np.zeros(len(kinks))
    for _ in range(_ITERATIONS):
        open_ = kinks > log_d
        z, point = _at_budget(states, log_d, z, open_)
        log_sum = np.logaddexp.reduce(point.log_multiplier[open_], initial=-np.inf)
        with_kink = np.logaddexp.reduce(limit.log_multiplier[kinks == log_d], initial=log_sum)
        error = log_sum - log_penalty
        if abs(error) <= _tolerance(log_d) or log_sum <= log_penalty <= with_kink:
            break
        low, high = (log_d, high) if error > 0.0 else (low, log_d)
        if high - low <= _tolerance(log_d):
            break
        log_d = _next_budget(log_d, log_d + _stride(point, open_, error), low, high, kinks)
    return point, log_d


def _next_budget(log_d: float, newton: float, low: float, high: float, kinks: FloatArray) -> float:
    """Newton's proposal; the middle one of the kinks it would jump over; bisection where it leaves the bracket."""
    crossed = (kinks > low) & (kinks < high)
    if np.isfinite(newton):
        crossed &= (kinks > min(log_d, newton)) & (kinks <= max(log_d, newton))
    if crossed.any():
        return float(np.sort(kinks[crossed])[crossed.sum() // 2])
    if low < newton < high:
        return newton
    return 0.5 * (low + high) if np.isfinite(low) else high - 2.0 - abs(high)


def _stride(point: _Point, open_: npt.NDArray[np.bool_], error: float) -> float:
    """Newton's step in log d towards Σλ = C over the states that still move; NaN where none does."""
    if not np.isfinite(error):
        return np.nan
    share = np.exp(point.log_multiplier[open_] - point.log_multiplier[open_].max())
    slope = share @ (point.log_multiplier_slope[open_] / point.log_kl_slope[open_]) / share.sum()
    # Where Σλ hardly depends on d yet, it will fall like e^{−d}: a long step up is then taken in d, not in log d.
    return float(np.log1p(-error / slope) if error > -slope and slope > -0.1 else -error / slope)


def _first_guess(states: _States, log_penalty: float) -> float:
    """log d of small steps, √(2d) = Σ wσ / C with σ the deviation of g under q."""
    log_variance = _log_variance(states)
    return float(2.0 * (np.logaddexp.reduce(states.log_weight + 0.5 * log_variance) - log_penalty) - np.log(2.0))


def _upper_bound(states: _States, log_penalty: float) -> float:
    """log of a d that is too large: some state has λ ≥ C/S, so β ≤ S·w/C there, and KL ≤ log(1 + β·max Δ)."""
    largest_gap = (1.0 + states.gap_ratio.max(axis=1)) * states.gap_main
    log_beta_gap = np.log(len(largest_gap)) + (states.log_weight + np.log(largest_gap)).max() - log_penalty
    return float(np.log(np.logaddexp(0.0, log_beta_gap)))


def _first_points(states: _States, log_d: float) -> FloatArray:
    """z of a small step with KL = d: x = q₊·β·E_q[Δ] with β = √(2d / Var_q(g)); or x = d where q₊ hardly counts."""
    log_mean = _log_sum(np.where(states.greedy, -np.inf, states.log_q) + _log_gap(states))
    log_small = states.log_q_greedy + log_mean + 0.5 * (np.log(2.0) + log_d - _log_variance(states))
    rare = states.log_q_greedy < log_d - 10.0
    if rare.any():
        # Where greedy actions are so rare, KL hardly changes while x runs from q₊ to d: which end of that is wanted?
        halfway = _to_z(states, 0.5 * (states.log_q_greedy + log_d))
        log_small = np.where(rare & (_point(states, halfway).log_kl < log_d), log_d, log_small)
    return _to_z(states, log_small)


def _to_z(states: _States, log_moved: FloatArray) -> FloatArray:
    """z at which x = exp(log_moved), or nine tenths of what can move."""
    log_share = np.minimum(log_moved - states.unit - np.log(states.room), np.log(0.9))
    return log_share - np.log1p(-np.exp(log_share))


def _log_sum(logs: FloatArray) -> FloatArray:
    """log Σ exp over the last axis."""
    total: FloatArray = np.logaddexp.reduce(logs, axis=-1)
    return total


def _log_gap(states: _States) -> FloatArray:
    """log Δ, −inf for greedy actions."""
    return np.where(states.greedy, -np.inf, states.log_distance + np.log(states.gap_main)[:, None])


def _log_variance(states: _States) -> FloatArray:
    """About log Var_q(g): the mean square of Δ around its value on the likeliest action."""
    gap = np.exp(_log_gap(states))
    away = np.abs(gap - gap[np.arange(len(gap)), states.log_q.argmax(axis=1)][:, None])
    return _log_sum(states.log_q + 2.0 * np.log(away))


def _at_budget(states: _States, log_d: float, z: FloatArray, open_: npt.NDArray[np.bool_]) -> tuple[FloatArray, _Point]:
    """The z at which log KL(z) = log d in every open state: Newton's method within a bracket, from the z given."""
    low, high = np.full(len(z), -np.inf), np.full(len(z), np.inf if states.floors.any() else _LAST)
    for _ in range(_ITERATIONS):
        point = _point(states, z)
        error = np.where(open_, point.log_kl - log_d, 0.0)
        settled = np.abs(error) <= _tolerance(log_d)
        low, high = np.where(error < 0.0, z, low), np.where(error > 0.0, z, high)
        settled |= high - low <= 1e-15 * np.abs(z)
        if settled.all():
            break
        reach = 8.0 + np.abs(z)
        newton = z - np.clip(error / point.log_kl_slope, -reach, reach)
        newton = np.where(np.isnan(newton), z - np.sign(error) * reach, newton)
        proposal = np.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
        z = np.where(settled, z, proposal)
    return z, point


def _point(states: _States, z: FloatArray) -> _Point:
    """The point of each state's curve at z; at z = +inf, where there is a floor, the greedy η-soft policy."""
    log_rest = -np.logaddexp(0.0, z)  # log σ(−z)
    log_room = np.log(states.room)
    log_moved, log_kept = log_room - np.logaddexp(0.0, -z), log_room + log_rest
    ratio = log_moved + states.unit - states.log_q_greedy  # log (x / q₊)
    log_t, log_v = -np.logaddexp(0.0, ratio), -np.logaddexp(0.0, -ratio)  # v = 1 − t
    log_y, excess, free = _normalise(states, *np.exp((log_moved, log_kept, log_t, log_v)))
    log_growth = np.log1p(excess)
    log_kl = _log_kl(states, excess, log_growth, log_moved, log_t, log_v)
    log_gain, log_pull = _log_slopes(states, log_growth, free, log_moved, log_t + log_v)
    return _Point(
        log_growth=log_growth,
        log_t=log_t,
        log_kl=states.unit + log_kl,
        log_kl_slope=np.exp(log_rest + log_y + log_gain - log_kl),
        log_multiplier=states.log_weight + np.log(states.gap_main) - log_y,
        log_multiplier_slope=-np.exp(log_rest + log_pull - log_y),
    )


def _normalise(
    states: _States, moved: FloatArray, kept: FloatArray, t: FloatArray, v: FloatArray
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """log y with y = β·gap_main, u (S, A) and who is above the floor, such that the actions that are not greedy lose x.

    The unknown is carried twice, as y and as the main action's u = y − v, each exact to its last digits.
    """
    remaining = states.floors.sum(axis=1) + kept
    distance = 1.0 + states.gap_ratio
    # Jensen's inequality: the root is not below this.
    y = (moved / remaining + v) / (1.0 + states.mean_ratio)
    main = (moved / remaining - v * states.mean_ratio) / (1.0 + states.mean_ratio)
    # Two forms of one condition: what is lost is x, exact for small moves; what remains is the rest, for large ones.
    small = moved < kept
    for _ in range(_ITERATIONS):
        excess = main[:, None] + y[:, None] * states.gap_ratio
        growth = t[:, None] + y[:, None] * distance
        p = states.q / growth
        free = ~states.greedy & ((p > states.floors) | (states.floors == 0.0))
        lost = np.where(free, p * excess, states.q - states.floors)
        p = np.where(free, p, 0.0)
        free_p = p.sum(axis=1)
        target = remaining - np.where(free, 0.0, states.floors).sum(axis=1)
        short = np.where(small, moved - lost.sum(axis=1), free_p - target)
        going = short > _ROUNDING * np.where(small, np.abs(lost).sum(axis=1), remaining)
        if not going.any():
            break
        # Newton's method on 1/Σp, which is concave in y and nearly straight: it does not overshoot.
        slope = (p * (y[:, None] * distance / growth)).sum(axis=1)
        step = np.where(going & (slope > 0.0), y * (short / slope) * (free_p / target), 0.0)
        y, main = y + step, main + step
    at_floor = np.where(states.greedy, 0.0, states.q / states.floors - 1.0)
    return np.log(y), np.where(free, excess, at_floor), free


def _log_kl(
    states: _States,
    excess: FloatArray,
    log_growth: FloatArray,
    log_moved: FloatArray,
    log_t: FloatArray,
    log_v: FloatArray,
) -> FloatArray:
    """log KL(q ‖ p) in the states' units: log of Σ q·k(u) over the actions that are not greedy and those that are."""
    series = 2.0 * np.log(np.abs(excess)) + np.log(_series(excess))
    log_k = np.where(np.abs(excess) < _SMALL, series, np.log(log_growth - excess / (1.0 + excess)))
    # A greedy action has u = −v: q₊·k(−v), or x + q₊ log t with q₊/x = t/v where q₊ is too small to be a float.
    v, log_odds = np.exp(log_v), log_t - log_v
    log_k_greedy = np.where(v < _SMALL, 2.0 * log_v + np.log(_series(-v)), np.log(log_t + np.exp(-log_odds)))
    large = log_moved + np.log1p(np.exp(log_odds) * log_t)
    greedy = np.where(v < 0.5, states.log_q_greedy - states.unit + log_k_greedy, large)
    return np.logaddexp(_log_sum(states.log_q_units + log_k), greedy)


def _series(u: FloatArray) -> FloatArray:
    """k(u)/u² = 1/2 − 2u/3 + 3u²/4 − …, for |u| < 0.001, where k(u) = log(1+u) − u/(1+u) itself would cancel."""
    return 1 / 2 - u * (2 / 3 - u * (3 / 4 - u * (4 / 5 - u * (5 / 6 - u * 6 / 7))))


def _log_slopes(
    states: _States, log_growth: FloatArray, free: npt.NDArray[np.bool_], log_moved: FloatArray, log_tv: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """log of x·dG/dx and of x·dy/dx, G being the gain −Σ pΔ/gap_main; by differentiating Σp = 1 along the curve.

    With weights p²/q on the free actions and D = Δ/gap_main: x·dG/dx = x·W₂/W₁ + t·v·(W₀W₂ − W₁²)/W₁ and
    x·dy/dx = (x + t·v·W₀)/W₁, where Wⱼ = Σ Dʲ p²/q. Since dKL = y·dG (in these units), the first gives KL's slope too.
    """
    log_w = np.where(free, states.log_q_units - 2.0 * log_growth, -np.inf)
    # W₀W₂ − W₁² as W₀·Σ w(D − 1)² minus the square of Σ w(D − 1): both small where the main action outweighs the rest.
    factors = np.stack([np.zeros_like(log_w), states.log_distance, 2.0 * states.log_distance, 2.0 * states.log_away])
    w_0, w_1, w_2, spread = _log_sum(log_w + factors)
    first = (np.exp(log_w) * states.gap_ratio).sum(axis=1)
    overlap = np.where(first == 0.0, 0.0, np.minimum(first**2 / np.exp(w_0 + spread), 1.0))
    between = w_0 + spread + np.log1p(-overlap)
    log_gain = np.logaddexp(log_moved + w_2, log_tv + between) - w_1
    return log_gain, np.logaddexp(log_moved, log_tv + w_0) - w_1


def normalise_logs(log_p: FloatArray) -> FloatArray:
    """Set each row's largest probability to 1 − Σ of the others, so that rounding never touches the small ones."""
    top = log_p.argmax(axis=1)[:, None]
    others = np.exp(log_p)
    np.put_along_axis(others, top, 0.0, axis=1)
    normalised = log_p.copy()
    np.put_along_axis(normalised, top, np.log1p(-others.sum(axis=1, keepdims=True)), axis=1)
    return normalised
