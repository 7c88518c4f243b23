"""Sums over the processes that train one model together."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mtl_tabular.boosting.objectives import Floats, Loss

Reduce: TypeAlias = Callable[[Floats], Floats]
"""Sums an array over all processes that train one model together."""


def alone(sums: Floats) -> Floats:
    """The sums of one process, which are all there are."""
    return sums


def common_intercept(
    loss: Loss, targets: NDArray[Any], weights: Floats, *, numeric: bool, reduce: Reduce = alone
) -> Floats:
    """The constant score (K,) of least loss over all processes' rows.

    Args:
        loss: of a row.
        targets: (n,) of this process, numbers or classes from 0.
        weights: (n,).
        numeric: whether targets are numbers.
        reduce: sums over processes.
    """
    if numeric:
        total, mass = reduce(np.array([targets @ weights, weights.sum()]))
        return loss.intercept(np.array([total / mass]), np.ones(1))
    K = max(2, loss.outputs)
    return loss.intercept(np.arange(K), reduce(np.bincount(targets, weights, K).astype(np.float64)))


def task_rows(tasks: NDArray[np.int64], count: int, reduce: Reduce = alone) -> NDArray[np.int64]:
    """Rows (T,) of every task in all processes.

    Args:
        tasks: (n,) of this process, in 0..T-1.
        count: T.
        reduce: sums over processes.
    """
    return reduce(np.bincount(tasks, minlength=count).astype(np.float64)).astype(np.int64)


def balanced_weights(
    weights: Floats, tasks: NDArray[np.int64], count: int, reduce: Reduce = alone
) -> Floats:
    """Weights (n,) with which every task that has rows weighs the same; their sum stays.

    Args:
        weights: (n,) positive.
        tasks: (n,) of this process, in 0..T-1.
        count: T.
        reduce: sums over processes.
    """
    sums = reduce(np.bincount(tasks, weights, count).astype(np.float64))
    share = sums.sum() / np.count_nonzero(sums)
    balanced: Floats = weights * share / sums[tasks]
    return balanced
