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
    return loss.intercept(np.arange(K), reduce(np.bincount(targets, weights, K)))


def task_rows(tasks: NDArray[np.int64], count: int, reduce: Reduce = alone) -> NDArray[np.int64]:
    """Rows (T,) of every task in all processes.

    Args:
        tasks: (n,) of this process, in 0..T-1.
        count: T.
        reduce: sums over processes.
    """
    return reduce(np.bincount(tasks, minlength=count).astype(np.float64)).astype(np.int64)
