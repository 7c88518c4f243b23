"""Sweeps: Optuna over dotted keys of any config, one process a trial, resumable at any point.

The files that import Optuna (extra ``sweep``) are imported by name, so that a training run which
only reports its progress does not need it.
"""

from mtl_core.sweep.plan import Objective, Plan
from mtl_core.sweep.progress import Progress
from mtl_core.sweep.space import Choice, Number, Space

__all__ = ["Choice", "Number", "Objective", "Plan", "Progress", "Space"]
