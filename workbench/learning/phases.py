"""The four phases of an iteration, each a function from one immutable ``State`` to the next.

collect → estimate → update_agent (once a unit, in the order) → update_critic → collect …
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbench.learning.advantages import gae, standardization, td_errors
from workbench.learning.agent_turn import (
    agent_diagnostics,
    agent_turn,
    joint_ratio,
    max_kl,
    next_m_factor,
    sequences_of,
)
from workbench.learning.critic import ValueNormalizer, explained_variance, fit_critic
from workbench.learning.events import AgentUpdated, Collected, CriticUpdated, Estimated, Event
from workbench.learning.orders import draw_order, readapted
from workbench.learning.policy_inputs import FeatureStatistics
from workbench.learning.rollout import Rollout, collect
from workbench.learning.state import CENTRAL, AdvantageEstimate, Setup, State, actor_of, computing, state_transform
from workbench.learning.surrogate import ratio
from workbench.learning.updates import refuse_non_finite
from workbench.networks.gradients import predict, torch_threads
from workbench.networks.mlp import Mlp, ParameterVector


def collect_phase(setup: Setup, state: State) -> tuple[State, Event]:
    """``n_steps`` joint steps in every environment, by the current policies."""
    started = time.perf_counter()
    episodes = setup.rollout_env
    start = episodes.stand(state.running, state.env, setup.streams.integer("environment", state.iteration))
    # Small products gain nothing from a second thread, and the physics wants the cores.
    with torch_threads(1):
        rollout, running = collect(
            episodes.env,
            setup.team,
            actor_of(setup, state),
            start,
            state.settings.n_steps,
            setup.streams,
            state.iteration,
            state_transform=state_transform(setup, state),
            sequence_length=state.settings.sequence_length,
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
        running=episodes.left(running),
        env=episodes.env.snapshot() if state.env is not None else None,
        rollout=rollout,
        estimate=None,
        preceding_ratio=None,
        m_factors={},
        order=(),
        manual_order=False,
        partial_metrics=row,
    )
    return collected, event


@torch.no_grad()
def estimate_phase(setup: Setup, state: State) -> tuple[State, Event]:
    """Values, advantages, and who is updated first."""
    started = time.perf_counter()
    assert state.rollout is not None
    settings, rollout = state.settings, state.rollout
    predictions, returns, advantages, deltas, memories, latest = {}, {}, {}, {}, {}, {}
    spreads, explained = [], []
    with computing(setup, settings):
        for name in setup.critics:
            predicted_values = predict_values(setup, state, name)
            if predicted_values.memory is not None:
                memories[name], latest[name] = predicted_values.memory
            predicted, values, next_values = _values(setup, state, name, predicted_values)
            raw = gae(
                rollout.rewards, values, next_values, rollout.done, gamma=settings.gamma, gae_lambda=settings.gae_lambda
            )
            predictions[name], returns[name] = predicted, raw + values
            mean, scale = standardization(raw, rollout.active.get(name)) if settings.standardize_advantages else (0, 1)
            advantages[name] = (raw - mean) / scale
            deltas[name] = td_errors(rollout.rewards, values, next_values, gamma=settings.gamma) / scale
            spreads.append(float(raw.std(correction=0)))
            explained.append(explained_variance(values, returns[name]))
    refuse_non_finite(sum(spreads), f"the deviation of the advantages in iteration {state.iteration}")
    estimated = replace(
        state,
        phase="update_agent",
        position=0,
        running=replace(state.running, critic_memory=latest),
        estimate=AdvantageEstimate(predictions, returns, advantages, deltas, memories),
        preceding_ratio=torch.ones_like(rollout.rewards),
        m_factors={},
    )
    order = draw_order(setup, estimated, tuple(setup.team.units))
    event = Estimated(
        iteration=state.iteration,
        env_steps=state.env_steps,
        seconds=time.perf_counter() - started,
        order=order,
        advantage_std=_mean(spreads),
        explained_variance=_mean(explained),
    )
    row = {
        **state.partial_metrics,
        "order": order,
        "explained_variance": event.explained_variance,
        "seconds": state.partial_metrics["seconds"] + event.seconds,
    }
    return replace(estimated, order=order, partial_metrics=row), event


def update_agent_phase(setup: Setup, state: State) -> tuple[State, Event]:
    """The next unit's update, on its M-factors, and its own ratio onto the preceding one."""
    started = time.perf_counter()
    assert state.preceding_ratio is not None
    unit = state.order[state.position]
    group = setup.team.units[unit]
    m_factors = {agent: next_m_factor(setup, state, agent) for agent in group}
    spendable = max_kl(setup, state)
    variance_before = state.partial_metrics.get("log_ratio_variance", 0.0)
    with computing(setup, state.settings):
        turn = agent_turn(setup, state, unit, m_factors, spendable)
        updated, diagnostics = setup.method.rule(turn)
        with torch.no_grad():
            batch, new = turn.batch, turn.distribution(updated.values)
            own = ratio(turn.policy.head.log_prob(new, batch.actions), batch.old_log_probs)
            refuse_non_finite(float(own.sum()), f"the ratio of {unit}")
            diagnostics = {**agent_diagnostics(turn, own, new, variance_before), **diagnostics}
            joint = joint_ratio(turn, own)
    where = {"iteration": state.iteration, "env_steps": state.env_steps, "agent": unit, "position": state.position}
    position = state.position + 1
    moved = replace(
        state,
        policies={**state.policies, unit: updated},
        position=position,
        phase="update_agent" if position < len(state.order) else "update_critic",
        preceding_ratio=state.preceding_ratio * joint,
        m_factors={**state.m_factors, **m_factors},
        agent_history=state.agent_history.append({**where, **diagnostics}),
        partial_metrics={
            **state.partial_metrics,
            "kl": state.partial_metrics.get("kl", 0.0) + diagnostics["kl"] / len(state.order),
            "log_ratio_variance": variance_before + diagnostics["log_ratio_variance"],
        },
    )
    order = state.order[:position] + readapted(setup, moved)
    event = AgentUpdated(
        iteration=state.iteration,
        env_steps=state.env_steps,
        seconds=time.perf_counter() - started,
        agent=unit,
        position=state.position,
        diagnostics=diagnostics,
    )
    return replace(
        moved,
        order=order,
        partial_metrics={**moved.partial_metrics, "seconds": state.partial_metrics["seconds"] + event.seconds},
    ), event


def update_critic_phase(setup: Setup, state: State) -> tuple[State, Event]:
    """Fit the value function to the returns; the iteration is complete then."""
    started = time.perf_counter()
    assert state.estimate is not None
    assert state.rollout is not None
    critics, normalizers, losses = {}, {}, []
    with computing(setup, state.settings):
        for index, name in enumerate(setup.critics):
            normalizers[name] = state.normalizers[name].updated(state.estimate.returns[name])
            critics[name], loss = _fitted(setup, state, name, normalizers[name], index)
            losses.append(loss)
    event = CriticUpdated(
        iteration=state.iteration,
        env_steps=state.env_steps,
        seconds=time.perf_counter() - started,
        value_loss=_mean(losses),
    )
    seconds = state.partial_metrics["seconds"] + event.seconds
    steps_taken = setup.env.n_envs * state.settings.n_steps
    row = {
        **state.partial_metrics,
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
        observation_statistics={
            unit: seen.merged(state.rollout.seen[unit]) for unit, seen in state.observation_statistics.items()
        },
        state_statistics=_with(state.state_statistics, state.rollout.seen_states),
        partial_metrics={},
        history=state.history.append(row),
    )
    return complete, event


PHASES = {
    "collect": collect_phase,
    "estimate": estimate_phase,
    "update_agent": update_agent_phase,
    "update_critic": update_critic_phase,
}


def critic_inputs(rollout: Rollout, name: str) -> tuple[Tensor, Tensor]:
    """What a critic sees: (n_steps + 1, n_envs, inputs), and (k, inputs) where episodes ended."""
    if name == CENTRAL:
        return rollout.states, rollout.final_states
    return rollout.observations[name], rollout.final_observations[name]


class _Predictions(NamedTuple):
    """A critic's normalised predictions: of s_0 … s_n (n_steps + 1, n_envs), and of episodes' true last states (k,).

    memory  of a recurrent one: before each sequence (n_sequences, n_envs, memory_size), and after the rollout
    """

    predictions: Tensor
    at_ends: Tensor
    memory: tuple[Tensor, Tensor] | None


def predict_values(setup: Setup, state: State, name: str) -> _Predictions:
    assert state.rollout is not None
    rollout, network, values = state.rollout, setup.critics[name], state.critics[name].values
    seen, last_seen = critic_inputs(rollout, name)
    if isinstance(network, Mlp):
        predictions = predict(network, values, seen.flatten(0, 1), None)[0].view(seen.shape[:2])
        return _Predictions(predictions, predict(network, values, last_seen, None)[0].squeeze(-1), None)
    recurrent = network.fold(values)
    blank = seen.new_zeros(seen.shape[1], network.memory_size)
    before = state.running.critic_memory.get(name, blank)
    begins = torch.cat([rollout.starts, rollout.done[-1:]]).to(seen.dtype)
    outputs, after = network.unroll(recurrent, seen, before, begins)
    t, env = rollout.final_at.to(seen.device).unbind(1)
    at_ends, _ = network.step(recurrent, last_seen, after[t, env])
    before_each = torch.cat([before.unsqueeze(0), after[:-2]])
    latest = after[-2] * (1 - begins[-1]).unsqueeze(-1)
    sequences = before_each[:: state.settings.sequence_length].clone()  # a view would keep all of it alive
    return _Predictions(outputs.squeeze(-1), at_ends.squeeze(-1), (sequences, latest))


def _values(
    setup: Setup, state: State, name: str, predicted_values: _Predictions | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised predictions and values of s_t, and values of the states truly reached; each (n_steps, n_envs)."""
    assert state.rollout is not None
    rollout, normalizer = state.rollout, state.normalizers[name]
    predictions, at_ends, _ = predicted_values or predict_values(setup, state, name)
    values = normalizer.denormalize(predictions)
    next_values = values[1:].clone()
    if len(rollout.final_at):
        t, env = rollout.final_at.to(values.device).unbind(1)
        next_values[t, env] = torch.where(rollout.terminated[t, env], 0.0, normalizer.denormalize(at_ends))
    return predictions[:-1], values[:-1], next_values


def _fitted(
    setup: Setup, state: State, name: str, normalizer: ValueNormalizer, index: int
) -> tuple[ParameterVector, float]:
    """A critic after its passes over the rollout, and its mean loss."""
    assert state.rollout is not None
    assert state.estimate is not None
    settings, memories = state.settings, state.estimate.memories
    vector, norm, loss = fit_critic(
        setup.critics[name],
        state.critics[name],
        critic_inputs(state.rollout, name)[0][:-1].flatten(0, 1),
        state.estimate.predictions[name].flatten(),
        normalizer.normalize(state.estimate.returns[name].flatten()),
        settings,
        settings.critic_lr * settings.decay(state.env_steps),
        setup.streams.torch("critic minibatches", state.iteration, index),
        sequences_of(state.rollout, settings, [memories[name]] if name in memories else []),
    )
    refuse_non_finite(norm, f"the gradient of the critic ({name})")
    return vector, loss


def _with(statistics: FeatureStatistics | None, more: FeatureStatistics | None) -> FeatureStatistics | None:
    return statistics if statistics is None or more is None else statistics.merged(more)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan
