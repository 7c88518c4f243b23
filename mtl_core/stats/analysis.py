"""From a table of results and a plan to what a report shows of each task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mtl_core.stats.bayes import bayesian_bootstrap, correlated_t, paired_outcomes
from mtl_core.stats.bootstrap import bca
from mtl_core.stats.checks import Array, Bools
from mtl_core.stats.corrections import adjust_pairs, bonferroni, holm
from mtl_core.stats.eprocess import TwoDirections
from mtl_core.stats.intervals import t_interval, wilson
from mtl_core.stats.layout import seeds_by_items
from mtl_core.stats.letters import compact_letters
from mtl_core.stats.pairwise import mcnemar, paired_t, wilcoxon_or_t
from mtl_core.stats.plan import Plan
from mtl_core.stats.records import Chances, Interval
from mtl_core.stats.stopping import process_of
from mtl_core.stats.table import Table

Noise: TypeAlias = Literal["seeds", "items", "seeds and items", "nothing"]
"""What differs between the values behind an interval."""


@dataclass(frozen=True)
class Scores:
    """One method's finite scores on one task.

    Attributes:
        by_seed: mean over the items of each seed.
        items: score of each item by seed; empty where items were not kept.
    """

    by_seed: dict[int | None, float]
    items: dict[int | None, dict[str, float]]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(list(self.by_seed.values())))

    def common_items(self) -> list[str]:
        """Items that every seed has."""
        held = [set(found) for found in self.items.values()]
        return sorted(set.intersection(*held)) if held else []

    def grid(self, seeds: Sequence[int | None], items: Sequence[str]) -> Array:
        """(S, n) score of each seed on each item."""
        return np.array([[self.items[s][i] for i in items] for s in seeds], dtype=np.float64)


@dataclass(frozen=True)
class Cell:
    """What is said of one method on one task, or on all.

    Attributes:
        method: its name.
        estimate: mean, with the interval where there is one.
        interval: None where nothing was repeated.
        values: one a seed.
        letters: corrected within the task; empty where nothing could be tested.
        letters_everywhere: corrected over all tasks and pairs.
        chances: against the baseline; None of the baseline itself, or where there is too little.
        seeds: how many count.
        items: test items a seed, 0 where they were not kept.
    """

    method: str
    estimate: float
    interval: Interval | None
    values: tuple[float, ...]
    letters: str
    letters_everywhere: str
    chances: Chances | None
    seeds: int
    items: int


@dataclass(frozen=True)
class TaskResult:
    """All methods on one task, or on all, best first.

    Attributes:
        task: its name, or ``all``.
        metric: that counts.
        higher_is_better: its direction.
        cells: one a method that has a score.
        p_values: (K, K) corrected within the task, in the order of `cells`.
        noise: what the intervals contain.
        test: that gave the p-values.
    """

    task: str
    metric: str
    higher_is_better: bool
    cells: tuple[Cell, ...]
    p_values: Array
    noise: Noise
    test: str

    def cell(self, method: str) -> Cell | None:
        """Of a method; None where it has no score."""
        return next((cell for cell in self.cells if cell.method == method), None)


def scores_of(table: Table, plan: Plan, method: str, task: str) -> Scores | None:
    """Scores of a method on a task; None where it has none.

    Where a table holds items and the value over all of them, intervals come from the items and
    means from both.
    """
    metric = plan.metrics[task]
    items = {s: v for s, v in table.by_item(method, task, metric, plan.split).items() if v}
    by_seed = table.by_seed(method, task, metric, plan.split)
    for seed, found in items.items():
        by_seed.setdefault(seed, float(np.mean(list(found.values()))))
    by_seed = {s: v for s, v in by_seed.items() if s is None or s in plan.seeds}
    items = {s: v for s, v in items.items() if s in by_seed}
    return Scores(by_seed, items if len(items) == len(by_seed) else {}) if by_seed else None


def interval_of(scores: Scores, level: float) -> tuple[Interval | None, Noise]:
    """Interval of the mean, and what it contains."""
    items, seeds = scores.common_items(), list(scores.by_seed)
    if len(items) >= 2 and len(seeds) >= 2:
        return seeds_by_items(scores.grid(seeds, items), level), "seeds and items"
    if len(items) >= 2:
        values = scores.grid(seeds, items)[0]
        if np.isin(values, (0, 1)).all():
            return wilson(int(values.sum()), len(values), level), "items"
        if (values == values[0]).all():
            return Interval(float(values[0]), float(values[0]), float(values[0]), level), "items"
        return bca(values, level=level), "items"
    if len(seeds) >= 2:
        return t_interval(list(scores.by_seed.values()), level), "seeds"
    return None, "nothing"


def differences(a: Scores, b: Scores) -> tuple[Array, Array | None]:
    """Of two methods: (S,) by common seed, and (n,) by common item where one seed has items."""
    seeds = [seed for seed in a.by_seed if seed in b.by_seed]
    by_seed = np.array([a.by_seed[s] - b.by_seed[s] for s in seeds], dtype=np.float64)
    if len(seeds) == 1 and a.items and b.items:
        of_a, of_b = a.items[seeds[0]], b.items[seeds[0]]
        common = [item for item in of_a if item in of_b]
        if len(common) >= 2:
            return by_seed, np.array([of_a[i] - of_b[i] for i in common], dtype=np.float64)
    return by_seed, None


def chances_of(a: Scores, b: Scores, sign: float, margin: float) -> Chances | None:
    """P(worse), P(equal) and P(better) of the first method against the second."""
    by_seed, by_item = differences(a, b)
    if len(by_seed) >= 2:
        return correlated_t(sign * by_seed, margin=margin)
    if by_item is None:
        return None
    if np.isin(by_item, (-1, 0, 1)).all() and _binary(a) and _binary(b):
        # Only who won each item counts, and that is in the differences.
        return paired_outcomes(sign * by_item > 0, sign * by_item < 0, margin)
    return bayesian_bootstrap(sign * by_item, margin)


def _binary(scores: Scores) -> bool:
    return all(v in (0, 1) for held in scores.items.values() for v in held.values())


def pair_test_name(plan: Plan, families: int = 1) -> str:
    """Which test of two methods the plan means, for seeds.

    Args:
        plan: whose methods are compared in pairs.
        families: tasks, over which the second correction goes.
    """
    if plan.stopping.rule != "none":
        return f"e-process ({plan.stopping.rule})"
    if plan.test != "auto":
        return plan.test
    pairs = families * len(plan.methods) * (len(plan.methods) - 1) // 2
    family = 1 if plan.correction == "none" else pairs
    smallest = 2.0 ** (1 - len(plan.seeds))
    return "Wilcoxon" if len(plan.seeds) >= 10 and smallest * family < plan.alpha else "paired t"


def pair_p_value(a: Scores, b: Scores, plan: Plan, width: float, name: str) -> tuple[float, bool]:
    """P-value of two methods, and whether there was anything to test."""
    by_seed, by_item = differences(a, b)
    if plan.stopping.rule != "none" and len(by_seed):
        race = TwoDirections(process_of(plan, width, 1), plan.alpha)
        race.update(by_seed)
        return min(1.0, 2 * min(race.better.p_value, race.worse.p_value)), True
    if len(by_seed) >= 2:
        test = wilcoxon_or_t if name == "Wilcoxon" else paired_t
        return test(by_seed).p_value, True
    if by_item is None:
        return 1.0, False
    if _binary(a) and _binary(b):
        return mcnemar(by_item > 0, by_item < 0).p_value, True
    return wilcoxon_or_t(by_item).p_value, True


def pair_matrix(held: Sequence[Scores], plan: Plan, width: float, name: str) -> tuple[Array, bool]:
    """(K, K) uncorrected p-values of all pairs, and whether any pair could be tested."""
    p, tested = np.ones((len(held), len(held))), False
    for i in range(len(held)):
        for j in range(i):
            p[i, j], could = pair_p_value(held[i], held[j], plan, width, name)
            p[j, i], tested = p[i, j], tested or could
    return p, tested


def letters_of(
    names: Sequence[str], p_values: Array, alpha: float, means: Sequence[float], higher: bool
) -> dict[str, str]:
    """Compact letters at corrected p-values."""
    apart: Bools = p_values <= alpha
    return compact_letters(names, apart, means, higher_is_better=higher)


def task_results(table: Table, plan: Plan) -> list[TaskResult]:
    """Every task of the plan, in its order; tasks without any score are left out."""
    names = [m for m in plan.methods if any(scores_of(table, plan, m, t) for t in plan.metrics)]
    test = pair_test_name(plan, len(plan.metrics))
    found: list[tuple[str, dict[str, Scores], Array, bool]] = []
    for task, metric in plan.metrics.items():
        held = {m: s for m in names if (s := scores_of(table, plan, m, task)) is not None}
        if held:
            width = plan.stopping.widths.get(metric, 1.0)
            found.append((task, held, *pair_matrix(list(held.values()), plan, width, test)))
    everywhere = _over_tasks([(list(held), p) for _, held, p, _ in found], plan)
    return [_result(table, plan, *parts, everywhere[i], test) for i, parts in enumerate(found)]


def _over_tasks(found: Sequence[tuple[list[str], Array]], plan: Plan) -> list[Array]:
    """Corrected over all tasks and pairs."""
    flat = [p[np.triu_indices(len(p), 1)] for _, p in found]
    whole = np.concatenate(flat) if flat else np.ones(0)
    if not len(whole):
        return [p for _, p in found]
    adjusted = adjust_row(whole, plan)
    out, at = [], 0
    for _, p in found:
        made, count = np.ones_like(p), len(p) * (len(p) - 1) // 2
        i, j = np.triu_indices(len(p), 1)
        made[i, j] = made[j, i] = adjusted[at : at + count]
        out.append(made)
        at += count
    return out


def adjust_row(p_values: Array, plan: Plan) -> Array:
    """A row of p-values corrected as the plan says."""
    rules = {"holm": holm, "bonferroni": bonferroni}
    return rules[plan.correction](p_values) if plan.correction in rules else p_values


def _result(
    table: Table,
    plan: Plan,
    task: str,
    held: dict[str, Scores],
    raw: Array,
    tested: bool,
    everywhere: Array,
    test: str,
) -> TaskResult:
    metric = plan.metrics[task]
    higher = table.higher_is_better(task, metric)
    names, means = list(held), [scores.mean for scores in held.values()]
    adjusted = adjust_pairs(raw, plan.correction) if len(names) > 1 else raw
    blank = dict.fromkeys(names, "")
    inside = letters_of(names, adjusted, plan.alpha, means, higher) if tested else blank
    across = letters_of(names, everywhere, plan.alpha, means, higher) if tested else blank
    base = held.get(plan.baseline) if plan.baseline is not None else None
    noises: set[Noise] = set()
    cells = []
    for name, scores in held.items():
        interval, noise = interval_of(scores, 1 - plan.alpha)
        noises.add(noise)
        compared = base is not None and name != plan.baseline
        sign = 1.0 if higher else -1.0
        cells.append(
            Cell(
                method=name,
                estimate=interval.estimate if interval else scores.mean,
                interval=interval,
                values=tuple(scores.by_seed.values()),
                letters=inside[name],
                letters_everywhere=across[name],
                chances=chances_of(scores, base, sign, plan.margins[metric])
                if compared and base is not None
                else None,
                seeds=len(scores.by_seed),
                items=len(scores.common_items()),
            )
        )
    order = sorted(range(len(cells)), key=lambda i: means[i], reverse=higher)
    noise = max(noises, key=("nothing", "items", "seeds", "seeds and items").index)
    return TaskResult(
        task,
        metric,
        higher,
        tuple(cells[i] for i in order),
        adjusted[np.ix_(order, order)],
        noise,
        test,
    )
