"""Pictures of a sweep: its course, what mattered, all trials at once, and the Pareto front."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from mtl_core.callbacks.curves import COLOURS, GREY
from mtl_core.sweep.plan import Objective
from mtl_core.sweep.space import Choice, Number, Space

MAP = "viridis"
ABSENT = object()
"""Stands for a parameter that a trial does not have; None is a value like others."""


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def complete(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that came to their end with a value."""
    return [trial for trial in trials if trial.state is TrialState.COMPLETE]


def draw_history(trials: Sequence[FrozenTrial], objectives: Mapping[str, Objective]) -> Figure:
    """Draw every objective over the trials, with the best so far; what failed is marked below."""
    figure = _figure(8, 0.6 + 2.4 * len(objectives))
    axes = figure.subplots(len(objectives), 1, squeeze=False, sharex=True)[:, 0]
    for i, (ax, (name, objective)) in enumerate(zip(axes, objectives.items(), strict=True)):
        points = [(trial.number, trial.values[i]) for trial in complete(trials)]
        ax.scatter(*zip(*points, strict=True), s=18, color=COLOURS[i % 8], zorder=3)
        best: list[float] = []
        for _, value in points:
            better = max if objective.higher_is_better else min
            best.append(better(best[-1], value) if best else value)
        ax.step([x for x, _ in points], best, where="post", color=GREY, lw=1.2, label="best so far")
        for state, colour, label in (
            (TrialState.PRUNED, COLOURS[4], "pruned"),
            (TrialState.FAIL, COLOURS[1], "failed"),
        ):
            numbers = [trial.number for trial in trials if trial.state is state]
            if numbers:
                at = ax.get_xaxis_transform()
                ax.plot(
                    numbers, [0.02] * len(numbers), "|", color=colour, transform=at, label=label
                )
        ax.set_ylabel(name)
        ax.legend(fontsize=8, frameon=False)
        ax.grid(alpha=0.3)
    axes[-1].set_xlabel("trial")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_importance(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw a bar a parameter and objective.

    Args:
        shares: importance by parameter, by objective; they add up to one an objective.
    """
    names = sorted({name for held in shares.values() for name in held}, reverse=True)
    names.sort(key=lambda name: max(held.get(name, 0.0) for held in shares.values()))
    figure = _figure(8, 0.8 + 0.32 * len(names) * max(1, len(shares) / 2))
    ax = figure.subplots()
    height = 0.8 / len(shares)
    for i, (objective, held) in enumerate(shares.items()):
        offsets = [y + 0.4 - height * (i + 0.5) for y in range(len(names))]
        values = [held.get(name, 0.0) for name in names]
        bars = ax.barh(offsets, values, height * 0.9, color=COLOURS[i % 8], label=objective)
        ax.bar_label(bars, [f"{v:.2f}" for v in values], padding=3, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_xlabel("importance")
    ax.margins(x=0.12)
    if len(shares) > 1:
        ax.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def draw_parallel(
    trials: Sequence[FrozenTrial], space: Space, objectives: Mapping[str, Objective]
) -> Figure:
    """Draw a line a trial across all parameters and objectives, coloured by the first objective.

    A line leaves out the axes of parameters that its trial does not have.
    """
    done = complete(trials)
    names = [name for name in space.names if any(name in trial.params for trial in done)]
    labels = [*names, *objectives]
    figure = _figure(max(6.0, 1.5 * len(labels)), 4.6)
    ax = figure.subplots()
    columns: list[list[float]] = []
    for x, name in enumerate(names):
        values = [trial.params.get(name, ABSENT) for trial in done]
        parameter = space.parameters.get(name)
        logarithmic = isinstance(parameter, Number) and parameter.log
        kinds = list(map(str, parameter.options)) if isinstance(parameter, Choice) else ()
        columns.append(_column(ax, x, values, logarithmic=logarithmic, kinds=kinds))
    columns += [
        _column(ax, len(names) + i, [trial.values[i] for trial in done])
        for i in range(len(objectives))
    ]
    target = [trial.values[0] for trial in done]
    low, high = min(target), max(target)
    scale = ScalarMappable(Normalize(low, high if high > low else low + 1), MAP)
    first = next(iter(objectives.values()))
    order = sorted(range(len(done)), key=lambda k: target[k], reverse=not first.higher_is_better)
    for k in order:  # the best on top
        xs = [x for x, column in enumerate(columns) if not math.isnan(column[k])]
        ys = [columns[x][k] for x in xs]
        ax.plot(xs, ys, "-o", color=scale.to_rgba(target[k]), lw=1.1, ms=3, alpha=0.85)
    ax.set_xticks(range(len(labels)), labels, rotation=25, ha="right", fontsize=8)
    ax.set_yticks([])
    ax.set_xlim(-0.3, len(labels) - 0.4)
    ax.set_ylim(-0.06, 1.06)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    figure.colorbar(scale, ax=ax, label=next(iter(objectives)), pad=0.01)
    return figure


def _column(
    ax: Axes,
    x: int,
    values: Sequence[Any],
    *,
    logarithmic: bool = False,
    kinds: Sequence[str] = (),
) -> list[float]:
    """Heights in [0, 1] along an axis that is drawn with its ticks; NaN where there is no value."""
    ax.axvline(x, color=GREY, lw=0.8, zorder=0)
    known = [v for v in values if v is not ABSENT]
    if kinds:
        places = {kind: (i + 0.5) / len(kinds) for i, kind in enumerate(reversed(kinds))}
        for kind, y in places.items():
            ax.annotate(kind, (x, y), (4, 3), textcoords="offset points", fontsize=7, color=GREY)
        return [math.nan if v is ABSENT else places[str(v)] for v in values]
    at = math.log if logarithmic else float
    low, high = at(min(known)), at(max(known))
    span = high - low or 1.0
    for y, value in ((0.0, min(known)), (1.0, max(known))):
        end: Literal["top", "bottom"] = "top" if y == 0 else "bottom"
        ax.annotate(
            f"{value:.3g}",
            (x, y),
            (0, -4 if y == 0 else 4),
            textcoords="offset points",
            ha="center",
            va=end,
            fontsize=7,
            color=GREY,
        )
    return [math.nan if v is ABSENT else (at(v) - low) / span for v in values]


def draw_pareto(
    trials: Sequence[FrozenTrial], front: Sequence[FrozenTrial], objectives: Mapping[str, Objective]
) -> Figure:
    """Draw every pair of objectives, with the trials that no other beats in all of them.

    Args:
        trials: all.
        front: the unbeaten ones.
        objectives: two or more.
    """
    names = list(objectives)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    figure = _figure(0.6 + 4.6 * min(len(pairs), 3), 3.9 * math.ceil(len(pairs) / 3))
    axes = figure.subplots(math.ceil(len(pairs) / 3), min(len(pairs), 3), squeeze=False).flat
    unbeaten = {trial.number for trial in front}
    for ax, (i, j) in zip(axes, pairs, strict=False):
        rest = [t.values for t in complete(trials) if t.number not in unbeaten]
        ax.scatter(
            [v[i] for v in rest], [v[j] for v in rest], s=16, color="#BBBBBB", label="beaten"
        )
        held = sorted(front, key=lambda trial: trial.values[i])
        xs, ys = [t.values[i] for t in held], [t.values[j] for t in held]
        if len(names) == 2:
            ax.step(xs, ys, where=_corner(objectives[names[i]]), color=COLOURS[0], lw=1)
        ax.scatter(xs, ys, s=26, color=COLOURS[0], zorder=3, label="Pareto front")
        for trial, x, y in zip(held, xs, ys, strict=True):
            ax.annotate(str(trial.number), (x, y), (4, 4), textcoords="offset points", fontsize=7)
        for k, axis in ((i, ax.xaxis), (j, ax.yaxis)):
            arrow = "→ better" if objectives[names[k]].higher_is_better else "← better"
            axis.set_label_text(f"{names[k]} ({arrow})")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, frameon=False)
    for ax in list(axes)[len(pairs) :]:
        ax.set_visible(False)
    return figure


def _corner(objective: Objective) -> Any:
    """On which side of a step of the front the beaten region lies."""
    return "pre" if objective.higher_is_better else "post"
