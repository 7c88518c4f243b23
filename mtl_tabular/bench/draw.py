"""Δm of a sweep: mean and 95 % interval over seeds, as curves and as a Markdown table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import t as student

from mtl_core.callbacks.curves import COLOURS, GREY
from mtl_core.errors import ArgumentError
from mtl_core.metrics import delta_m
from mtl_tabular.bench.plan import AXES, Axis, Plan, Setting
from mtl_tabular.bench.table import Outcome
from mtl_tabular.tasks import NumericTarget

LABELS: dict[Axis, str] = {
    "num_tasks": "number of tasks",
    "correlation": "correlation p of the projections",
    "complexity": "complexity of the tasks",
}
MARKERS = "osD^vPX*"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What the seeds say of one network in one setting.

    Args:
        setting: of the data.
        network: name of the contender.
        gains: Δm in percent, one a seed that has it.
        multi: mean over tasks of the primary metric, trained together, one a seed.
        single: the same, trained alone.
        lost: why other seeds have no Δm.
    """

    setting: Setting
    network: str
    gains: tuple[float, ...]
    multi: tuple[float, ...]
    single: tuple[float, ...]
    lost: tuple[str, ...]


def points(plan: Plan, outcomes: Mapping[str, Outcome]) -> list[Point]:
    """Δm of every setting and network, from the runs that are there.

    Args:
        plan: which runs belong together.
        outcomes: by digest; a sweep may still be under way.
    """
    found = []
    for setting in plan.settings():
        for network in plan.networks:
            gains, multi, single, lost = [], [], [], []
            for seed in range(plan.seeds):
                together, alone = plan.group(setting, network, seed)
                runs = [together, *alone]
                held = [outcomes[run.digest] for run in runs if run.digest in outcomes]
                reasons = [outcome.reason for outcome in held if outcome.reason]
                if len(held) < len(runs) or reasons:
                    lost.append(reasons[0] if reasons else "not trained yet")
                    continue
                values = held[0].scores
                references: dict[str, Mapping[str, float]] = {}
                for outcome in held[1:]:
                    references.update(outcome.scores)
                try:
                    gains.append(_gain(values, references))
                except ArgumentError as error:
                    lost.append(str(error))
                    continue
                multi.append(_mean_primary(values))
                single.append(_mean_primary(references))
            found.append(
                Point(
                    setting=setting,
                    network=network,
                    gains=tuple(gains),
                    multi=tuple(multi),
                    single=tuple(single),
                    lost=tuple(lost),
                )
            )
    return found


_TASK = NumericTarget()


def _gain(
    values: Mapping[str, Mapping[str, float]], references: Mapping[str, Mapping[str, float]]
) -> float:
    higher = dict.fromkeys(values, _TASK.higher_is_better())
    return delta_m(values, references, higher, primary=dict.fromkeys(values, _TASK.primary))


def _mean_primary(scores: Mapping[str, Mapping[str, float]]) -> float:
    return mean([held[_TASK.primary] for held in scores.values()])


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return math.fsum(values) / len(values) if len(values) else math.nan


def half_width(values: Sequence[float], level: float = 0.95) -> float:
    """Half the width of Student's interval for the mean; NaN below two values.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    n = len(values)
    if n < 2:
        return math.nan
    centre = mean(values)
    spread = math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (n - 1))
    return float(student.ppf((1 + level) / 2, n - 1)) * spread / math.sqrt(n)


def draw(plan: Plan, found: Sequence[Point]) -> Figure:
    """Δm against the plan's axis, a curve a network, a panel for each value of the other axes.

    Points whose interval comes from fewer than two seeds have no bar.

    Args:
        plan: says what is along x.
        found: `points` of the plan.

    Returns:
        The figure, not tied to any global state of matplotlib.
    """
    axis = plan.axis()
    ticks = plan.axis_values(axis)
    panels: dict[tuple[int | float | str, ...], list[Point]] = {}
    others = [other for other in AXES if other != axis]
    for point in found:
        panels.setdefault(tuple(point.setting.value(o) for o in others), []).append(point)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.2 + 5.2 * columns, 0.9 + 3.6 * rows), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (key, held) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, plan, held, axis, ticks)
        facts = dict(zip(others, key, strict=True))
        axes.set_title(", ".join(_fact(o, v) for o, v in facts.items()), fontsize=10, color=GREY)
    for axes in grid[:, 0]:
        axes.set_ylabel("Δm over single-task training, %")
    grid[0, 0].legend(frameon=False, fontsize=9)
    reference = "the same network" if plan.reference is None else "the reference network"
    figure.suptitle(
        f"Multitask gain over {reference} alone: mean and 95 % interval, {plan.seeds} seeds",
        fontsize=11,
    )
    return figure


def _fact(axis: Axis, value: int | float | str) -> str:
    return {
        "num_tasks": f"{value} tasks",
        "correlation": f"p = {value}",
        "complexity": f"{value} degrees",
    }[axis]


def _panel(
    axes: Axes, plan: Plan, held: Sequence[Point], axis: Axis, ticks: Sequence[int | float | str]
) -> None:
    spread = 0.12 / max(len(plan.networks), 1)
    for i, network in enumerate(plan.networks):
        mine = [p for p in held if p.network == network and p.gains]
        # Side by side, so that intervals do not hide one another.
        shift = (i - (len(plan.networks) - 1) / 2) * spread
        axes.errorbar(
            [ticks.index(p.setting.value(axis)) + shift for p in mine],
            [mean(p.gains) for p in mine],
            yerr=[0.0 if math.isnan(half_width(p.gains)) else half_width(p.gains) for p in mine],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            ms=5,
            lw=1.6,
            capsize=3,
            label=network,
        )
    axes.axhline(0, color=GREY, lw=1, ls="--")
    axes.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
    axes.set_xlim(-0.4, len(ticks) - 0.6)
    axes.set_xlabel(LABELS[axis])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)


def markdown(plan: Plan, found: Sequence[Point]) -> str:
    """The same numbers as a table, and below it why seeds are missing.

    Args:
        plan: says how many seeds there should be.
        found: `points` of the plan.
    """
    metric = _TASK.primary.replace("_", " ")
    head = ["tasks", "p", "complexity", "network", "Δm %", "seeds"]
    head += [f"{metric}, together", f"{metric}, alone"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lost: list[str] = []
    for point in found:
        setting = point.setting
        cells = (
            str(setting.num_tasks),
            f"{setting.correlation:g}",
            setting.complexity,
            point.network,
            _interval(point.gains, "+.2f"),
            f"{len(point.gains)} of {plan.seeds}",
            _interval(point.multi, ".4f"),
            _interval(point.single, ".4f"),
        )
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        where = f"{point.network}, {cells[0]} tasks, p {cells[1]}, {cells[2]}"
        lost += [f"- {where}: {reason}" for reason in point.lost]
    note = "Mean ± half width of the 95 % interval over seeds (Student's t)."
    text = "\n".join([*lines, "", note, ""])
    return text + ("\nSeeds without Δm:\n\n" + "\n".join(lost) + "\n" if lost else "")


def _interval(values: Sequence[float], form: str) -> str:
    if not values:
        return "–"
    half = half_width(values)
    return f"{mean(values):{form}}" + ("" if math.isnan(half) else f" ± {half:{form.strip('+')}}")
