"""Tasks of every modality. Dense tasks are in `mtl_vision.tasks`."""

from mtl_core.tasks.base import Task, check_tasks, reduce_loss
from mtl_core.tasks.classification import Classification
from mtl_core.tasks.multilabel import MultiLabel
from mtl_core.tasks.regression import Regression

__all__ = ["Classification", "MultiLabel", "Regression", "Task", "check_tasks", "reduce_loss"]
