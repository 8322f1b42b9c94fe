"""The four phases of an iteration, each a function from one immutable ``State`` to the next.

    collect → estimate → update_agent (once a unit, in the order) → update_critic → collect …

Glossary
--------
phase            what one ``step()`` does; the cursor is (phase, position)
iteration        one walk through all phases
rollout          the experience that ``collect`` took
order            in which the units (agents, or groups that share a policy) are updated in this iteration
preceding ratio  product of the updated units' π_new/π_old, one number a sample, 1 before the first update
M-factor         preceding ratio · advantage: what multiplies an agent's own ratio in its surrogate

States are never written to: a phase that fails leaves the last good one, a snapshot is a reference, and forks share
all that has not changed since they parted.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench import orders
from workbench.advantages import gae, standardize
from workbench.critic import ValueNormalizer, explained_variance, value_loss
from workbench.distributions import Parameters
from workbench.envs.base import Snapshot, TeamEnv
from workbench.events import AgentUpdated, Collected, CriticUpdated, Estimated, Event
from workbench.history import Log
from workbench.networks import Adam, Mlp, ParameterVector, clip_norm
from workbench.randomness import Streams
from workbench.rollout import Rollout, Running, collect
from workbench.settings import Settings
from workbench.surrogate import m_factor, masked_mean, ratio, ratio_diagnostics
from workbench.team import Policy, Team
from workbench.updates import UnitBatch, UpdateContext, UpdateRule, random_parts, refuse_non_finite

CENTRAL = "state"  # the name of the critic that sees the state


@dataclass(frozen=True)
class Method:
    """Update rule × predecessors' ratio × sharing × critic: what tells one method from another.

    name        as it is shown, such as "HAPPO"
    settings    the dataclass of its settings
    rule        the update rule
    sequential  whether M carries the predecessors' ratio
    critic      "state": one for the team; "observation": one for each agent, on its own observations
    """

    name: str
    settings: type[Settings]
    rule: UpdateRule
    sequential: bool = True
    critic: str = CENTRAL


@dataclass(frozen=True)
class Setup:
    """What stays the same for a whole run, and is shared by forks."""

    method: Method
    method_name: str
    env: TeamEnv
    team: Team
    critics: Mapping[str, Mlp]
    streams: Streams

    def critic_of(self, agent: str) -> str:
        """The name of the critic that judges an agent."""
        return CENTRAL if self.method.critic == CENTRAL else agent


@dataclass(frozen=True)
class Estimate:
    """What the critic made of the rollout; {critic's name: (n_steps, n_envs)} each.

    predictions  the network's own, normalised values
    returns      advantages + values, the critic's targets, in units of return
    advantages   standardised where the settings say so: what the M-factors start from
    """

    predictions: Mapping[str, Tensor]
    returns: Mapping[str, Tensor]
    advantages: Mapping[str, Tensor]


@dataclass(frozen=True)
class State:
    """Everything that determines the future, and the records of the past."""

    settings: Settings
    policies: Mapping[str, ParameterVector]
    critics: Mapping[str, ParameterVector]
    normalizers: Mapping[str, ValueNormalizer]
    running: Running
    env: Snapshot | None  # None where the environment cannot be copied
    phase: str = "collect"
    position: int = 0
    iteration: int = 0
    env_steps: int = 0
    order: tuple[str, ...] = ()
    rollout: Rollout | None = None
    estimate: Estimate | None = None
    preceding_ratio: Tensor | None = None
    m_factors: Mapping[str, Tensor] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)  # of the history, as far as this iteration has come
    history: Log[dict[str, Any]] = field(default_factory=Log)
    agent_history: Log[dict[str, Any]] = field(default_factory=Log)
    evaluations: Log[dict[str, Any]] = field(default_factory=Log)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Run with n torch threads, which the last bits depend on, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def collect_phase(setup: Setup, state: State) -> tuple[State, Event]:
    """``n_steps`` joint steps in every environment, by the current policies."""
    started = time.perf_counter()
    # Always from the state's own snapshot: forks share one environment, and whoever stepped it last does not matter.
    if state.env is not None:
        setup.env.restore(state.env)
    # Small products gain nothing from a second thread, and the physics wants the cores.
    with threads(1):
        actor = setup.team.actor(state.policies, state.settings.device)
        rollout, running = collect(
            setup.env, setup.team, actor, state.running, state.settings.n_steps, setup.streams, state.iteration
        )
    seconds = time.perf_counter() - started
    env_steps = state.env_steps + rollout.n_steps * setup.env.n_envs
    event = Collected(
        iteration=state.iteration,
        env_steps=env_steps,
        seconds=seconds,
        episodes=len(rollout.episode_returns),
        mean_return=_mean(rollout.episode_returns),
        mean_length=_mean(rollout.episode_lengths),
        mean_reward=float(rollout.rewards.mean()),
    )
    row = {
        "iteration": state.iteration,
        "env_steps": env_steps,
        "return": event.mean_return,
        "episode_length": event.mean_length,
        "episodes": event.episodes,
        "reward": event.mean_reward,
        "seconds": seconds,
    }
    collected = replace(
        state,
        phase="estimate",
        env_steps=env_steps,
        running=running,
        env=setup.env.snapshot() if state.env is not None else None,
        rollout=rollout,
        estimate=None,
        preceding_ratio=None,
        m_factors={},
        order=(),
        row=row,
    )
    return collected, event


@torch.no_grad()
def estimate_phase(setup: Setup, state: State) -> tuple[State, Event]:
    """Values, advantages, and who is updated first."""
    started = time.perf_counter()
    assert state.rollout is not None
    settings, rollout = state.settings, state.rollout
    predictions, returns, advantages = {}, {}, {}
    spreads, explained = [], []
    with threads(settings.update_threads):
        for name in setup.critics:
            predicted, values, next_values = _values(setup, state, name)
            raw = gae(
                rollout.rewards, values, next_values, rollout.done, gamma=settings.gamma, gae_lambda=settings.gae_lambda
            )
            predictions[name], returns[name] = predicted, raw + values
            advantages[name] = standardize(raw, rollout.active.get(name)) if settings.standardize_advantages else raw
            spreads.append(float(raw.std(correction=0)))
            explained.append(explained_variance(values, returns[name]))
    refuse_non_finite(sum(spreads), f"the deviation of the advantages in iteration {state.iteration}")
    order = draw_order(setup, state, tuple(setup.team.units))
    event = Estimated(
        iteration=state.iteration,
        env_steps=state.env_steps,
        seconds=time.perf_counter() - started,
        order=order,
        advantage_std=_mean(spreads),
        explained_variance=_mean(explained),
    )
    estimated = replace(
        state,
        phase="update_agent",
        position=0,
        order=order,
        estimate=Estimate(predictions, returns, advantages),
        preceding_ratio=torch.ones_like(rollout.rewards),
        m_factors={},
        row={
            **state.row,
            "explained_variance": event.explained_variance,
            "seconds": state.row["seconds"] + event.seconds,
        },
    )
    return estimated, event


def update_agent_phase(setup: Setup, state: State) -> tuple[State, Event]:
    """The next unit's update, on its M-factors, and its own ratio onto the preceding one."""
    started = time.perf_counter()
    assert state.preceding_ratio is not None
    settings, unit = state.settings, state.order[state.position]
    policy, vector, group = setup.team.policies[unit], state.policies[unit], setup.team.units[unit]
    index = list(setup.team.units).index(unit)
    m_factors = {agent: next_m_factor(setup, state, agent) for agent in group}
    context = UpdateContext(
        unit=unit,
        position=state.position,
        learning_rate=getattr(settings, "lr", 0.0) * settings.decay(state.env_steps),
        generator=setup.streams.torch("policy minibatches", state.iteration, index),
    )
    with threads(settings.update_threads):
        batch, old = unit_batch(setup, state, unit, m_factors)
        updated, diagnostics = setup.method.rule(policy, vector, batch, settings, context)
        with torch.no_grad():
            new = policy.distribution(updated.values, batch.observations, batch.masks)
            own = ratio(policy.head.log_prob(new, batch.actions), batch.old_log_probs)
            refuse_non_finite(float(own.sum()), f"the ratio of {unit}")
            diagnostics = {**agent_diagnostics(policy, batch, own, old, new, settings), **diagnostics}
            diagnostics |= ratio_diagnostics(state.preceding_ratio, torch.stack(list(m_factors.values())))
            if batch.weights is not None:
                own = torch.where(batch.weights > 0, own, torch.ones_like(own))
            joint = own.view(len(group), *state.preceding_ratio.shape).prod(0)
    event = AgentUpdated(
        iteration=state.iteration,
        env_steps=state.env_steps,
        seconds=time.perf_counter() - started,
        agent=unit,
        position=state.position,
        diagnostics=diagnostics,
    )
    where = {"iteration": state.iteration, "env_steps": state.env_steps, "agent": unit, "position": state.position}
    position = state.position + 1
    moved = replace(
        state,
        policies={**state.policies, unit: updated},
        position=position,
        phase="update_agent" if position < len(state.order) else "update_critic",
        preceding_ratio=state.preceding_ratio * joint if setup.method.sequential else state.preceding_ratio,
        m_factors={**state.m_factors, **m_factors},
        agent_history=state.agent_history.append({**where, **diagnostics}),
        row={
            **state.row,
            "kl": state.row.get("kl", 0.0) + diagnostics["kl"] / len(state.order),
            "seconds": state.row["seconds"] + event.seconds,
        },
    )
    return moved, event


def update_critic_phase(setup: Setup, state: State) -> tuple[State, Event]:
    """Fit the value function to the returns; the iteration is complete then."""
    started = time.perf_counter()
    assert state.estimate is not None
    critics, normalizers, losses = {}, {}, []
    with threads(state.settings.update_threads):
        for index, name in enumerate(setup.critics):
            normalizers[name] = state.normalizers[name].updated(state.estimate.returns[name])
            critics[name], loss = _fit_critic(setup, state, name, normalizers[name], index)
            losses.append(loss)
    event = CriticUpdated(
        iteration=state.iteration,
        env_steps=state.env_steps,
        seconds=time.perf_counter() - started,
        value_loss=_mean(losses),
    )
    seconds = state.row["seconds"] + event.seconds
    steps_taken = setup.env.n_envs * state.settings.n_steps
    row = {
        **state.row,
        "order": state.order,
        "value_loss": event.value_loss,
        "seconds": seconds,
        "env_steps_per_second": steps_taken / seconds,
    }
    complete = replace(
        state,
        phase="collect",
        position=0,
        iteration=state.iteration + 1,
        critics=critics,
        normalizers=normalizers,
        row={},
        history=state.history.append(row),
    )
    return complete, event


PHASES = {
    "collect": collect_phase,
    "estimate": estimate_phase,
    "update_agent": update_agent_phase,
    "update_critic": update_critic_phase,
}


def draw_order(setup: Setup, state: State, remaining: tuple[str, ...]) -> tuple[str, ...]:
    """The order of those who remain, by the rule that the settings name."""
    resolve = setup.team.resolve
    context = orders.OrderContext(
        units=tuple(setup.team.units),
        remaining=remaining,
        iteration=state.iteration,
        rng=setup.streams.numpy("order", state.iteration),
    )
    drawn = orders.rule_for(state.settings.order, resolve)(context)
    return orders.resolve_permutation(tuple(drawn), remaining, resolve)


def next_m_factor(setup: Setup, state: State, agent: str) -> Tensor:
    """M of an agent that is updated next: (n_steps, n_envs)."""
    assert state.estimate is not None
    assert state.preceding_ratio is not None
    return m_factor(state.preceding_ratio, state.estimate.advantages[setup.critic_of(agent)])


@torch.no_grad()
def unit_batch(setup: Setup, state: State, unit: str, m_factors: Mapping[str, Tensor]) -> tuple[UnitBatch, Parameters]:
    """All of a unit's samples, flat, and its distribution's parameters before the update."""
    assert state.rollout is not None
    rollout, group, policy = state.rollout, setup.team.units[unit], setup.team.policies[unit]

    def flat(arrays: list[Tensor]) -> Tensor:
        joined = arrays[0] if len(arrays) == 1 else torch.cat(arrays)
        return joined.flatten(0, 1)

    observations = flat([rollout.observations[agent][:-1] for agent in group])
    actions = flat([rollout.actions[agent] for agent in group])
    masks = flat([rollout.masks[agent] for agent in group]) if group[0] in rollout.masks else None
    old = policy.distribution(state.policies[unit].values, observations, masks)
    batch = UnitBatch(
        observations=observations,
        actions=actions,
        old_log_probs=policy.head.log_prob(old, actions),
        m_factors=flat([m_factors[agent] for agent in group]),
        masks=masks,
        weights=flat([rollout.active[agent] for agent in group]) if group[0] in rollout.active else None,
    )
    return batch, old


def agent_diagnostics(
    policy: Policy, batch: UnitBatch, own: Tensor, old: Parameters, new: Parameters, settings: Settings
) -> dict[str, float]:
    """What the update did to the unit's own policy, over the whole batch.

    kl                mean KL(old ‖ new)
    entropy           mean entropy of the new policy, nats
    std               mean standard deviation of a Gaussian; NaN for other heads
    clipped_fraction  share of samples whose own ratio lies outside 1 ± ε; NaN where the method has no ε
    surrogate_gain    mean((r − 1)·M), by how much the unclipped surrogate rose
    """
    epsilon = getattr(settings, "clip_epsilon", math.nan)
    outside = ((own - 1).abs() > epsilon).to(own.dtype)
    return {
        "kl": float(masked_mean(policy.head.kl(old, new), batch.weights)),
        "entropy": float(masked_mean(policy.head.entropy(new), batch.weights)),
        "std": float(new[1].mean()) if policy.head.action_dtype is None else math.nan,
        "clipped_fraction": math.nan if math.isnan(epsilon) else float(masked_mean(outside, batch.weights)),
        "surrogate_gain": float(masked_mean((own - 1) * batch.m_factors, batch.weights)),
    }


def critic_inputs(rollout: Rollout, name: str) -> tuple[Tensor, Tensor]:
    """What a critic sees: (n_steps + 1, n_envs, inputs), and (k, inputs) where episodes ended."""
    if name == CENTRAL:
        return rollout.states, rollout.final_states
    return rollout.observations[name], rollout.final_observations[name]


def _values(setup: Setup, state: State, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised predictions and values of s_t, and values of the states truly reached; each (n_steps, n_envs)."""
    assert state.rollout is not None
    rollout, network, normalizer = state.rollout, setup.critics[name], state.normalizers[name]
    seen, last_seen = critic_inputs(rollout, name)
    folded = network.fold(state.critics[name].values)
    predictions = network.forward(folded, seen.flatten(0, 1)).view(seen.shape[:2])
    values = normalizer.denormalize(predictions)
    next_values = values[1:].clone()
    if len(rollout.final_at):
        t, env = rollout.final_at.to(values.device).unbind(1)
        final_values = normalizer.denormalize(network.forward(folded, last_seen).squeeze(-1))
        next_values[t, env] = torch.where(rollout.terminated[t, env], 0.0, final_values)
    return predictions[:-1], values[:-1], next_values


def _fit_critic(
    setup: Setup, state: State, name: str, normalizer: ValueNormalizer, index: int
) -> tuple[ParameterVector, float]:
    assert state.rollout is not None
    assert state.estimate is not None
    settings, network = state.settings, setup.critics[name]
    inputs = critic_inputs(state.rollout, name)[0][:-1].flatten(0, 1)
    old = state.estimate.predictions[name].flatten()
    targets = normalizer.normalize(state.estimate.returns[name].flatten())
    generator = setup.streams.torch("critic minibatches", state.iteration, index)
    optimizer = Adam(state.critics[name])
    losses = []
    for _ in range(settings.critic_epochs):
        for part in random_parts(len(targets), settings.critic_minibatches, generator):
            chosen = slice(None) if part is None else part.to(targets.device)
            predicted = network.forward(network.fold(optimizer.values), inputs[chosen]).squeeze(-1)
            loss = value_loss(
                predicted,
                old[chosen],
                targets[chosen],
                clip=settings.value_clip_epsilon,
                huber_delta=settings.huber_delta,
            )
            gradient, norm = clip_norm(torch.autograd.grad(loss, optimizer.values)[0], settings.max_grad_norm)
            refuse_non_finite(norm, f"the gradient of the critic ({name})")
            optimizer.step(gradient, settings.critic_lr * settings.decay(state.env_steps))
            losses.append(float(loss.detach()))
    return optimizer.result(), _mean(losses)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan
