"""A run as it can be looked at: everything here reads, nothing changes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from workbench.envs.arguments import checked_observations
from workbench.envs.base import Array, TeamEnv, TimeStep
from workbench.learning.agent_turn import next_m_factor
from workbench.learning.events import Intervention
from workbench.learning.history import AGENT_COLUMNS, EVALUATION_COLUMNS, ITERATION_COLUMNS, table
from workbench.learning.orders import draw_order
from workbench.learning.settings import Settings
from workbench.learning.state import Setup, State, actor_of
from workbench.learning.updates import passes_of
from workbench.networks.gru import Gru
from workbench.running import checkpoint
from workbench.running.resume import RunRecord
from workbench.running.script import script

HEADLINE = (
    "clip_epsilon",
    "team_max_kl",
    "max_kl",
    "team_target_kl",
    "target_kl",
    "lr",
    "epochs",
    "gamma",
    "gae_lambda",
    "n_steps",
    "hidden_sizes",
)


class Run:
    """The readable half of a ``Trainer``: where its cursor stands, what it saw, what became of it."""

    _setup: Setup
    _state: State
    _record: RunRecord

    @property
    def phase(self) -> str:
        """What ``step()`` does next: "collect", "estimate", "update_agent" or "update_critic"."""
        return self._state.phase

    @property
    def iteration(self) -> int:
        """The iteration under way, from 0."""
        return self._state.iteration

    @property
    def env_steps(self) -> int:
        """Joint environment steps taken, over all environments."""
        return self._state.env_steps

    @property
    def env(self) -> TeamEnv:
        """The environment as it was given; what is done to it changes nothing of the run.

        The run goes on from its own snapshot of it, or, where it cannot be restored, in a copy of its own.
        """
        return self._setup.env

    @property
    def method(self) -> str:
        """The method's name, such as "HAPPO"."""
        return self._setup.method.name

    @property
    def seed(self) -> int:
        """What determines the whole run."""
        return self._setup.streams.seed

    @property
    def settings(self) -> Settings:
        """All settings, frozen."""
        return self._state.settings

    @property
    def units(self) -> tuple[str, ...]:
        """What is updated one after another: the agents, or groups that share a policy."""
        return tuple(self._setup.team.units)

    @property
    def order(self) -> Any:
        """The order setting as it was given: a rule's name, a permutation, or a callable. Set it at any time.

        In the middle of an iteration a change reorders who is left; a permutation of just those is accepted too, and
        holds for this iteration only. ``iteration_order`` has the names of this iteration's order.
        """
        return self.settings.order

    @property
    def iteration_order(self) -> tuple[str, ...]:
        """This iteration's order by name: known after ``estimate``; between iterations the last one's."""
        return self._state.order

    @property
    def remaining(self) -> tuple[str, ...]:
        """Who is still to be updated in this iteration, in order; all of them, as far as is known, before that."""
        if self.phase == "update_agent":
            return self._state.order[self._state.position :]
        if self.phase == "update_critic":
            return ()
        return draw_order(self._setup, self._state, self.units)

    @property
    def m_factors(self) -> dict[str, Array]:
        """M = Π_{j<m}(π_new/π_old)·A of every agent updated in this iteration, and of those about to be.

        {agent: (n_steps, n_envs)}, in update order; copies. Empty before ``estimate``; after an iteration, its last.
        """
        state, setup = self._state, self._setup
        factors = dict(state.m_factors)
        if state.phase == "update_agent":
            about_to_be = setup.team.units[state.order[state.position]]
            factors |= {agent: next_m_factor(setup, state, agent) for agent in about_to_be}
        return {agent: factor.cpu().numpy().copy() for agent, factor in factors.items()}

    @property
    def preceding_ratio(self) -> Array:
        """Π_j(π_new/π_old) over the agents updated so far in this iteration: (n_steps, n_envs), a copy.

        Ones before the first update. Raises ``ValueError`` before ``estimate``, when there is no rollout to speak of.
        """
        if self._state.preceding_ratio is None:
            raise ValueError("there is no preceding ratio before estimate; step() until trainer.phase is past it.")
        return self._state.preceding_ratio.cpu().numpy().copy()

    @torch.no_grad()
    def action_distributions(self, observations: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
        """Every agent's distribution over actions at given observations.

        ``observations`` is {agent: (n, observation_dim)}, as the environment shows them. Returns, for each agent, the
        arrays "mean" and "std" (n, action_dim) of a Gaussian, or "probabilities" (n, n_actions) of a categorical; where
        there are several action components, a tuple of those. A recurrent policy is asked as if an episode began there.
        """
        state, team = self._state, self._setup.team
        observations = checked_observations(observations, self.env.observation_spaces)
        found: dict[str, dict[str, Any]] = {}
        actor = actor_of(self._setup, state)
        for agent in team.agents:
            policy = team.policy(agent)
            inputs = actor.inputs_of(agent, np.asarray(observations[agent])).to(self.settings.device)
            parameters = policy.distribution(state.policies[team.unit_of[agent]].values, inputs)
            arrays = [part.cpu().numpy() for part in parameters]
            if policy.head.action_dtype is None:
                centre, half_width = team.action_scales.get(agent, (0.0, 1.0))
                mean, std = centre + half_width * arrays[0], half_width * np.broadcast_to(arrays[1], arrays[0].shape)
                found[agent] = {"mean": mean.astype(arrays[0].dtype), "std": std.astype(arrays[0].dtype)}
            else:
                probabilities = tuple(np.exp(log_p) for log_p in arrays)
                found[agent] = {"probabilities": probabilities[0] if len(probabilities) == 1 else probabilities}
        return found

    def act(
        self,
        observations: Mapping[str, Array] | TimeStep,
        deterministic: bool = True,
        *,
        action_masks: Mapping[str, npt.NDArray[np.bool_]] | None = None,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Array]:
        """{agent: action} by the policies as they are, shaped as environments take it; nothing of the run changes.

        ``observations`` is {agent: (n, observation_dim)}, or (observation_dim,) for each, whose actions then have no
        first axis; or a ``TimeStep``, which brings its masks with it. ``action_masks`` is {agent: (n, n_actions) bool},
        True where an action may be taken. The most probable actions, or with ``deterministic=False`` drawn ones, by
        ``rng``. Raises ``ValueError`` for a recurrent policy, whose memory is that of an episode.
        """
        team = self._setup.team
        if any(isinstance(policy.network, Gru) for policy in team.policies.values()):
            raise ValueError("act() remembers no episode, as recurrent policies do; use evaluate() or replay().")
        if isinstance(observations, TimeStep):
            action_masks = observations.action_masks if action_masks is None else action_masks
            observations = observations.observations
        single = isinstance(observations, Mapping) and all(np.ndim(seen) == 1 for seen in observations.values())
        if single:
            observations = {agent: np.asarray(seen)[None] for agent, seen in observations.items()}
        seen = checked_observations(observations, self.env.observation_spaces)
        masks = {agent: np.atleast_2d(mask) for agent, mask in (action_masks or {}).items()}
        actor = actor_of(self._setup, self._state)
        if deterministic:
            actions = actor.modes(seen, masks)
        else:
            seeds = (rng or np.random.default_rng()).integers(2**63, size=len(team.agents)).tolist()
            generators = (torch.Generator().manual_seed(seed) for seed in seeds)
            actions = actor.samples(seen, masks, dict(zip(team.agents, generators, strict=True)))
        return {agent: actions[agent][0] if single else actions[agent] for agent in team.agents}

    @property
    def observation_statistics(self) -> dict[str, dict[str, Any]]:
        """What networks' inputs are normalised by: {unit: {"count", "mean", "std"}}, of the features its policy sees.

        Over all that was seen in the iterations that are complete; "state" has the central critic's. Empty where
        ``normalize_observations`` is off.
        """
        state = self._state
        parts = dict(state.observation_statistics)
        if state.state_statistics is not None:
            parts.setdefault("state", state.state_statistics)
        return {
            name: {"count": int(each.count), "mean": each.mean.copy(), "std": np.sqrt(each.variance)}
            for name, each in parts.items()
        }

    @property
    def history(self) -> pd.DataFrame:
        """One row an iteration: env_steps, return, kl, value_loss, explained_variance, order, seconds and others."""
        return table(self._state.history, ITERATION_COLUMNS)

    @property
    def agent_history(self) -> pd.DataFrame:
        """One row for each (iteration, agent): position, kl, clipped_fraction, effective_sample_size and others."""
        return table(self._state.agent_history, AGENT_COLUMNS)

    @property
    def evaluations(self) -> pd.DataFrame:
        """One row for each evaluation: env_steps, return (mean), return_std, episodes, returns of each."""
        return table(self._state.evaluations, EVALUATION_COLUMNS)

    @property
    def improvements(self) -> pd.DataFrame:
        """What ``run(measure_improvement_every=k)`` measured: the tables of ``wb.improvement``, one below the other."""
        return table(self._state.improvements, ("iteration", "env_steps", "stage", "position"))

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """Every change made by hand since the run began, in order; nothing is ever taken out of it."""
        return self._record.interventions

    @property
    def lineage(self) -> tuple[Mapping[str, Any], ...]:
        """For a fork: whose it is and from where, the eldest first. Empty for a run of its own."""
        return self._record.lineage

    @property
    def steered(self) -> bool:
        """Whether a setting was changed under way; such a run is no sample of its method."""
        return any(change.name != "rewind" for change in self.interventions)

    @property
    def passes(self) -> dict[str, str]:
        """{unit: by which arithmetic its gradients are computed}, and why not by the fastest where it is not."""
        device = torch.device(self.settings.device).type
        return {unit: passes_of(policy, device) for unit, policy in self._setup.team.policies.items()}

    def fingerprint(self) -> str:
        """SHA-256 of all values that determine the future: equal fingerprints, equal futures, on one machine."""
        arrays, values = checkpoint.flatten(self._state)
        return checkpoint.digest(arrays, {**values, "seed": self.seed, "method": self.method})

    def script(self) -> str:
        """The run as Python: run anew in a fresh process, it ends in the same fingerprint, on one machine.

        The environment, the recipe with the settings that differ from its defaults, and, where they were done, all
        changes by hand and forks; what a rewind undid is left out. What cannot be written, such as an order that is a
        function or an environment without a description, stands as a comment with the reason and a line that raises.
        """
        return script(self._setup, self._state, self._record.made_with, self.fingerprint())

    def _repr_html_(self) -> str:
        """For a notebook: the run in a small table, in the theme's own colours."""
        shown = {name: getattr(self.settings, name) for name in HEADLINE if name in self.settings.names()}
        settings = " · ".join(f"{name} {value}" for name, value in shown.items() if value is not None)
        rows = {
            "environment": repr(self.env),
            "seed": f"{self.seed}{' · steered' if self.steered else ''}",
            "done": f"{self.iteration:,} iterations · {self.env_steps:,} env steps",
            "next": self._following(),
            "order": f"{self.order} · {' → '.join(self.remaining)}" if self.remaining else str(self.order),
            "settings": settings,
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in rows.items()
        )
        return f"<b>{self.method}</b><table>{cells}</table>"

    def _following(self) -> str:
        state = self._state
        if state.phase != "update_agent":
            return state.phase
        return f"update_agent {state.order[state.position]} ({state.position + 1} of {len(state.order)})"

    def __repr__(self) -> str:
        state = self._state
        steered = " · steered" if self.steered else ""
        return (
            f"{self.method} on {self.env!r} · seed {self.seed} · iteration {state.iteration} · "
            f"{state.env_steps:,} env steps · next: {self._following()}{steered}"
        )
