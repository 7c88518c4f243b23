"""A small long table whose last tasks contradict the rest, for tests of R-MTGB."""

import numpy as np

SMALL = {"shared_rounds": 8, "group_rounds": 12, "task_rounds": 6, "random_state": 0}


def table(rows=60, tasks=6, outliers=2, seed=0, noise=0.05):
    """X (n, 3), y (n,), task (n,); the last tasks have the opposite function."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(tasks), rows)
    X = rng.uniform(-1, 1, size=(len(task), 3))
    odd = task >= tasks - outliers
    y = np.where(odd, -1, 1) * (2 * X[:, 0] + X[:, 1] * X[:, 2]) + 0.1 * task
    return X, y + noise * rng.normal(size=len(y)), task


def classes(y, count):
    """As many classes, of equally many rows."""
    return np.digitize(y, np.quantile(y, np.linspace(0, 1, count + 1)[1:-1]))
