"""What runs cost, from the rows of a table whose metrics begin with ``cost/``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mtl_core.stats import digits
from mtl_core.stats.intervals import t_interval
from mtl_core.stats.plan import ALL, SINGLE, Plan
from mtl_core.stats.table import Table

PREFIX = "cost/"
"""Begins the names of metrics that are costs."""
TITLES = {
    "cpu_seconds": "CPU seconds a run",
    "step_ms": "ms a step",
    "peak_mib": "peak memory, MiB",
    "macs": "MACs a sample",
}
"""Columns of a report by cost, in order."""


@dataclass(frozen=True)
class Column:
    """One cost of one method.

    Attributes:
        title: of the column.
        text: mean with its interval over seeds, or a dash.
    """

    title: str
    text: str


@dataclass(frozen=True)
class Cost:
    """All costs of a method.

    Attributes:
        method: its name; ``single`` is a network for each task.
        columns: those that any method has.
    """

    method: str
    columns: tuple[Column, ...]


def costs(table: Table, plan: Plan) -> list[Cost]:
    """Costs of the plan's methods, and of single-task networks; empty where none were recorded."""
    held: dict[tuple[str, str], list[float]] = {}
    for method in plan.methods:
        for key in TITLES:
            found = table.by_seed(method, ALL, f"{PREFIX}{key}", plan.split)
            held[method, key] = [
                value for seed, value in found.items() if seed is None or seed in plan.seeds
            ]
    for key in TITLES:
        held[SINGLE, key] = _single(table, plan, key)
    kept = [key for key in TITLES if any(held[m, key] for m in (*plan.methods, SINGLE))]
    level = 1 - plan.alpha
    return [
        Cost(method, tuple(Column(TITLES[k], _text(held[method, k], k, level)) for k in kept))
        for method in (*plan.methods, SINGLE)
        if any(held[method, key] for key in kept)
    ]


def _single(table: Table, plan: Plan, key: str) -> list[float]:
    """A value a seed: all tasks' networks together."""
    found = [table.by_seed(SINGLE, task, f"{PREFIX}{key}", plan.split) for task in plan.metrics]
    together: Callable[[Sequence[float]], float] = max if key == "peak_mib" else sum
    return [
        together([of_task[seed] for of_task in found])
        for seed in plan.seeds
        if all(seed in of_task for of_task in found)
    ]


def _text(values: Sequence[float], key: str, level: float) -> str:
    if not values:
        return "–"
    if key == "macs":
        return digits.count(float(np.mean(values)))
    if len(values) < 2:
        return digits.estimate(values[0], None)
    found = t_interval(values, level)
    return digits.estimate(found.estimate, found)
