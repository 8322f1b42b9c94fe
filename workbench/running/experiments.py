"""Questions that only a forkable run can ask."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.learning.orders import resolve_permutation
from workbench.learning.settings import whole
from workbench.randomness import Streams
from workbench.running.trainer import Trainer

MAX_ORDERS = 24  # all of four agents


def try_orders(
    trainer: Trainer,
    orders: Sequence[Sequence[object]] | None = None,
    *,
    max_orders: int = MAX_ORDERS,
    iterations_after: int = 1,
    sampling_seed: int = 0,
) -> pd.DataFrame:
    """Update one rollout in many orders, each in a fork from the same state, and tell what came of each.

    ``trainer`` itself is left as it is; its forks collect a rollout first, the same one, where it has none yet.

    orders            the orders to try; by default all n! of them, or a sample of ``max_orders`` without repetition
    iterations_after  iterations that each fork goes on for, in its own order, to see the next returns; 0 for none

    One row for each (order, agent), in update order: ``position``, ``kl``, ``surrogate_gain`` and the agent's other
    diagnostics; and what belongs to the order as a whole, the same in all its rows:

    joint_gain   mean((Πr − 1)·A), by how much the surrogate of the joint policy rose; the agents' gains add up to it
    next_reward  mean joint reward a step in the last of the iterations after; NaN for none
    next_return  mean return of the episodes that ended in it

    The orders of one state share its luck: compare them as pairs, over several states or seeds, and take the seed, not
    the order, as the unit of any interval. Raises ``ValueError`` in the middle of an iteration, when some agents are
    updated already: ``trainer.rewind(iterations=0)`` first.
    """
    if not isinstance(trainer, Trainer):
        raise TypeError(f"trainer is {trainer!r}; expected a trainer, such as wb.happo(env) makes.")
    if orders is not None and (isinstance(orders, str) or not len(orders)):
        raise ValueError(f"orders is {orders!r}; expected permutations of the agents, such as [(0, 1, 2), (2, 1, 0)].")
    max_orders = whole("max_orders", max_orders, 1)
    iterations_after = whole("iterations_after", iterations_after, 0)
    start = trainer.fork()
    while start.phase in ("collect", "estimate"):
        start.step()
    if start.phase != "update_agent" or len(start.remaining) < len(start.units):
        raise ValueError(
            f"{trainer.remaining} are left of {trainer.units}: an order of all is tried from an iteration's beginning. "
            "Go back there: trainer.rewind(iterations=0)."
        )
    chosen = _all_orders(start, max_orders, sampling_seed) if orders is None else orders
    tried = [resolve_permutation(tuple(order), start.units, start._setup.team.resolve) for order in chosen]
    rows = [row for order in tried for row in _one_order(start, order, iterations_after)]
    return pd.DataFrame(rows)


def _all_orders(start: Trainer, max_orders: int, sampling_seed: int) -> list[tuple[str, ...]]:
    units = start.units
    if math.factorial(len(units)) <= max_orders:
        return list(itertools.permutations(units))
    rng = Streams(sampling_seed).numpy("orders to try")
    drawn: dict[tuple[str, ...], None] = {}
    while len(drawn) < max_orders:
        drawn[tuple(units[i] for i in rng.permutation(len(units)))] = None
    return list(drawn)


def _one_order(start: Trainer, order: tuple[str, ...], iterations_after: int) -> list[dict[str, Any]]:
    fork = start.fork(order=order)
    fork.iterate()
    # Agents that share a policy share its advantages; the first agent's M is the advantage itself.
    advantages = fork.m_factors[fork._setup.team.units[order[0]][0]]
    joint_gain = float(((fork.preceding_ratio - 1) * advantages).mean())
    table = fork.agent_history.tail(len(order))
    following = {"next_reward": math.nan, "next_return": math.nan}
    if iterations_after:
        fork.run(iterations=iterations_after, progress=False)
        last = fork.history.iloc[-1]
        following = {"next_reward": float(last["reward"]), "next_return": float(last["return"])}
    shared = {"order": order, "joint_gain": joint_gain, **following}
    return [{**shared, **row} for row in table.drop(columns=["iteration", "env_steps"]).to_dict("records")]
