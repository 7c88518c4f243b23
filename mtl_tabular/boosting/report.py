"""What a trained R-MTGB says of its tasks and features."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_tabular.boosting.additive import AdditiveModel
from mtl_tabular.boosting.blocks import RowSet
from mtl_tabular.boosting.objectives import Loss
from mtl_tabular.boosting.reduce import Reduce, alone, task_rows

STAGES = ("intercept", "shared", "groups", "own")


def task_report(
    model: AdditiveModel,
    loss: Loss,
    names: NDArray[Any],
    held: RowSet | None,
    reduce: Reduce = alone,
) -> pd.DataFrame:
    """One row a task: its rows, its outlier score, and what every block does for it.

    Args:
        model: trained.
        loss: of a row.
        names: (T,) tasks.
        held: held-out rows, None where there are none.
        reduce: sums over all processes, see `Boosting`.

    Returns:
        Index ``task``; ``rows`` trained on, ``outlier_score`` (share of all but the first group),
        ``held_out`` rows, mean held-out loss ``loss_intercept``, ``loss_shared``, ``loss_groups``
        and ``loss_own`` with the blocks added one after the other, and ``helps``: the block whose
        adding lowers the loss most, ``none`` where no block lowers it. Losses are NaN and ``helps``
        is empty for tasks without held-out rows.
    """
    frame = pd.DataFrame(
        {"rows": model.rows, "outlier_score": 1 - model.shares[:, 0], "held_out": 0},
        index=pd.Index(names, name="task"),
    )
    losses = np.full((model.count, len(STAGES)), np.nan)
    if held is not None:
        margins = model.margins(held, held.tasks)
        share = model.row_shares(held.tasks)
        scores = np.broadcast_to(model.intercept, margins.shared.shape)
        grouped = np.einsum("ng,gnk->nk", share, margins.groups)
        weights = reduce(np.bincount(held.tasks, held.weights, model.count).astype(float))
        frame["held_out"] = task_rows(held.tasks, model.count, reduce)
        for i, added in enumerate((np.zeros_like(scores), margins.shared, grouped, margins.own)):
            scores = scores + added
            values = loss.value(scores, held.targets) * held.weights
            total = reduce(np.bincount(held.tasks, values, model.count).astype(float))
            np.divide(total, weights, out=losses[:, i], where=weights > 0)
    for i, stage in enumerate(STAGES):
        frame[f"loss_{stage}"] = losses[:, i]
    gains = losses[:, :-1] - losses[:, 1:]
    known = ~np.isnan(gains).any(1)
    best = np.where(known, np.nan_to_num(gains).argmax(1), 0)
    top = np.take_along_axis(gains, best[:, None], 1)[:, 0]
    helps = np.array(STAGES[1:], dtype=object)[best]
    helps[~(top > 0)] = "none"
    helps[~known] = ""
    frame["helps"] = helps
    return frame


def block_gains(model: AdditiveModel, features: list[str]) -> pd.DataFrame:
    """Total gain of the splits by feature and block, as shares of the sum over all blocks.

    Args:
        model: trained.
        features: names of all features.

    Returns:
        Index ``feature``; columns ``shared``, ``group_0``.. and ``own`` (all task blocks together).
    """
    count = len(features)
    columns = {"shared": model.shared.gains(count)}
    for g, block in enumerate(model.groups):
        columns[f"group_{g}"] = block.gains(count)
    columns["own"] = model.own.gains(count).sum(1)
    frame = pd.DataFrame(columns, index=pd.Index(features, name="feature"))
    total = float(frame.to_numpy().sum())
    return frame / total if total > 0 else frame


def task_gains(model: AdditiveModel, features: list[str], names: NDArray[Any]) -> pd.DataFrame:
    """Gain per training row by feature and task, a task's column as shares of its sum.

    Shared splits count alike for all tasks, those of a group by the task's share of the group, and
    those of the task block for their task.

    Args:
        model: trained.
        features: names of all features.
        names: (T,) tasks.

    Returns:
        Index ``feature``, one column a task.
    """
    count, rows = len(features), float(model.rows.sum())
    common = np.repeat(model.shared.gains(count)[:, None] / rows, model.count, 1)
    for g, block in enumerate(model.groups):
        common += block.gains(count)[:, None] * model.shares[None, :, g] / rows
    gains = common + model.own.gains(count) / np.maximum(model.rows, 1)
    totals = gains.sum(0)
    gains = np.divide(gains, totals, out=np.zeros_like(gains), where=totals > 0)
    return pd.DataFrame(gains, index=pd.Index(features, name="feature"), columns=names)


def plot_task_scores(report: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Outlier scores of all tasks in rising order, as dots whose area grows with the task's rows.

    Args:
        report: of `task_report`.
        ax: to draw on; None makes a figure.
    """
    if ax is None:
        ax = Figure(figsize=(max(4.0, 0.2 * len(report)), 3.2), layout="constrained").subplots()
    ordered = report.sort_values("outlier_score", kind="stable")
    places = np.arange(len(ordered))
    area = 15 + 85 * ordered["rows"].to_numpy() / max(1, int(ordered["rows"].max()))
    outlying = ordered["outlier_score"].to_numpy() > 0.5
    ax.scatter(places, ordered["outlier_score"], s=area, c=np.where(outlying, "C3", "C0"))
    ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle="--")
    ax.set(ylim=(-0.02, 1.02), xlabel="task", ylabel="outlier score")
    if len(ordered) <= 60:
        ax.set_xticks(places, [str(name) for name in ordered.index], rotation=90)
    return ax
