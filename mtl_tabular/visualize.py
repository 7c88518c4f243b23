"""Pictures of tabular networks: importance per task, attention of tasks to features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError

# The first eight colours of Okabe and Ito's palette, told apart by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6000", "#000000")
GREY = "#666666"


def draw_importance(
    importance: pd.DataFrame, *, top: int = 15, file: Path | str | None = None
) -> Figure:
    """Draw one panel per task: a bar per feature, the most important on top, with its interval.

    Args:
        importance: as `mtl_tabular.importance.permutation_importance` gives it.
        top: at most so many features a task.
        file: where to save it besides, as PNG, PDF or SVG.

    Returns:
        The figure, not tied to any global state of matplotlib.

    Raises:
        ArgumentError: the frame lacks a column, or `top` is no count.
    """
    needed = ["task", "feature", "metric", "importance", "low", "high"]
    if not set(needed) <= set(importance.columns):
        raise ArgumentError("importance", f"have the columns {needed}", list(importance.columns))
    if top < 1:
        raise ArgumentError("top", "be at least 1", top)
    tasks = list(dict.fromkeys(importance["task"]))
    if not tasks:
        raise ArgumentError("importance", "hold at least one row", 0)
    shown = min(top, int(importance.groupby("task").size().max()))
    figure = _figure(width=1.2 + 3.6 * len(tasks), height=1.1 + 0.26 * shown)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for k, (task, panel) in enumerate(zip(tasks, panels, strict=True)):
        rows = importance[importance["task"] == task]
        _bars(panel, rows.nlargest(top, "importance"), COLOURS[k % len(COLOURS)])
        panel.set_title(task, loc="left", fontsize=10)
        panel.set_xlabel(f"loss of {rows['metric'].iloc[0]} when shuffled", fontsize=8)
    return _saved(figure, file)


def draw_attention(
    attention: Any,
    tasks: Sequence[str],
    features: Sequence[str],
    *,
    file: Path | str | None = None,
) -> Figure:
    """Draw a heat map per block: a row per task, a column per feature.

    Args:
        attention: (depth, T, d) or (T, d) weights, array or tensor; rows need not sum to one.
        tasks: T names.
        features: d names, in the order of `TableSchema.names`.
        file: where to save it besides, as PNG, PDF or SVG.

    Returns:
        The figure, not tied to any global state of matplotlib. All blocks share one scale.

    Raises:
        ArgumentError: names and weights differ in number.
    """
    weights: NDArray[np.float64] = np.asarray(attention, dtype=np.float64)
    weights = weights[None] if weights.ndim == 2 else weights
    if weights.ndim != 3 or not len(weights) or weights.shape[1:] != (len(tasks), len(features)):
        raise ArgumentError(
            "attention", f"be (depth, {len(tasks)}, {len(features)})", np.shape(attention)
        )
    depth = len(weights)
    figure = _figure(
        width=2.2 + 0.34 * len(features), height=0.9 + depth * (0.5 + 0.34 * len(tasks))
    )
    panels = figure.subplots(depth, 1, squeeze=False, sharex=True)[:, 0]
    for k, panel in enumerate(panels):
        image = panel.imshow(
            weights[k], aspect="auto", cmap="viridis", vmin=0.0, vmax=float(weights.max()) or 1.0
        )
        panel.set_yticks(range(len(tasks)), list(tasks), fontsize=8)
        if depth > 1:
            panel.set_title(f"block {k + 1}", loc="left", fontsize=9)
        figure.colorbar(image, ax=panel, fraction=0.03, pad=0.01)
    panels[-1].set_xticks(range(len(features)), list(features), fontsize=8, rotation=60, ha="right")
    return _saved(figure, file)


def _bars(panel: Axes, rows: pd.DataFrame, colour: str) -> None:
    """Horizontal bars, the first row on top, with whiskers from ``low`` to ``high``."""
    heights = np.arange(len(rows))[::-1]
    values = rows["importance"].to_numpy(dtype=np.float64)
    reach = np.stack([values - rows["low"].to_numpy(), rows["high"].to_numpy() - values])
    panel.barh(heights, values, xerr=reach, color=colour, ecolor=GREY, height=0.7)
    panel.set_yticks(heights, rows["feature"].tolist(), fontsize=8)
    panel.tick_params(axis="x", labelsize=8)
    panel.axvline(0, color=GREY, linewidth=0.8)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _figure(*, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def _saved(figure: Figure, file: Path | str | None) -> Figure:
    if file is not None:
        figure.savefig(file)
    return figure
