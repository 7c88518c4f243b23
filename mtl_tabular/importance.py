"""Which columns matter to which task: permutation importance."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from mtl_core.errors import ArgumentError
from mtl_core.types import Predictions, TaskName
from mtl_tabular.estimators import TableEstimator
from mtl_tabular.metrics.primary import primary_score
from mtl_tabular.networks import TableNetwork
from mtl_tabular.tasks import TargetColumn


def permutation_importance(
    model: TableNetwork | TableEstimator,
    X: Any,
    y: Any,
    *,
    tasks: Sequence[TaskName] | None = None,
    repeats: int = 10,
    confidence: float = 0.95,
    batch_size: int = 8192,
    seed: int = 0,
) -> pd.DataFrame:
    """How much worse every task's primary metric gets when one feature is shuffled over the rows.

    Breiman, "Random Forests", 2001, section 10, for any metric and per task. One shuffle serves all
    tasks, so a network runs once a feature and repeat. Measure on rows that were not trained on.
    Features that carry the same information share their importance: each alone may show none.

    Args:
        model: a fitted estimator, or a network, which is then run where it is, as it is, in
            evaluation mode.
        X: N rows: what the estimator takes, or a pandas frame with the columns of the network's
            schema.
        y: their labels: what the estimator takes, or for a network a frame or mapping with each
            task's column (`TargetColumn.column`, otherwise the task's name). Missing ones are left
            out.
        tasks: names, None for all.
        repeats: shuffles of every feature, at least 2.
        confidence: of the intervals, in (0, 1).
        batch_size: rows that are predicted at once.
        seed: of the shuffles.

    Returns:
        A frame of one row per task and feature: ``task``, ``feature``, ``metric``, ``baseline``
        (the score of the rows as they are), ``importance`` (mean loss of score, positive where the
        feature helps, in the metric's unit), ``std`` over repeats, ``low`` and ``high``: Student's
        interval of the mean. The interval covers the randomness of the shuffles, not that of the
        rows. Within a task the most important feature comes first. NaN where the metric is
        undefined.

    Raises:
        ArgumentError: a number is out of range, or a task has no labels in y.
    """
    if repeats < 2:
        raise ArgumentError("repeats", "be at least 2", repeats)
    if not 0 < confidence < 1:
        raise ArgumentError("confidence", "lie in (0, 1)", confidence)
    if batch_size < 1:
        raise ArgumentError("batch_size", "be at least 1", batch_size)
    network, inputs, labels = _prepare(model, X, y)
    chosen = network.select(tasks)
    targets = {name: _encoded(network, name, labels) for name in chosen}
    rows = len(next(iter(inputs.values())))
    order = np.stack([np.random.default_rng((seed, r)).permutation(rows) for r in range(repeats)])
    shuffles = torch.from_numpy(order)
    device = next(network.parameters()).device
    run = partial(_run, network, chosen, inputs, batch_size, device)
    baseline = _scores(network, run(), targets)
    records = []
    for k, feature in enumerate(network.schema.names):
        losses: dict[TaskName, list[float]] = {name: [] for name in chosen}
        shuffled = run(feature=k, shuffles=shuffles)
        for r in range(repeats):
            part = {n: p[r * rows : (r + 1) * rows] for n, p in shuffled.items()}
            for name, score in _scores(network, part, targets).items():
                losses[name].append(baseline[name] - score)
        for name in chosen:
            task = network.tasks[name]
            drop = np.array(losses[name])
            drop = drop if task.higher_is_better()[task.primary] else -drop
            mean, std = float(drop.mean()), float(drop.std(ddof=1))
            reach = float(stats.t.ppf((1 + confidence) / 2, repeats - 1)) * std / repeats**0.5
            records.append(
                (name, feature, task.primary, baseline[name], mean, std, mean - reach, mean + reach)
            )
    columns = ["task", "feature", "metric", "baseline", "importance", "std", "low", "high"]
    frame = pd.DataFrame(records, columns=columns)
    frame["task"] = pd.Categorical(frame["task"], categories=list(chosen), ordered=True)
    frame = frame.sort_values(["task", "importance"], ascending=[True, False], kind="stable")
    return frame.astype({"task": object}).reset_index(drop=True)


def _prepare(
    model: TableNetwork | TableEstimator, X: Any, y: Any
) -> tuple[TableNetwork, dict[str, NDArray[Any]], Mapping[TaskName, Any]]:
    """The network, its inputs and the labels by task."""
    if isinstance(model, TableEstimator):
        inputs, labels = model.encoded(X, y)
        return model.network_, inputs, labels
    found = {}
    for name, task in model.tasks.items():
        column = (task.column if isinstance(task, TargetColumn) else "") or name
        if column in y:
            found[name] = y[column]
    return model, model.schema.encode(X), found


def _encoded(
    network: TableNetwork, name: TaskName, labels: Mapping[TaskName, Any]
) -> tuple[Tensor, Tensor]:
    """Targets of the labelled rows of a task, and which rows these are."""
    task = network.tasks[name]
    if name not in labels:
        raise ArgumentError("y", f"hold the labels of task {name!r}", sorted(labels))
    if not isinstance(task, TargetColumn):
        raise ArgumentError("tasks", f"be columns: {name!r} is none", type(task).__name__)
    target, labelled = task.encode(name, pd.Series(labels[name]))
    if not labelled.any():
        raise ArgumentError("y", f"hold labels of task {name!r}", "none")
    rows = torch.from_numpy(labelled)
    return torch.from_numpy(target)[rows], rows


def _run(
    network: TableNetwork,
    tasks: Sequence[TaskName],
    inputs: Mapping[str, NDArray[Any]],
    batch_size: int,
    device: torch.device,
    *,
    feature: int | None = None,
    shuffles: Tensor | None = None,
) -> Predictions:
    """Raw predictions of all rows; of all rows of every repeat where a feature is shuffled."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    rows = len(next(iter(tensors.values())))
    total = rows if shuffles is None else shuffles.numel()
    categorical = len(network.schema.categorical)
    out: list[Predictions] = []
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for start in range(0, total, batch_size):
            index = torch.arange(start, min(start + batch_size, total)) % rows
            batch = {name: tensor[index] for name, tensor in tensors.items()}
            if feature is not None and shuffles is not None:
                other = shuffles.flatten()[start : start + batch_size]
                key = "categorical" if feature < categorical else "numeric"
                column = feature if feature < categorical else feature - categorical
                batch[key][:, column] = tensors[key][other, column]
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            out.append({name: p.cpu() for name, p in network(batch, tasks).items()})
    network.train(was_training)
    return {name: torch.cat([part[name] for part in out]) for name in out[0]}


def _scores(
    network: TableNetwork,
    predictions: Predictions,
    targets: Mapping[TaskName, tuple[Tensor, Tensor]],
) -> dict[TaskName, float]:
    return {
        name: primary_score(network.tasks[name], predictions[name][rows], target)
        for name, (target, rows) in targets.items()
    }
