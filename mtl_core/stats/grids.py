"""The tables of a report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl_core.stats import digits
from mtl_core.stats.analysis import Cell, TaskResult
from mtl_core.stats.costs import Cost
from mtl_core.stats.overall import Overall, Ranks
from mtl_core.stats.plan import ALL, SINGLE, Plan
from mtl_core.stats.stopping import Standing


@dataclass(frozen=True)
class Grid:
    """One table of a report.

    Attributes:
        title: heading.
        header: of its columns; the first is a name.
        rows: as many texts each; ``**...**`` is bold.
        notes: sentences below.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def _arrow(higher: bool) -> str:
    return "↑" if higher else "↓"


def _seeds(cell: Cell, plan: Plan) -> str:
    return (
        str(cell.seeds) if cell.seeds == len(plan.seeds) else f"{cell.seeds} of {len(plan.seeds)}"
    )


def task_grid(result: TaskResult, plan: Plan, labels: Mapping[str, str], *, blind: bool) -> Grid:
    """One task: mean, letters, chances against the baseline, seeds and items.

    Args:
        result: of the task.
        plan: of the comparison.
        labels: name or code of each method.
        blind: leave out what tells the baseline apart.
    """
    items = any(cell.items for cell in result.cells)
    compared = plan.baseline is not None and not blind
    header = ["method", f"{result.metric} {_arrow(result.higher_is_better)}"]
    header += ["letters", "letters (all tasks)"]
    header += ["worse / equal / better"] * compared + ["seeds"] + ["items"] * items
    rows = []
    for cell in result.cells:
        row = [labels[cell.method], digits.estimate(cell.estimate, cell.interval)]
        row += [cell.letters or "–", cell.letters_everywhere or "–"]
        if compared:
            base = cell.method == plan.baseline
            row.append("baseline" if base else digits.chances(cell.chances))
        row.append(_seeds(cell, plan))
        rows.append((*row, *([str(cell.items or "–")] if items else [])))
    notes = ["Methods that share no letter differ significantly."]
    if compared:
        margin = plan.margins[result.metric]
        notes.append(
            f"P(worse / practically equal / better) than {labels[plan.baseline or '']} "
            f"with a margin of {margin:g}; bold where one reaches 0.95."
        )
    return Grid(result.task, tuple(header), tuple(rows), tuple(notes))


def overall_grid(whole: Overall, plan: Plan, labels: Mapping[str, str], *, blind: bool) -> Grid:
    """All tasks together; arguments as of `task_grid`."""
    compared = plan.baseline is not None and not blind
    shown = labels.get(whole.reference, whole.reference)
    of_single = whole.reference == SINGLE
    header = ["method", "Δm, % ↑" if of_single else f"gain over {shown}, % ↑", "letters"]
    header += ["worse / equal / better"] * compared
    header += ["better on a new task"] * bool(whole.new_tasks and compared) + ["seeds"]
    rows = []
    for cell in whole.result.cells:
        reference = cell.method == whole.reference
        row = [labels[cell.method]]
        row.append("0" if reference else digits.estimate(cell.estimate, cell.interval, plus=True))
        row.append(cell.letters or "–")
        if compared:
            base = cell.method == plan.baseline
            row.append("baseline" if base else digits.chances(cell.chances))
            if whole.new_tasks:
                new = whole.new_tasks.get(cell.method)
                row.append("–" if new is None else digits.chance(new.better))
        rows.append((*row, _seeds(cell, plan)))
    notes = []
    if of_single:
        notes.append(
            "Δm: mean over tasks of the gain over single-task networks "
            f"({whole.reference_seeds} seeds a task); intervals contain their randomness too."
        )
    if compared:
        notes.append(
            f"P against {labels[plan.baseline or '']} with a margin of "
            f"{float(f'{whole.margin:.2g}'):g} % of the reference; "
            f"each task weighs 1/{len(plan.metrics)}."
        )
    return Grid("all tasks", tuple(header), tuple(rows), tuple(notes))


def standing_grid(found: Sequence[Standing], labels: Mapping[str, str]) -> Grid:
    """Where the e-processes of the stopping rule stand."""
    rows = [
        (labels[s.method], s.task, f"{s.better:.3g}", f"{s.worse:.3g}", s.verdict) for s in found
    ]
    threshold = found[0].threshold if found else math.nan
    return Grid(
        "e-processes against the baseline",
        ("method", "task", "e-value better", "e-value worse", "verdict"),
        tuple(rows),
        (f"A verdict needs an e-value of {threshold:.4g}; it holds at any number of looks.",),
    )


def rank_grid(found: Ranks, labels: Mapping[str, str]) -> Grid:
    """Mean ranks over tasks."""
    rows = [
        (labels[m], f"{mean:.2f}", found.letters[m])
        for m, mean in zip(found.methods, found.means, strict=True)
    ]
    said = f"Friedman's test that all methods rank alike over tasks: p = {found.p_value:.2g}."
    return Grid("ranks over tasks", ("method", "mean rank", "letters"), tuple(rows), (said,))


def cost_grid(found: Sequence[Cost]) -> Grid:
    """What runs took."""
    header = ("method", *(column.title for column in found[0].columns))
    rows = tuple((cost.method, *(column.text for column in cost.columns)) for cost in found)
    return Grid(
        "costs",
        header,
        rows,
        (
            "Mean of the trainings, validation included, as measured on the machine that ran them; "
            f"{SINGLE}: one network for each task, added up (memory: the largest).",
        ),
    )


def summary_grid(
    results: Sequence[TaskResult],
    whole: Overall | None,
    found: Sequence[Cost],
    plan: Plan,
    labels: Mapping[str, str],
) -> Grid:
    """One row a method: every task, the gain, and what a training takes."""
    shown = [*results, whole.result] if whole else list(results)
    order = [cell.method for cell in shown[-1].cells] if shown else []
    order += [m for m in plan.methods if m not in order]
    header = ["method"]
    header += [f"{r.task}: {r.metric} {_arrow(r.higher_is_better)}" for r in results]
    if whole is not None:
        single = whole.reference == SINGLE
        header.append("Δm, % ↑" if single else "gain over the baseline, % ↑")
    spent = {cost.method: cost.columns[0] for cost in found}
    if found:
        header.append(found[0].columns[0].title)
    rows = []
    for method in order:
        row = [labels[method]]
        for result in shown:
            cell = result.cell(method)
            if cell is None:
                row.append("–")
                continue
            text = digits.estimate(cell.estimate, cell.interval, plus=result.task == ALL)
            if whole is not None and result.task == ALL and method == whole.reference:
                text = "0"
            row.append(f"{text} {cell.letters}".rstrip())
        if found:
            row.append(spent[method].text if method in spent else "–")
        rows.append(tuple(row))
    letters = "Methods that share no letter in a column differ significantly."
    return Grid("summary", tuple(header), tuple(rows), (letters,))
