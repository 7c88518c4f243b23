"""Statistics of comparisons: intervals, tests, letters, posteriors, e-processes and power.

NumPy arrays in, small frozen records out; NumPy and SciPy only.
"""

from mtl_core.stats.bayes import (
    bayesian_bootstrap,
    better_rate,
    correlated_t,
    graded,
    graded_posterior,
    paired_outcomes,
    rate_posterior,
)
from mtl_core.stats.bootstrap import bca, bca_paired, two_level
from mtl_core.stats.bounded import BoundedProcess, confidence_sequence
from mtl_core.stats.corrections import adjust_pairs, bonferroni, holm, separated
from mtl_core.stats.eprocess import (
    EProcess,
    SignProcess,
    TwoDirections,
    TwoSampleProcess,
    reject,
)
from mtl_core.stats.gains import delta_m_interval, task_gain_intervals
from mtl_core.stats.intervals import clopper_pearson, t_interval, wilson
from mtl_core.stats.layout import Components, seeds_by_items, variance_components
from mtl_core.stats.letters import READABLE_LETTERS, compact_letters
from mtl_core.stats.pairwise import (
    barnard,
    friedman,
    mcnemar,
    mean_ranks,
    paired_t,
    pairwise_p_values,
    sign_test,
    welch,
    wilcoxon_or_t,
)
from mtl_core.stats.pooling import Pooled, partial_pooling
from mtl_core.stats.power import power, seeds_needed, smallest_effect
from mtl_core.stats.records import Chances, Interval, Test

__all__ = [
    "READABLE_LETTERS",
    "BoundedProcess",
    "Chances",
    "Components",
    "EProcess",
    "Interval",
    "Pooled",
    "SignProcess",
    "Test",
    "TwoDirections",
    "TwoSampleProcess",
    "adjust_pairs",
    "barnard",
    "bayesian_bootstrap",
    "bca",
    "bca_paired",
    "better_rate",
    "bonferroni",
    "clopper_pearson",
    "compact_letters",
    "confidence_sequence",
    "correlated_t",
    "delta_m_interval",
    "friedman",
    "graded",
    "graded_posterior",
    "holm",
    "mcnemar",
    "mean_ranks",
    "paired_outcomes",
    "paired_t",
    "pairwise_p_values",
    "partial_pooling",
    "power",
    "rate_posterior",
    "reject",
    "seeds_by_items",
    "seeds_needed",
    "separated",
    "sign_test",
    "smallest_effect",
    "t_interval",
    "task_gain_intervals",
    "two_level",
    "variance_components",
    "welch",
    "wilcoxon_or_t",
    "wilson",
]
