"""Figures of training runs. Each is the last expression of a cell, or drawn live in the panel of a ``Session``.

    wb.views.returns(trainer)
    wb.views.m_factors(trainer, kind="histogram")
    wb.views.compare({"ε = 0.2": trainer, "ε = 0.05": fork}, "return")

Every view returns a ``Record``: interactive where that is possible, with a picture and a short text beside it, so that
a notebook shows it without a kernel too. ``.figure`` is the Plotly figure, to be changed or saved.

``trainer`` is a trainer or anything with its ``env.agents``, ``history``, ``agent_history``, ``evaluations``,
``m_factors``, ``iteration_order`` and ``settings``. An agent has one colour in all views (``workbench.jupyter.look``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from workbench.errors import unknown_name
from workbench.jupyter import look
from workbench.jupyter.figures import comparisons, curves, drawings, m_distributions, positions, staircase
from workbench.jupyter.figures.curves import Smoothing
from workbench.jupyter.figures.drawings import Drawing, names
from workbench.jupyter.figures.m_distributions import Kind, Scale
from workbench.jupyter.figures.plots import Plot, arrange
from workbench.jupyter.figures.record import Record, show
from workbench.jupyter.figures.run_columns import One, Several, read, read_all
from workbench.jupyter.look import Spec
from workbench.running.improvement import Improvement
from workbench.statistics import Comparison
from workbench.statistics import compare as compare_groups
from workbench.statistics.runs import Names, Runs

if TYPE_CHECKING:
    from workbench.jupyter.panel.live_view import LiveView

__all__ = [
    "Record",
    "by_position",
    "clipped_fraction",
    "compare",
    "diagnostics",
    "effective_sample_size",
    "entropy",
    "explained_variance",
    "improvement",
    "intervals",
    "kl",
    "learning_curves",
    "live",
    "m_factors",
    "m_variance",
    "overview",
    "paired_differences",
    "performance_profiles",
    "probability_of_improvement",
    "returns",
    "show",
    "surrogate_gain",
    "value_loss",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def returns(trainers: Several, smoothing: Smoothing = "off") -> Record:
    """Mean undiscounted return of the episodes that ended in each iteration, against environment steps.

    ``trainers`` is a trainer, a sequence, or {name: trainer}; forks are overlaid from where they part. Evaluations are
    marked by diamonds. Iterations in which no episode ended have no point. Changes by hand are dotted lines that tell
    what was changed.

    ``smoothing`` "light" draws the centred moving mean over 2.5 % of the curve, "strong" over 10 %, with the curve
    itself faintly behind.
    """
    runs = read_all(trainers)
    return Drawing(f"Return against environment steps: {names(runs)}", [curves.run_curves(runs, smoothing=smoothing)])


def m_factors(trainer: One, kind: Kind = "violin", scale: Scale = "auto") -> Record:
    """The distribution of M^{i1:m} = Π_{j<m}(π_new/π_old)·A over the rollout, agent by agent in update order.

    Shows the agents updated in this iteration and the one about to be; between iterations, the last one's. The first
    agent's M is the advantage itself, in standard deviations of A where advantages are standardised.

    ``kind`` is "violin" (Gaussian kernel density with quartiles and median, all of equal width), "box" (whiskers at
    1 % and 99 %, the least and the largest sample marked) or "histogram" (common bins, logarithmic counts). All are
    computed from every sample and reach from the least to the largest. ``scale`` of the axis is "linear", "asinh"
    (linear near zero, logarithmic far from it) or "auto", which takes asinh where tails are long. Raises ``ValueError``
    for another kind or scale.
    """
    plot = m_distributions.m_factors(read(trainer, m_factors=True), kind, scale)
    return Drawing(f"M-factors in update order ({kind})", [plot])


def by_position(trainer: One) -> Record:
    """Clipped fraction (bars) and effective sample size of the preceding ratio (diamonds) by position in the order.

    The dashed line is e^{−mσ²}: the effective sample size if the log-ratios of the m predecessors were independent and
    normal, with σ² = 2·KL of each. Of the newest iteration.
    """
    text = "Clipped fraction and effective sample size by position in the order"
    return Drawing(text, [positions.clipped_and_effective(read(trainer))])


def clipped_fraction(trainer: One) -> Record:
    """Share of samples whose own ratio lies outside 1 ± ε after the update, by position in the newest iteration."""
    return Drawing("Clipped fraction by position in the order", [positions.clipped_fraction(read(trainer))])


def effective_sample_size(trainer: One) -> Record:
    """(Σw)²/(N·Σw²) ∈ (0, 1] of the preceding ratio w, by position in the newest iteration.

    Dashed: e^{−mσ²}, its value for m independent normal log-ratios of variance σ² = 2·KL each.
    """
    text = "Effective sample size by position in the order"
    return Drawing(text, [positions.effective_sample_size(read(trainer))])


def m_variance(trainer: One) -> Record:
    """Var(M) by position in the newest iteration; dashed: Var(A)·e^{mσ²}, for independent agents, σ² = 2·KL each."""
    return Drawing("Variance of M by position in the order", [positions.m_variance(read(trainer))])


def kl(trainer: One, smoothing: Smoothing = "off") -> Record:
    """E_s[KL(old ‖ new)] of every agent against the iteration, in nats; δ, where the method has one, is drawn in."""
    return _agent_curves(trainer, "kl", smoothing=smoothing)


def surrogate_gain(trainer: One, smoothing: Smoothing = "off") -> Record:
    """E[(r − 1)·M] of every agent against the iteration: by how much its update raised the surrogate, unclipped."""
    return _agent_curves(trainer, "surrogate_gain", smoothing=smoothing)


def entropy(trainer: One, smoothing: Smoothing = "off") -> Record:
    """Entropy of every agent's policy (nats), and the mean standard deviation of its actions, against the iteration."""
    return _agent_curves(trainer, "entropy", "std", smoothing=smoothing)


def value_loss(trainers: Several, smoothing: Smoothing = "off") -> Record:
    """Loss of the critic on normalised values, and the variance of returns that it explains, against env steps."""
    runs = read_all(trainers)
    plots = [curves.run_curves(runs, column, smoothing) for column in ("value_loss", "explained_variance")]
    return Drawing("Value loss and explained variance of the critic", plots)


def explained_variance(trainers: Several, smoothing: Smoothing = "off") -> Record:
    """1 − Var(R − V)/Var(R): the share of the returns' variance that the critic explains, against env steps."""
    plot = curves.run_curves(read_all(trainers), "explained_variance", smoothing)
    return Drawing("Explained variance of the critic", [plot])


def compare(trainers: Several, column: str = "return", smoothing: Smoothing = "off") -> Record:
    """One column of several runs against environment steps: ``compare({"a": trainer, "b": fork}, "return")``.

    ``column`` is one of ``history``, or one of ``agent_history``, of which the mean over the agents is drawn. Raises
    ``ValueError`` naming the columns for another.
    """
    runs = read_all(trainers)
    plot = curves.run_curves(runs, column, smoothing)
    return Drawing(f"{plot.title}: {names(runs)}", [plot])


def overview(trainers: Several, kind: Kind = "violin") -> Record:
    """The live panel's four figures as a record: returns, M-factors, clipping by position, KL per agent.

    Of several ``trainers`` the first one's agents are shown, and the returns of all.
    """
    return drawings.overview(read_all(trainers, m_factors=True), kind)


def diagnostics(trainers: Several) -> Record:
    """The live panel's other page: Var(M) by position, surrogate gain, entropy, std, value loss, explained variance.

    Of several ``trainers`` the first one's agents are shown, and the critics of all.
    """
    return drawings.diagnostics(read_all(trainers))


def improvement(measured: Improvement) -> Record:
    """J after each agent's update, a staircase, and each update's gain beside what its surrogate had promised.

    ``measured`` is what ``wb.improvement(trainer)`` returned; bars are 95 % intervals over episodes. Raises
    ``TypeError`` for anything else.
    """
    if not isinstance(measured, Improvement):
        raise TypeError(f"measured is {measured!r}; expected what wb.improvement(trainer) returns.")
    plots = [staircase.stairs(measured), staircase.gains(measured)]
    return Record(arrange(plots, 2), "J after each update of an iteration, and what each had promised")


def live(view: str | Callable[..., Record], trainers: Several, **options: object) -> LiveView:
    """A view that follows its trainers while they train: ``live("m_factors", trainer, kind="box")``.

    ``view`` is the name of one of the views here, or the view itself; ``options`` are what it takes. ``trainers`` is a
    trainer, a sequence, or {name: trainer}. The last expression of a cell shows it, with a record below it, which is
    what stays in the notebook. It follows whoever steps the trainers, until ``.close()``.
    """
    from workbench.jupyter.panel.live_view import LiveView

    name = getattr(view, "__name__", view)
    if name not in LIVE:
        raise unknown_name("view", name, LIVE)
    chosen = LIVE[name]
    return LiveView(chosen, trainers, options, one=chosen in OF_ONE, m_factors=chosen in WITH_M_FACTORS)


OF_ONE = (m_factors, by_position, clipped_fraction, effective_sample_size, m_variance, kl, surrogate_gain, entropy)
WITH_M_FACTORS = (m_factors, overview)
LIVE = {
    view.__name__: view for view in (returns, *OF_ONE, value_loss, explained_variance, compare, overview, diagnostics)
}


def _agent_curves(trainer: One, *columns: str, smoothing: Smoothing) -> Record:
    run = read(trainer)
    plots = [curves.agent_curves(run, column, smoothing) for column in columns]
    return Drawing(", ".join(plot.title for plot in plots), plots)


Table: TypeAlias = "Runs | Comparison"


# --- groups of runs, from a table -----------------------------------------------------------------------------------


def learning_curves(table: Table, metric: str = "return", by: Names = "method", **options: Any) -> Record:
    """The interquartile mean of each group along its runs, with a 95 % band over seeds, and the single runs, faintly.

    ``table`` is a tidy table of runs, a sweep or study, trainers, or groups of these such as
    ``{"hatrpo": [t0, t1], "mappo": [t2, t3]}``, or a ``wb.statistics.compare(…)`` already; ``options`` are those of
    ``compare``. One panel a task; where scores are normalised, all tasks together come first.
    """
    comparison = _compared(table, metric, by, options)
    plots = comparisons.learning_curves(comparison)
    return _compared_record("interquartile mean by environment steps", comparison, plots, comparison.curve_notes)


def performance_profiles(
    table: Table,
    metric: str = "return",
    by: Names = "method",
    thresholds: Sequence[float] | None = None,
    **options: Any,
) -> Record:
    """F(τ) = the share of a group's runs that score more than τ, with a 95 % band over seeds.

    A group whose profile lies above another's everywhere is better at every level. As for ``learning_curves``.
    """
    comparison = _compared(table, metric, by, options)
    plots = comparisons.performance_profiles(comparison, thresholds)
    return _compared_record("performance profiles", comparison, plots, comparison.profile_notes)


def intervals(table: Table, metric: str = "return", by: Names = "method", **options: Any) -> Record:
    """Point and bar: each group's interquartile mean and its 95 % interval over seeds; dots: the seeds themselves.

    Where scores are normalised, the optimality gap stands beside it. As for ``learning_curves``.
    """
    comparison = _compared(table, metric, by, options)
    plots = comparisons.intervals(comparison)
    return _compared_record("interquartile mean", comparison, plots, comparison.summary_notes, rows=True)


def probability_of_improvement(
    table: Table,
    metric: str = "return",
    by: Names = "method",
    pairs: Sequence[tuple[str, str]] | None = None,
    **options: Any,
) -> Record:
    """Point and bar: P(X > Y), the chance that a run of X beats a run of Y on a task drawn at random.

    ``pairs`` of groups; by default each with each that comes after it. As for ``learning_curves``.
    """
    comparison = _compared(table, metric, by, options)
    plots = [comparisons.probability_of_improvement(comparison, pairs)]
    return _compared_record("probability of improvement", comparison, plots, comparison.improvement_notes, rows=True)


def paired_differences(
    table: Table, baseline: str, metric: str = "return", by: Names = "method", **options: Any
) -> Record:
    """Point and bar: each group's difference to a baseline, seed by seed; dots: the pairs themselves.

    For forks, which share their parent's past and are no independent runs; ``seed`` is the parent's. As for
    ``learning_curves``.
    """
    comparison = _compared(table, metric, by, options)
    plots = comparisons.paired_differences(comparison, baseline)
    return _compared_record(f"difference to {baseline}", comparison, plots, comparison.paired(baseline).how, rows=True)


def _compared(table: Table, metric: str, by: Names, options: Spec) -> Comparison:
    if isinstance(table, Comparison):
        if options:
            raise TypeError(f"{', '.join(options)}: a comparison is made already; give them to compare() instead.")
        return table
    return compare_groups(table, metric, by, **options)


def _compared_record(
    what: str, comparison: Comparison, plots: list[Plot], how: Sequence[str], rows: bool = False
) -> Record:
    """A record of panels, two side by side, with what they rest on below."""
    height = comparisons.rows_height(plots) if rows else look.PANEL_HEIGHT
    text = f"{comparison.selection.metric.replace('_', ' ').capitalize()}, {what}: {', '.join(comparison.groups)}"
    return Drawing(text, plots, min(len(plots), 2), height, how)
