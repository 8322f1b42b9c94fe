"""In which order the agents are updated.

A rule takes an ``OrderContext`` and returns the units that are left in the order in which they shall be updated.
Random, drawn anew each iteration, is the default that the theory assumes (its limit points are then Nash equilibria);
every permutation gives monotonic improvement. Anyone can pass a function.

>>> def first_one_last(context):
...     return sorted(context.remaining, key=lambda unit: unit == context.units[0])

A rule that looks at what the updates so far have done is marked ``adaptive``, and asked anew before each update:

>>> @adaptive
... def least_promising_first(context):
...     scores = context.scores()
...     return sorted(context.remaining, key=scores.__getitem__)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.errors import unknown_name
from workbench.learning.agent_turn import scores
from workbench.learning.state import Setup, State


@dataclass(frozen=True)
class OrderContext:
    """What a rule may look at.

    units      all agents (or groups that share a policy), in the environment's order
    remaining  those that are not updated yet in this iteration
    iteration  counted from 0
    rng        generator of this iteration's order, for rules that draw; of this position's, for adaptive ones
    position   how many are updated already
    scores     a function: {unit: √(gᵀF⁻¹g)} of those who remain, on their M-factors as they are now
    """

    units: tuple[str, ...]
    remaining: tuple[str, ...]
    iteration: int
    rng: np.random.Generator
    position: int
    scores: Callable[[], Mapping[str, float]]


OrderRule = Callable[[OrderContext], Sequence[Any]]


def adaptive(rule: OrderRule) -> OrderRule:
    """Mark a rule as one that is asked anew, for those who remain, before each update."""
    rule.adaptive = True  # type: ignore[attr-defined]  # a mark on a function
    return rule


def is_adaptive(rule: OrderRule) -> bool:
    """Whether a rule is asked anew before each update."""
    return bool(getattr(rule, "adaptive", False))


def random_order(context: OrderContext) -> list[str]:
    """A uniformly random permutation, one an iteration."""
    drawn = [context.units[i] for i in context.rng.permutation(len(context.units))]
    return [unit for unit in drawn if unit in context.remaining]


def fixed_order(context: OrderContext) -> list[str]:
    """The environment's order."""
    return [unit for unit in context.units if unit in context.remaining]


def reversed_order(context: OrderContext) -> list[str]:
    """The environment's order, backwards."""
    return fixed_order(context)[::-1]


def cyclic_order(context: OrderContext) -> list[str]:
    """The environment's order, begun one agent later each iteration."""
    start = context.iteration % len(context.units)
    return [unit for unit in context.units[start:] + context.units[:start] if unit in context.remaining]


def _best_first(context: OrderContext) -> list[str]:
    scores = context.scores()
    return sorted(fixed_order(context), key=lambda unit: -scores[unit])


@adaptive
def greedy_order(context: OrderContext) -> list[str]:
    """argmax_i s_i over those who remain, sᵢ = √(gᵢᵀFᵢ⁻¹gᵢ), chosen anew before each update on the M-factors of then.

    gᵢ is the gradient of mean(r·M) and Fᵢ the Fisher matrix: sᵢ·√(2δ) is what agent i can gain, to first order, by a
    move of KL δ. It is the same in every parametrisation, and has the surrogate's unit. The rule is that of Wang et
    al., Order Matters: Agent-by-agent Policy Optimization, ICLR 2023 (arXiv 2302.06205), whose score E|A/V| explodes
    where V is near 0, and cannot tell agents apart that share one critic.
    """
    return _best_first(context)


@adaptive
def semi_greedy_order(context: OrderContext) -> list[str]:
    """By turns argmax_i s_i and a random one of those who remain, sᵢ as in ``greedy_order``; A2PO's default."""
    best_first = _best_first(context)
    if context.position % 2:
        drawn = fixed_order(context)[int(context.rng.integers(len(best_first)))]
        best_first.sort(key=lambda unit: unit != drawn)
    return best_first


RULES: dict[str, OrderRule] = {
    "random": random_order,
    "fixed": fixed_order,
    "reversed": reversed_order,
    "cyclic": cyclic_order,
    "greedy": greedy_order,
    "semi_greedy": semi_greedy_order,
}


def resolve_permutation(
    order: Sequence[object], units: Sequence[str], resolve: Callable[[object], str]
) -> tuple[str, ...]:
    """Names or integers as a permutation of ``units``; raises ``ValueError`` saying who is missing or named twice."""
    named = tuple(resolve(who) for who in order)
    missing = [unit for unit in units if unit not in named]
    if missing or len(named) != len(units):
        twice = sorted({unit for unit in named if named.count(unit) > 1})
        faults = [f"{' and '.join(missing)} missing"] if missing else []
        faults += [f"{' and '.join(twice)} named twice"] if twice else []
        faults += [] if faults else [f"{' and '.join(unit for unit in named if unit not in units)} not left"]
        raise ValueError(
            f"order {tuple(order)!r} is no permutation of {', '.join(units)}: {', '.join(faults)}. "
            "Name each exactly once, by name or by number."
        )
    return named


def rule_for(order: Any, resolve: Callable[[object], str]) -> OrderRule:
    """The rule that a setting stands for: a rule's name, a permutation, or a callable."""
    if isinstance(order, str):
        if order not in RULES:
            raise unknown_name("order", order, RULES, "A permutation of the agents or a callable is accepted too.")
        return RULES[order]
    if callable(order):
        return order  # type: ignore[no-any-return]  # a user's function; what it returns is checked where it is used
    names = [resolve(who) for who in order]
    return lambda context: sorted(context.remaining, key=names.index)


def draw_order(setup: Setup, state: State, remaining: tuple[str, ...]) -> tuple[str, ...]:
    """The order of those who remain, by the rule that the settings name.

    An adaptive rule has nothing to look at before there are advantages; what it will choose is not known then, and the
    environment's order stands in for it.
    """
    resolve = setup.team.resolve
    rule = rule_for(state.settings.order, resolve)
    adaptive = is_adaptive(rule)
    if adaptive and state.phase != "update_agent":
        rule = fixed_order
    context = OrderContext(
        units=tuple(setup.team.units),
        remaining=remaining,
        iteration=state.iteration,
        rng=setup.streams.numpy("order", state.iteration, state.position if adaptive else 0),
        position=state.position,
        scores=lambda: scores(setup, state, remaining),
    )
    return resolve_permutation(tuple(rule(context)), remaining, resolve)


def readapted(setup: Setup, state: State) -> tuple[str, ...]:
    """The order of those who are left, after an update: as it was, unless the rule is an adaptive one."""
    left = state.order[state.position :]
    rule = rule_for(state.settings.order, setup.team.resolve)
    asked_anew = is_adaptive(rule) and len(left) > 1 and not state.manual_order
    return draw_order(setup, state, left) if asked_anew else left
