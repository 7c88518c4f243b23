"""Loss and primary metric of every task over the epochs, as a picture."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mtl_core.atomic import atomic_write
from mtl_core.baselines import References
from mtl_core.callbacks.results import run_folder
from mtl_core.errors import ArgumentError
from mtl_core.metrics.logged import logged_scores
from mtl_core.tasks.base import Task

# The first eight colours of Okabe and Ito's palette, told apart by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6000", "#000000")
GREY = "#666666"

History = Mapping[str, Sequence[tuple[float, float]]]
"""Points (epoch, value) by ``STAGE/TASK/METRIC``."""


def draw_curves(
    history: History, tasks: Mapping[str, Task], references: Mapping[str, float] | None = None
) -> Figure:
    """Draw a row a task: losses on the left, the primary metric on the right.

    Args:
        history: points (epochs done, value) by logged key.
        tasks: records by name.
        references: single-task value of each task's primary metric, drawn as a dashed line.

    Returns:
        The figure, not tied to any global state of matplotlib.
    """
    figure = Figure(figsize=(9.5, 0.5 + 2.1 * len(tasks)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(tasks), 2, squeeze=False, sharex=True)
    for row, (name, task) in enumerate(tasks.items()):
        colour = COLOURS[row % len(COLOURS)]
        loss, metric = grid[row]
        _line(loss, history.get(f"train/{name}/loss", ()), GREY, "training", "--")
        _line(loss, history.get(f"val/{name}/loss", ()), colour, "validation")
        higher = task.higher_is_better()[task.primary]
        points = history.get(f"val/{name}/{task.primary}", ())
        _line(metric, points, colour, "validation")
        known = [(x, y) for x, y in points if math.isfinite(y)]
        if known:
            x, y = (max if higher else min)(known, key=lambda point: point[1])
            metric.plot(x, y, "o", color=colour, mfc="white", mew=1.6, label=f"best {y:.4g}")
        if references and name in references:
            value = references[name]
            metric.axhline(value, color=GREY, lw=1, ls=":", label=f"single task {value:.4g}")
        loss.set_ylabel(name, fontweight="bold", color=colour)
        loss.set_title("loss ↓", fontsize=9, loc="left", color=GREY)
        arrow = "↑" if higher else "↓"
        metric.set_title(f"{task.primary} {arrow}", fontsize=9, loc="left", color=GREY)
        for axes in (loss, metric):
            _style(axes)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _line(
    axes: Axes, points: Sequence[tuple[float, float]], colour: str, label: str, style: str = "-"
) -> None:
    if points:
        marker = "." if len(points) < 30 else ""
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, style, color=colour, lw=1.6, marker=marker, ms=5, label=label)


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=GREY)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(fontsize=8, frameon=False)


class Curves(L.Callback):
    """Keeps ``curves.png`` in the run folder up to date, on the first process only.

    The history is part of the checkpoint, so the curves of a resumed run go on where they were.
    Nothing is drawn under ``fast_dev_run``.

    Args:
        references: file with single-task references (`mtl_core.baselines.References.load`).
        every_n_seconds: shortest time between two drawings within a fit; the end always draws.
    """

    def __init__(self, references: str | None = None, *, every_n_seconds: float = 30.0) -> None:
        if not every_n_seconds >= 0:
            raise ArgumentError("every_n_seconds", "not be negative", every_n_seconds)
        self.every_n_seconds = every_n_seconds
        self.compare_with(references)
        self._history: dict[str, list[tuple[float, float]]] = {}
        self._tasks: dict[str, Task] = {}
        self._folder = Path()
        self._drawn = time.monotonic()

    def compare_with(self, references: str | None) -> None:
        """Take single-task references from a file, or none."""
        self.references = references
        self._known = None if references is None else References.load(references)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the tasks."""
        self._tasks = dict(pl_module.tasks)  # type: ignore[arg-type]
        self._folder = run_folder(trainer)
        self._drawn = time.monotonic()

    def _record(self, trainer: L.Trainer, stage: str, epochs: float) -> None:
        for name, held in logged_scores(trainer.callback_metrics, stage, self._tasks).items():
            for metric, value in held.items():
                points = self._history.setdefault(f"{stage}/{name}/{metric}", [])
                if not points or points[-1][0] < epochs:
                    points.append((epochs, value))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the training losses of the epoch before, which were logged at its very end."""
        self._record(trainer, "train", float(trainer.current_epoch))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the values; draw if the last drawing is old."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        part = done / max(float(trainer.num_training_batches), 1.0)
        self._record(trainer, "val", trainer.current_epoch + (min(part, 1.0) or 1.0))
        if time.monotonic() - self._drawn >= self.every_n_seconds:
            self._draw(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw once more, now with the training loss of the last epoch."""
        self._record(trainer, "train", float(trainer.current_epoch))
        self._draw(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Draw what there is before the run dies."""
        if trainer.state.fn == "fit" and not isinstance(exception, OSError):
            self._draw(trainer)

    @rank_zero_only
    def _draw(self, trainer: L.Trainer) -> None:
        self._drawn = time.monotonic()
        if trainer.fast_dev_run or not self._history:  # type: ignore[attr-defined]
            return
        save_figure(
            draw_curves(self._history, self._tasks, self._reference_values()),
            self._folder / "curves.png",
        )

    def _reference_values(self) -> dict[str, float]:
        held = {} if self._known is None else self._known.scores.get("val", {})
        return {
            name: held[name][task.primary]
            for name, task in self._tasks.items()
            if name in held and task.primary in held[name]
        }

    def state_dict(self) -> dict[str, Any]:
        """All points so far."""
        return {"history": {key: list(points) for key, points in self._history.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self._history = {key: list(points) for key, points in state_dict["history"].items()}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        CheckpointWriteError: the system refused; the file that was there before is untouched.
    """
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
