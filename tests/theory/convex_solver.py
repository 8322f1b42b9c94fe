"""An agent's step of Algorithm 1 as an exponential-cone program for a general-purpose solver: independent answers."""

from __future__ import annotations

import clarabel
import numpy as np
from scipy import optimize, sparse, special


def penalised_optimum(policy, gains, weights, penalty, floor):
    """max Σ w p·g − C·d subject to p ≥ η, Σp = 1, Σ_a q log(q/p) ≤ d in every state. Returns its value.

    The variables are p (S·A), κ (S·A) and d; (log q − κ/q, 1, p) in the exponential cone says that κ ≥ q log(q/p).
    Solved in units in which Σw = 1 and the largest |g| is 1, so that the solver's tolerances are the value's.
    """
    scale = np.abs(gains).max() * weights.sum() or 1.0
    gains, weights, penalty = gains / (np.abs(gains).max() or 1.0), weights / (weights.sum() or 1.0), penalty / scale
    n_states, n_actions = policy.shape
    size = n_states * n_actions
    n_variables = 2 * size + 1
    cost = np.zeros(n_variables)
    cost[:size] = -(weights[:, None] * gains).ravel()
    cost[-1] = penalty
    rows, right, cones = [], [], []

    def row(entries, constant):
        line = sparse.lil_matrix((1, n_variables))
        for column, value in entries:
            line[0, column] = value
        rows.append(line)
        right.append(constant)

    for state in range(n_states):
        row([(state * n_actions + action, 1.0) for action in range(n_actions)], 1.0)
    cones.append(clarabel.ZeroConeT(n_states))
    for index in range(size):
        row([(index, -1.0)], -floor)
    for state in range(n_states):
        columns = range(state * n_actions, (state + 1) * n_actions)
        row([*((size + column, 1.0) for column in columns), (n_variables - 1, -1.0)], 0.0)
    for index, q in enumerate(policy.ravel()):
        if q == 0.0:
            row([(size + index, -1.0)], 0.0)
    cones.append(clarabel.NonnegativeConeT(size + n_states + int((policy == 0.0).sum())))
    for index, q in enumerate(policy.ravel()):
        if q > 0.0:
            row([(size + index, 1.0 / q)], np.log(q))
            row([], 1.0)
            row([(index, -1.0)], 0.0)
            cones.append(clarabel.ExponentialConeT())
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    zero = sparse.csc_matrix((n_variables, n_variables))
    solution = clarabel.DefaultSolver(zero, cost, sparse.vstack(rows).tocsc(), np.array(right), cones, settings).solve()
    assert str(solution.status) in {"Solved", "AlmostSolved"}, solution.status
    return -solution.obj_val * scale


def dual_bound(policy, updated, gains, weights, penalty, floor):
    """An upper bound of the same program from its Lagrange dual, at multipliers read off a proposed solution.

    For any λ ≥ 0 with Σλ ≤ C and any ν: Σ_s ν_s + Σ_a max_{p ≥ η} (w·g − ν)·p + λ·q·log(p/q). No solver is involved, so
    it stays sharp where C is so large that the solver's tolerance, multiplied by C, is not.
    """
    read = [
        _multiplier(q, p, g, floor) if w > 0.0 else (0.0, 0.0)
        for q, p, g, w in zip(policy, updated, gains, weights, strict=True)
    ]
    multipliers, caps = weights * np.array(read).T
    spare = max(penalty - multipliers.sum(), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        kls = np.where(policy > 0.0, policy * np.log(policy / updated), 0.0).sum(axis=1)
    for state in np.flatnonzero((caps > 0.0) & (kls >= kls.max() - 1e-9)):
        multipliers[state] = min(caps[state], spare)
        spare -= multipliers[state]
    multipliers *= min(1.0, penalty / max(multipliers.sum(), 1e-300))
    multipliers[multipliers < 1e-200] = 0.0
    return sum(
        _state_bound(q, w * g, multiplier, floor)
        for q, g, w, multiplier in zip(policy, gains, weights, multipliers, strict=True)
    )


def _multiplier(q, p, g, floor):
    """(λ, the most that λ may be where the state has come to its greedy policy), for weight 1: q/p = α − g/λ."""
    free = (q > 0.0) & (p > floor * (1.0 + 1e-9))
    evidence = np.where(free[:, None] & free[None, :], np.minimum(q[:, None], q[None, :]) * (g[:, None] - g) ** 2, 0.0)
    a, b = np.unravel_index(evidence.argmax(), evidence.shape)
    if evidence[a, b] > 0.0:
        slope = (q[a] / p[a] - q[b] / p[b]) / (g[b] - g[a])
        return (1.0 / slope if slope > 0.0 else 0.0), 0.0
    if floor == 0.0:
        return (g.max() - g[free].max(initial=g.min())) * p[q > 0.0].sum(), 0.0
    best = g == g.max()
    slopes = (q[~best] / floor - q[best].sum() / p[best].sum()) / (g.max() - g[~best])
    return 0.0, (1.0 / slopes.max() if slopes.size and slopes.max() > 0.0 else 0.0)


def _state_bound(q, values, multiplier, floor):
    """min over ν of ν + Σ_a max_{p ≥ η} (values − ν)·p + λ·q·log(p/q); whichever ν is found, it bounds."""

    def response(nu):
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(q > 0.0, multiplier * q / (nu - values), 0.0)
        return np.maximum(wanted, floor)

    nu = values.max() + 1e-14 * max(1.0, abs(values.max()))
    if multiplier > 0.0 and response(nu).sum() > 1.0:
        far_above = nu + len(q) * multiplier / (1.0 - floor * len(q)) + 1.0
        nu = optimize.brentq(lambda x: response(x).sum() - 1.0, nu, far_above, xtol=1e-300, rtol=1e-15)
    p = response(nu) if multiplier > 0.0 else np.full(len(q), floor)
    entropy = special.xlogy(multiplier * q, p) - special.xlogy(multiplier * q, q)
    return nu + ((values - nu) * p + entropy).sum()
