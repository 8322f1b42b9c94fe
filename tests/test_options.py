"""Every option against a case worked by hand; and none of them, when off, moves a bit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from point_team import PointTeam

import workbench as wb
from workbench.learning.advantages import gae, td_errors, trace_correction
from workbench.learning.agent_turn import agent_turn, scores
from workbench.learning.settings import ClippedSettings
from workbench.learning.surrogate import (
    clamp_ratio,
    clipped_surrogate,
    doubly_clipped_surrogate,
    ratio,
    ratio_diagnostics,
)
from workbench.learning.trust_region import share_kl
from workbench.running.methods import METHODS

SMALL = {"n_steps": 12, "hidden_sizes": (16,)}
WIDE = {**SMALL, "lr": 3e-3, "lr_decay_steps": None}

OFF = {
    "happo": {"ratio_clamp": None, "preceding_correction": "ratio", "clip_schedule": None, "joint_clip_epsilon": None},
    "haa2c": {"ratio_clamp": None, "preceding_correction": "ratio"},
    "hatrpo": {
        "ratio_clamp": None,
        "preceding_correction": "ratio",
        "kl_allocation": "uniform",
        "policy_steps": 1,
        "fisher_fraction": 1.0,
    },
    "mappo": {"clip_schedule": None},
    "ippo": {"clip_schedule": None},
    "shared_ppo": {"clip_schedule": None},
}
# Set so that they act, but change nothing.
NEUTRAL = {
    "happo": [{"clip_schedule": (1.0,)}, {"ratio_clamp": (0.0, 1e9)}],
    "haa2c": [{"ratio_clamp": (0, 1e9)}],
    "hatrpo": [{"ratio_clamp": (0, 1e9)}],
    "mappo": [{"clip_schedule": (1, 1)}],
}


def policies(name, **options):
    trainer = getattr(wb, name)(PointTeam(), seed=0, **SMALL, **options)
    trainer.iterate(), trainer.iterate()
    state = trainer._state
    return torch.cat([vector.values for vector in (*state.policies.values(), *state.critics.values())])


@pytest.mark.parametrize("name", METHODS)
def test_options_that_are_off_move_no_bit(name):
    default = policies(name, **({"ratio_clamp": None} if "ratio_clamp" in wb.options(name) else {}))  # alone is on
    assert torch.equal(policies(name, **OFF[name]), default)
    for neutral in NEUTRAL.get(name, []):
        assert torch.equal(policies(name, **neutral), default), neutral


def updated(trainer):
    """The trainer after an iteration, with the preceding ratio before each of its updates, by agent."""
    trainer.step(), trainer.step()
    before = {}
    while trainer.phase == "update_agent":
        before[trainer.remaining[0]] = trainer._state.preceding_ratio.clone()
        trainer.step()
    return before, trainer._state.estimate.advantages["state"]


# --- the preceding ratio, clamped -----------------------------------------------------------------------------------


def test_a_clamp_by_hand():
    w = torch.tensor([0.25, 1.0, 2.0, 8.0])
    assert torch.equal(clamp_ratio(w, (None, None)), w)
    assert clamp_ratio(w, (None, 1.0)).tolist() == [0.25, 1.0, 1.0, 1.0]
    assert clamp_ratio(w, (0.5, 4.0)).tolist() == [0.5, 1.0, 2.0, 4.0]
    shown = ratio_diagnostics(w, w, (0.5, 4.0))
    assert shown["clamped_fraction"] == 0.5
    assert shown["clamp_bias"] == pytest.approx((0.25 + 0 + 0 - 4) / 4)
    unclamped = ratio_diagnostics(w, w)
    assert (unclamped["clamped_fraction"], unclamped["clamp_bias"]) == (0.0, 0.0)


def test_ratio_diagnostics_by_hand():
    w = torch.tensor([1.0, 1.0, 2.0, 4.0])
    shown = ratio_diagnostics(w, torch.tensor([-1.0, 1.0, -3.0, 3.0]))
    assert shown["preceding_ratio_bias"] == 1.0
    assert shown["effective_sample_size"] == pytest.approx(64 / (4 * 22))
    assert shown["max_weight_share"] == 0.5
    assert shown["m_variance"] == 5.0
    assert shown["preceding_log_ratio_variance"] == pytest.approx(np.log([1, 1, 2, 4]).var())
    assert ratio_diagnostics(torch.tensor([0.0, 1.0]), torch.ones(2))["preceding_log_ratio_variance"] == math.inf


@pytest.mark.parametrize(("clamp", "bounds"), [("upper", (0, 1)), ((0.9, 1.05), (0.9, 1.05))])
@pytest.mark.parametrize("name", ["happo", "hatrpo", "haa2c"])
def test_clamping_holds_the_ratio_in_m_and_not_in_the_product(name, clamp, bounds):
    trainer = getattr(wb, name)(PointTeam(), seed=0, order=(2, 0, 1), ratio_clamp=clamp, **SMALL)
    before, advantages = updated(trainer)
    assert float((before["agent_1"] - 1).abs().max()) > 0.05
    rows = trainer.agent_history.set_index("agent")
    for agent, w in before.items():
        expected = w.clamp(*bounds) * advantages
        np.testing.assert_array_equal(trainer.m_factors[agent], expected.numpy())
        assert rows["clamped_fraction"][agent] == pytest.approx(float((w.clamp(*bounds) != w).float().mean()))
        assert rows["clamp_bias"][agent] == pytest.approx(float((w.clamp(*bounds) - w).mean()), abs=1e-6)
    # The product itself is not clamped: it leaves the bounds.
    assert float(before["agent_1"].max()) > bounds[1]


def test_a_clamp_is_live_and_may_come_back_off_a_file(tmp_path):
    trainer = wb.happo(PointTeam(), seed=0, ratio_clamp=(0.5, 2), **SMALL)
    trainer.iterate()
    again = wb.load(trainer.save(tmp_path / "run.wb"), env=PointTeam())
    assert again.ratio_clamp == (0.5, 2.0)
    assert again.fingerprint() == trainer.fingerprint()
    trainer.ratio_clamp = "upper"
    trainer.iterate()
    assert trainer.interventions[-1].name == "ratio_clamp"


# --- ε by position --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, [0.2, 0.2, 0.2, 0.2]),
        ("linear", [0.125, 0.15, 0.175, 0.2]),
        ("team_size", [0.05, 0.05, 0.05, 0.05]),
        ((2, 1, 0.5), [0.4, 0.2, 0.1, 0.1]),
    ],
)
def test_schedules_by_hand(schedule, expected):
    settings = ClippedSettings(clip_epsilon=0.2, clip_schedule=schedule)
    assert [settings.clip_epsilon_at(m, 4) for m in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "factors"), [("linear", (0.625, 0.75, 0.875, 1)), ((2, 0.25), (2, 0.25, 0.25, 0.25))]
)
def test_each_position_is_clipped_by_its_own_epsilon(schedule, factors):
    """At every position the scheduled run moves as one would whose ε is the factor times the common one."""
    trainer = wb.happo(PointTeam(n_agents=4), seed=0, clip_epsilon=0.125, clip_schedule=schedule, epochs=20, **WIDE)
    trainer.step(), trainer.step()
    for factor in factors:
        plain = trainer.fork(clip_schedule=None, clip_epsilon=0.125 * factor)
        event, same = trainer.step(), plain.step()
        assert torch.equal(trainer._state.policies[event.agent].values, plain._state.policies[event.agent].values), (
            factor
        )
        assert event.diagnostics["clipped_fraction"] == same.diagnostics["clipped_fraction"]


def test_the_clipped_fractions_by_hand():
    trainer = wb.happo(PointTeam(), seed=0, order=(1, 2, 0), clip_epsilon=0.05, joint_clip_epsilon=0.2, **WIDE)
    trainer.step(), trainer.step()
    while trainer.phase == "update_agent":
        before = trainer._state
        event = trainer.step()
        own = trainer._state.preceding_ratio / before.preceding_ratio
        joint = trainer._state.preceding_ratio
        assert event.diagnostics["clipped_fraction"] == pytest.approx(
            float(((own - 1).abs() > 0.05).float().mean()), abs=0.03
        )
        expected = float(((joint - 1).abs() > 0.2).float().mean())
        assert event.diagnostics["joint_clipped_fraction"] == pytest.approx(expected, abs=0.03)
        assert event.diagnostics["log_ratio_variance"] == pytest.approx(float(own.log().var(correction=0)), rel=1e-3)
    rows = trainer.agent_history
    reference = np.exp(-rows["log_ratio_variance"].cumsum().shift(fill_value=0))
    np.testing.assert_allclose(rows["effective_sample_size_reference"], reference, rtol=1e-9)
    assert rows["effective_sample_size_reference"].iloc[0] == 1


# --- the joint ratio, clipped too -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("w", "r", "a", "expected", "slope"),
    [
        # Inside both: r·w·A, slope w·A.
        (1.1, 1.05, 2.0, 2.31, 2.2),
        # The joint ratio 1.65 is out and A draws it further: held at 1.3·A, no slope.
        (1.5, 1.1, 2.0, 2.6, 0.0),
        # The same with A against it: pessimism lets the surrogate see all of the loss, and pull back.
        (1.5, 1.1, -2.0, -3.3, -3.0),
        # The own ratio is out upwards, ε = 0.2, the joint one is not: 1.2·w·A.
        (0.8, 1.3, 1.0, 0.96, 0.0),
        # Joint ratio 0.55 out downwards: at A < 0 held at 0.7·A, at A > 0 it may come back.
        (0.5, 1.1, -1.0, -0.7, 0.0),
        (0.5, 1.1, 1.0, 0.55, 0.5),
    ],
)
def test_the_joint_clip_by_hand(w, r, a, expected, slope):
    own = torch.tensor([r], dtype=torch.float64, requires_grad=True)
    w, a = torch.tensor([w], dtype=torch.float64), torch.tensor([a], dtype=torch.float64)
    value = doubly_clipped_surrogate(own, w * a, w, a, clip_epsilon=0.2, joint_clip_epsilon=0.3)
    assert value.item() == pytest.approx(expected)
    assert torch.autograd.grad(value.sum(), own)[0].item() == pytest.approx(slope)
    assert value.item() <= clipped_surrogate(own, w * a, 0.2).item()


def test_the_joint_clip_in_a_run():
    """One plain step of the update by hand: the gradient of the surrogate on the second agent's batch."""
    options = {"order": (1, 0, 2), "epochs": 1, "n_minibatches": 1, "dtype": "float64", "max_grad_norm": 1e9}
    trainer = wb.happo(PointTeam(), seed=0, joint_clip_epsilon=0.02, ratio_clamp=(0.9, 1.1), **WIDE, **options)
    trainer.step(), trainer.step(), trainer.step()
    before = trainer._state
    w, a = before.preceding_ratio.clamp(0.9, 1.1).flatten(), before.estimate.advantages["state"].flatten()
    batch = agent_turn(trainer._setup, before, "agent_0", {"agent_0": (w * a).view_as(before.preceding_ratio)}).batch
    theta = before.policies["agent_0"].values.clone().requires_grad_()
    policy = trainer._setup.team.policies["agent_0"]
    r = ratio(policy.log_probs(theta, batch.observations, batch.actions), batch.old_log_probs)
    loss = -torch.min(torch.min(r * w * a, r.clamp(0.8, 1.2) * w * a), (w * r).clamp(0.98, 1.02) * a).mean()
    adam = torch.optim.Adam([theta], lr=3e-3, eps=1e-5)
    loss.backward()
    held = ((w - 1).abs() > 0.02) & ((w - 1) * a > 0)
    assert 0.05 < float(held.double().mean()) < 0.95  # some samples are held by the joint clip, some are not
    adam.step()
    trainer.step()
    torch.testing.assert_close(trainer._state.policies["agent_0"].values, theta.detach(), rtol=0, atol=1e-12)


# --- traces in place of the ratio -----------------------------------------------------------------------------------


def test_traces_by_hand():
    """δ = (1, 2, 4), γλ = ½, w = (9, ½, 2): A = (3, 4, 4) and the traced A = (1 + ½·½·4, 2 + ½·1·4, 4) = (2, 4, 4)."""
    deltas = torch.tensor([[1.0], [2.0], [4.0]])
    w = torch.tensor([[9.0], [0.5], [2.0]])
    going_on = torch.zeros(3, 1, dtype=torch.bool)
    changed = trace_correction(deltas, w, going_on, gamma=0.5, gae_lambda=1.0)
    assert changed.flatten().tolist() == [-1.0, 0.0, 0.0]
    # An episode that ends with the first step lets nothing of what follows in, traced or not.
    ended = torch.tensor([[True], [False], [False]])
    assert trace_correction(deltas, w, ended, gamma=0.5, gae_lambda=1.0).flatten().tolist() == [0.0, 0.0, 0.0]
    none = trace_correction(deltas, torch.full_like(w, 1.0), going_on, gamma=0.5, gae_lambda=1.0)
    assert torch.equal(none, torch.zeros(3, 1))
    # The second derivation: gae is the traced sum at w = 1.
    values, following = torch.randn(2, 3, 1)
    summed = gae(deltas, values, following, ended, gamma=0.9, gae_lambda=0.8)
    errors = td_errors(deltas, values, following, gamma=0.9)
    torch.testing.assert_close(summed[1:], torch.stack([errors[1] + 0.72 * errors[2], errors[2]]))


def test_traces_in_a_run():
    trainer = wb.happo(PointTeam(), seed=0, order=(2, 0, 1), preceding_correction="trace", **WIDE)
    before, advantages = updated(trainer)
    done = trainer._state.rollout.done
    raw = trainer._state.estimate.td_errors["state"]
    np.testing.assert_array_equal(trainer.m_factors["agent_2"], advantages.numpy())
    for agent in ("agent_0", "agent_1"):
        traced, plain = torch.zeros_like(raw), torch.zeros_like(raw)
        for t, env in itertools.product(range(12), range(4)):
            weight = kept = 1.0
            for k in range(t, 12):
                traced[t, env] += weight * raw[k, env]
                plain[t, env] += kept * raw[k, env]
                if done[k, env] or k == 11:
                    break
                kept *= 0.99 * 0.95
                weight *= 0.99 * 0.95 * min(1.0, float(before[agent][k + 1, env]))
        expected = advantages + traced - plain
        np.testing.assert_allclose(trainer.m_factors[agent], expected.numpy(), rtol=0, atol=1e-5)
        assert float((expected - advantages).abs().max()) > 0.01


def test_the_advantages_are_sums_of_the_td_errors():
    """In one unit: A + mean/std is the discounted sum of the errors kept beside it."""
    trainer = wb.happo(PointTeam(), seed=0, **SMALL)
    trainer.step(), trainer.step()
    estimate, rollout = trainer._state.estimate, trainer._state.rollout
    zeros = torch.zeros_like(rollout.rewards)
    sums = gae(estimate.td_errors["state"], zeros, zeros, rollout.done, gamma=0.99, gae_lambda=0.95)
    gap = sums - estimate.advantages["state"]
    torch.testing.assert_close(gap, gap.mean().expand_as(gap), rtol=0, atol=1e-5)


def test_happo_without_a_correction_is_mappo():
    assert torch.equal(policies("happo", preceding_correction=None), policies("mappo"))


@pytest.mark.parametrize(("name", "option"), [("ratio_clamp", "upper"), ("joint_clip_epsilon", 0.3)])
def test_what_would_do_nothing_is_refused(name, option):
    with pytest.raises(ValueError, match=f"{name} is .* preceding_correction is 'trace'"):
        wb.happo(PointTeam(), preceding_correction="trace", **{name: option})
    trainer = wb.happo(PointTeam(), **SMALL, **{name: option})
    with pytest.raises(ValueError, match=f"Leave {name} at None"):
        trainer.preceding_correction = None
    assert trainer.preceding_correction == "ratio"


# --- one KL budget for the team -------------------------------------------------------------------------------------


def test_shares_by_hand():
    assert share_kl("kkt", [2.0, 1.0], 0.05) == pytest.approx((0.04, 0.01))
    assert share_kl("kkt", [0.0, 0.0], 0.05) == (0.025, 0.025)
    assert share_kl("kkt", [0.7], 0.05) == pytest.approx((0.05,))
    # Quanta of 0.1. Marginal gains: 3, 3·0.414 = 1.24, 3·0.318 = 0.95 against 1.1, 1.1·0.414 = 0.46: two to the first,
    # then one to the second, none to the third.
    assert share_kl("greedy", [3.0, 1.1, 0.9], 0.3) == pytest.approx((0.2, 0.1, 0.0))
    assert share_kl("greedy", [1.0, 1.0, 1.0], 0.3) == pytest.approx((0.1, 0.1, 0.1))


def test_kkt_shares_gain_most():
    scores_, budget = [0.3, 1.0, 0.5], 0.06
    best = share_kl("kkt", scores_, budget)

    def gain(shares):
        return sum(s * math.sqrt(2 * max(share, 0)) for s, share in zip(scores_, shares, strict=True))

    # Cauchy-Schwarz: Σ s√(2δ) ≤ √(2·budget·Σs²), and that is reached.
    assert gain(best) == pytest.approx(math.sqrt(2 * budget * sum(s * s for s in scores_)))
    grid = np.linspace(0, budget, 61)
    others = [gain((x, y, budget - x - y)) for x in grid for y in grid if x + y <= budget]
    assert gain(best) >= max(others) - 1e-12
    assert gain(share_kl("greedy", scores_, budget)) <= gain(best)


@pytest.mark.parametrize("how", ["kkt", "greedy"])
def test_the_team_spends_one_budget(how):
    trainer = wb.hatrpo(PointTeam(), seed=0, max_kl=0.02, kl_allocation=how, **SMALL)
    uneven = False
    for _ in range(4):
        trainer.step(), trainer.step()
        spent = 0.0
        while trainer.phase == "update_agent":
            left = trainer.remaining
            promised = scores(trainer._setup, trainer._state, left)
            expected = share_kl(how, [promised[unit] for unit in left], 3 * 0.02 - spent)[0]
            shown = trainer.step().diagnostics
            assert shown["max_kl"] == pytest.approx(expected, rel=1e-6, abs=1e-12)
            assert shown["kl"] <= shown["max_kl"]
            uneven |= abs(shown["max_kl"] - 0.02) > 1e-3
            spent += shown["kl"]
        assert spent <= 3 * 0.02
        trainer.step()
    assert uneven


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("happo", "ratio_clamp", "lower", r"'upper', or \(low, high\)"),
        ("happo", "ratio_clamp", (1.5, 2), "low ≤ 1 ≤ high"),
        ("happo", "ratio_clamp", 2.0, r"\(low, high\)"),
        ("happo", "clip_schedule", "quadratic", "'linear', 'team_size'"),
        ("happo", "clip_schedule", (), "factor for each position"),
        ("happo", "clip_schedule", (0.5, -1), "positive factor"),
        ("happo", "joint_clip_epsilon", 0, "None, or a number"),
        ("happo", "preceding_correction", "vtrace", "None, or one of 'ratio', 'trace'"),
        ("hatrpo", "kl_allocation", "equal", "one of 'uniform', 'kkt', 'greedy'"),
        ("hatrpo", "policy_steps", 0, "an integer ≥ 1"),
        ("mappo", "ratio_clamp", "upper", "unknown option of MAPPO"),
        ("haa2c", "joint_clip_epsilon", 0.2, "unknown option of HAA2C"),
        ("hatrpo", "clip_schedule", "linear", "unknown option of HATRPO"),
    ],
)
def test_a_bad_value_is_refused_at_the_door(name, option, value, expected):
    with pytest.raises(ValueError, match=expected) as refusal:
        getattr(wb, name)(PointTeam(), **{option: value})
    assert option in str(refusal.value)
