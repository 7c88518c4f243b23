"""Pictures of which experts serve which task."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mtl_core.callbacks.curves import GREY

_NUMBERED = 12  # columns up to which cells hold their numbers
_MISSING = "#EEEEEE"


def draw_shares(shares: Mapping[str, Tensor], tasks: Sequence[str], *, label: str) -> Figure:
    """A panel a task, with a row a layer and a column an expert.

    Args:
        shares: (T, E) by layer, in [0, 1]; NaN is drawn as missing, and so are experts that a layer
            does not have.
        tasks: names of the T rows.
        label: what the shares are.

    Returns:
        The figure, not tied to any global state of matplotlib.
    """
    layers = list(shares)
    experts = max(held.shape[1] for held in shares.values())
    table = torch.full((len(tasks), len(layers), experts), torch.nan)
    for row, held in enumerate(shares.values()):
        table[:, row, : held.shape[1]] = held
    columns = min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    cell = 0.42 if experts <= _NUMBERED else 0.16
    figure = Figure(
        figsize=(
            1.6 + columns * max(2.0, cell * experts),
            0.6 + rows * (0.7 + max(0.8, 0.26 * len(layers))),
        ),
        layout="constrained",
        dpi=110,
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    known = table[~table.isnan()]
    ceiling = float(known.max()) if len(known) else 1.0
    for number, axes in enumerate(grid.flat):
        if number >= len(tasks):
            axes.set_axis_off()
            continue
        _cells(axes, table[number], ceiling, numbers=experts <= _NUMBERED)
        axes.set_title(tasks[number], fontsize=9, color=GREY)
        first = number % columns == 0
        axes.set_yticks(range(len(layers)), layers if first else [""] * len(layers), fontsize=7)
        step = 1 if experts <= _NUMBERED else max(1, experts // 8)
        axes.set_xticks(range(0, experts, step), range(0, experts, step), fontsize=7)
        if number + columns >= len(tasks):
            axes.set_xlabel("expert", fontsize=8, color=GREY)
    bar = figure.colorbar(grid[0, 0].images[0], ax=list(grid.flat), shrink=0.8)
    bar.set_label(label, fontsize=8, color=GREY)
    bar.ax.tick_params(labelsize=7, color=GREY)
    return figure


def draw_overlaps(
    overlaps: Mapping[str, Tensor], tasks: Sequence[str], *, panels: int = 5
) -> Figure:
    """Overlap of the tasks' experts: the mean over layers, and some of the layers.

    Args:
        overlaps: (T, T) by layer, in [0, 1]; NaN is drawn as missing.
        tasks: names of the T rows.
        panels: layers to show, evenly chosen, the last one included.

    Returns:
        The figure, not tied to any global state of matplotlib.
    """
    shown = {"mean over layers": torch.stack(list(overlaps.values())).nanmean(0)}
    shown |= {name: overlaps[name] for name in evenly(list(overlaps), panels)}
    if len(overlaps) == 1:
        del shown["mean over layers"]
    size = max(1.7, 0.42 * len(tasks))
    figure = Figure(figsize=(1.8 + size * len(shown), size + 1.3), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(shown), squeeze=False)[0]
    for number, (axes, (title, matrix)) in enumerate(zip(grid, shown.items(), strict=True)):
        _cells(axes, matrix, 1.0, numbers=len(tasks) <= _NUMBERED, square=True)
        axes.set_title(title, fontsize=9, color=GREY)
        axes.set_xticks(range(len(tasks)), tasks, fontsize=7, rotation=90)
        axes.set_yticks(range(len(tasks)), tasks if number == 0 else [""] * len(tasks), fontsize=7)
    bar = figure.colorbar(grid[0].images[0], ax=list(grid), shrink=0.7)
    bar.set_label("overlap", fontsize=8, color=GREY)
    bar.ax.tick_params(labelsize=7, color=GREY)
    return figure


def evenly(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of the names, spread evenly, the last one among them.

    >>> evenly(["a", "b", "c", "d", "e"], 2)
    ['b', 'e']
    """
    if len(names) <= count:
        return list(names)
    return [names[(i + 1) * len(names) // count - 1] for i in range(count)]


def _cells(
    axes: Axes, values: Tensor, ceiling: float, *, numbers: bool, square: bool = False
) -> None:
    axes.set_facecolor(_MISSING)
    axes.imshow(values.numpy(), cmap="Blues", vmin=0, vmax=ceiling)
    axes.set_aspect("equal" if square else "auto")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if not numbers:
        return
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            if value == value:
                colour = "white" if value > 0.6 * ceiling else "black"
                text = f"{value:.2f}".replace("0.", ".") if value < 0.995 else "1"
                axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color=colour)
