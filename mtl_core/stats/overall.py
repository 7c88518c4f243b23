"""All tasks together: each weighs 1/T by construction, and no run is thrown away for balance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_core.errors import ArgumentError
from mtl_core.stats.analysis import (
    Cell,
    Scores,
    TaskResult,
    chances_of,
    letters_of,
    pair_matrix,
    pair_test_name,
)
from mtl_core.stats.checks import Array
from mtl_core.stats.corrections import adjust_pairs
from mtl_core.stats.gains import delta_m_interval, task_gain_intervals
from mtl_core.stats.intervals import t_quantile
from mtl_core.stats.pairwise import friedman, mean_ranks, pairwise_p_values, sign_test
from mtl_core.stats.plan import ALL, SINGLE, Plan
from mtl_core.stats.pooling import partial_pooling
from mtl_core.stats.records import Chances, Interval
from mtl_core.stats.table import Table

FEWEST_TO_POOL = 3
"""Tasks from which on the effect on a task that was not measured is predicted."""


@dataclass(frozen=True)
class Overall:
    """All tasks together, as gain in percent over a reference.

    Attributes:
        result: cells with the gain of each seed; intervals with the reference's own uncertainty.
        reference: ``single`` for Δm over single-task networks, else the baseline's name.
        reference_seeds: how many runs of the reference count.
        margin: of the gain, in percent.
        new_tasks: chances of each method against the baseline on a task that was not measured;
            empty below three tasks.
    """

    result: TaskResult
    reference: str
    reference_seeds: int
    margin: float
    new_tasks: dict[str, Chances]


@dataclass(frozen=True)
class Ranks:
    """Methods ranked in each task, on request.

    Attributes:
        methods: names, best mean rank first.
        means: mean rank of each.
        p_value: of Friedman's test that all rank alike.
        letters: of pairs by sign tests over tasks, corrected.
    """

    methods: tuple[str, ...]
    means: tuple[float, ...]
    p_value: float
    letters: dict[str, str]


def score_matrix(table: Table, plan: Plan, method: str) -> tuple[list[int], Array]:
    """Seeds for which a method has every task, and (S, T) its scores."""
    held = [
        table.by_seed(method, task, metric, plan.split) for task, metric in plan.metrics.items()
    ]
    seeds = [seed for seed in plan.seeds if all(seed in found for found in held)]
    rows = [[found[seed] for found in held] for seed in seeds]
    return seeds, np.array(rows, dtype=np.float64).reshape(len(seeds), len(held))


def overall(table: Table, plan: Plan) -> Overall | None:
    """The gain over all tasks; None where there is nothing to relate it to, or one task only.

    The reference are the single-task networks where the table has them for every task, else the
    baseline. A seed counts where it has all tasks.
    """
    chosen = _reference(table, plan)
    matrices = {m: score_matrix(table, plan, m) for m in plan.methods}
    matrices = {m: held for m, held in matrices.items() if len(held[0])}
    if chosen is None or not matrices or (len(plan.metrics) < 2 and chosen != SINGLE):
        return None
    reference_seeds, reference = score_matrix(table, plan, chosen)
    signs = _signs(table, plan)
    level, means = np.abs(reference.mean(0)), reference.mean(0)
    if (level == 0).any():
        return None
    units = level if plan.stopping.rule != "bounded" else _widths(plan)
    gains, tested = {}, {}
    for method, (seeds, matrix) in matrices.items():
        per_seed = 100 * (signs * (matrix - means) / level).mean(1)
        gains[method] = Scores(dict(zip(seeds, per_seed.tolist(), strict=True)), {})
        scaled = (signs * matrix / units).mean(1)
        tested[method] = Scores(dict(zip(seeds, scaled.tolist(), strict=True)), {})
    margin = plan.margins.get(ALL, float((100 * _margins(plan) / level).mean()))
    name = pair_test_name(plan)
    raw, could = pair_matrix(list(tested.values()), plan, 1.0, name)
    adjusted = adjust_pairs(raw, plan.correction) if len(gains) > 1 else raw
    centre = [scores.mean for scores in gains.values()]
    blank = dict.fromkeys(gains, "")
    letters = letters_of(list(gains), adjusted, plan.alpha, centre, True) if could else blank
    cells = []
    for method, scores in gains.items():
        base = gains.get(plan.baseline) if plan.baseline not in (None, method) else None
        found = None
        if method != chosen:
            pair = (matrices[method], (reference_seeds, reference))
            found = _gain_interval(*pair, signs, 1 - plan.alpha)
        cells.append(
            Cell(
                method=method,
                estimate=scores.mean,
                interval=found,
                values=tuple(scores.by_seed.values()),
                letters=letters[method],
                letters_everywhere="",
                chances=None if base is None else chances_of(scores, base, 1.0, margin),
                seeds=len(scores.by_seed),
                items=0,
            )
        )
    order = sorted(range(len(cells)), key=lambda i: centre[i], reverse=True)
    result = TaskResult(
        ALL,
        "gain",
        True,
        tuple(cells[i] for i in order),
        adjusted[np.ix_(order, order)],
        "seeds" if any(cell.interval for cell in cells) else "nothing",
        name,
    )
    new = _new_tasks(table, plan, margin)
    return Overall(result, chosen, len(reference_seeds), margin, new)


def _reference(table: Table, plan: Plan) -> str | None:
    for name in (SINGLE, plan.baseline):
        if name is not None and all(
            table.by_seed(name, task, metric, plan.split) for task, metric in plan.metrics.items()
        ):
            return name if len(score_matrix(table, plan, name)[0]) else None
    return None


def _signs(table: Table, plan: Plan) -> Array:
    higher = [table.higher_is_better(task, metric) for task, metric in plan.metrics.items()]
    return np.where(higher, 1.0, -1.0)


def _margins(plan: Plan) -> Array:
    return np.array([plan.margins[metric] for metric in plan.metrics.values()], dtype=np.float64)


def _widths(plan: Plan) -> Array:
    return np.array([plan.stopping.widths[m] for m in plan.metrics.values()], dtype=np.float64)


def _gain_interval(
    one: tuple[list[int], Array], two: tuple[list[int], Array], signs: Array, level: float
) -> Interval | None:
    """Interval of the gain with both sides' uncertainty; None below two seeds of either."""
    (seeds, scores), (others, reference) = one, two
    if len(seeds) < 2 or len(others) < 2:
        return None
    try:
        return delta_m_interval(scores, reference, signs > 0, level, paired=seeds == others)
    except ArgumentError:  # a reference whose mean is 0 without one of its seeds
        return None


def _new_tasks(table: Table, plan: Plan, margin: float) -> dict[str, Chances]:
    """Partial pooling of the gains over the baseline, in percent."""
    if plan.baseline is None or len(plan.metrics) < FEWEST_TO_POOL:
        return {}
    base_seeds, base = score_matrix(table, plan, plan.baseline)
    found = {}
    for method in plan.methods:
        seeds, scores = score_matrix(table, plan, method)
        if method == plan.baseline or min(len(seeds), len(base_seeds)) < 2:
            continue
        higher, paired = _signs(table, plan) > 0, seeds == base_seeds
        level = 1 - plan.alpha
        terms = task_gain_intervals(scores, base, higher, level, paired=paired)
        freedom = len(seeds) - 1 if paired else min(len(seeds), len(base_seeds)) - 1
        errors = [term.width / 2 / t_quantile(freedom, level) for term in terms]
        if min(errors) > 0:
            pooled = partial_pooling([t.estimate for t in terms], errors, margin, level)
            found[method] = pooled.new_task_chances
    return found


def ranks(results: Sequence[TaskResult], plan: Plan) -> Ranks:
    """Friedman's test over tasks, and pairs by sign tests.

    Raises:
        ArgumentError: fewer than two tasks or three methods have scores in all tasks.
    """
    names = [m for m in plan.methods if all(r.cell(m) is not None for r in results)]
    rows = []
    for result in results:
        sign = 1.0 if result.higher_is_better else -1.0
        held = {cell.method: sign * cell.estimate for cell in result.cells}
        rows.append([held[name] for name in names])
    if len(rows) < 2 or len(names) < 3:
        rule = "have at least 2 tasks and 3 methods with scores in all of them"
        raise ArgumentError("ranks", rule, (len(rows), len(names)))
    means = mean_ranks(rows)
    p = adjust_pairs(pairwise_p_values(rows, sign_test), plan.correction)
    order = np.argsort(means, kind="stable").tolist()
    return Ranks(
        tuple(names[i] for i in order),
        tuple(float(means[i]) for i in order),
        friedman(rows).p_value,
        letters_of(names, p, plan.alpha, means.tolist(), higher=False),
    )
