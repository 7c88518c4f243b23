"""Metrics of every task and group over a stage, with what was never labelled left out."""

import warnings
from collections.abc import Mapping

import torch
from torchmetrics import MeanMetric, MetricCollection

from mtl_core.data.batch import Batch
from mtl_core.modules.objective import Entry, group_index, label_mask
from mtl_core.tasks.base import Task
from mtl_core.types import Predictions, TaskName


class Scores:
    """Losses and metrics of one stage (train, val, test).

    Nothing of it enters the state dict. A task without a single label in the stage has no values.

    Args:
        tasks: records by name.
        entries: the balanced losses.
        metrics: whether task metrics are kept beside the losses.
    """

    def __init__(
        self, tasks: Mapping[TaskName, Task], entries: tuple[Entry, ...], *, metrics: bool = True
    ) -> None:
        self.tasks = dict(tasks)
        self.entries = entries
        # Plain lists, moved by `to`: nothing of this is to be found in a module tree.
        self.losses = [MeanMetric(nan_strategy="error") for _ in entries]
        self.pairs: list[tuple[TaskName, int | None]] = []
        self.metrics: list[MetricCollection] = []
        for name, task in self.tasks.items() if metrics else ():
            groups: list[int | None] = [None, *range(len(task.groups))]
            for group in groups:
                self.pairs.append((name, group))
                self.metrics.append(MetricCollection(dict(task.metrics())))
        self.seen = [MeanMetric(nan_strategy="error") for _ in self.pairs]

    def to(self, device: torch.device) -> None:
        """Bring all states to a device."""
        for metric in (*self.losses, *self.metrics, *self.seen):
            metric.to(device)

    def add_losses(self, values: Mapping[str, float], counts: Mapping[str, float]) -> None:
        """Add one batch's mean losses, weighted by the labels behind them."""
        for entry, metric in zip(self.entries, self.losses, strict=True):
            weight = counts.get(entry.name, 0.0)
            metric.update(values.get(entry.name, 0.0) if weight else 0.0, weight)

    def add_predictions(self, predictions: Predictions, batch: Batch) -> None:
        """Add one batch's labelled samples to the metrics."""
        for i, (name, group) in enumerate(self.pairs):
            if name not in predictions or name not in batch["targets"]:
                continue
            task, target = self.tasks[name], batch["targets"][name]
            mask = label_mask(task, name, batch)
            rows = mask.flatten(1).any(1) if mask.ndim > 1 else mask
            if group is not None:
                rows = rows & (group_index(task, name, batch) == group)
            count = int(rows.sum())
            if not count:
                continue
            prediction = task.match(predictions[name], target)
            if count < len(rows):
                prediction, target, mask = prediction[rows], target[rows], mask[rows]
            collection = self.metrics[i]
            with torch.autocast(prediction.device.type, enabled=False):
                task.update(collection, prediction.float(), target, mask)
            self.seen[i].update(1.0, count)

    def compute(self) -> dict[str, float]:
        """Values by ``task/metric``, ``task/group/metric`` and ``task/loss``, over all ranks."""
        values: dict[str, float] = {}
        with warnings.catch_warnings():
            # A rank may hold no label of a task that others do; torchmetrics warns before it merges
            # them.
            warnings.filterwarnings("ignore", message=r"The ``compute`` method of metric")
            for entry, metric in zip(self.entries, self.losses, strict=True):
                loss = float(metric.compute())
                if loss == loss:  # not NaN: labelled somewhere
                    values[f"{entry.name}/loss"] = loss
            for (name, group), collection, seen in zip(
                self.pairs, self.metrics, self.seen, strict=True
            ):
                if float(seen.compute()) != 1.0:
                    continue
                label = name if group is None else f"{name}/{self.tasks[name].groups[group]}"
                for key, value in collection.compute().items():
                    if not torch.isnan(value):  # undefined on these labels, such as R² of one
                        values[f"{label}/{key}"] = float(value)
        return values

    def reset(self) -> None:
        """Start anew."""
        for mean in (*self.losses, *self.seen):
            mean.reset()
        for collection in self.metrics:
            collection.reset()
