"""Groups of runs compared: tables with intervals over seeds, each of which says how it was made."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd

from workbench.errors import unknown_name
from workbench.statistics.estimates import (
    BAND_RESAMPLES,
    CONFIDENCE,
    RESAMPLES,
    Estimate,
    Floats,
    Statistic,
    bootstrap,
    bootstrap_improvement,
    check_bootstrap,
    interquartile_mean,
    optimality_gap,
    performance_profile,
)
from workbench.statistics.normalisation import Normalisation
from workbench.statistics.protocol import COOPERATIVE, Protocol, in_short, protocol_report
from workbench.statistics.report import Report, counted, span
from workbench.statistics.runs import Names, Runs
from workbench.statistics.selection import ABSOLUTE, NO_TASK, Selection, Series, select, shared_steps

ALL_TASKS = "all tasks"
Row = dict[str, object]
MOST_POINTS = 100  # of a curve with a band
# How often the 95 % interval of the interquartile mean of so few normal scores holds the true one: docs/statistics.md.
COVERAGE = {2: 50, 3: 74, 4: 88, 5: 90}


@dataclass(frozen=True)
class Curve:
    """The interquartile mean of a group along its runs: on one task, or on all of them together.

    steps     (n,) environment steps that all runs of all groups have in common
    estimate  (n,) each
    runs      the single runs
    """

    group: str
    task: str
    steps: Floats
    estimate: Estimate
    runs: tuple[Series, ...]


@dataclass(frozen=True)
class Profile:
    """F(τ), the share of a group's runs that score more than τ; ``estimate`` as long as ``thresholds``."""

    group: str
    task: str
    thresholds: Floats
    estimate: Estimate


def compare(
    table: Runs,
    metric: str = "return",
    by: Names = "method",
    *,
    at: str | float = "end",
    task: Names | None = None,
    steered: bool = False,
    unfinished: bool = False,
    normalise: str | Mapping[str, Sequence[float]] | Normalisation | None = None,
    target: float = 1.0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Comparison:
    """Compare the runs of a tidy table by the values of some columns.

        comparison = wb.statistics.compare(sweep.table(), "return", by="method")
        comparison.summary()

    table       one row for each run and evaluation point, with ``seed``, ``env_steps``, the metric, and settings; or
                what has one, such as a sweep or study; or trainers; or {group: any of these}
    metric      the column that is compared
    by          the column, or columns, whose values make the groups
    at          a run's score: "end", its value at the last env steps that all runs of the task reached; such a number
                of env steps; or "absolute", its best policy's (``wb.statistics.absolute_metric``)
    task        the columns that make the tasks; by default what there is of environment, task, scenario, partition
    steered     keep runs that were changed by hand
    unfinished  keep runs that have not finished; all are then compared as far as the shortest came
    normalise   {task: (low, high)}, fixed constants, or the name of published ones ("d4rl"); only then are the tasks
                also taken together
    target      γ of the optimality gap
    resamples, confidence, seed   of the bootstrap; bands of curves and profiles take at most 2,000 resamples
    """
    if isinstance(at, str) and at not in ("end", "absolute"):
        raise unknown_name("point of the runs", at, ("end", "absolute"), "Or a number of env steps: at=400_000.")
    if not isinstance(at, str) and (isinstance(at, bool) or not isinstance(at, int | float | np.number) or not at >= 0):
        raise ValueError(f"at is {at!r}; expected 'end', 'absolute', or a number of env steps ≥ 0.")
    check_bootstrap(resamples, confidence)
    selection = select(table, metric, by, task=task, steered=steered, unfinished=unfinished, normalise=normalise)
    return Comparison(selection, at, target, resamples, confidence, seed)


@dataclass(frozen=True)
class Comparison:
    """Runs by group and task, and what can be said of them; ``wb.statistics.compare`` makes one."""

    selection: Selection
    at: str | float = "end"
    target: float = 1.0
    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE
    seed: int = 0

    # --- what is compared -----------------------------------------------------------------------------------------

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that have runs, in the table's order."""
        return tuple(group for group in self.selection.groups if any(key[0] == group for key in self.selection.runs))

    @property
    def panels(self) -> tuple[str, ...]:
        """What stands for itself: all tasks together, where scores are normalised, and each task."""
        tasks = self.selection.tasks
        return (ALL_TASKS, *tasks) if self.selection.scale is not None and len(tasks) > 1 else tasks

    def runs(self, group: str, panel: str) -> dict[str, tuple[Series, ...]]:
        """{task: the series of its seeds} of a group on one task, or on all of them."""
        tasks = self.selection.tasks if panel == ALL_TASKS else (panel,)
        return {task: self.selection.runs[group, task] for task in tasks if (group, task) in self.selection.runs}

    @cached_property
    def ends(self) -> dict[str, float]:
        """{task: the env steps at which its runs are compared}."""
        ends = {}
        for task in self.selection.tasks:
            reached = [series.reached for key, runs in self.selection.runs.items() if key[1] == task for series in runs]
            ends[task] = min(reached) if isinstance(self.at, str) else float(self.at)
            if ends[task] > min(reached):
                short = sum(each < ends[task] for each in reached)
                raise ValueError(
                    f"{short} of {counted(len(reached), 'run')} of {task} did not reach {ends[task]:,.0f} env steps; "
                    f"the shortest came to {min(reached):,.0f}."
                )
        return ends

    @cached_property
    def scores(self) -> dict[str, dict[str, Floats]]:
        """{group: {task: (n_seeds,)}}: one score for each run."""
        return {
            group: {task: self._scores(group, task) for task in self.runs(group, ALL_TASKS)} for group in self.groups
        }

    def _scores(self, group: str, task: str) -> Floats:
        runs = self.selection.runs[group, task]
        if self.at == "absolute":
            scores = np.array([series.absolute for series in runs])
            remedy = "Take it as a run ends, by wb.statistics.absolute_metric(directory), into the table's column"
            remedy += f" {ABSOLUTE + self.selection.metric!r}; or compare at='end'."
        else:
            scores = np.array([series.at(np.array([self.ends[task]]))[0] for series in runs])
            remedy = "Compare later."
        if np.isnan(scores).any():
            without = [series.seed for series, score in zip(runs, scores, strict=True) if np.isnan(score)]
            raise ValueError(f"{group} on {task} has no score there for the seeds {without}. {remedy}")
        return scores

    def _panel_scores(self, group: str, panel: str) -> dict[str, Floats]:
        return {task: scores for task, scores in self.scores[group].items() if panel in (task, ALL_TASKS)}

    # --- statistics -----------------------------------------------------------------------------------------------

    def summary(self) -> Report:
        """Interquartile mean with its interval, mean and standard deviation over seeds, by task and group.

        Where scores are normalised, also the optimality gap, and all tasks together.
        """
        rows = []
        for panel, group in itertools.product(self.panels, self.groups):
            if scores := self._panel_scores(group, panel):
                pooled = np.concatenate(list(scores.values()))
                row = self._row(group, panel, scores, "runs")
                row["std"] = float(pooled.std(ddof=1)) if len(pooled) > 1 else np.nan
                if self.selection.scale is not None:
                    gap = map(float, self.estimate(group, panel, gap=True))
                    row |= zip(("optimality_gap", "gap_low", "gap_high"), gap, strict=True)
                rows.append(row)
        return self._report(rows, self.summary_notes)

    def _row(self, group: str, panel: str, values: Mapping[str, Floats], unit: str) -> Row:
        """What the tables of scores and of differences have in common."""
        pooled = np.concatenate(list(values.values()))
        iqm, low, high = map(float, self._bootstrap(values, interquartile_mean, self.resamples))
        about: Row = {"task": panel, self.selection.by: group, unit: len(pooled)}
        return {**about, "iqm": iqm, "low": low, "high": high, "mean": float(pooled.mean())}

    def estimate(self, group: str, panel: str, gap: bool = False) -> Estimate:
        """The interquartile mean, or the optimality gap, of a group on a task or on all of them."""
        statistic = partial(optimality_gap, target=self.target) if gap else interquartile_mean
        return self._bootstrap(self._panel_scores(group, panel), statistic, self.resamples)

    def curves(self) -> list[Curve]:
        """The interquartile mean along the runs, with its band, for each panel and group: sample efficiency."""
        return [curve for panel in self.panels for curve in self._curves(panel)]

    def _curves(self, panel: str) -> Iterator[Curve]:
        of_groups = {group: runs for group in self.groups if (runs := self.runs(group, panel))}
        steps = common_steps([series for runs in of_groups.values() for own in runs.values() for series in own])
        for group, runs in of_groups.items():
            values = {task: np.stack([series.at(steps) for series in own]) for task, own in runs.items()}
            estimate = self._bootstrap(values, interquartile_mean, self._band_resamples)
            yield Curve(group, panel, steps, estimate, tuple(itertools.chain.from_iterable(runs.values())))

    def curve_table(self) -> Report:
        """``curves()`` as a table: task, group, env steps, interquartile mean and the ends of its interval."""
        parts = []
        for curve in self.curves():
            value, low, high = curve.estimate
            columns = {"task": curve.task, self.selection.by: curve.group, "env_steps": curve.steps}
            parts.append(pd.DataFrame({**columns, "iqm": value, "low": low, "high": high}))
        return self._report(pd.concat(parts, ignore_index=True), self.curve_notes)

    def profiles(self, thresholds: Sequence[float] | None = None) -> list[Profile]:
        """Performance profiles: the share of runs that score more than τ, for each panel and group.

        ``thresholds`` are the τ; by default 201 from the least score to the largest.
        """
        found = []
        for panel in self.panels:
            of_groups = {group: scores for group in self.groups if (scores := self._panel_scores(group, panel))}
            pooled = np.concatenate([own for scores in of_groups.values() for own in scores.values()])
            tau = np.linspace(pooled.min(), pooled.max(), 201) if thresholds is None else np.asarray(thresholds, float)
            share = partial(performance_profile, thresholds=tau)
            for group, scores in of_groups.items():
                found.append(Profile(group, panel, tau, self._bootstrap(scores, share, self._band_resamples)))
        return found

    def improvement(self, pairs: Sequence[tuple[str, str]] | None = None) -> Report:
        """P(X > Y) = the chance that a run of X beats a run of Y, on the tasks both have, with its interval.

        ``pairs`` of groups; by default each with each that comes after it.
        """
        rows = []
        for x, y in itertools.combinations(self.groups, 2) if pairs is None else pairs:
            first, second = self._of(x), self._of(y)
            shared = [task for task in first if task in second]
            if not shared:
                raise ValueError(f"{x} and {y} have no task in common, so that nothing can be said of the pair.")
            ours, theirs = ({task: scores[task] for task in shared} for scores in (first, second))
            estimate = bootstrap_improvement(
                ours, theirs, resamples=self._band_resamples, confidence=self.confidence, seed=self.seed
            )
            numbers = dict(zip(("probability", "low", "high"), map(float, estimate), strict=True))
            runs = [sum(map(len, scores.values())) for scores in (ours, theirs)]
            rows.append({"x": x, "y": y, **numbers, "tasks": len(shared), "x_runs": runs[0], "y_runs": runs[1]})
        return self._report(rows, self.improvement_notes)

    def paired(self, baseline: str) -> Report:
        """Differences to ``baseline``, seed by seed: of forks of one parent, or of runs with the same seed.

        Forks share their past with their parent, so that they are no independent samples; their difference is one
        sample for each parent seed. A seed that only one of the two has is left out. ``share_better`` is the share of
        pairs with a difference above 0, ties half.
        """
        self._of(baseline)
        others = [group for group in self.groups if group != baseline]
        rows, alone = [], 0
        for panel, group in itertools.product(self.panels, others):
            tasks = self.runs(group, panel)
            pairs = {task: each for task in tasks if len(each := self.differences(group, baseline, task))}
            if pairs:
                pooled = np.concatenate(list(pairs.values()))
                better = float((pooled > 0).mean() + 0.5 * (pooled == 0).mean())
                rows.append({**self._row(group, panel, pairs, "pairs"), "share_better": better})
        for task, group in itertools.product(self.selection.tasks, others):
            alone += len(self._by_seed(group, task).keys() ^ self._by_seed(baseline, task).keys())
        note = f"differences to {baseline}, seed by seed; {counted(alone, 'seed')} without a partner"
        return self._report(rows, self._how(note, self._interval(self.resamples)))

    def differences(self, group: str, baseline: str, task: str) -> Floats:
        """(n_pairs,) score of a group minus the baseline's, for each seed that both have, on one task."""
        ours, theirs = (self._by_seed(name, task) for name in (group, baseline))
        return np.array([score - theirs[seed] for seed, score in ours.items() if seed in theirs], np.float64)

    def _by_seed(self, group: str, task: str) -> dict[Hashable, float]:
        """{seed: score} of a group on a task."""
        runs, scores = self.selection.runs.get((group, task), ()), self.scores[group].get(task, ())
        return {series.seed: score for series, score in zip(runs, scores, strict=True)}

    def protocol(self, standard: Protocol = COOPERATIVE) -> Report:
        """How the standardised protocol is met: each demand, for each task and group."""
        report = protocol_report(self.selection, standard)
        return self._report(report.table, report.how)

    # --- how it was made ------------------------------------------------------------------------------------------

    @property
    def how(self) -> tuple[str, ...]:
        """What every table and figure of this comparison says of itself."""
        return self._how()

    @property
    def summary_notes(self) -> tuple[str, ...]:
        """The lines below ``summary()``."""
        return self._how(self._interval(self.resamples))

    @property
    def curve_notes(self) -> tuple[str, ...]:
        """The lines below ``curves()``."""
        points = "points: the env steps that all runs have in common; between a run's own points linearly interpolated"
        return self._how(self._interval(self._band_resamples), points, at=False)

    @property
    def profile_notes(self) -> tuple[str, ...]:
        """The lines below ``profiles()``."""
        return self._how(self._interval(self._band_resamples))

    @property
    def improvement_notes(self) -> tuple[str, ...]:
        """The lines below ``improvement()``."""
        chance = "probability that a run of the first beats a run of the second on a task of both, ties half"
        return self._how(chance, self._interval(self._band_resamples))

    def _how(self, *notes: str, at: bool = True) -> tuple[str, ...]:
        chosen, runs = self.selection, [len(runs) for runs in self.selection.runs.values()]
        tasks = "" if chosen.tasks == (NO_TASK,) else f" on {counted(len(chosen.tasks), 'task')}"
        ends = span([int(end) for end in self.ends.values()])
        where = "of the best policy" if self.at == "absolute" else f"at {ends} env steps"
        place = f" {where}" if at and (self.at == "absolute" or any(self.ends.values())) else ""
        what = f"{chosen.metric}{' in training' if chosen.trained else ''}"
        lines = [f"{what}{place}: {counted(len(self.groups), 'group')}{tasks}, {span(runs)} seeds each"]
        if chosen.scale is not None:
            lines.append(f"normalised, (x − low)/(high − low): {chosen.scale.source}")
        lines += [*notes, *chosen.notes]
        if min(runs) in COVERAGE:
            few = f"few seeds: with {min(runs)}, some {COVERAGE[min(runs)]} % of 95 % intervals hold the true value"
            lines.append(few)
        lines.append(f"left out: {', '.join(chosen.left_out) or 'nothing'}")
        return (*lines, in_short(chosen))

    def _interval(self, resamples: int) -> str:
        return (
            f"{100 * self.confidence:g} % intervals: stratified bootstrap over seeds within tasks, percentiles of "
            f"{resamples:,} resamples, seed {self.seed}"
        )

    @property
    def _band_resamples(self) -> int:
        return min(self.resamples, BAND_RESAMPLES)

    def _report(self, rows: list[Row] | pd.DataFrame, how: tuple[str, ...]) -> Report:
        """The table of some rows, without the task's column where there is but one nameless task."""
        table = pd.DataFrame(rows)
        return Report(table.drop(columns="task", errors="ignore") if self.selection.tasks == (NO_TASK,) else table, how)

    def _of(self, group: str) -> dict[str, Floats]:
        if group not in self.scores:
            raise unknown_name("group", group, self.groups)
        return self.scores[group]

    def _bootstrap(self, scores: Mapping[str, Floats], statistic: Statistic, resamples: int) -> Estimate:
        return bootstrap(scores, statistic, resamples=resamples, confidence=self.confidence, seed=self.seed)

    def __repr__(self) -> str:
        return "\n".join([f"{self.selection.metric} of {', '.join(self.groups)}", *self.how])


def common_steps(runs: Sequence[Series], most: int = MOST_POINTS) -> Floats:
    """The env steps, at most so many, that all runs have in common.

    Where all were evaluated at the same steps, those; else every step of any run that lies within the reach of all.
    Raises ``ValueError`` where there is none.
    """
    first, reached, steps = shared_steps(runs)
    if not len(steps):
        raise ValueError(
            f"the runs have no env steps in common: one begins at {first:,.0f}, another ended at {reached:,.0f}. "
            "Compare those that have, or leave unfinished runs out."
        )
    kept = np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))
    return np.asarray(steps[kept])
