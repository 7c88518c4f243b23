"""Statistics of comparisons: intervals, tests, letters, posteriors, e-processes and power.

NumPy arrays in, small frozen records out; NumPy and SciPy only.
"""

from mtl_core.stats.corrections import adjust_pairs, bonferroni, holm, separated
from mtl_core.stats.gains import delta_m_interval, task_gain_intervals
from mtl_core.stats.intervals import clopper_pearson, t_interval, wilson
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
from mtl_core.stats.records import Chances, Interval, Test

__all__ = [
    "READABLE_LETTERS",
    "Chances",
    "Interval",
    "Test",
    "adjust_pairs",
    "barnard",
    "bonferroni",
    "clopper_pearson",
    "compact_letters",
    "delta_m_interval",
    "friedman",
    "holm",
    "mcnemar",
    "mean_ranks",
    "paired_t",
    "pairwise_p_values",
    "separated",
    "sign_test",
    "t_interval",
    "task_gain_intervals",
    "welch",
    "wilcoxon_or_t",
    "wilson",
]
