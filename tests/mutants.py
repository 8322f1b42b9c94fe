"""Break the code in known ways, one at a time, and show which test catches each.

    python tests/mutants.py                 every mutant
    python tests/mutants.py "flip the clip" one of them

Each mutant is a change of one place in a copy of the sources; the tests named with it must fail there, and all of them
must pass without it. ``make stress`` runs them all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutant:
    """One fault: ``old`` stands once in ``path`` below workbench/, and becomes ``new``; ``tests`` must notice."""

    name: str
    path: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "drop the preceding ratio",
        "learning/agent_turn.py",
        "return m_factor(clamp_ratio(w, settings.ratio_bounds), advantages)",
        "return advantages",
        "test_happo.py test_known_answers.py",
    ),
    Mutant(
        "update in the wrong order",
        "learning/phases.py",
        "unit = state.order[state.position]",
        "unit = state.order[-1 - state.position]",
        "test_happo.py",
    ),
    Mutant(
        "let the last update fall out of the product",
        "learning/phases.py",
        "preceding_ratio=state.preceding_ratio * joint",
        "preceding_ratio=joint",
        "test_happo.py",
    ),
    Mutant(
        "flip the clip",
        "learning/surrogate.py",
        "return torch.min(ratio * m_factor, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * m_factor)",
        "return torch.max(ratio * m_factor, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * m_factor)",
        "test_happo.py",
    ),
    Mutant(
        "clip above only",
        "learning/surrogate.py",
        "return torch.min(ratio * m_factor, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * m_factor)",
        "return torch.min(ratio * m_factor, ratio.clamp(max=1 + clip_epsilon) * m_factor)",
        "test_happo.py",
    ),
    Mutant(
        "forget the weights of those who left",
        "learning/updates.py",
        "weighted = value if part.weights is None else value * part.weights",
        "weighted = value",
        "test_gradients.py",
    ),
    Mutant(
        "forget the ratio in the compiled gradient",
        "learning/fitting.py",
        "pull = r * (m if r * m <= clipped else zero * m)",
        "pull = m if r * m <= clipped else zero * m",
        "test_gradients.py",
    ),
    Mutant(
        "clip above only in the compiled gradient",
        "learning/fitting.py",
        "clipped = min(max(r, low), high) * m",
        "clipped = min(r, high) * m",
        "test_gradients.py",
    ),
    Mutant(
        "add up one thread only",
        "learning/fitting.py",
        "for other in gradients[1:]:",
        "for other in gradients[:0]:",
        "test_gradients.py",
    ),
    Mutant(
        "pull back through a dead unit",
        "networks/kernels.py",
        "slope[i, j] = one if x > zero else zero",
        "slope[i, j] = one",
        "test_gradients.py",
    ),
    Mutant(
        "unweight the discrete KL",
        "networks/distributions.py",
        "_expectation(log_p, log_p - log_q)",
        "(log_p - log_q).sum(-1)",
        "test_distributions.py",
    ),
    Mutant(
        "turn the KL round in the line search",
        "learning/updates.py",
        "head.kl(self._old, new)",
        "head.kl(new, self._old)",
        "test_trust_region.py",
    ),
    Mutant(
        "broadcast the entropy over the batch",
        "networks/distributions.py",
        "return torch.stack([-_expectation(log_p, log_p) for log_p in parameters], -1).sum(-1)",
        "return torch.stack([-_expectation(log_p, log_p) for log_p in parameters], -1).sum(-1, keepdim=True)",
        "test_distributions.py",
    ),
    Mutant(
        "forget the truncation bootstrap",
        "learning/phases.py",
        "torch.where(rollout.terminated[t, env], 0.0, normalizer.denormalize(at_ends))",
        "torch.zeros_like(at_ends)",
        "test_rollout.py",
    ),
    Mutant(
        "bootstrap from the new episode's first state",
        "learning/phases.py",
        "if len(rollout.final_at):",
        "if False:",
        "test_rollout.py",
    ),
    Mutant(
        "let the advantage run over an episode's end",
        "learning/advantages.py",
        "return _discounted_sum(deltas, (gamma * gae_lambda) * (~done).to(deltas.dtype))",
        "return _discounted_sum(deltas, (gamma * gae_lambda) * torch.ones_like(deltas))",
        "test_advantages.py",
    ),
    Mutant(
        "leave the value normaliser in the advantage",
        "learning/phases.py",
        "values = normalizer.denormalize(predictions)",
        "values = predictions",
        "test_family.py",
    ),
    Mutant(
        "normalise advantages after M",
        "learning/agent_turn.py",
        "return m_factor(clamp_ratio(w, settings.ratio_bounds), advantages)",
        "m = m_factor(clamp_ratio(w, settings.ratio_bounds), advantages)\n        return (m - m.mean()) / m.std()",
        "test_happo.py",
    ),
    Mutant(
        "use per-dimension ratios in the line search",
        "learning/updates.py",
        "excess = torch.expm1(head.log_prob(new, self._actions) - self._old_log_probs)",
        "per = [-((self._actions - p[0]) ** 2) / (2 * p[1] ** 2) - p[1].log() for p in (new, self._old)]\n"
        "        excess = torch.expm1(per[0] - per[1]).sum(-1)",
        "test_trust_region.py",
    ),
    Mutant(
        "share minibatch permutations across agents",
        "learning/agent_turn.py",
        'generator=setup.streams.torch("policy minibatches", state.iteration, list(setup.team.units).index(unit)),',
        'generator=setup.streams.torch("policy minibatches", state.iteration, 0)',
        "test_family.py",
    ),
    Mutant(
        "shuffle by turn instead of by agent",
        "learning/agent_turn.py",
        "state.iteration, list(setup.team.units).index(unit))",
        "state.iteration, state.order.index(unit))",
        "test_family.py",
    ),
    Mutant(
        "ignore the KL in the line search",
        "learning/trust_region.py",
        "if kl <= max_kl and gain > 0",
        "if gain > 0",
        "test_trust_region.py",
    ),
    Mutant(
        "report the rejected step's KL",
        "learning/trust_region.py",
        "return LineSearch(0.0, 0.0, 0.0)",
        "return LineSearch(0.0, 0.0, kl)",
        "test_trust_region.py",
    ),
    Mutant(
        "keep the rejected step",
        "learning/updates.py",
        "        if not found.fraction:\n            break\n        values = values + found.fraction * step",
        "        values = values + (found.fraction or 0.01) * step",
        "test_trust_region.py",
    ),
    Mutant(
        "line search on the advantage instead of M",
        "learning/updates.py",
        "self._m_factors = batch.m_factors.double()",
        "self._m_factors = batch.m_factors.double() * 1.5",
        "test_trust_region.py",
    ),
    Mutant(
        "leave the deviation out of the Fisher matrix",
        "networks/distributions.py",
        "return outputs / std.square(), 2 * self._relative_slope(std).square() * free",
        "return outputs / std.square(), 0 * free",
        "test_trust_region.py",
    ),
    Mutant(
        "forget the covariance in the Fisher matrix",
        "networks/distributions.py",
        "return weighted - p * weighted.sum(-1, keepdim=True)",
        "return weighted",
        "test_trust_region.py",
    ),
    Mutant(
        "differentiate past the layer norm",
        "networks/kernels.py",
        "tangent[i, j] = rho[i] * (tangent[i, j] - mean - normalized[i, j] * along)",
        "tangent[i, j] = rho[i] * (tangent[i, j] - mean)",
        "test_gradients.py",
    ),
    Mutant(
        "clamp the product that goes on",
        "learning/phases.py",
        "preceding_ratio=state.preceding_ratio * joint",
        "preceding_ratio=(state.preceding_ratio * joint).clamp(max=1.0)",
        "test_options.py",
    ),
    Mutant(
        "trace with the step's own ratio",
        "learning/advantages.py",
        "capped[:-1] *= preceding_ratio[1:].clamp(max=1)",
        "capped[:-1] *= preceding_ratio[:-1].clamp(max=1)",
        "test_options.py",
    ),
    Mutant(
        "trace without a cap",
        "learning/advantages.py",
        "capped[:-1] *= preceding_ratio[1:].clamp(max=1)",
        "capped[:-1] *= preceding_ratio[1:]",
        "test_options.py",
    ),
    Mutant(
        "clip the own ratio twice instead of the joint one",
        "learning/surrogate.py",
        "joint = (preceding_ratio * ratio).clamp(1 - joint_clip_epsilon, 1 + joint_clip_epsilon)\n",
        "joint = ratio.clamp(1 - joint_clip_epsilon, 1 + joint_clip_epsilon)\n",
        "test_options.py",
    ),
    Mutant(
        "let the joint clip go in the update",
        "learning/fitting.py",
        "                pull = zero * pull",
        "                pull = pull",
        "test_options.py test_gradients.py",
    ),
    Mutant(
        "schedule ε from the wrong end",
        "learning/settings.py",
        "0.5 * (position + 1) / n_units",
        "0.5 * (n_units - position) / n_units",
        "test_options.py",
    ),
    Mutant(
        "share KL by the score instead of its square",
        "learning/trust_region.py",
        "squares = len(scores), [score * score for score in scores]",
        "squares = len(scores), list(scores)",
        "test_options.py",
    ),
    Mutant(
        "choose once instead of anew",
        "learning/orders.py",
        "if asked_anew else left",
        "if False else left",
        "test_orders.py",
    ),
    Mutant(
        "overrule the hand",
        "learning/orders.py",
        "and not state.manual_order",
        "",
        "test_orders.py",
    ),
    Mutant(
        "score by the gradient's norm",
        "learning/trust_region.py",
        "return math.sqrt(max(self.slope, 0.0))",
        "return float(self.solution.norm())",
        "test_orders.py test_trust_region.py",
    ),
    Mutant(
        "judge every agent of IPPO by the first one's critic",
        "learning/state.py",
        "return CENTRAL if self.method.critic == CENTRAL else agent",
        "return CENTRAL if self.method.critic == CENTRAL else self.team.agents[0]",
        "test_family.py",
    ),
    Mutant(
        "remember the last episode",
        "learning/rollout.py",
        "self.actor.forget(ended)",
        "pass",
        "test_recurrent.py",
    ),
    Mutant(
        "forget at every rollout",
        "learning/rollout.py",
        "actor.begin(env.n_envs, running.memory)",
        "actor.begin(env.n_envs)",
        "test_recurrent.py",
    ),
    Mutant(
        "learn over the ends of episodes",
        "learning/agent_turn.py",
        "starts = rollout.starts.to(memories[0].dtype).flatten()",
        "starts = torch.zeros_like(rollout.starts).to(memories[0].dtype).flatten()",
        "test_recurrent.py",
    ),
    Mutant(
        "judge the last state as if it were the first",
        "learning/phases.py",
        "at_ends, _ = network.step(recurrent, last_seen, after[t, env])",
        "at_ends = network.forward(recurrent, last_seen)",
        "test_recurrent.py",
    ),
    Mutant(
        "draw runs across tasks",
        "statistics/estimates.py",
        "generators[task].integers(n, size=(some, n))",
        "generators[task].integers(-starts[task], sum(sizes.values()) - starts[task], size=(some, n))",
        "stats/test_estimates.py",
    ),
    Mutant(
        "count a tie as a win",
        "statistics/estimates.py",
        "np.where(a == b, 0.5, a > b)",
        "np.where(a == b, 1.0, a > b)",
        "stats/test_estimates.py",
    ),
    Mutant(
        "keep steered runs",
        "statistics/selection.py",
        "if not steered and frame",
        "if False and frame",
        "stats/test_comparison.py",
    ),
    Mutant(
        "count runs in place of seeds",
        "statistics/selection.py",
        "append(_scaled(_mean_of(held), name, scale))",
        "extend(_scaled(each, name, scale) for each in held)",
        "stats/test_comparison.py",
    ),
    Mutant(
        "compare where only the longest run came",
        "statistics/comparison.py",
        "ends[task] = min(reached) if",
        "ends[task] = max(reached) if",
        "stats/test_comparison.py",
    ),
    Mutant(
        "keep the newest as the best",
        "running/trainer.py",
        'return all(newest["return"] > row["return"] for',
        'return all(newest["return"] != row["return"] for',
        "stats/test_absolute_metric.py",
    ),
    Mutant(
        "forget the old mean in a merge",
        "learning/policy_inputs.py",
        "self.mean + off * (other.count / total)",
        "other.mean",
        "test_policy_inputs.py",
    ),
    Mutant(
        "forget the distance of means in a merge",
        "learning/policy_inputs.py",
        "self.squares + other.squares + off * off * (self.count * other.count / total)",
        "self.squares + other.squares",
        "test_policy_inputs.py",
    ),
    Mutant(
        "standardize what is one-hot",
        "learning/team.py",
        "untouched[: self._observed_size(env, agent)] = env.one_hot_features[agent]",
        "pass",
        "test_policy_inputs.py",
    ),
    Mutant(
        "let the statistics follow the rollout at once",
        "learning/phases.py",
        "unit: seen.merged(state.rollout.seen[unit]) for unit, seen",
        "unit: seen for unit, seen",
        "test_policy_inputs.py",
    ),
    Mutant(
        "make every pass whatever the KL",
        "learning/fitting.py",
        "            if kl > schedule.target_kl:",
        "            if False:",
        "test_policy_inputs.py",
    ),
    Mutant(
        "give each agent the whole trust region",
        "learning/settings.py",
        "return self.team_max_kl / n_agents if",
        "return self.team_max_kl if",
        "test_policy_inputs.py test_options.py",
    ),
    Mutant(
        "leave actions in units of the policy",
        "learning/team.py",
        "(centre + half_width * action)",
        "(action)",
        "test_policy_inputs.py",
    ),
)


def apply(mutant: Mutant, package: Path) -> str:
    """Break the package at ``package``; returns the source as it was."""
    path = package / mutant.path
    source = path.read_text(encoding="utf-8")
    found = source.count(mutant.old)
    if found != 1:
        raise ValueError(f"{mutant.name!r}: its text is {found} times in {mutant.path}, expected once:\n{mutant.old}")
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    return source


def copy_sources(into: Path) -> Path:
    """A copy of what the tests need."""
    for name in ("workbench", "tests"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__", "jupyter", "theory_*"))
    shutil.copy(ROOT / "pyproject.toml", into)
    return into


def failures(tests: str, sources: Path, *, stop: bool = True) -> list[str]:
    """Names of the tests that fail in a copy; stops at the first one unless told not to."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *(["-x"] if stop else [])]
    # The copy comes before the installed package, and leaves no bytecode that a later mutant could find.
    environment = {**os.environ, "PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, *(f"tests/{name}" for name in tests.split())],
        cwd=sources,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run:\n{result.stdout[-3000:]}{result.stderr[-3000:]}")
    # An error at collection is no catch: the mutant must be a program that runs, and is wrong.
    if re.search(r"^ERROR ", result.stdout, re.MULTILINE):
        raise RuntimeError(f"the copy is broken:\n{result.stdout[-3000:]}")
    return re.findall(r"^FAILED (\S+)", result.stdout, re.MULTILINE)


def caught_by(mutant: Mutant, sources: Path) -> list[str]:
    """The tests that catch a mutant in the copy, which is whole again afterwards."""
    original = apply(mutant, sources / "workbench")
    try:
        return failures(mutant.tests, sources)
    finally:
        (sources / "workbench" / mutant.path).write_text(original, encoding="utf-8")


def main(names: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    if len(chosen) < len(names):
        print(f"No such mutant among {names}. There are:", *(mutant.name for mutant in MUTANTS), sep="\n  ")
        return 2
    survivors = []
    with tempfile.TemporaryDirectory() as directory:
        sources = copy_sources(Path(directory))
        used = sorted({test for mutant in chosen for test in mutant.tests.split()})
        broken = failures(" ".join(used), sources, stop=False)
        if broken:
            print("These fail without any mutant:", *broken, sep="\n  ")
            return 1
        for mutant in chosen:
            caught = caught_by(mutant, sources)
            print(f"{'caught' if caught else 'SURVIVED':<9}{mutant.name:<55}{' '.join(caught)}", flush=True)
            survivors += [] if caught else [mutant.name]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
