"""One turn of the sequential update: who is next, with which M, on what batch, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from workbench.learning import orders
from workbench.learning.advantages import trace_correction
from workbench.learning.rollout import Rollout
from workbench.learning.settings import ClippedSettings, SequentialSettings, Settings, TrustRegionSettings
from workbench.learning.state import Setup, State, computing
from workbench.learning.surrogate import clamp_ratio, log_variance, m_factor, masked_mean, outside, ratio_diagnostics
from workbench.learning.team import Policy
from workbench.learning.trust_region import share_kl
from workbench.learning.updates import UnitBatch, UpdateContext, expected_gain, refuse_non_finite
from workbench.networks.distributions import Parameters
from workbench.networks.gru import Sequences


def draw_order(setup: Setup, state: State, remaining: tuple[str, ...]) -> tuple[str, ...]:
    """The order of those who remain, by the rule that the settings name.

    An adaptive rule has nothing to look at before there are advantages; what it will choose is not known then, and the
    environment's order stands in for it.
    """
    resolve = setup.team.resolve
    rule = orders.rule_for(state.settings.order, resolve)
    adaptive = orders.is_adaptive(rule)
    if adaptive and state.phase != "update_agent":
        rule = orders.fixed_order
    context = orders.OrderContext(
        units=tuple(setup.team.units),
        remaining=remaining,
        iteration=state.iteration,
        rng=setup.streams.numpy("order", state.iteration, state.position if adaptive else 0),
        position=state.position,
        scores=lambda: scores(setup, state, remaining),
    )
    return orders.resolve_permutation(tuple(rule(context)), remaining, resolve)


def readapted(setup: Setup, state: State) -> tuple[str, ...]:
    """The order of those who are left, after an update: as it was, unless the rule is an adaptive one."""
    left = state.order[state.position :]
    rule = orders.rule_for(state.settings.order, setup.team.resolve)
    asked_anew = orders.is_adaptive(rule) and len(left) > 1 and not state.manual_order
    return draw_order(setup, state, left) if asked_anew else left


def scores(setup: Setup, state: State, units: tuple[str, ...]) -> dict[str, float]:
    """{unit: √(gᵀF⁻¹g)}, what each promises to gain for each √(2δ) of KL on its M-factors as they are now."""
    found = {}
    with computing(setup, state.settings):
        for unit in units:
            m_factors = {agent: next_m_factor(setup, state, agent) for agent in setup.team.units[unit]}
            batch, _ = unit_batch(setup, state, unit, m_factors)
            policy, stream = setup.team.policies[unit], update_stream(setup, state, unit)
            found[unit] = expected_gain(policy, state.policies[unit], batch, state.settings, stream)
            refuse_non_finite(found[unit], f"the score of {unit}")
    return found


def update_stream(setup: Setup, state: State, unit: str) -> torch.Generator:
    """The generator of a unit's minibatches in this iteration, at its beginning."""
    return setup.streams.torch("policy minibatches", state.iteration, list(setup.team.units).index(unit))


def update_context(setup: Setup, state: State, unit: str) -> UpdateContext:
    """What a unit is updated with."""
    settings = state.settings
    return UpdateContext(
        unit=unit,
        position=state.position,
        n_units=len(state.order),
        learning_rate=getattr(settings, "lr", 0.0) * settings.decay(state.env_steps),
        max_kl=max_kl(setup, state),
        target_kl=settings.target_kl_of(len(setup.team.agents)) if isinstance(settings, ClippedSettings) else math.inf,
        generator=update_stream(setup, state, unit),
    )


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


def next_m_factor(setup: Setup, state: State, agent: str) -> Tensor:
    """M of an agent that is updated next: (n_steps, n_envs)."""
    assert state.estimate is not None
    assert state.preceding_ratio is not None
    assert state.rollout is not None
    settings, critic = state.settings, setup.critic_of(agent)
    advantages, w = state.estimate.advantages[critic], state.preceding_ratio
    correction = getattr(settings, "preceding_correction", None)
    if correction == "ratio":
        return m_factor(clamp_ratio(w, ratio_bounds(settings)), advantages)
    if correction == "trace":
        return advantages + trace_correction(
            state.estimate.td_errors[critic],
            w,
            state.rollout.done,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
        )
    return advantages


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
    limited, there = (_of_all(group, arrays) for arrays in (rollout.masks, rollout.active))
    masks = None if limited is None else flat(limited)
    sequences = sequences_of(rollout, state.settings, [rollout.memories[a] for a in group if a in rollout.memories])
    old = policy.distribution(state.policies[unit].values, observations, masks, sequences)
    joint = None
    if getattr(state.settings, "joint_clip_epsilon", None) is not None:
        assert state.preceding_ratio is not None
        assert state.estimate is not None
        w = clamp_ratio(state.preceding_ratio, ratio_bounds(state.settings))
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
    return batch, old


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


def agent_diagnostics(
    policy: Policy,
    batch: UnitBatch,
    own: Tensor,
    old: Parameters,
    new: Parameters,
    context: UpdateContext,
    state: State,
) -> dict[str, float]:
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
    assert state.preceding_ratio is not None
    settings = state.settings
    epsilon = math.nan
    if isinstance(settings, ClippedSettings):
        epsilon = settings.clip_epsilon_at(context.position, context.n_units)
    joint_epsilon = getattr(settings, "joint_clip_epsilon", None) or epsilon
    joint = state.preceding_ratio.flatten().repeat(len(own) // state.preceding_ratio.numel()) * own
    return {
        "kl": float(masked_mean(policy.head.kl(old, new), batch.weights)),
        "entropy": float(masked_mean(policy.head.entropy(new), batch.weights)),
        "std": float(new[1].mean()) if policy.head.action_dtype is None else math.nan,
        "clipped_fraction": outside(own, epsilon, batch.weights),
        "joint_clipped_fraction": outside(joint, joint_epsilon, batch.weights),
        "surrogate_gain": float(masked_mean((own - 1) * batch.m_factors, batch.weights)),
        "log_ratio_variance": log_variance(own),
        **ratio_diagnostics(state.preceding_ratio, batch.m_factors, ratio_bounds(settings)),
        "effective_sample_size_reference": math.exp(-state.partial_metrics.get("log_ratio_variance", 0.0)),
    }


def ratio_bounds(settings: Settings) -> tuple[float | None, float | None]:
    """Bounds on the preceding ratio in M."""
    return settings.ratio_bounds if isinstance(settings, SequentialSettings) else (None, None)
