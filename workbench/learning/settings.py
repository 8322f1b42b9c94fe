"""What can be set, each with its check and its meaning: one frozen dataclass a method.

Settings are validated once, when they are made; unknown names are refused with the nearest one suggested. Those marked
*live* may be changed while a run is under way, and take effect at the next phase that uses them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from workbench.errors import UnknownNameError, unknown_name
from workbench.learning import names_elsewhere
from workbench.networks.mlp import ACTIVATIONS, LAYER_NORMS

Check = Callable[[Any], Any]
SMALLEST_PART = 32  # samples or sequences of a minibatch, where their number is the default
MOST_LR = 1e6  # no arithmetic goes beyond it
LEAST_KL, MOST_KL = 1e-10, 10.0  # beyond them no line search finds a step
S = TypeVar("S", bound="Settings")


def number(low: float = -math.inf, high: float = math.inf, *, open_ends: bool = False) -> Check:
    """A finite number in [low, high], or in (low, high)."""
    expected = f"a number in {'(' if open_ends else '['}{low:g}, {high:g}{')' if open_ends else ']'}"
    if math.isinf(high):
        expected = "a finite number" if math.isinf(low) else f"a number {'>' if open_ends else '≥'} {low:g}"

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise ValueError(expected)
        inside = low < value < high if open_ends else low <= value <= high
        if not (math.isfinite(value) and inside):
            raise ValueError(expected)
        return float(value)

    return check


def integer(low: int) -> Check:
    """An integer that is at least ``low``; NumPy's integers too, as they come out of a sweep's grid."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            raise ValueError(f"an integer ≥ {low}")
        return int(value)

    return check


def whole(name: str, value: object, least: int) -> int:
    """``value`` as an int of at least ``least``; 1e6 is a whole number, too."""
    try:
        return int(integer(least)(int(value) if isinstance(value, float) and value.is_integer() else value))
    except ValueError as expected:
        raise ValueError(f"{name} is {value!r}; expected {expected}.") from None


def whole_or_none(name: str, value: object, least: int) -> int | None:
    """``whole``, where None stands for none."""
    return None if value is None else whole(name, value, least)


def optional(inner: Check) -> Check:
    """None, or what ``inner`` takes."""

    def check(value: object) -> Any:
        try:
            return None if value is None else inner(value)
        except ValueError as error:
            raise ValueError(f"None, or {error}") from None

    return check


def one_of(*names: str) -> Check:
    """One of some names."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"one of {', '.join(map(repr, names))}")
        return value

    return check


def flag(value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError("True or False")
    return bool(value)


def fraction(value: object) -> float:
    """A number in (0, 1]."""
    try:
        share = float(number(0, 1)(value))
    except ValueError:
        share = 0.0
    if share == 0:
        raise ValueError("a number in (0, 1]")
    return share


def widths(value: Any) -> tuple[int, ...]:
    """Sizes of hidden layers."""
    try:
        return tuple(integer(1)(width) for width in value)
    except (TypeError, ValueError):
        raise ValueError("a sequence of positive integers, such as (128, 128)") from None


def activation_name(value: object) -> str:
    """The name of an activation that networks have."""
    return str(one_of(*ACTIVATIONS)(value))


def any_layer_norm(value: object) -> str | bool:
    """Where LayerNorms are."""
    if (isinstance(value, bool | np.bool_) and not value) or (isinstance(value, str) and value in LAYER_NORMS):
        return value if isinstance(value, str) else False
    raise ValueError("False, 'hidden' (after each hidden layer) or 'all' (on the inputs, too)")


def device_name(value: Any) -> str:
    """A torch device that this machine has."""
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError):
        raise ValueError("a device that torch has on this machine, such as 'cpu' or 'cuda'") from None
    return str(device)


def any_order(value: Any) -> Any:
    """A rule's name, a permutation or a callable; who is in it is known to the trainer alone."""
    if isinstance(value, str) or callable(value):
        return value
    try:
        return tuple(who if isinstance(who, str) else integer(0)(who) for who in value)
    except (TypeError, ValueError):
        raise ValueError("a rule's name, a permutation of the agents, or a callable") from None


def any_sharing(value: Any) -> Any:
    """ "separate", "shared" or groups of agents; checked against the agents by the team."""
    if isinstance(value, str):
        return value
    try:
        return tuple((group,) if isinstance(group, str) else tuple(group) for group in value)
    except TypeError:
        raise ValueError(
            "'separate', 'shared', or groups of agents, such as [['agent_0', 'agent_1'], ['agent_2']]"
        ) from None


def some_sharing(value: object) -> Any:
    """ "shared" or groups of agents."""
    if value == "separate":
        raise ValueError(
            "'shared' or groups of agents; with a policy for each agent the method is MAPPO: wb.mappo(env)"
        )
    return any_sharing(value)


def any_schedule(value: Any) -> Any:
    """None, a schedule's name, or a positive factor for each position."""
    if value is None or (isinstance(value, str) and value in ("linear", "team_size")):
        return value
    expected = "None, 'linear', 'team_size', or a positive factor for each position, such as (0.5, 1.0)"
    if isinstance(value, str):
        raise ValueError(expected)
    try:
        factors = tuple(number(0, math.inf, open_ends=True)(factor) for factor in value)
    except (TypeError, ValueError):
        raise ValueError(expected) from None
    if not factors:
        raise ValueError(expected)
    return factors


def any_clamp(value: Any) -> Any:
    """None, "upper", or bounds around 1."""
    if value is None or (isinstance(value, str) and value == "upper"):
        return value
    expected = "None, 'upper', or (low, high) with 0 ≤ low ≤ 1 ≤ high, such as (0.5, 2.0)"
    try:
        low, high = (float(number(0)(bound)) for bound in value)
    except (TypeError, ValueError):
        raise ValueError(expected) from None
    if not low <= 1 <= high:
        raise ValueError(expected)
    return low, high


def setting(default: object, check: Check, meaning: str, *, live: bool = True) -> Any:
    """A field with its check, its meaning, and whether it may be changed under way."""
    return field(default=default, metadata={"check": check, "meaning": meaning, "live": live})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every method has. ``describe()`` lists names, values and meanings.

    ALTERNATIVES   pairs of names that say the same thing in two ways: one that is given takes the other's place
    """

    ALTERNATIVES: ClassVar[tuple[tuple[str, str], ...]] = ()

    n_steps: int = setting(64, integer(1), "joint steps per environment in one iteration")
    gamma: float = setting(0.99, number(0, 1), "discount γ")
    gae_lambda: float = setting(0.95, number(0, 1), "λ of generalised advantage estimation")
    standardize_advantages: bool = setting(True, flag, "whether advantages are standardised, once an iteration")
    order: Any = setting("random", any_order, "update order: a rule's name, a permutation, or a callable")
    normalize_observations: bool = setting(
        True, flag, "whether networks see (o − mean)/σ of each feature, over all that was seen before", live=False
    )

    critic_lr: float = setting(1e-3, number(0, MOST_LR), "learning rate of the critic")
    critic_epochs: int = setting(10, integer(1), "passes of the critic over the rollout")
    critic_minibatches: int = setting(4, integer(1), "minibatches in each pass of the critic")
    value_clip_epsilon: float | None = setting(
        None, optional(number(0, math.inf, open_ends=True)), "how far a normalised value may move in one iteration"
    )
    huber_delta: float | None = setting(
        None, optional(number(0, math.inf, open_ends=True)), "where the value loss turns linear; None: nowhere"
    )
    normalize_values: bool = setting(True, flag, "whether the critic predicts normalised values", live=False)
    max_grad_norm: float = setting(0.5, number(0, math.inf, open_ends=True), "gradients are clipped to this norm")
    lr_decay_steps: int | None = setting(
        1_000_000, optional(integer(1)), "env steps over which learning rates fall linearly; None: they do not"
    )
    final_lr_fraction: float = setting(0.1, number(0, 1), "what is left of learning rates after lr_decay_steps")

    hidden_sizes: tuple[int, ...] = setting((64, 64), widths, "widths of the hidden layers", live=False)
    activation: str = setting("tanh", activation_name, "between the layers: tanh, relu, silu or elu", live=False)
    layer_norm: Any = setting(
        False,
        any_layer_norm,
        "LayerNorms: False, 'hidden' after each hidden layer, 'all' on the inputs too",
        live=False,
    )
    recurrent: bool = setting(False, flag, "whether policies and critics have a memory (a GRU)", live=False)
    sequence_length: int = setting(8, integer(1), "steps through which gradients of a memory go back", live=False)
    std: str = setting("exp", one_of("exp", "sigmoid"), "σ = exp(ℓ) or ½·sigmoid(ℓ)", live=False)
    initial_log_std: float = setting(-0.5, number(), "initial ℓ", live=False)
    sharing: Any = setting("separate", any_sharing, "'separate', 'shared', or groups of agents", live=False)
    agent_id: bool = setting(True, flag, "whether agents that share a policy see their number", live=False)

    dtype: str = setting("float32", one_of("float32", "float64"), "precision of all learning", live=False)
    device: str = setting("cpu", device_name, "where learning happens; environments stay on the CPU", live=False)
    threads: int | None = setting(
        None, optional(integer(1)), "torch threads in estimates and updates; None: torch's number when the run is made"
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            try:
                object.__setattr__(self, f.name, f.metadata["check"](value))
            except ValueError as error:
                example = "" if f.default is None or "such as" in str(error) else f", such as {f.default!r}"
                raise ValueError(
                    f"{f.name} ({f.metadata['meaning']}) is {value!r}; expected {error}{example}."
                ) from None
        if self.recurrent and self.n_steps % self.sequence_length:
            raise ValueError(
                f"n_steps is {self.n_steps} and sequence_length {self.sequence_length}; expected a whole number of "
                "sequences in a rollout, such as n_steps=64 and sequence_length=8."
            )
        if self.recurrent and not self.hidden_sizes:
            raise ValueError("hidden_sizes is (); expected at least one width where recurrent=True: the memory's.")
        if self.threads is None:
            object.__setattr__(self, "threads", torch.get_num_threads())

    @classmethod
    def make(cls: type[S], method: str, options: Mapping[str, object]) -> S:
        """Settings from keyword options; a name that the method does not have is refused."""
        for name in options:
            if name not in cls.names():
                raise cls._unknown(method, name)
        return cls(**cls._settle(options))

    @classmethod
    def _unknown(cls, method: str, name: str) -> UnknownNameError:
        """The error for a name that is none of a method's: where it is known elsewhere, its meaning decides."""
        what = f"unknown option of {method} {name!r}"
        meant = names_elsewhere.SAME_MEANING.get(name)
        if meant in cls.names():
            return UnknownNameError(f"{what}: here it is {meant!r}.")
        if meant is not None:
            return UnknownNameError(f"{what}: {method} has none; it is the {meant!r} of other methods.")
        if name in names_elsewhere.SAID_ELSEWHERE:
            return UnknownNameError(f"{what}: that is {names_elsewhere.SAID_ELSEWHERE[name]}.")
        if name in names_elsewhere.NOT_HERE:
            return UnknownNameError(f"{what}: there is no such setting here. Known: {', '.join(cls.names())}.")
        return unknown_name(f"option of {method}", name, cls.names())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(cls))

    @classmethod
    def is_live(cls, name: str) -> bool:
        """Whether a setting may be changed while a run is under way."""
        return bool(next(f.metadata["live"] for f in dataclasses.fields(cls) if f.name == name))

    @classmethod
    def describe(cls) -> dict[str, str]:
        """{name: meaning} of every setting."""
        return {f.name: f.metadata["meaning"] for f in dataclasses.fields(cls)}

    def changed(self: S, **changes: Any) -> S:
        """The same settings but for ``changes``, validated."""
        return dataclasses.replace(self, **self._settle(changes, self))

    @classmethod
    def _settle(cls, options: Mapping[str, object], held: Settings | None = None) -> dict[str, Any]:
        """``options`` for new settings, or for changes of ``held`` ones, and what follows from them for others.

        Where one of two names was given that say the same, the other becomes None.
        """
        settled = dict(options)
        for name, other in cls.ALTERNATIVES:
            for given, rival in ((name, other), (other, name)):
                if options.get(given) is not None:
                    settled.setdefault(rival, None)
        return settled

    @property
    def ratio_bounds(self) -> tuple[float | None, float | None]:
        """Bounds on the preceding ratio in M; None: none."""
        return None, None

    @property
    def joint_epsilon(self) -> float | None:
        """ε at which the joint ratio is clipped, too; None: it is not."""
        return None

    def clip_epsilon_at(self, position: int, n_units: int) -> float:
        """ε of whoever is updated at a position, from 0, of n; NaN where nothing is clipped."""
        return math.nan

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32

    @property
    def update_threads(self) -> int:
        """Torch threads in estimates and updates."""
        return self.threads or 1

    def n_parts(self, name: str, n_pieces: int) -> int:
        """Minibatches of so many samples or sequences: the default never makes parts of fewer than 32."""
        chosen = int(getattr(self, name))
        if chosen != type(self).__dataclass_fields__[name].default:
            return chosen
        return max(1, min(chosen, n_pieces // SMALLEST_PART))

    def decay(self, env_steps: int) -> float:
        """max(1 − (1 − f)·steps/D, f): what learning rates are multiplied with after so many env steps.

        >>> [round(Settings(lr_decay_steps=100, final_lr_fraction=0.2).decay(steps), 3) for steps in (0, 50, 100, 900)]
        [1.0, 0.6, 0.2, 0.2]
        """
        if self.lr_decay_steps is None:
            return 1.0
        return 1.0 - (1.0 - self.final_lr_fraction) * min(1.0, env_steps / self.lr_decay_steps)


@dataclass(frozen=True, kw_only=True)
class GradientSettings(Settings):
    """What methods that follow a surrogate's gradient add."""

    n_steps: int = setting(128, integer(1), "joint steps per environment in one iteration")
    critic_minibatches: int = setting(8, integer(1), "minibatches in each pass of the critic")
    lr: float = setting(3e-4, number(0, MOST_LR), "learning rate of the policies")
    epochs: int = setting(10, integer(1), "passes of each agent over the rollout, at most")
    n_minibatches: int = setting(8, integer(1), "minibatches in each pass of an agent")
    entropy_coef: float = setting(0.0, number(0, math.inf), "weight of the entropy bonus")


@dataclass(frozen=True, kw_only=True)
class ClippedSettings(GradientSettings):
    """What methods with a clipped surrogate add."""

    n_minibatches: int = setting(32, integer(1), "minibatches in each pass of an agent")
    clip_epsilon: float = setting(0.2, number(0, 1, open_ends=True), "clip ε of the agent's own ratio")
    clip_schedule: Any = setting(
        None, any_schedule, "ε by position: None, 'linear', 'team_size', or a factor for each position"
    )
    team_target_kl: float | None = setting(
        0.03,
        optional(number(0, math.inf, open_ends=True)),
        "the team's KL at which passes end: each agent's end when its own KL is past this/n",
    )
    target_kl: float | None = setting(
        None,
        optional(number(0, math.inf, open_ends=True)),
        "the same for each agent, in place of the team's: its passes end when its KL is past it; None: neither",
    )

    ALTERNATIVES = (("team_target_kl", "target_kl"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.team_target_kl is not None and self.target_kl is not None:
            raise ValueError(
                f"team_target_kl is {self.team_target_kl!r} and target_kl {self.target_kl!r}; expected one of them: "
                "the team's, which its agents share, or each agent's own."
            )

    def target_kl_of(self, n_agents: int) -> float:
        """The KL past which an agent's passes end; inf: none."""
        if self.team_target_kl is not None:
            return self.team_target_kl / n_agents
        return math.inf if self.target_kl is None else self.target_kl

    def clip_epsilon_at(self, position: int, n_units: int) -> float:
        """ε of whoever is updated at a position, from 0, of n.

        None         ε for all
        "linear"     ε·(½ + ½·(position + 1)/n): those who come first, on whose moves all others build, move less. Wang
                     et al., Order Matters: Agent-by-agent Policy Optimization, ICLR 2023 (arXiv 2302.06205), c_ε = ½
        "team_size"  ε/n: bounds on the independent ratios that shrink with their number keep the joint policy's total
                     variation within ε. Sun et al., Trust Region Bounds for Decentralized PPO Under Non-stationarity,
                     AAMAS 2023 (arXiv 2202.00082)
        a sequence   ε·factor[position]; positions beyond its end take its last factor

        >>> [round(ClippedSettings(clip_schedule="linear").clip_epsilon_at(m, 4), 3) for m in range(4)]
        [0.125, 0.15, 0.175, 0.2]
        """
        schedule = self.clip_schedule
        if schedule is None:
            return self.clip_epsilon
        if schedule == "linear":
            return self.clip_epsilon * (0.5 + 0.5 * (position + 1) / n_units)
        if schedule == "team_size":
            return self.clip_epsilon / n_units
        return self.clip_epsilon * float(schedule[min(position, len(schedule) - 1)])


@dataclass(frozen=True, kw_only=True)
class SharedSettings(ClippedSettings):
    """What methods change whose agents share one policy."""

    sharing: Any = setting("shared", some_sharing, "'shared', or groups of agents", live=False)


@dataclass(frozen=True, kw_only=True)
class SequentialSettings(Settings):
    """What methods add whose M-factor carries what the predecessors in the order have done."""

    preceding_correction: str | None = setting(
        "ratio",
        optional(one_of("ratio", "trace")),
        "how M carries it: 'ratio' w·A, 'trace' traces capped at 1, None: A",
    )
    ratio_clamp: Any = setting(
        (2 / 3, 1.5), any_clamp, "bounds on the preceding ratio in M: None, 'upper' (at most 1), or (low, high)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio_clamp is not None:
            self._needs_ratio("ratio_clamp")

    @classmethod
    def _settle(cls, options: Mapping[str, object], held: Settings | None = None) -> dict[str, Any]:
        settled = super()._settle(options, held)
        default = cls.__dataclass_fields__["ratio_clamp"].default
        untouched = held is None or getattr(held, "ratio_clamp", None) == default
        if untouched and settled.get("preceding_correction", "ratio") != "ratio":
            settled.setdefault("ratio_clamp", None)  # with no ratio in M the default has nothing to clamp
        return settled

    def _needs_ratio(self, name: str) -> None:
        if self.preceding_correction != "ratio":
            raise ValueError(
                f"{name} is {getattr(self, name)!r} while preceding_correction is {self.preceding_correction!r}: with "
                f"no ratio in M it would do nothing. Leave {name} at None, or use preceding_correction='ratio'."
            )

    @property
    def ratio_bounds(self) -> tuple[float | None, float | None]:
        if self.ratio_clamp is None:
            return None, None
        return (None, 1.0) if self.ratio_clamp == "upper" else self.ratio_clamp


@dataclass(frozen=True, kw_only=True)
class HappoSettings(ClippedSettings, SequentialSettings):
    """HAPPO's."""

    joint_clip_epsilon: float | None = setting(
        None, optional(number(0, math.inf, open_ends=True)), "clip ε of the joint ratio too; None: unclipped"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.joint_clip_epsilon is not None:
            self._needs_ratio("joint_clip_epsilon")

    @property
    def joint_epsilon(self) -> float | None:
        return self.joint_clip_epsilon


@dataclass(frozen=True, kw_only=True)
class Haa2cSettings(GradientSettings, SequentialSettings):
    """HAA2C's."""


@dataclass(frozen=True, kw_only=True)
class TrustRegionSettings(SequentialSettings):
    """What methods with a trust region add."""

    team_max_kl: float | None = setting(
        0.02,
        optional(number(LEAST_KL, MOST_KL)),
        "δ of the whole team: the largest sum of its agents' mean KL(old ‖ new)",
    )
    max_kl: float | None = setting(
        None,
        optional(number(LEAST_KL, MOST_KL)),
        "δ of each agent, as in the paper, in place of the team's: the largest mean KL(old ‖ new)",
    )
    kl_allocation: str = setting(
        "uniform", one_of("uniform", "kkt", "greedy"), "how the agents share the team's δ: evenly, or by expected gain"
    )
    damping: float = setting(0.1, number(0, math.inf), "what is added to the Fisher matrix's diagonal")
    cg_iterations: int = setting(10, integer(1), "iterations of conjugate gradients")
    line_search_steps: int = setting(10, integer(1), "tries of the line search, the full step first")
    line_search_decay: float = setting(0.8, number(0, 1, open_ends=True), "from one try to the next")
    accept_ratio: float = setting(0.5, number(0, 1), "share of the expected gain that a step must reach")
    policy_steps: int = setting(1, integer(1), "second-order steps of each agent, which share δ")
    fisher_fraction: float = setting(1.0, fraction, "share of the samples that Fisher-vector products are taken over")

    ALTERNATIVES = (("team_max_kl", "max_kl"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.team_max_kl is None) == (self.max_kl is None):
            given = "neither" if self.max_kl is None else f"{self.team_max_kl!r} and {self.max_kl!r}"
            raise ValueError(
                f"team_max_kl and max_kl are {given}; expected exactly one of them: team_max_kl=0.02 for the whole "
                "team, or max_kl=0.01 for each agent."
            )

    def max_kl_of(self, n_agents: int) -> float:
        """δ of each of ``n_agents`` agents where they share evenly."""
        return self.team_max_kl / n_agents if self.team_max_kl is not None else float(self.max_kl or 0.0)
