"""Callbacks that report on a run; balancing methods are in `mtl_core.balancing`."""

from mtl_core.callbacks.curves import Curves
from mtl_core.callbacks.gradient_monitor import GradientMonitor
from mtl_core.callbacks.prediction_writer import PredictionWriter
from mtl_core.callbacks.random_state import RandomState
from mtl_core.callbacks.results import Results
from mtl_core.callbacks.routing_monitor import RoutingMonitor
from mtl_core.callbacks.task_table import TaskTable

__all__ = [
    "Curves",
    "GradientMonitor",
    "PredictionWriter",
    "RandomState",
    "Results",
    "RoutingMonitor",
    "TaskTable",
]
