"""One iteration taken apart: by how much each agent's update raised J, beside what its surrogate had promised."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import stdtrit
from torch import Tensor

from workbench.envs.sampled_game import SampledGame
from workbench.errors import EnvironmentFailedError
from workbench.learning.advantages import standardization
from workbench.learning.agent_turn import agent_turn, joint_ratio, next_m_factor
from workbench.learning.phases import collect_phase, estimate_phase
from workbench.learning.policy_evaluation import LONGEST_EPISODE, evaluate
from workbench.learning.settings import SequentialSettings
from workbench.learning.state import Setup, State, actor_of
from workbench.learning.surrogate import masked_mean, ratio
from workbench.networks.gru import Gru
from workbench.randomness import Streams
from workbench.theory import evaluate as evaluate_exactly
from workbench.theory import hatrpo_surrogate
from workbench.theory.policies import Policies

MAX_ENVS = 256  # copies that play side by side
CONFIDENCE = 0.95
BEFORE, END, WHOLE = "before", "end", "iteration"


@dataclass(frozen=True, eq=False)
class Improvement:
    """One iteration, update by update; ``wb.views.improvement`` draws it.

    table    one row a stage: "before", each agent in update order, "end" (what networks' inputs are normalised by has
             moved on), and "iteration", from before to the end
    returns  (stages, episodes) discounted returns; column k of all rows is played with the same random numbers
    agents   of the environment, in its order
    """

    table: pd.DataFrame
    returns: np.ndarray[Any, np.dtype[np.float64]]
    agents: tuple[str, ...]

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False, float_format="{:.4g}".format))

    def __repr__(self) -> str:
        return str(self.table.to_string(index=False, float_format="{:.4g}".format))


def take_apart(
    setup: Setup, states: Sequence[State], episodes: int, seed: int = 0, max_steps: int | None = None
) -> Improvement:
    """The improvement of one iteration, whose ``states`` are those before each phase and the one after the last."""
    turns = states[2:-1]  # before each update, and after the last
    units = [state.order[state.position] for state in turns[:-1]]
    stages = [*turns, states[-1]]
    discount = setup.env.game.discount if isinstance(setup.env, SampledGame) else states[0].settings.gamma
    played = [_returns(setup, state, episodes, seed, discount, max_steps) for state in stages]
    returns = np.stack([each for each, _ in played])
    length = float(np.mean([_discounted_length(steps, discount) for steps in played[0][1]]))
    own = replace(turns[0], settings=states[1].settings)
    promised = [length * gain for gain in surrogate_gains(setup, turns, own)]
    held_out = [length * gain for gain in surrogate_gains(setup, turns, held_out_experience(setup, states, seed))]
    columns: dict[str, list[Any]] = {
        "iteration": [states[0].iteration] * (len(stages) + 1),
        "env_steps": [states[-1].env_steps] * (len(stages) + 1),
        "stage": [BEFORE, *units, END, WHOLE],
        "position": [math.nan, *range(len(units)), math.nan, math.nan],
    }
    columns |= _with_interval("J", [*returns, returns[-1]])
    columns |= _with_interval(
        "gain", [None, *(b - a for a, b in itertools.pairwise(returns)), returns[-1] - returns[0]]
    )
    columns |= {name: _told(gains) for name, gains in (("promised", promised), ("held_out", held_out))}
    if isinstance(setup.env, SampledGame) and not states[0].settings.recurrent:
        objectives, gains = exact_improvement(setup, stages, units)
        columns["exact_J"] = [*objectives, objectives[-1]]
        columns["exact_gain"] = [math.nan, *np.diff(objectives), objectives[-1] - objectives[0]]
        columns["exact_promised"] = _told(gains)
    return Improvement(pd.DataFrame(columns), returns, tuple(setup.env.agents))


def _told(gains: Sequence[float]) -> list[float]:
    """What the updates promise, as a column."""
    return [math.nan, *gains, math.nan, sum(gains)]


def _with_interval(name: str, samples: Iterable[Any]) -> dict[str, list[float]]:
    """Means and their 95 % t-intervals over episodes, as columns."""
    found: dict[str, list[float]] = {name: [], f"{name}_low": [], f"{name}_high": []}
    for values in samples:
        if values is None:
            mean = half = math.nan
        else:
            n = len(values)
            mean = float(values.mean())
            half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / math.sqrt(n))
        for column, value in zip(found.values(), (mean, mean - half, mean + half), strict=True):
            column.append(value)
    return found


def _returns(
    setup: Setup, state: State, episodes: int, seed: int, discount: float, max_steps: int | None
) -> tuple[Any, Any]:
    """Discounted returns and lengths (episodes,) by the policies of a state, actions drawn.

    Environment, step and agent alone decide on the random numbers, so that episode k of two states differs only as far
    as their policies do.
    """
    streams = setup.streams
    agents = enumerate(setup.env.agents)
    noise = {agent: streams.torch(f"improvement actions {seed}", state_key(state), i) for i, agent in agents}
    start = streams.integer(f"improvement {seed}", state_key(state))
    with closing(setup.env.remake(min(episodes, MAX_ENVS))) as env:
        limit = max_steps or LONGEST_EPISODE
        returns, lengths = evaluate(env, actor_of(setup, state), episodes, start, noise, limit, discount)
    if max_steps is None and lengths.max() >= LONGEST_EPISODE:
        raise EnvironmentFailedError(
            f"an episode has not ended after {LONGEST_EPISODE:,} steps; give the environment an end, or "
            "improvement(max_steps=1000)."
        )
    return returns, lengths


def state_key(state: State) -> int:
    """The number of the iteration that ``state`` belongs to or, at a beginning, has just completed."""
    return state.iteration - (state.phase == "collect")


def _discounted_length(steps: int, discount: float) -> float:
    """Σ_{t<T} γᵗ."""
    return float(steps) if discount == 1 else (1 - discount**steps) / (1 - discount)


# --- what the surrogates say ------------------------------------------------------------------------------------------


@torch.no_grad()
def surrogate_gains(setup: Setup, turns: Sequence[State], experience: State) -> list[float]:
    """mean((r − 1)·M)·σ_A of each update, in units of return a step, on the samples that ``experience`` holds.

    turns       the states before each update, and after the last
    experience  a state with a rollout of the old policies and its estimate; σ_A is what its advantages were divided by
    """
    assert experience.rollout is not None
    scales = {name: _advantage_scale(setup, experience, name) for name in setup.critics}
    preceding, gains = torch.ones_like(experience.rollout.rewards), []
    for before, after in itertools.pairwise(turns):
        unit = before.order[before.position]
        at = replace(
            before, rollout=experience.rollout, estimate=experience.estimate, preceding_ratio=preceding, m_factors={}
        )
        m_factors = {
            agent: next_m_factor(setup, at, agent) * scales[setup.critic_of(agent)] for agent in setup.team.units[unit]
        }
        turn = agent_turn(setup, at, unit, m_factors)
        new = turn.distribution(after.policies[unit].values)
        own = ratio(turn.policy.head.log_prob(new, turn.batch.actions), turn.batch.old_log_probs)
        gains.append(float(masked_mean((own - 1) * turn.batch.m_factors, turn.batch.weights)))
        preceding = preceding * joint_ratio(turn, own)
    return gains


def _advantage_scale(setup: Setup, state: State, critic: str) -> Tensor | float:
    """What the advantages of an estimate were divided by."""
    assert state.estimate is not None
    assert state.rollout is not None
    if not state.settings.standardize_advantages:
        return 1.0
    values = state.normalizers[critic].denormalize(state.estimate.predictions[critic])
    return standardization(state.estimate.returns[critic] - values, state.rollout.active.get(critic))[1]


def held_out_experience(setup: Setup, states: Sequence[State], seed: int) -> State:
    """A second rollout of the old policies, from where the first began, with other noise, and its estimate.

    The critic is the one that the first estimate was made with.
    """
    settings = states[1].settings.changed(order="fixed")  # a user's rule is asked once, by the run
    streams = Streams(setup.streams.integer(f"held out {seed}", states[0].iteration))
    there = replace(setup, streams=streams)
    collected, _ = collect_phase(there, with_other_generators(setup, states[0], streams))
    return estimate_phase(there, replace(collected, settings=settings))[0]


def with_other_generators(setup: Setup, state: State, streams: Streams) -> State:
    """``state``, its environments standing where they stood, with the generators of ``streams``.

    Those that their snapshot names (``generator_rows``); what else draws at random goes on as it would have.
    """
    assert state.env is not None
    if not setup.env.generator_rows:
        return state
    with closing(setup.env.remake(setup.env.n_envs)) as env:
        env.reset(seed=streams.integer("environment"))
        other = env.snapshot()
    return replace(state, env={**state.env, **{name: other[name] for name in env.generator_rows}})


# --- exactly ----------------------------------------------------------------------------------------------------------


def exact_improvement(setup: Setup, stages: Sequence[State], units: Sequence[str]) -> tuple[list[float], list[float]]:
    """J of the policies of each stage, and the exact surrogate of each update, of a tabular game.

    The surrogate is E_{s~ρ, a~π}[(r − 1)·M] in the old policies' visitation: M = Π_{j<m}(π_new/π_old)·A, unclamped,
    where the method's carries the predecessors' ratio, and A where it does not.
    """
    assert isinstance(setup.env, SampledGame)
    game = setup.env.game
    policies = [tabular_policies(setup, state) for state in stages]
    objectives = [evaluate_exactly(game, each).objective for each in policies]
    settings, old, new = stages[0].settings, policies[0], policies[-1]
    if isinstance(settings, SequentialSettings) and settings.preceding_correction is not None:
        agents = [agent for unit in units for agent in setup.team.units[unit]]
        of_agents = iter(hatrpo_surrogate(game, old, new, agents))
        return objectives, [float(sum(itertools.islice(of_agents, len(setup.team.units[unit])))) for unit in units]
    alone = {
        agent: float(hatrpo_surrogate(game, old, [*old[:i], new[i], *old[i + 1 :]], [agent])[0])
        for i, agent in enumerate(game.agents)
    }
    return objectives, [sum(alone[agent] for agent in setup.team.units[unit]) for unit in units]


@torch.no_grad()
def tabular_policies(setup: Setup, state: State) -> Policies:
    """πⁱ(a|s) of every agent, (S, Ai) float64, as theory takes them."""
    assert isinstance(setup.env, SampledGame)
    states = np.eye(setup.env.game.n_states, dtype=np.float32)
    actor, team, found = actor_of(setup, state), setup.team, []
    for agent in team.agents:
        policy = team.policy(agent)
        assert not isinstance(policy.network, Gru)
        inputs = actor.inputs_of(agent, states).to(state.settings.device)
        log_probs = policy.distribution(state.policies[team.unit_of[agent]].values, inputs)[0]
        found.append(log_probs.double().softmax(-1).cpu().numpy())
    return tuple(found)
