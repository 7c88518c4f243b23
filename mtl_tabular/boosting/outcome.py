"""What a run of ``boost`` reached: ``metrics.json``, the long table, a table in the terminal."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xgboost as xgb
from rich.console import Console
from rich.table import Table

from mtl_core.atomic import append_line_block, atomic_write
from mtl_core.baselines import References, protocol_of
from mtl_core.callbacks.results import COLUMNS, csv_lines, result_rows, versions
from mtl_core.callbacks.task_table import number, percent, task_table
from mtl_tabular.boosting.model_file import Model
from mtl_tabular.boosting.scores import Summary, labelled_scores, summary
from mtl_tabular.boosting.stacked import StackedRMTGB
from mtl_tabular.data.rows import TableRows

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Outcome:
    """Reports of a model.

    Args:
        out: folder of the run.
        model: trained.
        digest: hash of its plan, see `mtl_core.baselines.plan_hash`.
        results: long table of all runs; empty keeps none.
        seconds: that the call took.
    """

    out: Path
    model: Model
    digest: str
    results: str
    seconds: float

    @property
    def method(self) -> str:
        """What the long table calls the model: its class, of XGBoost's the strategy as well."""
        if isinstance(self.model, StackedRMTGB):
            return type(self.model.estimator).__name__
        return f"BoostedTrees ({self.model.strategy})"

    @property
    def seed(self) -> int:
        """Of the model."""
        if isinstance(self.model, StackedRMTGB):
            return self.model.seed
        return int(self.model.parameters["seed"])

    def report(self, rows: TableRows, references: str | None, console: Console) -> None:
        """Score a split, write the scores and print them.

        ``metrics.json`` keeps the other splits of the same plan; scoring ``val`` starts it anew.

        Args:
            rows: of `TableDataModule.dataset`, with targets.
            references: file of single-task numbers for Δm.
            console: where the table goes.
        """
        tasks, split = self.model.tasks, rows.split
        labelled = self.model.predict_labelled(rows)
        scores = labelled_scores(tasks, labelled)
        summed = summary(tasks, labelled, scores)
        gains: dict[str, float] = {}
        if references is not None:
            known = References.load(references)
            known.check(tasks)
            gains = known.gains(scores, split, tasks)
        section: dict[str, Any] = {"tasks": scores}
        if summed.mean:
            section |= {"overall": summed.overall, "mean": summed.mean, "worst": summed.worst}
            section["worst_task"] = summed.worst_task
        if gains:
            section |= {"gain": gains, "delta_m": math.fsum(gains.values()) / len(gains)}
        content = {
            "method": self.method,
            "protocol": protocol_of(tasks),
            "plan_hash": self.digest,
            "references": references,
            "seed": self.seed,
            "seconds": round(self.seconds, 2),
            "versions": package_versions(),
            **({} if split == "val" else self._before()),
            split: section,
        }
        with atomic_write(self.out / "metrics.json") as file:
            file.write(json.dumps(content, indent=2, allow_nan=False).encode())
        self.append(scores, split, gains)
        console.print(self._table(f"{split} · {self.method}", scores, summed, gains))

    def append(
        self,
        scores: Mapping[str, Mapping[str, float]],
        split: str,
        gains: Mapping[str, float],
        *,
        method: str = "",
    ) -> None:
        """Add scores to the long table.

        Args:
            scores: value by task and metric.
            split: which rows they are of.
            gains: in percent by task; empty where there are no references.
            method: name; empty: that of the model.
        """
        rows = result_rows(
            scores, self.model.tasks, method=method or self.method, split=split, seed=self.seed,
            plan_hash=self.digest, gains=gains,
        )  # fmt: skip
        if rows and self.results:
            append_line_block(self.results, ",".join(COLUMNS), csv_lines(rows))

    def _before(self) -> dict[str, Any]:
        """Scores that the file has of the same plan."""
        path = self.out / "metrics.json"
        held: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        same = held.get("plan_hash") == self.digest
        return {split: held[split] for split in SPLITS if same and split in held}

    def _table(
        self,
        title: str,
        scores: Mapping[str, Mapping[str, float]],
        summed: Summary,
        gains: Mapping[str, float],
    ) -> Table:
        table = task_table(title, self.model.tasks, scores, gains=gains)
        primary = next(iter(self.model.tasks.values())).primary
        if not summed.worst_task:
            return table
        table.add_section()
        rows = {"overall": summed.overall, "mean": summed.mean}
        for name, values in (rows | {f"worst: {summed.worst_task}": summed.worst}).items():
            if primary not in values:
                continue
            cells: list[Any] = [name, primary, number(values[primary])]
            if gains and name == "mean":
                cells.append(percent(math.fsum(gains.values()) / len(gains)))
            elif gains:
                cells.append("–" if name == "overall" else percent(gains[summed.worst_task]))
            others = "  ".join(f"{m} {number(v)}" for m, v in values.items() if m != primary)
            table.add_row(*cells, "–", others)
        return table


def package_versions() -> dict[str, str]:
    """`mtl_core.callbacks.results.versions`, with XGBoost's."""
    return versions() | {"xgboost": xgb.__version__}
