"""In which order the agents are updated.

A rule takes an ``OrderContext`` and returns the units that are left in the order in which they shall be updated.
Random, drawn anew each iteration, is the default that the theory assumes (its limit points are then Nash equilibria);
every permutation gives monotonic improvement. Anyone can pass a function.

>>> def strongest_last(context):
...     return sorted(context.remaining, key=lambda unit: unit == "agent_0")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.errors import unknown_name


@dataclass(frozen=True)
class OrderContext:
    """What a rule may look at.

    units      all agents (or groups that share a policy), in the environment's order
    remaining  those that are not updated yet in this iteration
    iteration  counted from 0
    rng        generator of this iteration's order, for rules that draw
    """

    units: tuple[str, ...]
    remaining: tuple[str, ...]
    iteration: int
    rng: np.random.Generator


OrderRule = Callable[[OrderContext], Sequence[Any]]


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


RULES: dict[str, OrderRule] = {
    "random": random_order,
    "fixed": fixed_order,
    "reversed": reversed_order,
    "cyclic": cyclic_order,
}


def resolve_permutation(
    order: Sequence[Any], units: Sequence[str], resolve: Callable[[object], str]
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
