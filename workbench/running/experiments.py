"""Questions that only a forkable run can ask."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import unknown_name
from workbench.learning.orders import resolve_permutation
from workbench.learning.settings import whole, whole_or_none
from workbench.randomness import Streams
from workbench.running.improvement import Improvement, take_apart
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
    _trainer(trainer)
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
    shared, updates = _one_fork(start, {"order": order}, iterations_after)
    return [{**shared, **row} for row in updates.drop(columns=["iteration", "env_steps"]).to_dict("records")]


def _one_fork(
    start: Trainer, changes: Mapping[str, object], iterations_after: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """What came of ``changes``: of the iteration as a whole, with what followed, and of each of its updates."""
    fork = start.fork(**changes)
    fork.iterate()
    # Agents that share a policy share its advantages; the first agent's M is the advantage itself.
    advantages = fork.m_factors[fork._setup.team.units[fork.iteration_order[0]][0]]
    joint_gain = float(((fork.preceding_ratio - 1) * advantages).mean())
    updates = fork.agent_history.tail(len(fork.units))
    following = {"next_reward": math.nan, "next_return": math.nan}
    if iterations_after:
        fork.run(iterations=iterations_after, progress=False)
        last = fork.history.iloc[-1]
        following = {"next_reward": float(last["reward"]), "next_return": float(last["return"])}
    return {**changes, "joint_gain": joint_gain, **following}, updates


def what_if(
    trainer: Trainer, *, iterations_after: int = 1, repeats: int = 5, seed: int = 0, **values: Sequence[object]
) -> pd.DataFrame:
    """Go on from one state under each value of one or two settings: ``what_if(trainer, clip_epsilon=[0.1, 0.2])``.

    Each repeat is one fork for every value, or pair of values, and all of its forks have the same random numbers: they
    are compared as pairs. ``trainer`` itself is left as it is.

    iterations_after  iterations that each fork goes on for after its first, to see the next returns; 0 for none
    repeats           the first has the run's own noise, each further one other noise of actions, minibatches and, as
                      far as the environment names its generators, of the environment
    seed              of that other noise
    values            {setting: values to try}; an order is a rule's name or a permutation

    One row for each repeat (in column ``seed``) and value, with ``joint_gain``, ``next_reward`` and ``next_return`` as
    in ``try_orders``, and of the first iteration ``kl`` (mean) and ``surrogate_gain`` (sum) over the agents. Its figure
    is ``wb.views.paired_differences(table, "clip_epsilon = 0.1", "next_return", by="clip_epsilon")``.

    Raises ``ValueError`` in the middle of an iteration, ``AttributeError`` for settings that are fixed, and, where the
    environment cannot be copied, ``SnapshotUnsupported`` or ``NotImplementedError``.
    """
    _trainer(trainer)
    iterations_after, repeats = whole("iterations_after", iterations_after, 0), whole("repeats", repeats, 1)
    if trainer.phase != "collect":
        raise ValueError(_IN_THE_MIDDLE.format(what="forks go on from an iteration's beginning", phase=trainer.phase))
    combinations = _combinations(trainer, values)
    rows = []
    for repeat in range(repeats):
        start = trainer if repeat == 0 else trainer._with_other_noise("what if", seed, repeat)
        for changes in combinations:
            shared, updates = _one_fork(start, changes, iterations_after)
            moved = {"kl": float(updates["kl"].mean()), "surrogate_gain": float(updates["surrogate_gain"].sum())}
            rows.append({"seed": repeat, **shared, **moved})
    return pd.DataFrame(rows)


def _combinations(trainer: Trainer, values: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Every value, or pair of values, as changes of a fork; each is tried on one before anything runs."""
    if len(values) not in (1, 2):
        raise ValueError(
            f"{len(values)} settings are given ({', '.join(values) or 'none'}); expected one or two with the values "
            "to try, such as what_if(trainer, clip_epsilon=[0.1, 0.2])."
        )
    for name, some in values.items():
        if isinstance(some, str) or not isinstance(some, Sequence | np.ndarray) or not len(some):
            raise ValueError(f"{name} is {some!r}; expected a list of the values to try, such as {name}=[…, …].")
    found = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    for changes in found:
        trainer.fork(**changes)
    return found


def improvement(
    trainer: Trainer, episodes: int = 100, *, which: str = "last", seed: int = 0, max_steps: int | None = None
) -> Improvement:
    """J(π_m) − J(π_{m−1}) of every agent's update in one iteration, beside mean((r_m − 1)·M)·σ_A·H, its promise.

    J = E[Σ γᵗrₜ] is measured by fresh episodes in which actions are drawn, with the same random numbers for all
    policies; gains are paired, with 95 % t-intervals over episodes. H = E[Σ_{t<T} γᵗ] turns a gain a step into one of
    J. γ is the game's where the environment is tabular, and else the setting.

    episodes   of each of the n + 2 policies
    which      "last": the iteration that is just complete; "next": the one to come, done in a fork
    seed       of the episodes and of the held-out rollout; another one gives other noise
    max_steps  an episode counts as it stands after so many

    The table has, in update order: ``J`` and ``gain`` with ``_low`` and ``_high``; ``promised``, on the samples that
    the update was fitted to; ``held_out``, the same on a second rollout of the old policies with other noise, begun
    where the first began. On tabular games, and with policies that remember nothing, ``exact_J``, ``exact_gain`` and
    ``exact_promised`` (E over the old visitation) too. Its cost is one more rollout, and ``episodes`` times n + 2.

    The trainer stays as it is. Raises ``ValueError`` in the middle of an iteration, or where the last one is not kept;
    ``SnapshotUnsupported`` or ``NotImplementedError`` where the environment cannot be copied.
    """
    _trainer(trainer)
    episodes, seed = whole("episodes", episodes, 2), whole("seed", seed, 0)
    max_steps = whole_or_none("max_steps", max_steps, 1)
    if which not in ("last", "next"):
        raise unknown_name("iteration", which, ("last", "next"))
    if trainer.phase != "collect":
        raise ValueError(_IN_THE_MIDDLE.format(what="an iteration is taken apart whole", phase=trainer.phase))
    whose = trainer.fork() if which == "next" else trainer
    if which == "next":
        whose.iterate()
    return take_apart(whose._setup, whose._last_iteration(), episodes, seed, max_steps)


_IN_THE_MIDDLE = (
    "{what}, and this trainer is in the middle of one (next: {phase}): trainer.iterate() first, or "
    "trainer.rewind(iterations=0)."
)


def _trainer(trainer: object) -> None:
    if not isinstance(trainer, Trainer):
        raise TypeError(f"trainer is {trainer!r}; expected a trainer, such as wb.happo(env) makes.")
