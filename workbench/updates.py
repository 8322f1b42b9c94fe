"""Update rules: how one agent's policy moves, given its M-factors.

A rule is a function ``(policy, vector, batch, settings, context) → (new vector, diagnostics)``. It sees one unit's
samples, and of the other agents nothing but M, which is what makes the sequential update sequential. Nothing passed in
is changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import NonFiniteError
from workbench.networks import Adam, ParameterVector, clip_norm
from workbench.settings import ClippedSettings
from workbench.surrogate import clipped_surrogate, masked_mean, ratio
from workbench.team import Policy


@dataclass(frozen=True, slots=True)
class UnitBatch:
    """All samples of one unit, flat: time, environments, and agents where several share the policy.

    observations   (batch, inputs)
    actions        (batch, action_size)
    old_log_probs  (batch,) log π_old(a|o), under the parameters before the update
    m_factors      (batch,)
    masks          (batch, n_actions) bool, or None
    weights        (batch,) 0 where the agent had left, or None
    """

    observations: Tensor
    actions: Tensor
    old_log_probs: Tensor
    m_factors: Tensor
    masks: Tensor | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.m_factors)

    def select(self, index: Tensor) -> UnitBatch:
        """The samples at ``index``."""
        return UnitBatch(
            self.observations[index],
            self.actions[index],
            self.old_log_probs[index],
            self.m_factors[index],
            None if self.masks is None else self.masks[index],
            None if self.weights is None else self.weights[index],
        )


@dataclass(frozen=True, slots=True)
class UpdateContext:
    """Who is updated, where in the order, and with what.

    unit           its name, for messages
    position       its place in the order, from 0
    learning_rate  after decay
    generator      of this unit's minibatches in this iteration
    """

    unit: str
    position: int
    learning_rate: float
    generator: torch.Generator


UpdateRule = Callable[
    [Policy, ParameterVector, UnitBatch, Any, UpdateContext], tuple[ParameterVector, dict[str, float]]
]


def clipped_update(
    policy: Policy, vector: ParameterVector, batch: UnitBatch, settings: ClippedSettings, context: UpdateContext
) -> tuple[ParameterVector, dict[str, float]]:
    """Ascend mean(min(r·M, clip(r, 1 ± ε)·M)) + c·mean(H(π)) by Adam, ``epochs`` times over the batch.

    HAPPO with a preceding ratio in M, MAPPO and IPPO without. Source: Kuba et al., ICLR 2022, algorithm 4.
    """
    optimizer = Adam(vector)
    norm = math.nan
    for part in minibatches(batch, settings.epochs, settings.n_minibatches, context.generator):
        parameters = policy.distribution(optimizer.values, part.observations, part.masks)
        own = ratio(policy.head.log_prob(parameters, part.actions), part.old_log_probs)
        objective = masked_mean(clipped_surrogate(own, part.m_factors, settings.clip_epsilon), part.weights)
        if settings.entropy_coef:
            objective = objective + settings.entropy_coef * masked_mean(policy.head.entropy(parameters), part.weights)
        gradient, norm = clip_norm(torch.autograd.grad(-objective, optimizer.values)[0], settings.max_grad_norm)
        refuse_non_finite(norm, f"the policy gradient of {context.unit}")
        optimizer.step(gradient, context.learning_rate)
    return optimizer.result(), {"grad_norm": norm}


def minibatches(batch: UnitBatch, epochs: int, n_minibatches: int, generator: torch.Generator) -> Iterator[UnitBatch]:
    """``epochs`` passes in random parts; one part is the batch as it is, which needs no draw and no gather."""
    for _ in range(epochs):
        for index in random_parts(len(batch), n_minibatches, generator):
            yield batch if index is None else batch.select(index.to(batch.m_factors.device))


def random_parts(length: int, n_parts: int, generator: torch.Generator) -> list[Tensor | None]:
    """A random partition of range(length) into ``n_parts``; [None], for everything, where there is one part."""
    if n_parts == 1:
        return [None]
    if n_parts > length:
        raise ValueError(f"{n_parts} minibatches of {length} samples; use at most as many as there are samples.")
    return list(torch.randperm(length, generator=generator).tensor_split(n_parts))


def refuse_non_finite(value: float, what: str) -> None:
    """Stop at the first NaN or inf, naming it."""
    if not math.isfinite(value):
        raise NonFiniteError(
            f"{what} is {value}. The trainer is where it was before this phase; a smaller learning rate or clip ε, or "
            "a look at the rewards, usually helps."
        )
