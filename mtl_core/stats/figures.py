"""Figures of a report: intervals with letters, and a matrix of pairs where letters are too many."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from scipy import stats

from mtl_core.atomic import atomic_write
from mtl_core.stats.analysis import Cell, TaskResult
from mtl_core.stats.letters import READABLE_LETTERS
from mtl_core.stats.plan import ALL
from mtl_core.stats.report import Report

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
SHADES = ("#0072B2", "#56B4E9", "#BFE3F7", "#F2F2F2")


def letters_used(result: TaskResult) -> int:
    """How many different letters a result needs; signs like (53) count as one each."""
    signs: set[str] = set()
    for cell in result.cells:
        text, number = cell.letters, ""
        for sign in text:
            number += sign
            if not number.startswith("(") or sign == ")":
                signs.add(number)
                number = ""
    return len(signs)


def draw(result: TaskResult, labels: Mapping[str, str], alpha: float = 0.05) -> Figure:
    """Intervals with letters, or above eight letters the matrix of pairs.

    Args:
        result: of one task, or of all.
        labels: name or code of each method.
        alpha: at which pairs count as separated.
    """
    if letters_used(result) > READABLE_LETTERS:
        return draw_matrix(result, labels, alpha)
    return draw_intervals(result, labels)


def draw_intervals(result: TaskResult, labels: Mapping[str, str]) -> Figure:
    """A violin (posterior of the mean), a point a seed, the interval and the letters, best left.

    Violins are Student's where three seeds or more count. Overlap of intervals says nothing about
    a difference, as methods share seeds; letters do.
    """
    cells = result.cells
    figure, axes = _axes(max(4.0, 0.95 * len(cells) + 1.5), 3.4)
    for x, cell in enumerate(cells):
        _violin(axes, x, cell)
        spread = np.linspace(-0.12, 0.12, len(cell.values)) if len(cell.values) > 1 else [0.0]
        axes.plot(x + np.asarray(spread), cell.values, ".", color=GREY, ms=4, zorder=2)
        if cell.interval is not None:
            low, high = cell.interval.low, cell.interval.high
            axes.plot([x, x], [low, high], color=BLUE, lw=2.5, zorder=3, solid_capstyle="butt")
        axes.plot(x, cell.estimate, "o", color=BLUE, ms=6, zorder=4)
        at = axes.get_xaxis_transform()
        axes.text(x, 1.01, cell.letters, transform=at, ha="center", va="bottom", fontsize=9)
    if result.task == ALL:
        axes.axhline(0, color=GREY, lw=0.8, ls=":")
    axes.set_xticks(range(len(cells)), [labels[cell.method] for cell in cells], rotation=25)
    axes.set_xlim(-0.6, len(cells) - 0.4)
    arrow = "↑" if result.higher_is_better else "↓"
    unit = ", %" if result.task == ALL else ""
    axes.set_ylabel(f"{result.metric}{unit} {arrow}")
    axes.set_title(_title(result), loc="left", fontsize=10, pad=18)
    axes.grid(axis="y", alpha=0.3)
    return figure


def draw_matrix(result: TaskResult, labels: Mapping[str, str], alpha: float = 0.05) -> Figure:
    """Corrected p-values of all pairs, best method first; separated pairs have a ring.

    Args:
        result: of one task, or of all.
        labels: name or code of each method.
        alpha: at which pairs count as separated.
    """
    names = [labels[cell.method] for cell in result.cells]
    count = len(names)
    figure, axes = _axes(0.42 * count + 2.6, 0.42 * count + 1.8)
    colours = ListedColormap(SHADES)
    norm = BoundaryNorm([0, alpha / 50, alpha / 5, alpha, 1], len(SHADES))
    shown = np.ma.masked_array(result.p_values, np.eye(count, dtype=bool))
    image = axes.imshow(shown, cmap=colours, norm=norm)
    rows, columns = np.nonzero((result.p_values <= alpha) & ~np.eye(count, dtype=bool))
    axes.plot(columns, rows, "o", mfc="none", mec="black", ms=7, mew=0.8)
    axes.set_xticks(range(count), names, rotation=90, fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    figure.colorbar(image, ax=axes, label="corrected p-value", shrink=0.8)
    axes.set_title(_title(result), loc="left", fontsize=10)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as PNG, without the date and version that would make two alike ones differ."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def save_figures(report: Report, folder: Path, stem: str) -> dict[str, Path]:
    """Draw every task, and all together, into PNG files.

    Args:
        report: of a comparison.
        folder: for the files.
        stem: with which their names begin.

    Returns:
        Path by title.

    Raises:
        CheckpointWriteError: the system refused.
    """
    paths = {}
    for result in report.results:
        path = folder / f"{stem}_{result.task.replace('/', '_').replace(' ', '_')}.png"
        with atomic_write(path) as file:
            file.write(png(draw(result, report.labels, report.alpha)))
        paths[_title(result)] = path
    return paths


def _title(result: TaskResult) -> str:
    return "all tasks" if result.task == ALL else result.task


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _violin(axes: Axes, x: int, cell: Cell) -> None:
    """Posterior of the mean: Student's distribution whose interval is the cell's."""
    if cell.interval is None or cell.seeds < 3 or not cell.interval.width > 0:
        return
    freedom, level = cell.seeds - 1, cell.interval.level
    scale = cell.interval.width / 2 / float(stats.t.ppf(0.5 + level / 2, freedom))
    centre = (cell.interval.low + cell.interval.high) / 2
    reach = float(stats.t.ppf(0.998, freedom))
    at = np.linspace(-reach, reach, 101)
    density = stats.t.pdf(at, freedom)
    half = 0.35 * density / density.max()
    y = centre + scale * at
    axes.fill_betweenx(y, x - half, x + half, color=ORANGE, alpha=0.25, lw=0, zorder=1)
