"""The long table of a sweep: one block of lines a run, appended whole."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_core.atomic import append_line_block
from mtl_core.errors import ArgumentError
from mtl_tabular.bench.plan import Run

COLUMNS = (
    "run",
    "network",
    "role",
    "num_tasks",
    "correlation",
    "complexity",
    "seed",
    "task",
    "degree",
    "metric",
    "value",
    "higher_is_better",
    "primary",
    "status",
    "reason",
    "epochs",
    "parameters",
    "seconds",
)
"""Columns of ``results.csv``. ``role`` is multi or single. The last line of a run has no task and
metric, but its status (ok or failed), the reason of a failure, and what it took."""


@dataclass(frozen=True)
class Outcome:
    """What the table says of a run.

    Args:
        scores: value by task and metric.
        reason: why it failed; empty where it did not.
        parameters: trainable numbers of the network.
        seconds: wall time.
    """

    scores: Mapping[str, Mapping[str, float]]
    reason: str = ""
    parameters: int = 0
    seconds: float = 0.0


def append(path: Path, run: Run, lines: Sequence[Mapping[str, Any]]) -> None:
    """Append the lines of a run in one write.

    Args:
        path: the table.
        run: which run.
        lines: what they say besides the run's own columns, the closing line last; what is absent
            stays empty.

    Raises:
        CheckpointWriteError: the system refused; the table is as it was.
    """
    facts = {
        "run": run.digest,
        "network": run.network,
        "role": "single" if run.task else "multi",
        "num_tasks": run.setting.num_tasks,
        "correlation": repr(run.setting.correlation),
        "complexity": run.setting.complexity,
        "seed": run.seed,
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writerows({**facts, **line} for line in lines)
    append_line_block(path, ",".join(COLUMNS), text.getvalue().splitlines())


def read(path: Path) -> dict[str, Outcome]:
    """Outcome by digest of every run that was recorded to its end. Empty without a table.

    Runs whose closing line is missing, because the machine went down, are not there; a run that
    was repeated counts as it ended last.

    Raises:
        ArgumentError: the file is another table.
    """
    if not path.is_file():
        return {}
    lines = path.read_text().splitlines()
    if not lines or lines[0] != ",".join(COLUMNS):
        raise ArgumentError(str(path), f"have the columns {', '.join(COLUMNS)}", lines[:1])
    found: dict[str, Outcome] = {}
    held: dict[str, dict[str, dict[str, float]]] = {}
    for text in lines[1:]:
        # Line by line: one that is cut off within quotes must not swallow the next.
        cells = next(csv.reader([text]), [])
        if len(cells) != len(COLUMNS):
            continue
        line = dict(zip(COLUMNS, cells, strict=True))
        name = line["run"]
        if line["metric"]:
            value = float(line["value"]) if line["value"] else math.nan
            held.setdefault(name, {}).setdefault(line["task"], {})[line["metric"]] = value
        elif line["status"]:
            found[name] = Outcome(
                held.pop(name, {}),
                line["reason"] or ("" if line["status"] == "ok" else "unknown"),
                int(line["parameters"] or 0),
                float(line["seconds"] or 0),
            )
    return found


def mend(path: Path) -> None:
    """End a table's last line where the machine went down within it."""
    if path.is_file() and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")
