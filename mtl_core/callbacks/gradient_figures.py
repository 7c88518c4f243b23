"""Pictures of how the tasks' gradients lie to each other over a run."""

from collections.abc import Sequence

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mtl_core.callbacks.curves import COLOURS, GREY
from mtl_core.callbacks.gradient_history import GradientHistory

_NAMED = 10  # entries that a legend, or numbers in a matrix, still serve


def draw_trajectories(history: GradientHistory) -> Figure:
    """Lengths of the gradients over the steps, and below them the balancer's weights if any.

    Args:
        history: of at least one record.

    Returns:
        The figure, not tied to any global state of matplotlib.
    """
    weights = history.column("weights")
    shown = [("length of gradient", history.column("norms"))]
    if not bool(weights.isnan().all()):
        shown.append(("weight", weights))
    figure = Figure(figsize=(9.5, 0.5 + 2.9 * len(shown)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    steps = history.column("step").tolist()
    for axes, (title, values) in zip(grid, shown, strict=True):
        if title != "weight":
            values = values.masked_fill(values <= 0, torch.nan)
            if not bool(values.isnan().all()):
                axes.set_yscale("log")
        for i, (entry, colour) in enumerate(
            zip(history.entries, colours(len(history.entries)), strict=True)
        ):
            marker = "." if len(steps) < 30 else ""
            axes.plot(
                steps, values[:, i].tolist(), color=colour, lw=1.4, marker=marker, label=entry
            )
        axes.set_title(title, fontsize=9, loc="left", color=GREY)
        _style(axes)
    if len(history.entries) <= 2 * _NAMED:
        grid[0].legend(fontsize=8, frameon=False, ncols=1 + (len(history.entries) - 1) // _NAMED)
    grid[-1].set_xlabel("step")
    return figure


def draw_conflicts(history: GradientHistory, *, stages: int = 4) -> Figure:
    """Mean cosine of every pair at some stages of training, and conflicts over the steps.

    Args:
        history: of at least one record and two entries.
        stages: equal parts of the records; fewer where there are fewer records.

    Returns:
        The figure, not tied to any global state of matplotlib.
    """
    steps, cosines = history.column("step"), history.column("cosines")
    parts = list(torch.arange(len(steps)).tensor_split(min(stages, len(steps))))
    figure = Figure(figsize=(2.9 * max(3, len(parts)), 5.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(3.2, 2.2))[:, 0]
    maps = upper.subplots(1, len(parts), squeeze=False)[0]
    for k, (axes, part) in enumerate(zip(maps, parts, strict=True)):
        matrix = pair_matrix(history, cosines[part].nanmean(0))
        first, last = int(steps[part[0]]), int(steps[part[-1]])
        title = f"step {first}" if first == last else f"steps {first} to {last}"
        _matrix(axes, matrix, history.entries, title, names=k == 0)
    bar = upper.colorbar(maps[0].images[0], ax=list(maps), shrink=0.7)
    bar.set_label("mean cosine", fontsize=8, color=GREY)
    bar.ax.tick_params(labelsize=7, color=GREY)
    axes = lower.subplots()
    known = ~cosines.isnan()
    share = ((cosines < 0) & known).sum(1) / known.sum(1)
    style = {"lw": 1.6, "marker": "." if len(steps) < 30 else ""}
    axes.plot(steps.tolist(), share.tolist(), color=COLOURS[1], label="pairs in conflict", **style)
    mean = cosines.nanmean(1).tolist()
    axes.plot(steps.tolist(), mean, color=COLOURS[0], label="mean cosine", **style)
    axes.axhline(0, color=GREY, lw=0.7)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel("step")
    _style(axes)
    axes.legend(fontsize=8, frameon=False)
    return figure


def pair_matrix(history: GradientHistory, values: Tensor) -> Tensor:
    """Symmetric (T, T) matrix of one value (P,) a pair, with ones on the diagonal."""
    count = len(history.entries)
    matrix = torch.eye(count)
    rows, columns = torch.triu_indices(count, count, 1)
    matrix[rows, columns] = matrix[columns, rows] = values
    return matrix


def colours(count: int) -> list[str]:
    """As many colours: of the palette while it lasts, of a colour map beyond."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    ramp = matplotlib.colormaps["turbo"]
    return [matplotlib.colors.to_hex(ramp(i / (count - 1))) for i in range(count)]


def _matrix(axes: Axes, matrix: Tensor, entries: Sequence[str], title: str, *, names: bool) -> None:
    axes.imshow(matrix.numpy(), cmap="RdBu", vmin=-1, vmax=1)
    axes.set_title(title, fontsize=9, color=GREY)
    places = range(len(entries)) if len(entries) <= 2 * _NAMED else ()
    axes.set_xticks(list(places), [entries[i] for i in places], fontsize=7, rotation=90)
    axes.set_yticks(list(places), [entries[i] if names else "" for i in places], fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(entries) <= _NAMED:
        for i in range(len(entries)):
            for j in range(len(entries)):
                value = float(matrix[i, j])
                if i != j and value == value:
                    dark = abs(value) > 0.6
                    axes.text(
                        j,
                        i,
                        f"{value:.2f}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else "black",
                    )


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=GREY)
