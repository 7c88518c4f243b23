"""One table per validation and test: a row a task, with direction, best value so far and Δm."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtl_core.baselines import References, protocol_of
from mtl_core.data.datamodule import MultiTaskDataModule
from mtl_core.errors import ArgumentError
from mtl_core.metrics.logged import logged_scores
from mtl_core.tasks.base import Task

Scores = Mapping[str, Mapping[str, float]]


def number(value: float) -> str:
    """Four significant digits, aligned by eye: ``0.4127``, ``12.35``, ``1.2e-05``."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        digits = 3 - math.floor(math.log10(abs(value))) if value else 3
        return f"{value:.{min(max(digits, 0), 5)}f}"
    return f"{value:.2e}"


def percent(value: float) -> Text:
    """A signed percentage, green where it is a gain and red where it is a loss."""
    return Text(f"{value:+.2f} %", style="green" if value > 0 else "red" if value < 0 else "")


def task_table(
    title: str,
    tasks: Mapping[str, Task],
    scores: Scores,
    *,
    best: Scores | None = None,
    gains: Mapping[str, float] | None = None,
    notes: str = "",
) -> Table:
    """Build the table of one evaluation.

    Args:
        title: what was evaluated, when, and by which protocol.
        tasks: records by name, a row each.
        scores: value by task and metric, ``loss`` among them.
        best: best values of earlier evaluations; None leaves the column out.
        gains: gain over single-task references in percent; their mean is Δm. None or empty
            leaves the column out.
        notes: line below the table.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("task", style="cyan", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    if best is not None:
        table.add_column("best before", justify="right", no_wrap=True, style="dim")
    if gains:
        table.add_column("vs single", justify="right", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("other metrics", style="dim", overflow="fold")
    for name, task in tasks.items():
        values, higher = scores.get(name, {}), task.higher_is_better()
        value = values.get(task.primary, math.nan)
        before = (best or {}).get(name, {}).get(task.primary, math.nan)
        better = value > before if higher[task.primary] else value < before
        first = math.isnan(before) and not math.isnan(value)
        mark = "" if best is None else " ★" if better or first else "  "
        style = "bold green" if better else "bold"
        shown = "no labels" if math.isnan(value) else number(value)
        row: list[Text | str] = [name, f"{task.primary} {arrow(higher[task.primary])}"]
        row.append(Text(shown + mark, style=style))
        if best is not None:
            row.append("–" if math.isnan(before) else number(before))
        if gains:
            row.append(percent(gains[name]) if name in gains else "–")
        row.append(number(values["loss"]) if "loss" in values else "–")
        others = [
            f"{metric}{arrow(higher[metric.rsplit('/')[-1]])}{number(v)}"
            for metric, v in values.items()
            if metric != task.primary and metric.rsplit("/")[-1] in higher
        ]
        row.append("  ".join(others))
        table.add_row(*row)
    lines = [notes] if notes else []
    if gains:
        mean = math.fsum(gains.values()) / len(gains)
        lines.insert(0, f"Δm = {mean:+.2f} % over single-task runs")
    if lines:
        table.caption = "\n".join(lines)
        table.caption_justify = "left"
    return table


def arrow(higher_is_better: bool) -> str:
    """↑ or ↓."""
    return "↑" if higher_is_better else "↓"


class TaskTable(L.Callback):
    """Prints a table after every validation and test, on the first process only.

    A star marks a value that beats all earlier validations of the run; the best values are part
    of the checkpoint, so a resumed run goes on with them.

    Args:
        references: file with single-task references, see `mtl_core.baselines.References.load`. None
            shows no Δm. The command line uses what was recorded for the config.
        every_n_epochs: print every n-th validation of a fit; 0 prints only after tests and
            validations on their own.
    """

    def __init__(self, references: str | None = None, *, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 0:
            raise ArgumentError("every_n_epochs", "not be negative", every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self.compare_with(references)
        self._best: dict[str, dict[str, float]] = {}
        self._tasks: dict[str, Task] = {}

    def compare_with(self, references: str | None) -> None:
        """Take single-task references from a file, or none."""
        self.references = references
        self._known = None if references is None else References.load(references)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the tasks; refuse references that do not belong to them."""
        self._tasks = dict(pl_module.tasks)  # type: ignore[arg-type]
        if self._known is not None:
            self._known.check(self._tasks)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print, then remember the best values."""
        if trainer.sanity_checking:
            return
        fitting = trainer.state.fn == "fit"
        scores = logged_scores(trainer.callback_metrics, "val", self._tasks)
        epoch = trainer.current_epoch + 1
        if not fitting or (self.every_n_epochs and epoch % self.every_n_epochs == 0):
            when = f"epoch {epoch}" if fitting else "on its own"
            self._print(trainer, "val", f"Validation · {when}", scores, fitting=fitting)
        if fitting:
            self._remember(scores)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print."""
        scores = logged_scores(trainer.callback_metrics, "test", self._tasks)
        self._print(trainer, "test", "Test", scores, fitting=False)

    def _remember(self, scores: Scores) -> None:
        for name, task in self._tasks.items():
            value = scores.get(name, {}).get(task.primary, math.nan)
            held = self._best.setdefault(name, {})
            before = held.get(task.primary, math.nan)
            better = value > before if task.higher_is_better()[task.primary] else value < before
            if not math.isnan(value) and (better or math.isnan(before)):
                held[task.primary] = value

    @rank_zero_only
    def _print(
        self, trainer: L.Trainer, split: str, title: str, scores: Scores, *, fitting: bool
    ) -> None:
        protocol = protocol_of(self._tasks)
        title += f" · protocol {protocol}" if protocol else ""
        notes, gains = skipped_note(trainer), {}
        if self._known is not None:
            gains = self._known.gains(scores, split, self._tasks)
        best = self._best if fitting else None
        table = task_table(title, self._tasks, scores, best=best, gains=gains, notes=notes)
        show(trainer, table)

    def state_dict(self) -> dict[str, Any]:
        """Best values so far."""
        return {"best": {name: dict(held) for name, held in self._best.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self._best = {name: dict(held) for name, held in state_dict["best"].items()}


def skipped_note(trainer: L.Trainer) -> str:
    """How many unreadable files the data module passed over so far, or nothing."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    skipped = data.skipped if isinstance(data, MultiTaskDataModule) else {}
    if not skipped:
        return ""
    names = ", ".join(Path(path).name for path in list(skipped)[:3])
    more = ", ..." if len(skipped) > 3 else ""
    return f"skipped {sum(skipped.values())} samples: unreadable {names}{more}"


def show(trainer: L.Trainer, table: Table) -> None:
    """Print a table above the progress bar, whichever bar there is."""
    console = Console()
    text = io.StringIO()
    Console(
        file=text,
        force_terminal=console.is_terminal,
        color_system="auto" if console.is_terminal else None,
        width=max(console.width, 100) if not console.is_terminal else console.width,
    ).print(table)
    bar = trainer.progress_bar_callback
    lines = [line.rstrip() for line in text.getvalue().rstrip().splitlines()]
    (print if bar is None else bar.print)("\n".join(["", *lines, ""]))
