"""Prediction sheets: input, targets and predictions side by side, a row a sample."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mtl_core.errors import ArgumentError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.tasks import IGNORE, DepthEstimation, SemanticSegmentation, SurfaceNormals
from mtl_vision.visualize import (
    DEPTH_COLOURS,
    STRIPES,
    Line,
    Picture,
    class_colours,
    depth_limits,
    describe,
    draw,
    to_array,
)

Column: TypeAlias = Sequence[Any | None]
"""One array a sample; None where a sample has none."""

INK, FAINT = "#222222", "#8A8A8A"
RIGHT, WRONG = "#00695C", "#C04A00"

# Everything below is in inches.
PANEL = 1.45
GAP, GROUP_GAP, MARGIN = 0.05, 0.22, 0.18
HEADER, LINE, TITLE = 0.46, 0.23, 0.34


def draw_sheet(
    images: Sequence[Picture],
    targets: Mapping[TaskName, Column],
    predictions: Mapping[TaskName, Column],
    tasks: Mapping[TaskName, Task],
    *,
    title: str = "",
) -> Figure:
    """Draw a sheet with a row a sample: the input, then target and prediction of every task.

    Below stand the classes that occur, the depth scale and the meaning of the colours of normals.
    The depth scale spans the known depths of the sheet's targets, so that rows and predictions can
    be compared; predictions beyond it are clipped.

    Args:
        images: N pictures (H, W, 3) uint8 of one size.
        targets: by task, N targets; a task may be absent.
        predictions: by task, N activated predictions of one sample each; a task may be absent.
        tasks: records by name, in the order of the columns.
        title: a line above everything.

    Returns:
        The figure, not tied to any global state of matplotlib.
    """
    if not len(images):
        raise ArgumentError("images", "hold at least one picture", 0)
    height, width = images[0].shape[:2]
    panel = (PANEL * min(width / height, 2.0), PANEL * min(width / height, 2.0) * height / width)
    columns = [panel[0]] + [
        2 * panel[0] + GAP if task.dense else max(panel[0], PANEL) for task in tasks.values()
    ]
    total = 2 * MARGIN + sum(columns) + GROUP_GAP * len(tasks)
    legend = _Legend(tasks, targets, predictions, total - 2 * MARGIN)
    top = MARGIN + HEADER + (TITLE if title else 0)
    body = len(images) * (panel[1] + GAP)
    page = _Page(total, top + body + 0.12 + legend.height + MARGIN)
    if title:
        page.text(MARGIN, MARGIN, title, size=11.5, weight="bold")

    above = top - HEADER
    page.text(MARGIN, above + 0.02, "input", weight="bold")
    for row, image in enumerate(images):
        page.picture(MARGIN, top + row * (panel[1] + GAP), panel, image)
    left = MARGIN + panel[0] + GROUP_GAP
    for (name, task), column in zip(tasks.items(), columns[1:], strict=True):
        truth = targets.get(name) or [None] * len(images)
        guess = predictions.get(name) or [None] * len(images)
        page.text(left, above + 0.02, name, weight="bold")
        page.rule(left, above + 0.25, column)
        halves = ((left, "target"), (left + panel[0] + GAP, "prediction"))
        for x, words in halves if task.dense else ((left, "prediction"),):
            page.text(x, above + 0.27, words, size=7.5, colour=FAINT)
        for row in range(len(images)):
            y = top + row * (panel[1] + GAP)
            if not task.dense:
                page.words(left, y, (column, panel[1]), task, truth[row], guess[row])
                continue
            limits = legend.depth.get(name)
            for (x, words), array in zip(halves, (truth[row], guess[row]), strict=True):
                picture = None
                if array is not None:
                    # Clipped, a predicted depth of 0 is not taken for an unknown one.
                    clip = limits if words == "prediction" else None
                    shown = np.clip(to_array(array), *clip) if clip else array
                    picture = draw(task, shown, limits=limits)
                page.picture(x, y, panel, picture, missing=f"no {words}")
        left += column + GROUP_GAP
    legend.place(page, top + body + 0.12)
    return page.figure


class _Page:
    """A figure addressed in inches from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.size = (width, height)
        self.figure = Figure(figsize=self.size, dpi=130, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        w, h = self.size
        axes = self.figure.add_axes((x / w, 1 - (y + height) / h, width / w, height / h))
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 9,
        weight: str = "normal",
        colour: str = INK,
    ) -> None:
        w, h = self.size
        self.figure.text(
            x / w, 1 - y / h, words, size=size, weight=weight, color=colour, va="top", ha="left"
        )

    def rule(self, x: float, y: float, width: float) -> None:
        w, h = self.size
        line = Rectangle(
            (x / w, 1 - y / h), width / w, 0.008 / h, color="#C8C8C8", lw=0, transform=None
        )
        line.set_transform(self.figure.transFigure)
        self.figure.add_artist(line)

    def picture(
        self,
        x: float,
        y: float,
        size: tuple[float, float],
        picture: Picture | None,
        *,
        missing: str = "",
    ) -> None:
        axes = self.axes(x, y, *size)
        if picture is None:
            axes.set_facecolor("#F3F3F3")
            axes.text(0.5, 0.5, missing, size=8, color=FAINT, ha="center", va="center")
        else:
            axes.imshow(picture, aspect="auto", interpolation="antialiased")

    def words(
        self, x: float, y: float, size: tuple[float, float], task: Task, target: Any, guess: Any
    ) -> None:
        if guess is None:
            self.picture(x, y, size, None, missing="no prediction")
            return
        lines = describe(task, target, guess)
        room = max(1, int(size[1] / 0.16))
        if len(lines) > room:
            lines = [*lines[: room - 1], Line("...")]
        for i, (words, right) in enumerate(lines):
            mark = {True: "✓ ", False: "✗ ", None: ""}[right]
            colour = {True: RIGHT, False: WRONG, None: INK}[right]
            fitting = int(size[0] / 0.075)
            text = mark + (words if len(words) <= fitting else f"{words[: fitting - 1]}…")
            self.text(x, y + 0.02 + 0.16 * i, text, size=8, colour=colour)


class _Legend:
    """What the colours of a sheet mean: a line or more a task, and unlabelled pixels."""

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        targets: Mapping[TaskName, Column],
        predictions: Mapping[TaskName, Column],
        width: float,
    ) -> None:
        self.width = width
        self.depth: dict[TaskName, tuple[float, float]] = {}
        self.classes: dict[TaskName, list[tuple[str, str]]] = {}
        self.normals: list[TaskName] = []
        self.striped = False
        for name, task in tasks.items():
            truth = [to_array(a) for a in targets.get(name, ()) if a is not None]
            guess = [to_array(a) for a in predictions.get(name, ()) if a is not None]
            if task.dense:
                self.striped |= any(_unlabelled(task, a) for a in truth)
            if isinstance(task, DepthEstimation):
                spread = np.concatenate([a.ravel() for a in truth or guess or [np.zeros(1)]])
                self.depth[name] = depth_limits(spread)
            elif isinstance(task, SurfaceNormals):
                self.normals.append(name)
            elif isinstance(task, SemanticSegmentation):
                self.classes[name] = _classes(task, truth, guess)
        self.indent = 0.12 + 0.085 * max((len(name) for name in tasks), default=0)
        self.rows = {name: self._wrap(entries) for name, entries in self.classes.items()}
        lines = sum(len(rows) for rows in self.rows.values()) + len(self.depth)
        self.height = LINE * (lines + int(self.striped)) + 0.5 * len(self.normals)

    def _wrap(self, entries: Sequence[tuple[str, str]]) -> list[list[tuple[float, str, str]]]:
        """Entries with their left edge, line by line."""
        rows: list[list[tuple[float, str, str]]] = [[]]
        x = self.indent
        for words, colour in entries:
            needed = 0.30 + 0.072 * len(words)
            if rows[-1] and x + needed > self.width:
                rows.append([])
                x = self.indent
            rows[-1].append((x, words, colour))
            x += needed
        return rows

    def place(self, page: _Page, y: float) -> None:
        """Write it from `y` inches downwards."""
        for name, rows in self.rows.items():
            page.text(MARGIN, y + 0.02, name, size=8, weight="bold")
            for row in rows:
                for x, words, colour in row:
                    swatch = page.axes(MARGIN + x, y + 0.035, 0.15, 0.11)
                    swatch.set_facecolor(colour)
                    page.text(MARGIN + x + 0.2, y + 0.02, words, size=8)
                y += LINE
        for name, (low, high) in self.depth.items():
            page.text(MARGIN, y + 0.02, name, size=8, weight="bold")
            bar = page.axes(MARGIN + self.indent + 0.45, y + 0.035, 1.6, 0.11)
            bar.imshow(np.linspace(0, 1, 256)[None], cmap=DEPTH_COLOURS, aspect="auto")
            page.text(MARGIN + self.indent, y + 0.02, f"{low:.2g} m", size=8)
            page.text(MARGIN + self.indent + 2.1, y + 0.02, f"{high:.2g} m", size=8)
            y += LINE
        for name in self.normals:
            page.text(MARGIN, y + 0.15, name, size=8, weight="bold")
            page.axes(MARGIN + self.indent, y + 0.02, 0.44, 0.44).imshow(_ball())
            words = (
                "red is x, green is y, blue is z: a ball with x to the right, y up, z to the viewer"
            )
            page.text(MARGIN + self.indent + 0.54, y + 0.15, words, size=8, colour=FAINT)
            y += 0.5
        if self.striped:
            light, dark = (_hex(colour) for colour in STRIPES)
            swatch = page.axes(MARGIN + self.indent, y + 0.035, 0.15, 0.11)
            swatch.set_facecolor(light)
            swatch.add_patch(Rectangle((0, 0), 1, 1, fc="none", ec=dark, hatch="//////", lw=0))
            page.text(MARGIN + self.indent + 0.2, y + 0.02, "unlabelled", size=8)


def _unlabelled(task: Task, target: Any) -> bool:
    """Whether `draw` stripes a part of a target."""
    if isinstance(task, SurfaceNormals):
        return bool((target == 0).all(0).any())
    if isinstance(task, DepthEstimation):
        return bool((target <= 0).any())
    return bool((target == IGNORE).any())


def _classes(
    task: SemanticSegmentation, targets: Sequence[Any], predictions: Sequence[Any]
) -> list[tuple[str, str]]:
    """Name and colour of every class that occurs, most frequent first."""
    counts = np.zeros(IGNORE + 1, np.int64)
    for labels in [*targets, *(p.argmax(0) for p in predictions)]:
        counts += np.bincount(labels.ravel().astype(np.int64), minlength=IGNORE + 1)
    shown = [k for k in np.argsort(-counts, kind="stable") if counts[k] and k < task.num_classes]
    colours = class_colours(task).tolist()
    names = task.class_names or [str(k) for k in range(task.num_classes)]
    return [(names[k].replace("_", " "), _hex(colours[k])) for k in shown]


def _hex(colour: Sequence[int]) -> str:
    red, green, blue = colour
    return to_hex((red / 255, green / 255, blue / 255))


def _ball() -> Picture:
    """The normals of a ball seen from the front, (H, W, 3), on white."""
    y, x = np.mgrid[1:-1:96j, -1:1:96j]
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, None))
    normals = np.stack([x, y, z])
    picture = draw(SurfaceNormals(), normals)
    picture[x * x + y * y > 1] = 255
    return picture
