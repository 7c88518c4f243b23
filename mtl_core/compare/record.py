"""What a run leaves in the comparison's files: rows of results, and a line in the list of runs."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl_core.atomic import append_line_block
from mtl_core.compare.jobs import Job
from mtl_core.errors import ArgumentError
from mtl_core.stats.costs import PREFIX
from mtl_core.stats.plan import ALL, Plan
from mtl_core.stats.table import Row, Table
from mtl_core.trial import Outcome

LINE = (
    "block",
    "seed",
    "method",
    "task",
    "position",
    "status",
    "reason",
    "seconds",
    "cpu_seconds",
    "peak_mib",
)


@dataclass(frozen=True)
class Ending:
    """How a run ended, over all its commands.

    Attributes:
        status: of the first command that did not finish, else ``finished``.
        reason: of it, or empty.
        seconds: wall time of all commands.
        cpu_seconds: likewise.
        peak_mib: most memory of any.
        trainings: outcomes of its trainings: one, or two of a method that is trained twice.
    """

    status: str
    reason: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    trainings: tuple[Outcome, ...]

    @classmethod
    def of(cls, outcomes: Mapping[str, Outcome]) -> "Ending":
        """Of a run's commands, in order."""
        bad = {k: o for k, o in outcomes.items() if o.status != "finished"}
        verb, first = next(iter(bad.items())) if bad else ("", None)
        return cls(
            status=first.status if first else "finished",
            reason=f"{verb}: {first.reason}" if first else "",
            seconds=round(sum(o.seconds for o in outcomes.values()), 3),
            cpu_seconds=round(sum(o.cpu_seconds for o in outcomes.values()), 3),
            peak_mib=max(o.peak_mib for o in outcomes.values()),
            trainings=tuple(outcomes[verb] for verb in ("first", "fit") if verb in outcomes),
        )


def run_rows(job: Job, plan: Plan, written: Path, ending: Ending) -> list[Row]:
    """Rows of a run that finished: its scores, and what it cost.

    Args:
        job: the run.
        plan: gives its hash to the rows.
        written: table of the run's own, which its callback has written.
        ending: how it ended.

    Raises:
        ArgumentError: the run has not written a finite value of a primary metric.
    """
    found = []
    for row in Table.read(written).select(split=plan.split).rows if written.is_file() else ():
        metric = f"{row.block}/{row.metric}" if row.block else row.metric
        here = replace(row, block=str(job.block), plan_hash=plan.hash, seed=job.seed)
        found.append(replace(here, method=job.method, metric=metric))
    held = {(row.task, row.metric) for row in found if row.value == row.value}
    for task in [job.task] if job.task else plan.metrics:
        if (task, plan.metrics[task]) not in held:
            known = ", ".join(sorted(f"{t}/{m}" for t, m in held)) or "nothing"
            rule = f"have a finite value of {task}/{plan.metrics[task]} ({plan.split})"
            raise ArgumentError("a run", rule, known)
    costs = {
        "cpu_seconds": round(sum(o.cpu_seconds for o in ending.trainings), 3),
        "peak_mib": max(o.peak_mib for o in ending.trainings),
        "step_ms": step_time(ending.trainings),
    }
    where = job.task or ALL
    found += [
        Row(job.method, where, f"{PREFIX}{key}", value, False, job.seed, plan.split, "", *block)
        for key, value in costs.items()
        if value is not None
        for block in [(str(job.block), plan.hash)]
    ]
    return found


def step_time(trainings: Sequence[Outcome]) -> float | None:
    """Milliseconds a step, validations included, over all trainings; None without steps."""
    steps = sum(o.metrics.get("steps", 0) for o in trainings)
    seconds = [o.metrics["seconds"] for o in trainings if "seconds" in o.metrics]
    return round(1000 * sum(seconds) / steps, 3) if steps and seconds else None


def macs_row(method: str, plan: Plan, profile: Mapping[str, Any]) -> Row:
    """Row of the multiply-accumulates of one sample, all tasks in one call."""
    macs = float(profile["together"]["macs"])
    return Row(method, ALL, f"{PREFIX}macs", macs, False, None, plan.split, "", "", plan.hash)


class RunList:
    """The list of runs that have ended, ``runs.csv``.

    Args:
        path: of the file.
        plan: whose codes stand in it where the plan is blind.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self._names = {code: name for name, code in plan.codes.items()}

    def read(self) -> dict[tuple[str, str, int], dict[str, str]]:
        """The last line of each run, by `Job.key`."""
        if not self.path.is_file():
            return {}
        with self.path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        found = {}
        for line in lines:
            if None in line.values():
                continue  # cut short by a crash; the run is done once more
            method = self._names.get(line["method"], line["method"])
            found[method, line["task"], int(line["seed"])] = {**line, "method": method}
        return found

    def append(self, job: Job, ending: Ending) -> None:
        """Add a line.

        Raises:
            CheckpointWriteError: the system refused.
        """
        values = {
            "block": job.block,
            "seed": job.seed,
            "method": self.plan.codes[job.method]
            if self.plan.blind and not job.task
            else job.method,
            "task": job.task,
            "position": job.position,
            "status": ending.status,
            "reason": ending.reason,
            "seconds": ending.seconds,
            "cpu_seconds": ending.cpu_seconds,
            "peak_mib": ending.peak_mib,
        }
        text = io.StringIO()
        csv.DictWriter(text, LINE, lineterminator="\n").writerow(values)
        # A reason may have line ends, and stays one value.
        append_line_block(self.path, ",".join(LINE), [text.getvalue().rstrip("\n")])
