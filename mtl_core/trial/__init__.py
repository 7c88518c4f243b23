"""A trial: a plain command line, run in a process of its own, whose outcome is kept in a file."""

from mtl_core.trial.record import Outcome, Trial
from mtl_core.trial.runner import Runner

__all__ = ["Outcome", "Runner", "Trial"]
