"""Stopping a comparison early: e-processes of every method against the baseline, seed by seed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mtl_core.stats.bounded import BoundedProcess
from mtl_core.stats.checks import Array
from mtl_core.stats.eprocess import EProcess, SignProcess, TwoDirections, Verdict
from mtl_core.stats.plan import ALL, Plan
from mtl_core.stats.table import Table


@dataclass(frozen=True)
class Standing:
    """Where a method stands against the baseline.

    Attributes:
        method: its name.
        task: its name, or ``all``.
        verdict: so far.
        better: largest e-value for being better.
        worse: largest e-value for being worse.
        threshold: that an e-value has to reach.
    """

    method: str
    task: str
    verdict: Verdict
    better: float
    worse: float
    threshold: float


def process_of(plan: Plan, width: float, comparisons: int) -> Callable[[float], EProcess]:
    """Maker of the plan's e-process at a given alpha."""
    if plan.stopping.rule == "bounded":
        return lambda alpha: BoundedProcess(alpha, comparisons=comparisons, width=width)
    return lambda alpha: SignProcess(alpha, comparisons=comparisons)


def paired_scores(
    table: Table, plan: Plan, first: str, second: str, task: str
) -> tuple[Array, Array]:
    """Scores of two methods on one task for the seeds that both have, in the plan's order.

    Signs are such that more is better.
    """
    metric = plan.metrics[task]
    sign = 1.0 if table.higher_is_better(task, metric) else -1.0
    a, b = (table.by_seed(name, task, metric, plan.split) for name in (first, second))
    both = [seed for seed in plan.seeds if seed in a and seed in b]
    return (
        sign * np.array([a[seed] for seed in both], dtype=np.float64),
        sign * np.array([b[seed] for seed in both], dtype=np.float64),
    )


def outcomes_of(table: Table, plan: Plan, method: str) -> Mapping[str, Array]:
    """What the e-processes of a method take in, by task or as ``all``: one outcome a seed.

    Tasks of one seed are not independent, so ``all`` counts a seed once: the mean over tasks of
    the differences, relative to the baseline's score on that seed (``sign``), or to the width of
    the metric's range (``bounded``).
    """
    assert plan.baseline is not None
    if plan.stopping.on == "tasks":
        found = {}
        for task in plan.metrics:
            first, second = paired_scores(table, plan, method, plan.baseline, task)
            found[task] = first - second
        return found
    by_seed: dict[int, list[float]] = {seed: [] for seed in plan.seeds}
    for task, metric in plan.metrics.items():
        sign = 1.0 if table.higher_is_better(task, metric) else -1.0
        a, b = (table.by_seed(name, task, metric, plan.split) for name in (method, plan.baseline))
        for seed in plan.seeds:
            if seed in a and seed in b:
                unit = plan.stopping.widths.get(metric, 1.0)
                if plan.stopping.rule == "sign":
                    unit = abs(b[seed]) or 1.0
                by_seed[seed].append(sign * (a[seed] - b[seed]) / unit)
    whole = [v for v in by_seed.values() if len(v) == len(plan.metrics)]
    return {ALL: np.array([np.mean(values) for values in whole])}


def standings(table: Table, plan: Plan) -> list[Standing]:
    """Where every method stands against the baseline, judged together (Bonferroni's rule).

    Args:
        table: of results; rows of other splits, metrics and methods are ignored.
        plan: with a baseline and a stopping rule other than ``none``.
    """
    others = [name for name in plan.methods if name != plan.baseline]
    tasks = [ALL] if plan.stopping.on == ALL else list(plan.metrics)
    comparisons = len(others) * len(tasks)
    found = []
    for method in others:
        outcomes = outcomes_of(table, plan, method)
        for task in tasks:
            width = 1.0 if task == ALL else plan.stopping.widths.get(plan.metrics[task], 1.0)
            make = process_of(plan, width, comparisons)
            race = TwoDirections(make, plan.alpha, sides=plan.stopping.sides)
            if len(outcomes[task]):
                race.update(outcomes[task])
            up, down = (math.exp(min(p.log_peak, 700.0)) for p in (race.better, race.worse))
            found.append(Standing(method, task, race.verdict, up, down, race.better.threshold))
    return found


def decided(table: Table, plan: Plan, blocks: int) -> bool:
    """Whether the plan allows to end after so many complete blocks."""
    if plan.stopping.rule == "none" or blocks < plan.stopping.least:
        return False
    return all(standing.verdict != "undecided" for standing in standings(table, plan))
