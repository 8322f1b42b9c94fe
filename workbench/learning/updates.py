"""Update rules: how one agent's policy moves, given its M-factors.

A rule is a function ``AgentTurn → (new vector, diagnostics)``. It sees one unit's samples, and of the other agents
nothing but M, which is what makes the sequential update sequential. Nothing passed in is changed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from workbench.errors import NonFiniteError
from workbench.learning import fitting
from workbench.learning.settings import ClippedSettings, GradientSettings, Settings, TrustRegionSettings
from workbench.learning.surrogate import (
    clipped_surrogate,
    doubly_clipped_surrogate,
    masked_mean,
    plain_surrogate,
    ratio,
)
from workbench.learning.team import Policy
from workbench.learning.trust_region import (
    Direction,
    LineSearch,
    fisher_vector_product,
    line_search,
    natural_gradient,
)
from workbench.networks.distributions import Gaussian, Head, Parameters
from workbench.networks.gradients import linearize, pass_over, shares
from workbench.networks.gru import Sequences
from workbench.networks.kernels import ParameterLayout, normalized_inputs, on_cpu
from workbench.networks.mlp import Adam, Mlp, ParameterVector, clip_norm

S = TypeVar("S", bound=Settings, covariant=True)


@dataclass(frozen=True, slots=True)
class UnitBatch:
    """All samples of one unit, flat: time, environments, and agents where several share the policy.

    observations   (batch, inputs)
    actions        (batch, action_size)
    old_log_probs  (batch,) log π_old(a|o), under the parameters before the update
    m_factors      (batch,)
    masks          (batch, n_actions) bool, or None
    weights        (batch,) 0 where the agent had left, or None
    joint          the preceding ratio as it is in M, and the advantages, each (batch,), for who clips the joint ratio;
                   otherwise None
    sequences      how the samples hang together, for recurrent policies; otherwise None
    """

    observations: Tensor
    actions: Tensor
    old_log_probs: Tensor
    m_factors: Tensor
    masks: Tensor | None = None
    weights: Tensor | None = None
    joint: tuple[Tensor, Tensor] | None = None
    sequences: Sequences | None = None

    def __len__(self) -> int:
        return len(self.m_factors)

    @property
    def n_pieces(self) -> int:
        """How many pieces it can be divided into: samples, or sequences of a recurrent policy."""
        return len(self) if self.sequences is None else len(self.sequences)

    @property
    def inverse_count(self) -> Tensor | float:
        """1 / how many samples count."""
        return 1.0 / len(self) if self.weights is None else self.weights.sum().clamp(min=1).reciprocal()

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All but the sequences; ``UnitBatch.of(*tensors)`` is the same batch."""
        joint = (None, None) if self.joint is None else self.joint
        return (
            self.observations,
            self.actions,
            self.old_log_probs,
            self.m_factors,
            self.masks,
            self.weights,
            *joint,
        )

    @staticmethod
    def of(*tensors: Any) -> UnitBatch:
        """The inverse of ``tensors``."""
        observations, actions, old_log_probs, m_factors, masks, weights, preceding_ratio, advantages = tensors
        joint = None if preceding_ratio is None else (preceding_ratio, advantages)
        return UnitBatch(observations, actions, old_log_probs, m_factors, masks, weights, joint)

    def select(self, pieces: Tensor) -> UnitBatch:
        """The samples, or sequences, at ``pieces``."""
        index = pieces if self.sequences is None else self.sequences.samples(pieces)
        return self._at(index, None if self.sequences is None else self.sequences.select(pieces))

    def rows(self, rows: slice) -> UnitBatch:
        """Some samples next to each other, no longer in sequences."""
        return self._at(rows, None)

    def _at(self, index: Tensor | slice, sequences: Sequences | None) -> UnitBatch:
        return UnitBatch(
            self.observations[index],
            self.actions[index],
            self.old_log_probs[index],
            self.m_factors[index],
            None if self.masks is None else self.masks[index],
            None if self.weights is None else self.weights[index],
            None if self.joint is None else (self.joint[0][index], self.joint[1][index]),
            sequences,
        )


@dataclass(frozen=True, slots=True)
class AgentTurn(Generic[S]):
    """One unit's turn in the sequential update, made once: its rule, its diagnostics and its score read it.

    unit             its name
    policy           its architecture
    vector           its parameters before the update
    batch            all its samples, with their M-factors
    old              the parameters of its distribution on them, before the update
    preceding_ratio  (n_steps, n_envs) of those who were updated before it
    settings         the method's
    position         its place in the order, from 0
    n_units          how many there are in the order
    team_size        how many agents there are in the team
    lr_scale         what is left of learning rates after decay
    max_kl           δ that it may spend; NaN where the method has none, or nothing is spent
    generator        of its minibatches, or subsample, in this iteration
    """

    unit: str
    policy: Policy
    vector: ParameterVector
    batch: UnitBatch
    old: Parameters
    preceding_ratio: Tensor
    settings: S
    position: int
    n_units: int
    team_size: int
    lr_scale: float
    max_kl: float
    generator: torch.Generator

    @property
    def learning_rate(self: AgentTurn[GradientSettings]) -> float:
        """After decay."""
        return self.settings.lr * self.lr_scale

    def distribution(self, values: Tensor) -> Parameters:
        """The parameters of its distribution on its samples under the policy's parameters ``values`` (size,)."""
        batch = self.batch
        return self.policy.distribution(values, batch.observations, batch.masks, batch.sequences)


UpdateRule = Callable[[AgentTurn[Any]], tuple[ParameterVector, dict[str, float]]]


def clipped_update(turn: AgentTurn[ClippedSettings]) -> tuple[ParameterVector, dict[str, float]]:
    """Ascend mean(min(r·M, clip(r, 1 ± ε)·M)) + c·mean(H(π)) by Adam, ``epochs`` times over the batch at most.

    No further pass is made once the agent's mean KL(old ‖ new) is past ``target_kl``, or its share of
    ``team_target_kl``: with ε alone the KL of an update grows as σ falls, and exploration ends. The diagnostics'
    ``epochs`` says how many passes were made. HAPPO with a preceding ratio in M, MAPPO and IPPO without. ε may depend
    on the position (``clip_schedule``), the joint ratio may be clipped, too (``joint_clip_epsilon``). Source: Kuba et
    al., ICLR 2022, algorithm 4.
    """
    epsilon = turn.settings.clip_epsilon_at(turn.position, turn.n_units)
    surrogate = Surrogate(epsilon, turn.settings.joint_epsilon)
    return _ascend(turn, surrogate, turn.settings.target_kl_of(turn.team_size))


def plain_update(turn: AgentTurn[GradientSettings]) -> tuple[ParameterVector, dict[str, float]]:
    """Ascend mean(r·M) + c·mean(H(π)) by Adam, ``epochs`` times over the batch: nothing but the steps' size bounds r.

    The first step is the policy gradient mean(M·∇log π). Source: HAA2C in Zhong et al., Heterogeneous-Agent
    Reinforcement Learning, JMLR 25 (2024), arXiv 2304.09870.
    """
    return _ascend(turn, Surrogate())


IN_ONE_CALL = "compiled, an update's gradients in one call"


def passes_of(policy: Policy, device: str) -> str:
    """By which arithmetic a policy's gradients are computed on a device, and why not by the fastest where it is not."""
    if device != "cpu":
        return f"autograd: on {device}"
    if not isinstance(policy.network, Mlp):
        return "autograd: the network is recurrent"
    if not isinstance(policy.head, Gaussian):
        return "compiled, a gradient at a time: the policy is categorical"
    return IN_ONE_CALL


def _in_one_call(turn: AgentTurn[Any]) -> bool:
    return on_cpu(turn.batch.m_factors) and passes_of(turn.policy, "cpu") == IN_ONE_CALL


def _ascend(
    turn: AgentTurn[GradientSettings], surrogate: Surrogate, target_kl: float = math.inf
) -> tuple[ParameterVector, dict[str, float]]:
    """Adam on a surrogate and the entropy; passes end when the KL is past ``target_kl``."""
    ascend = _ascend_compiled if _in_one_call(turn) else _ascend_by_passes
    moved, norm, epochs = ascend(turn, surrogate, target_kl)
    refuse_non_finite(norm, f"the policy gradient of {turn.unit}")
    return moved, {"grad_norm": norm, "epochs": float(epochs)}


def _ascend_compiled(
    turn: AgentTurn[GradientSettings], surrogate: Surrogate, target_kl: float
) -> tuple[ParameterVector, float, int]:
    """All passes without Python in between: ``fitting.ascend``."""
    settings, layout, samples = turn.settings, *_compiled_samples(turn)
    joint_epsilon = math.inf if surrogate.joint_epsilon is None else surrogate.joint_epsilon
    objective = fitting.Objective(_sigmoid(turn), surrogate.epsilon, joint_epsilon, settings.entropy_coef, -1.0)
    n = len(turn.batch)
    schedule = fitting.schedule(
        n, settings.epochs, settings.n_parts("n_minibatches", n), turn.generator,
        turn.learning_rate, settings.max_grad_norm, target_kl,
    )  # fmt: skip
    return fitting.ascended(turn.vector, layout, samples, objective, schedule)


def _compiled_samples(turn: AgentTurn[Any]) -> tuple[ParameterLayout, fitting.PolicySamples]:
    """A turn's samples as compiled code takes them."""
    network, batch = turn.policy.network, turn.batch
    assert isinstance(network, Mlp)
    none = torch.empty(0, dtype=batch.m_factors.dtype)
    weights = torch.ones_like(batch.m_factors) if batch.weights is None else batch.weights
    preceding, advantages = (none, none) if batch.joint is None else batch.joint
    parts = (batch.actions, batch.old_log_probs, batch.m_factors, weights, preceding, advantages)
    inputs = normalized_inputs(network.layout, batch.observations.contiguous().numpy())
    return network.layout, fitting.PolicySamples(inputs, *(part.contiguous().numpy() for part in parts))


def _sigmoid(turn: AgentTurn[Any]) -> bool:
    assert isinstance(turn.policy.head, Gaussian)
    return turn.policy.head.std == "sigmoid"


def _ascend_by_passes(
    turn: AgentTurn[GradientSettings], surrogate: Surrogate, target_kl: float
) -> tuple[ParameterVector, float, int]:
    """The same for any head, network and device, one gradient after another."""
    policy, batch, settings = turn.policy, turn.batch, turn.settings
    optimizer, norm, epoch = Adam(turn.vector), math.nan, 0
    whole = pass_over(policy.network, batch.observations, batch.sequences)
    for epoch in range(settings.epochs):
        for part in minibatches(batch, settings.n_parts("n_minibatches", batch.n_pieces), turn.generator):
            over = whole if part is batch else pass_over(policy.network, part.observations, part.sequences)
            slope = SurrogateGradient(policy.head, surrogate, part, settings.entropy_coef)
            gradient, norm = clip_norm(over.gradient(optimizer.values, slope), settings.max_grad_norm)
            if not math.isfinite(norm):
                return turn.vector, norm, epoch
            optimizer.step(gradient, turn.learning_rate)
        if math.isfinite(target_kl) and _kl(turn, optimizer.values.detach()) > target_kl:
            break
    return optimizer.result(), norm, epoch + 1


@torch.no_grad()
def _kl(turn: AgentTurn[Any], values: Tensor) -> float:
    """Mean KL(old ‖ new)."""
    return float(masked_mean(turn.policy.head.kl(turn.old, turn.distribution(values)), turn.batch.weights))


@dataclass(frozen=True, slots=True)
class Surrogate:
    """What is ascended: L(r), clipped at 1 ± ε, inf for no clip; ``joint_epsilon`` clips the joint ratio too."""

    epsilon: float = math.inf
    joint_epsilon: float | None = None

    def __call__(self, own: Tensor, part: UnitBatch) -> Tensor:
        """(ratio, as many rows of the batch) → L(r), each (n,)."""
        if self.joint_epsilon is not None and part.joint is not None:
            return doubly_clipped_surrogate(own, part.m_factors, *part.joint, self.epsilon, self.joint_epsilon)
        if math.isinf(self.epsilon):
            return plain_surrogate(own, part.m_factors)
        return clipped_surrogate(own, part.m_factors, self.epsilon)


class SurrogateGradient:
    """−∂/∂outputs, and −∂/∂free, of mean(L(r)) + c·mean(H) over the batch, as far as some of its rows make it up.

    Called with the rows of the batch that ``outputs`` (n, n_outputs) and the cotangents returned belong to.
    """

    def __init__(self, head: Head, surrogate: Surrogate, batch: UnitBatch, entropy_coef: float) -> None:
        self._head, self._surrogate, self._batch, self._entropy_coef = head, surrogate, batch, entropy_coef
        self.found: list[Tensor] = []

    @property
    def recipe(self) -> tuple[Callable[..., SurrogateGradient], tuple[Any, ...], tuple[Tensor | None, ...]]:
        return _surrogate_gradient_of, (self._head, self._surrogate, self._entropy_coef), self._batch.tensors

    def __call__(self, rows: slice, outputs: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        head, part = self._head, self._batch.rows(rows)
        outputs, free = outputs.detach().requires_grad_(), free.detach().requires_grad_()
        with torch.enable_grad():
            parameters = head.parameters(outputs, free, part.masks)
            own = ratio(head.log_prob(parameters, part.actions), part.old_log_probs)
            value = self._surrogate(own, part)
            if self._entropy_coef:
                value = value + self._entropy_coef * head.entropy(parameters)
            weighted = value if part.weights is None else value * part.weights
            descended = -(weighted * self._batch.inverse_count).sum()
        by_outputs, by_free = torch.autograd.grad(descended, (outputs, free), materialize_grads=True)
        return by_outputs, by_free


def _surrogate_gradient_of(
    head: Head, surrogate: Surrogate, entropy_coef: float, *tensors: Tensor | None
) -> SurrogateGradient:
    return SurrogateGradient(head, surrogate, UnitBatch.of(*tensors), entropy_coef)


def trust_region_update(turn: AgentTurn[TrustRegionSettings]) -> tuple[ParameterVector, dict[str, float]]:
    """Maximise mean(r·M) subject to mean KL(old ‖ new) ≤ δ: a natural-gradient step, held to both by a line search.

        x ≈ (F + damping·1)⁻¹g,   θ ← θ + f·√(2δ / xᵀHx)·x,   f the first of 1, decay, decay², … with KL ≤ δ,
        gain > 0 and gain ≥ accept_ratio·f·expected gain

    The line search measures gain and KL in float64 over the whole batch, with the ratio and the M of the gradient. If
    no fraction will do, the parameters stay what they are to the last bit, and the KL reported is 0.

    ``policy_steps`` = k > 1 takes k steps, each from where the last one led and √(2δ)/k long, so that their sum keeps
    within √(2δ) and the natural gradient is followed round its bend; each line search holds the KL from the *first*
    policy to δ. Source: Kuba et al., ICLR 2022, algorithm 3 (k = 1).

    Diagnostics: ``line_search``, the accepted fraction of the full step, 0 where none was (the mean over the steps);
    ``expected_gain``, what the linear model promised for the full steps; ``max_kl``, the δ there was to spend; ``kl``
    and ``surrogate_gain`` of what was accepted; ``grad_norm`` at the beginning.
    """
    region, settings, vector = _Region(turn), turn.settings, turn.vector
    values, reached = vector.values, (0.0, 0.0)
    searches: list[LineSearch] = []
    expected, norms = 0.0, []
    for _ in range(settings.policy_steps):
        direction, norm = natural_gradient_of(turn, values, settings)
        refuse_non_finite(norm, f"the policy gradient of {turn.unit}")
        norms.append(norm)
        scale = direction.scale(turn.max_kl / settings.policy_steps**2)
        promised = scale * direction.slope
        step = (direction.solution * scale).to(values.dtype)
        found = line_search(
            functools.partial(region.measure, values, step, reached[0]),
            expected_gain=promised,
            max_kl=turn.max_kl,
            steps=settings.line_search_steps,
            decay=settings.line_search_decay,
            accept_ratio=settings.accept_ratio,
        )
        searches.append(found)
        expected += promised
        if not found.fraction:
            break
        values = values + found.fraction * step
        reached = (reached[0] + found.gain, found.kl)
    diagnostics = {
        "grad_norm": norms[0],
        "kl": reached[1],
        "surrogate_gain": reached[0],
        "expected_gain": expected,
        "max_kl": turn.max_kl,
        "line_search": sum(found.fraction for found in searches) / settings.policy_steps,
    }
    return (vector if values is vector.values else vector.with_values(values)), diagnostics


class _Region:
    """Gain and KL of a candidate against the policy that collected, in float64."""

    def __init__(self, turn: AgentTurn[Any]) -> None:
        self._turn, batch = turn, turn.batch
        self._m_factors = batch.m_factors.double()
        self._actions = batch.actions.double() if batch.actions.is_floating_point() else batch.actions
        self._old = tuple(part.double() for part in turn.old)
        self._old_log_probs = turn.policy.head.log_prob(self._old, self._actions)

    def measure(self, values: Tensor, step: Tensor, gain_before: float, fraction: float) -> tuple[float, float]:
        """What ``values + fraction·step`` gains over ``gain_before``, and its KL(old ‖ new)."""
        head, weights = self._turn.policy.head, self._turn.batch.weights
        new = self._parameters(values + fraction * step)
        excess = torch.expm1(head.log_prob(new, self._actions) - self._old_log_probs)
        gain = masked_mean(excess * self._m_factors, weights)
        return float(gain) - gain_before, float(masked_mean(head.kl(self._old, new), weights))

    @torch.no_grad()
    def _parameters(self, values: Tensor) -> Parameters:
        return tuple(part.double() for part in self._turn.distribution(values))


def natural_gradient_of(turn: AgentTurn[Any], values: Tensor, settings: TrustRegionSettings) -> tuple[Direction, float]:
    """(F + damping·1)⁻¹∇mean(r·M) at ``values``, and the gradient's norm."""
    batch, kept = turn.batch, None
    if settings.fisher_fraction < 1:
        n_kept = max(1, round(settings.fisher_fraction * batch.n_pieces))
        kept = torch.randperm(batch.n_pieces, generator=turn.generator)[:n_kept]
    one_thread = len(shares(len(batch))) == 1
    find = _natural_gradient_compiled if one_thread and _in_one_call(turn) else _natural_gradient_by_products
    return find(turn, values.detach(), settings, kept)


def _natural_gradient_compiled(
    turn: AgentTurn[Any], values: Tensor, settings: TrustRegionSettings, kept: Tensor | None
) -> tuple[Direction, float]:
    """All products without Python in between: ``fitting.natural_gradient``."""
    layout, samples = _compiled_samples(turn)
    rows = None if kept is None else kept.numpy()
    damping, iterations = settings.damping, settings.cg_iterations
    gradient, solution, residual = fitting.natural_gradient(
        values, layout, samples, _sigmoid(turn), damping, iterations, rows
    )
    return Direction.of(gradient, solution, residual), float(torch.linalg.vector_norm(gradient))


def _natural_gradient_by_products(
    turn: AgentTurn[Any], values: Tensor, settings: TrustRegionSettings, kept: Tensor | None
) -> tuple[Direction, float]:
    """The same for any head, network and device, and by several threads, one product after another."""
    policy, batch = turn.policy, turn.batch
    linearization = linearize(policy.network, values, batch.observations, batch.sequences)
    outputs, free = (part.detach().requires_grad_() for part in (linearization.outputs, linearization.free))
    with torch.enable_grad():
        parameters = policy.head.parameters(outputs, free, batch.masks)
        own = ratio(policy.head.log_prob(parameters, batch.actions), batch.old_log_probs)
        value = masked_mean(plain_surrogate(own, batch.m_factors), batch.weights)
    by_outputs, by_free = torch.autograd.grad(value, (outputs, free), materialize_grads=True)
    gradient = linearization.vjp(by_outputs, by_free)
    if kept is not None:
        batch = batch.select(kept.to(values.device))
        linearization = linearize(policy.network, values, batch.observations, batch.sequences)
    parameters = policy.head.parameters(linearization.outputs, linearization.free, batch.masks)

    def damped_fisher(vector: Tensor) -> Tensor:
        curved = fisher_vector_product(linearization, policy.head, parameters, vector, batch.weights)
        return curved.add_(vector, alpha=settings.damping)

    found = natural_gradient(damped_fisher, gradient, settings.cg_iterations)
    return found, float(torch.linalg.vector_norm(gradient))


def expected_gain(turn: AgentTurn[Any]) -> float:
    """s = √(gᵀ(F + damping·1)⁻¹g): the surrogate's gain by a move of KL δ is s·√(2δ) to first order.

    Damping and iterations are the method's own where it has them, and HATRPO's defaults otherwise.
    """
    curvature = turn.settings if isinstance(turn.settings, TrustRegionSettings) else TrustRegionSettings()
    return natural_gradient_of(turn, turn.vector.values, curvature)[0].score


def minibatches(batch: UnitBatch, n_minibatches: int, generator: torch.Generator) -> Iterator[UnitBatch]:
    """One pass in random parts; one part is the batch as it is, which needs no draw and no gather."""
    for pieces in fitting.random_parts(batch.n_pieces, n_minibatches, generator):
        yield batch if pieces is None else batch.select(pieces.to(batch.m_factors.device))


def refuse_non_finite(value: float, what: str) -> None:
    """Stop at the first NaN or inf, naming it."""
    if not math.isfinite(value):
        raise NonFiniteError(
            f"{what} is {value}. The trainer is where it was before this phase; a smaller learning rate, clip ε or δ, "
            "or a look at the rewards, usually helps."
        )
