"""Rows to hold out, spread evenly over tasks and targets."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def hold_out(
    tasks: NDArray[np.int64], targets: NDArray[Any], *, fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Mask (n,) of held-out rows: every task gives its share, within it every class does.

    Rows are ordered by task, target and chance, and every 1/fraction-th is taken. A task always
    keeps at least one row for training.

    Args:
        tasks: (n,) integers.
        targets: (n,) classes, or zeros for targets that are numbers.
        fraction: share to hold out, in (0, 0.5].
        seed: of the chance.

    >>> int(hold_out(np.zeros(100, int), np.arange(100), fraction=0.1, seed=0).sum())
    10
    """
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(tasks)), targets, tasks))
    steps = np.floor(np.arange(len(tasks) + 1) * fraction + rng.random())
    held = np.zeros(len(tasks), dtype=bool)
    held[order] = np.diff(steps) > 0
    left = np.unique(tasks[~held])
    return held & np.isin(tasks, left)
