"""One turn of the sequential update: with which M, on what batch, with how much to spend, and what it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.learning.advantages import trace_correction
from workbench.learning.rollout import Rollout
from workbench.learning.settings import SequentialSettings, Settings, TrustRegionSettings
from workbench.learning.state import Setup, State, computing
from workbench.learning.surrogate import clamp_ratio, log_variance, m_factor, masked_mean, outside, ratio_diagnostics
from workbench.learning.trust_region import share_kl
from workbench.learning.updates import AgentTurn, UnitBatch, expected_gain, refuse_non_finite
from workbench.networks.distributions import Parameters
from workbench.networks.gru import Sequences


@torch.no_grad()
def agent_turn(
    setup: Setup,
    state: State,
    unit: str,
    m_factors: Mapping[str, Tensor] | None = None,
    max_kl: float = math.nan,
) -> AgentTurn[Any]:
    """The turn of a unit if it is the next: its samples, flat, its distribution on them, and what it is updated with.

    ``m_factors`` {agent: (n_steps, n_envs)}: those of ``next_m_factor`` where none are given.
    """
    assert state.rollout is not None
    assert state.preceding_ratio is not None
    rollout, group, policy, settings = state.rollout, setup.team.units[unit], setup.team.policies[unit], state.settings
    m_factors = m_factors or {agent: next_m_factor(setup, state, agent) for agent in group}

    def flat(arrays: list[Tensor]) -> Tensor:
        joined = arrays[0] if len(arrays) == 1 else torch.cat(arrays)
        return joined.flatten(0, 1)

    observations = flat([rollout.observations[agent][:-1] for agent in group])
    actions = flat([rollout.actions[agent] for agent in group])
    limited, there = (_of_all(group, arrays) for arrays in (rollout.masks, rollout.active))
    masks = None if limited is None else flat(limited)
    sequences = sequences_of(rollout, settings, [rollout.memories[a] for a in group if a in rollout.memories])
    old = policy.distribution(state.policies[unit].values, observations, masks, sequences)
    joint = None
    if settings.joint_epsilon is not None:
        assert state.estimate is not None
        w = clamp_ratio(state.preceding_ratio, settings.ratio_bounds)
        joint = flat([w] * len(group)), flat([state.estimate.advantages[setup.critic_of(agent)] for agent in group])
    batch = UnitBatch(
        observations=observations,
        actions=actions,
        old_log_probs=policy.head.log_prob(old, actions),
        m_factors=flat([m_factors[agent] for agent in group]),
        masks=masks,
        weights=None if there is None else flat(there),
        joint=joint,
        sequences=sequences,
    )
    return AgentTurn(
        unit=unit,
        policy=policy,
        vector=state.policies[unit],
        batch=batch,
        old=old,
        preceding_ratio=state.preceding_ratio,
        settings=settings,
        position=state.position,
        n_units=len(state.order),
        team_size=len(setup.team.agents),
        lr_scale=settings.decay(state.env_steps),
        max_kl=max_kl,
        generator=setup.streams.torch("policy minibatches", state.iteration, list(setup.team.units).index(unit)),
    )


def next_m_factor(setup: Setup, state: State, agent: str) -> Tensor:
    """M of an agent that is updated next: (n_steps, n_envs)."""
    assert state.estimate is not None
    assert state.preceding_ratio is not None
    assert state.rollout is not None
    settings, critic = state.settings, setup.critic_of(agent)
    advantages, w = state.estimate.advantages[critic], state.preceding_ratio
    if not isinstance(settings, SequentialSettings) or settings.preceding_correction is None:
        return advantages
    if settings.preceding_correction == "ratio":
        return m_factor(clamp_ratio(w, settings.ratio_bounds), advantages)
    return advantages + trace_correction(
        state.estimate.td_errors[critic], w, state.rollout.done, gamma=settings.gamma, gae_lambda=settings.gae_lambda
    )


def joint_ratio(turn: AgentTurn[Any], own: Tensor) -> Tensor:
    """Π r over the agents of a unit (n_steps, n_envs), from its ratios (batch,); 1 for those who had left."""
    if turn.batch.weights is not None:
        own = torch.where(turn.batch.weights > 0, own, torch.ones_like(own))
    return own.view(-1, *turn.preceding_ratio.shape).prod(0)


def scores(setup: Setup, state: State, units: Sequence[str]) -> dict[str, float]:
    """{unit: √(gᵀF⁻¹g)}, what each promises to gain for each √(2δ) of KL on its M-factors as they are now."""
    found = {}
    with computing(setup, state.settings):
        for unit in units:
            found[unit] = expected_gain(agent_turn(setup, state, unit))
            refuse_non_finite(found[unit], f"the score of {unit}")
    return found


def max_kl(setup: Setup, state: State) -> float:
    """δ that the next unit may spend: its own, or its share of what the team has left of n·δ; NaN for other methods."""
    settings, n = state.settings, len(state.order)
    if not isinstance(settings, TrustRegionSettings):
        return math.nan
    each = settings.max_kl_of(len(setup.team.agents))
    if settings.kl_allocation == "uniform":
        return each
    remaining = state.order[state.position :]
    left = n * each - n * state.partial_metrics.get("kl", 0.0)
    promised = scores(setup, state, remaining)
    return share_kl(settings.kl_allocation, [promised[unit] for unit in remaining], max(left, 0.0))[0]


def _of_all(group: Sequence[str], arrays: Mapping[str, Tensor]) -> list[Tensor] | None:
    """An array of each agent; agents without one get ones, and None where nobody has any."""
    present = [arrays[agent] for agent in group if agent in arrays]
    return [arrays.get(agent, torch.ones_like(present[0])) for agent in group] if present else None


def sequences_of(rollout: Rollout, settings: Settings, memories: list[Tensor]) -> Sequences | None:
    """Sequence layout, agent after agent; None for feed-forward policies.

    ``memories`` are (n_sequences, n_envs, memory_size) each.
    """
    if not memories:
        return None
    starts = rollout.starts.to(memories[0].dtype).flatten()
    before = torch.cat([memory.flatten(0, 1) for memory in memories])
    return Sequences(settings.sequence_length, rollout.rewards.shape[1], before, starts.repeat(len(memories)))


def agent_diagnostics(turn: AgentTurn[Any], own: Tensor, new: Parameters, variance_before: float) -> dict[str, float]:
    """What the update did, and what it was given to work on, over the whole batch; see ``ratio_diagnostics`` too.

    kl                               mean KL(old ‖ new)
    entropy                          mean entropy of the new policy, nats
    std                              mean standard deviation of a Gaussian; NaN for other heads
    clipped_fraction                 share of samples whose own ratio lies outside 1 ± ε; NaN where there is no ε
    joint_clipped_fraction           the same of the joint ratio w·r, outside 1 ± the joint ε if there is one, or else ε
    surrogate_gain                   mean((r − 1)·M), by how much the unclipped surrogate rose
    log_ratio_variance               var(log r) of the unit's own ratio
    effective_sample_size_reference  e^{−Σσ²}, σ² the predecessors' var(log r): what the effective sample size would be
                                     if their log-ratios were independent and N(−σ²/2, σ²)
    """
    policy, batch, settings = turn.policy, turn.batch, turn.settings
    epsilon = settings.clip_epsilon_at(turn.position, turn.n_units)
    joint_epsilon = settings.joint_epsilon or epsilon
    joint = turn.preceding_ratio.flatten().repeat(len(own) // turn.preceding_ratio.numel()) * own
    return {
        "kl": float(masked_mean(policy.head.kl(turn.old, new), batch.weights)),
        "entropy": float(masked_mean(policy.head.entropy(new), batch.weights)),
        "std": float(new[1].mean()) if policy.head.action_dtype is None else math.nan,
        "clipped_fraction": outside(own, epsilon, batch.weights),
        "joint_clipped_fraction": outside(joint, joint_epsilon, batch.weights),
        "surrogate_gain": float(masked_mean((own - 1) * batch.m_factors, batch.weights)),
        "log_ratio_variance": log_variance(own),
        **ratio_diagnostics(turn.preceding_ratio, batch.m_factors, settings.ratio_bounds),
        "effective_sample_size_reference": math.exp(-variance_before),
    }
