"""What each phase reports: small frozen records of plain values, by which views and listeners can alter nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A phase that was done.

    iteration   counted from 0
    env_steps   joint environment steps taken since the run began
    seconds     wall time of the phase
    """

    phase: ClassVar[str]
    iteration: int
    env_steps: int
    seconds: float = field(compare=False)

    def _facts(self) -> dict[str, Any]:
        return {}

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {_short(value)}" for name, value in self._facts().items() if not _missing(value))
        return f"{self.phase} · iteration {self.iteration}" + (f" · {facts}" if facts else "")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Collected(Event):
    """``collect``: a rollout was taken.

    episodes         episodes that ended in it
    mean_return      their mean undiscounted return; NaN where none ended
    mean_length      their mean length in steps; NaN where none ended
    mean_reward      mean joint reward a step
    """

    phase: ClassVar[str] = "collect"
    episodes: int
    mean_return: float
    mean_length: float
    mean_reward: float

    def _facts(self) -> dict[str, Any]:
        return {
            "reward a step": self.mean_reward,
            "episodes": self.episodes,
            "return": self.mean_return,
            "length": self.mean_length,
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Estimated(Event):
    """``estimate``: advantages were computed, and the order of this iteration is known.

    order                the agents (or units) in update order
    advantage_std        standard deviation of the advantages before they were standardised, in units of return
    explained_variance   of the returns by the critic's values
    """

    phase: ClassVar[str] = "estimate"
    order: tuple[str, ...]
    advantage_std: float
    explained_variance: float

    def _facts(self) -> dict[str, Any]:
        return {
            "order": " → ".join(self.order),
            "advantage std": self.advantage_std,
            "explained variance": self.explained_variance,
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AgentUpdated(Event):
    """``update_agent``: one agent (or unit) was updated.

    agent        its name
    position     its place in the order, from 0
    diagnostics  {name: number}, the columns of ``trainer.agent_history``
    """

    phase: ClassVar[str] = "update_agent"
    agent: str
    position: int
    diagnostics: dict[str, float]

    def _facts(self) -> dict[str, Any]:
        shown = {"kl": "KL", "clipped_fraction": "clipped", "surrogate_gain": "gain", "effective_sample_size": "ESS"}
        numbers = {label: self.diagnostics[name] for name, label in shown.items() if name in self.diagnostics}
        return {self.agent: f"(position {self.position})", **numbers}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CriticUpdated(Event):
    """``update_critic``: the value function was fitted, and the iteration is complete.

    value_loss   mean loss over the epochs, on normalised values
    """

    phase: ClassVar[str] = "update_critic"
    value_loss: float

    def _facts(self) -> dict[str, Any]:
        return {"value loss": self.value_loss}


class Events(tuple[Event, ...]):
    """The events of several phases; a notebook shows one a line."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))


@dataclass(frozen=True, slots=True)
class Intervention:
    """One change made by hand: what, when, from what to what.

    iteration, phase, position   where the cursor stood
    name                         the setting that was changed, or "rewind"
    old, new                     its values
    outcome                      what came of it, in words
    """

    iteration: int
    phase: str
    position: int
    name: str
    old: Any
    new: Any
    outcome: str


def _missing(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
