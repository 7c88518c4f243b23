"""Comparisons: methods by tasks by seeds, in blocks, from a plan that was written before."""

from mtl_core.compare.comparison import Comparison
from mtl_core.compare.jobs import Job, jobs_of
from mtl_core.compare.session import Session

__all__ = ["Comparison", "Job", "Session", "jobs_of"]
