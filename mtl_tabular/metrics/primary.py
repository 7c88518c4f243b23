"""A task's primary metric of one set of predictions, without a training run around it."""

import warnings

from torch import Tensor
from torchmetrics import MetricCollection

from mtl_core.tasks import Task


def primary_score(task: Task, prediction: Tensor, target: Tensor) -> float:
    """The metric `Task.primary` of labelled rows, NaN where they leave it undefined.

    Args:
        task: the record.
        prediction: (N, C) raw output of the network.
        target: (N,) as the loss takes it.

    Example:
        >>> import torch
        >>> from mtl_tabular.tasks import BinaryTarget
        >>> logits = torch.tensor([[-2.0], [0.5], [1.0]])
        >>> primary_score(BinaryTarget(), logits, torch.tensor([0.0, 0.0, 1.0]))
        1.0
    """
    if not len(target):
        return float("nan")
    metrics = MetricCollection({task.primary: task.metrics()[task.primary]}).to(prediction.device)
    task.update(metrics, prediction.float(), target, task.valid(target))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The ``compute`` method of metric")
        return float(metrics.compute()[task.primary])
