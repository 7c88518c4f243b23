"""The report of a comparison: what its numbers contain, first; then tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtl_core.stats.analysis import TaskResult, task_results
from mtl_core.stats.costs import costs
from mtl_core.stats.grids import (
    Grid,
    cost_grid,
    overall_grid,
    rank_grid,
    standing_grid,
    summary_grid,
    task_grid,
)
from mtl_core.stats.history import History, block_of, plan_changes
from mtl_core.stats.overall import overall, ranks
from mtl_core.stats.plan import SINGLE, Plan
from mtl_core.stats.stopping import standings
from mtl_core.stats.table import Table

FEWEST_SEEDS = 3
"""Below, training randomness counts as not measured."""
NOISE = {
    "seeds": "training randomness (what the seeds change), on one fixed sample of test items",
    "items": "the choice of test items, not training randomness",
    "seeds and items": "training randomness and the choice of test items",
    "nothing": "nothing: no value was repeated, and there are no intervals",
}


@dataclass(frozen=True)
class Report:
    """A comparison's report, to be rendered.

    Attributes:
        name: of the plan.
        lines: the first lines: randomness, correction, plan, looks; a changed plan before all.
        warnings: what limits the numbers.
        summary: all methods on all tasks in one table.
        grids: the other tables.
        results: what figures are drawn from, by task; all tasks together last.
        labels: name or code of each method.
        alpha: of the plan.
    """

    name: str
    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    summary: Grid
    grids: tuple[Grid, ...]
    results: tuple[TaskResult, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    alpha: float = 0.05


def make_report(
    table: Table,
    plan: Plan,
    history: History | None = None,
    *,
    unblind: bool = False,
    with_ranks: bool = False,
) -> Report:
    """Build the report of a table.

    Args:
        table: of results; it may hold more than the plan asks for.
        plan: of the comparison.
        history: of the table.
        unblind: show names although the plan is blind.
        with_ranks: add Friedman's test over tasks.

    Raises:
        UnknownNameError: the table lacks a task or metric of the plan.
        ArgumentError: a measurement occurs twice, or there are too few tasks to rank.
    """
    history = history or History()
    blind = plan.blind and not unblind
    labels = plan.codes if blind else {name: name for name in plan.methods}
    results = task_results(table, plan)
    for task, metric in plan.metrics.items():
        if any(row.task == task for row in table.rows):
            table.higher_is_better(task, metric)  # refuses a metric that no row has
    whole = overall(table, plan)
    if blind and whole is not None and whole.reference == plan.baseline:
        whole = None  # the code whose gain is 0 would be known
    blocks = len(blocks_of(table, plan))
    grids = [task_grid(result, plan, labels, blind=blind) for result in results]
    if whole is not None:
        grids.append(overall_grid(whole, plan, labels, blind=blind))
    if plan.stopping.rule != "none" and not blind:
        grids.append(standing_grid(standings(table, plan), labels))
    if with_ranks:
        grids.append(rank_grid(ranks(results, plan), labels))
    found = [] if blind else costs(table, plan)
    if found:
        grids.append(cost_grid(found))
    return Report(
        name=plan.name,
        lines=_first_lines(table, plan, history, results, blocks, blind=blind),
        warnings=_warnings(table, plan, history, results, labels, blocks),
        summary=summary_grid(results, whole, found, plan, labels),
        grids=tuple(grids),
        results=(*results, whole.result) if whole else tuple(results),
        labels=labels,
        alpha=plan.alpha,
    )


def blocks_of(table: Table, plan: Plan) -> set[str]:
    """Blocks of which the table has any score of the plan."""
    wanted = {(task, metric) for task, metric in plan.metrics.items()}
    return {
        block_of(row)
        for row in table.rows
        if (row.task, row.metric) in wanted
        and row.split == plan.split
        and row.method in plan.methods
        and (row.seed is None or row.seed in plan.seeds)
    }


def _first_lines(
    table: Table,
    plan: Plan,
    history: History,
    results: Sequence[TaskResult],
    blocks: int,
    *,
    blind: bool,
) -> tuple[str, ...]:
    lines = []

    def named(method: str) -> str:
        return plan.codes.get(method, "a method") if blind else f"method {method}"

    changed = plan_changes(plan, table, history, named)
    if changed:
        lines.append(f"**The plan was changed: {'; '.join(changed)}.**")
    noises = list(dict.fromkeys(NOISE[r.noise] for r in results)) or [NOISE["nothing"]]
    lines.append(f"Intervals ({100 * (1 - plan.alpha):g} %) contain {'; '.join(noises)}.")
    test = ", ".join(dict.fromkeys(result.test for result in results)) or "none"
    names = {"holm": "Holm", "bonferroni": "Bonferroni", "none": "none"}
    lines.append(
        f"Test of pairs: {test}, at α = {plan.alpha:g}; correction: {names[plan.correction]}, "
        "within each task, and in a second column over all tasks and pairs."
    )
    looks = sorted({*history.looks, blocks})
    after = ", ".join(map(str, looks))
    total = len(plan.seeds)
    lines.append(
        f"Plan {plan.name}, hash {plan.hash}; looks at the results: {len(looks)} "
        f"(after {after} of {total} blocks)."
    )
    if plan.blind and not blind:
        shown = history.unblinded if history.unblinded is not None else blocks
        lines.append(f"The plan is blind; names were shown after {shown} of {total} blocks.")
    elif blind:
        lines.append("Codes stand in the place of names until the report is unblinded.")
    return tuple(lines)


def _warnings(
    table: Table,
    plan: Plan,
    history: History,
    results: Sequence[TaskResult],
    labels: Mapping[str, str],
    blocks: int,
) -> tuple[str, ...]:
    said = []
    fewest = min((cell.seeds for result in results for cell in result.cells), default=0)
    if fewest < FEWEST_SEEDS:
        runs = "1 seed" if fewest == 1 else f"{fewest} seeds"
        said.append(f"Training randomness not measured: {runs} of a method.")
    absent = [labels[m] for m in plan.methods if all(result.cell(m) is None for result in results)]
    if absent:
        said.append(f"Without any score: {', '.join(absent)}.")
    unseen = set(plan.metrics) - {result.task for result in results}
    if unseen:
        said.append(f"Tasks without any score: {', '.join(sorted(unseen))}.")
    if 0 < blocks < len(plan.seeds) and plan.stopping.rule == "none":
        said.append(f"Not complete: {blocks} of {len(plan.seeds)} blocks.")
    looks = {*history.looks, blocks}
    if len(looks) > 1 and plan.stopping.rule == "none":
        said.append(
            "p-values and letters hold for one look at a number of blocks fixed beforehand, "
            f"and there were {len(looks)} looks."
        )
    failed = [f for f in history.failures if f.method in (*plan.methods, SINGLE)]
    if failed:
        said.append(
            f"Failed runs: {len(failed)}. They are left out of means and intervals, which flatters "
            "a method that fails."
        )
        for f in failed:
            name = f"{SINGLE} {f.task}" if f.task else labels.get(f.method, f.method)
            reason = f": {f.reason}" if f.reason and not plan.blind else ""
            said.append(f"{name}, seed {f.seed}: {f.status}{reason}")
    lost = sum(
        1
        for row in table.rows
        if plan.metrics.get(row.task) == row.metric
        and row.split == plan.split
        and row.method in plan.methods
        and not math.isfinite(row.value)
    )
    if lost:
        said.append(f"Values that are not finite and were left out: {lost}.")
    return tuple(said)
