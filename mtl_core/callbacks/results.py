"""What a run reached, for people (``metrics.json``) and for comparisons (``results.csv``)."""

import csv
import importlib.metadata
import io
import json
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from mtl_core.atomic import append_line_block, atomic_write
from mtl_core.balancing.base import Balancer
from mtl_core.baselines import References, protocol_of
from mtl_core.metrics.logged import logged_scores
from mtl_core.tasks.base import Task

COLUMNS = (
    "method",
    "task",
    "metric",
    "value",
    "higher_is_better",
    "seed",
    "split",
    "example",
    "block",
    "plan_hash",
)
PACKAGES = ("mtl-suite", "torch", "lightning", "torchmetrics", "timm", "numpy")


def run_folder(trainer: L.Trainer) -> Path:
    """Folder of a run: the logger's, or the trainer's root where there is no logger.

    All processes have to ask together: the first one tells the others.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def method_name(trainer: L.Trainer, tasks: Mapping[str, Task]) -> str:
    """Class of the run's balancer; ``Equal`` without one, ``single`` for one task."""
    if len(tasks) == 1:
        return "single"
    balancers = [c for c in trainer.callbacks if isinstance(c, Balancer)]  # type: ignore[attr-defined]
    return type(balancers[0]).__name__ if balancers else "Equal"


def versions() -> dict[str, str]:
    """Python, platform and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def result_rows(
    scores: Mapping[str, Mapping[str, float]],
    tasks: Mapping[str, Task],
    *,
    method: str,
    split: str,
    seed: int | None,
    plan_hash: str,
    gains: Mapping[str, float] | None = None,
) -> list[dict[str, str]]:
    """Rows of the long results table, one a task and metric, in the order of `COLUMNS`.

    A metric of one group of a task has the group as ``block``. Where gains are known, each task
    has a row ``gain`` (percent) and task ``all`` one named ``delta_m``.
    """
    rows: list[dict[str, str]] = []

    def add(task: str, metric: str, value: float, higher: bool, block: str = "") -> None:
        values = (method, task, metric, repr(value), str(higher), "" if seed is None else str(seed))
        rows.append(dict(zip(COLUMNS, (*values, split, "", block, plan_hash), strict=True)))

    for name, held in scores.items():
        higher = tasks[name].higher_is_better()
        for key, value in held.items():
            block, _, metric = key.rpartition("/")
            add(name, metric, value, higher.get(metric, False), block)
        if gains and name in gains:
            add(name, "gain", gains[name], True)
    if gains:
        add("all", "delta_m", math.fsum(gains.values()) / len(gains), True)
    return rows


def csv_lines(rows: list[dict[str, str]]) -> list[str]:
    """Rows as lines of CSV, quoted where needed."""
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue().splitlines()


class Results(L.Callback):
    """Writes the scores of every fit and test, on the first process only.

    ``metrics.json`` in the run folder is replaced after each validation; it holds the last and the
    best value per task and metric, Δm where references exist, seed, versions, wall time in seconds,
    protocol and plan hash. At the end of a fit or test the scores are appended to the long table.
    Nothing is written under ``fast_dev_run``.

    Args:
        references: file with single-task references (`mtl_core.baselines.References.load`).
        plan_hash: of the config, see `mtl_core.baselines.plan_hash`. The command line fills it in.
        seed: of the run. The command line fills it in.
        table: long table of all runs; None is ``results.csv`` in the trainer's root folder, an
            empty text keeps none.
    """

    def __init__(
        self,
        references: str | None = None,
        *,
        plan_hash: str = "",
        seed: int | None = None,
        table: str | None = None,
    ) -> None:
        self.plan_hash = plan_hash
        self.seed = seed
        self.table = table
        self.compare_with(references)
        self._seconds, self._started = 0.0, time.perf_counter()
        self._content: dict[str, Any] = {}
        self._best: dict[str, dict[str, dict[str, float]]] = {}
        self._tasks: dict[str, Task] = {}
        self._folder = Path()

    def compare_with(self, references: str | None) -> None:
        """Take single-task references from a file, or none."""
        self.references = references
        self._known = None if references is None else References.load(references)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start the clock; refuse references that do not belong to the tasks."""
        self._tasks = dict(pl_module.tasks)  # type: ignore[arg-type]
        if self._known is not None:
            self._known.check(self._tasks)
        self._started = time.perf_counter()
        self._folder = run_folder(trainer)

    @property
    def seconds(self) -> float:
        """Wall time so far, over all parts of a resumed run."""
        return self._seconds + time.perf_counter() - self._started

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring ``metrics.json`` up to date."""
        if not trainer.sanity_checking:
            scores = logged_scores(trainer.callback_metrics, "val", self._tasks)
            if trainer.state.fn == "fit":
                self._remember(scores, trainer.current_epoch)
            self._write(trainer, "val", scores)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Append the last validation to the long table."""
        self._append(trainer, "val", logged_scores(trainer.callback_metrics, "val", self._tasks))

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the test's scores to both."""
        scores = logged_scores(trainer.callback_metrics, "test", self._tasks)
        self._write(trainer, "test", scores)
        self._append(trainer, "test", scores)

    def _remember(self, scores: Mapping[str, Mapping[str, float]], epoch: int) -> None:
        for name, held in scores.items():
            higher = self._tasks[name].higher_is_better()
            best = self._best.setdefault(name, {})
            for key, value in held.items():
                up = higher.get(key.rsplit("/")[-1], False)
                before = best.get(key, {}).get("value", -math.inf if up else math.inf)
                if value > before if up else value < before:
                    best[key] = {"value": value, "epoch": epoch}

    def _gains(self, scores: Mapping[str, Mapping[str, float]], split: str) -> dict[str, float]:
        return {} if self._known is None else self._known.gains(scores, split, self._tasks)

    @rank_zero_only
    def _write(
        self, trainer: L.Trainer, split: str, scores: Mapping[str, Mapping[str, float]]
    ) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        gains = self._gains(scores, split)
        section: dict[str, Any] = {"tasks": scores}
        if split == "val" and self._best:
            section["best"] = self._best
        if gains:
            section["gain"] = gains
            section["delta_m"] = math.fsum(gains.values()) / len(gains)
        path = self._folder / "metrics.json"
        kept = _sections(path, self.plan_hash) if split == "test" else {}
        content = {
            "method": method_name(trainer, self._tasks),
            "protocol": protocol_of(self._tasks),
            "plan_hash": self.plan_hash,
            "references": self.references,
            "seed": self.seed,
            "epochs": trainer.current_epoch + (trainer.state.fn == "fit"),
            "steps": trainer.global_step,
            "seconds": round(self.seconds, 2),
            "versions": versions(),
            **kept,
            split: section,
        }
        with atomic_write(path) as file:
            file.write(json.dumps(_plain(content), indent=2, allow_nan=False).encode())

    @rank_zero_only
    def _append(
        self, trainer: L.Trainer, split: str, scores: Mapping[str, Mapping[str, float]]
    ) -> None:
        if trainer.fast_dev_run or self.table == "":  # type: ignore[attr-defined]
            return
        path = Path(self.table or Path(trainer.default_root_dir) / "results.csv")
        rows = result_rows(
            scores,
            self._tasks,
            method=method_name(trainer, self._tasks),
            split=split,
            seed=self.seed,
            plan_hash=self.plan_hash,
            gains=self._gains(scores, split),
        )
        if rows:
            append_line_block(path, ",".join(COLUMNS), csv_lines(rows))

    def state_dict(self) -> dict[str, Any]:
        """Wall time and best values so far."""
        return {"seconds": self.seconds, "best": json.loads(json.dumps(self._best))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self._seconds, self._best = state_dict["seconds"], state_dict["best"]


def _sections(path: Path, plan_hash: str) -> dict[str, Any]:
    """The validation that a test of the same plan finds in the same folder."""
    if not path.is_file():
        return {}
    held = json.loads(path.read_text())
    return {"val": held["val"]} if held.get("plan_hash") == plan_hash and "val" in held else {}


def _plain(value: Any) -> Any:
    """The same with None for what JSON cannot hold (NaN, infinity)."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
