"""Numbers about several tasks at once: gain over single-task runs, conflict of gradients."""

from mtl_core.metrics.conflict import (
    condition_number,
    conflict_rate,
    cosine_similarity,
    magnitude_similarity,
)
from mtl_core.metrics.delta_m import delta_m, relative_gain, task_gains

__all__ = [
    "condition_number",
    "conflict_rate",
    "cosine_similarity",
    "delta_m",
    "magnitude_similarity",
    "relative_gain",
    "task_gains",
]
