"""Statistics of sweeps that one can trust: the seed is the unit, and every table says how it was made.

    comparison = wb.statistics.compare(table, "return", by="method")   # a tidy table: one row a run and point
    comparison.summary()        interquartile mean with interval, by task and group
    comparison.curves()         sample efficiency
    comparison.profiles()       performance profiles
    comparison.improvement()    probability of improvement
    comparison.paired("parent") differences to a baseline, seed by seed
    comparison.protocol()       how the standardised protocol is met

The equations are pure functions of arrays: ``interquartile_mean``, ``optimality_gap``, ``performance_profile``,
``probability_of_improvement``, ``bootstrap``. ``docs/statistics.md`` says when to use which.
"""

from workbench.statistics.comparison import Comparison, Curve, Profile, compare
from workbench.statistics.estimates import (
    Estimate,
    bootstrap,
    bootstrap_improvement,
    interquartile_mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from workbench.statistics.exchange import export_results, read_results
from workbench.statistics.normalisation import Normalisation, published
from workbench.statistics.protocol import COOPERATIVE, Protocol, absolute_metric
from workbench.statistics.report import Report
from workbench.statistics.selection import Selection, Series, select

__all__ = [
    "COOPERATIVE",
    "Comparison",
    "Curve",
    "Estimate",
    "Normalisation",
    "Profile",
    "Protocol",
    "Report",
    "Selection",
    "Series",
    "absolute_metric",
    "bootstrap",
    "bootstrap_improvement",
    "compare",
    "export_results",
    "interquartile_mean",
    "optimality_gap",
    "performance_profile",
    "probability_of_improvement",
    "published",
    "read_results",
    "select",
]
