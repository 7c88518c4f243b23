"""Task metrics of exported graphs over a labelled split."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection

from export.samples import input_spec
from export.source import Source
from mtl_core.data.batch import Batch, collate
from mtl_core.data.dataset import Split, SplitDataset
from mtl_core.errors import ArgumentError
from mtl_core.modules.objective import label_mask
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName

Array: TypeAlias = NDArray[Any]
Predict: TypeAlias = Callable[[Mapping[str, Array]], Mapping[TaskName, Array]]
"""From inputs (B, ...) by name to activated predictions (B, ...) by task."""

MetricTable: TypeAlias = dict[TaskName, dict[str, float]]
"""Value of every metric by task."""


def evaluate(
    predict: Predict,
    source: Source,
    limit: int | None = None,
    *,
    split: Split = "val",
    batch: int = 8,
) -> MetricTable:
    """Metrics of predictions on a split of the source's data.

    Args:
        predict: raw calls of graphs, such as `export.parity.runner` or ``Predictor.run``.
        source: with data.
        limit: at most so many samples, spread over the split; None: all.
        split: to score.
        batch: samples that go through a graph at once.

    Returns:
        By task and metric; a task without labels among the samples, or a metric that is undefined
        on them, is left out.

    Raises:
        ArgumentError: the source has no data, or `limit` is below 1.
    """
    if source.data is None:
        raise ArgumentError("source", "come with its data module to be scored", None)
    if limit is not None and limit < 1:
        raise ArgumentError("limit", "be at least 1", limit)
    spec = input_spec(source)
    held = source.data.prepared(split)
    scored: dict[TaskName, MetricCollection] = {}
    for part in batches(held, spread(len(held), limit), batch):
        for name, values in predict(spec.arrays(part["inputs"])).items():
            if name in part["targets"]:
                task = source.tasks[name]
                metrics = scored.get(name) or MetricCollection(dict(task.metrics()))
                if _add(task, name, metrics, torch.from_numpy(np.array(values)), part):
                    scored[name] = metrics
    return {name: _computed(metrics) for name, metrics in scored.items()}


def spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` indices, evenly over 0..count-1.

    >>> spread(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def batches(split: SplitDataset, indices: Sequence[int], size: int) -> Iterator[Batch]:
    """Batches of some samples; what cannot be read follows the data module's ``on_error``.

    Args:
        split: of a data module.
        indices: of the samples.
        size: of a batch.
    """
    for start in range(0, len(indices), size):
        fetched = [split[i] for i in indices[start : start + size]]
        for item in fetched:
            if item.error is not None:
                raise item.error
        samples = [item.value for item in fetched if item.value is not None]
        if samples:
            yield collate(samples)


def _add(
    task: Task, name: TaskName, metrics: MetricCollection, activated: Tensor, batch: Batch
) -> bool:
    """Score the labelled samples of a batch; whether there are any."""
    if type(task).score is Task.score and type(task).update is not Task.update:
        rule = "override score() beside update(), for activated predictions to be scored"
        raise ArgumentError(f"task {name}", rule, type(task).__name__)
    target = batch["targets"][name]
    mask = label_mask(task, name, batch)
    rows = mask.flatten(1).any(1) if mask.ndim > 1 else mask
    if not bool(rows.any()):
        return False
    if task.dense and activated.shape[-2:] != target.shape[-2:]:
        flat = activated.ndim == 3
        resized = task.match(activated.unsqueeze(1) if flat else activated, target)
        activated = resized.squeeze(1) if flat else resized
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchmetrics")
        task.score(metrics, activated[rows].float(), target[rows], mask[rows])
    return True


def _computed(metrics: MetricCollection) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchmetrics")
        values = {key: float(value) for key, value in metrics.compute().items()}
    return {key: value for key, value in values.items() if not math.isnan(value)}
