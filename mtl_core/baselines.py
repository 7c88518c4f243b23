"""Single-task references of Δm: which runs may be compared, and where their numbers are kept."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError, MissingTaskError, MixedProtocolError
from mtl_core.metrics.delta_m import task_gains
from mtl_core.tasks.base import Task

# What of the trainer's arguments changes the result of a single-task run; the machine does not.
TRAINER_KEYS = (
    "accumulate_grad_batches",
    "fast_dev_run",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_train_batches",
    "limit_val_batches",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "overfit_batches",
    "precision",
)
# What of the data's arguments does not.
DATA_KEYS_LEFT_OUT = frozenset({"tasks", "num_workers", "predict"})


def plan(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a run's config that determine its single-task references.

    These are the tasks, the data, the model (network, optimiser, scheduler), and the length and
    precision of training. Callbacks (so the balancer), loggers, folders, devices and loader
    processes are left out, and so is the seed: references are means over the recorded seeds.

    Args:
        config: parsed config of ``fit``, as plain data.
    """
    data, model = dict(config.get("data") or {}), dict(config.get("model") or {})
    kept = {k: v for k, v in (data.get("init_args") or {}).items() if k not in DATA_KEYS_LEFT_OUT}
    network = {k: v for k, v in (model.get("init_args") or {}).items() if k != "tasks"}
    trainer = config.get("trainer") or {}
    return {
        "tasks": config.get("tasks") or {},
        "data": {"class_path": data.get("class_path"), "init_args": kept},
        "model": {"class_path": model.get("class_path"), "init_args": network},
        "trainer": {k: trainer[k] for k in TRAINER_KEYS if trainer.get(k) is not None},
    }


def plan_hash(config: Mapping[str, Any]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of `plan`, whatever the order of its keys.

    >>> plan_hash({"tasks": {}}) == plan_hash({"tasks": {}, "trainer": {"logger": True}})
    True
    """
    text = json.dumps(plan(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class References:
    """Single-task numbers that Δm compares with.

    Args:
        scores: value by split, task and metric. For recorded runs the mean over seeds.
        protocol: evaluation protocol they follow, empty where there is only one.
        plan_hash: of the config they belong to; empty for numbers from elsewhere.
        seeds: for which they were recorded.
    """

    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    protocol: str = ""
    plan_hash: str = ""
    seeds: tuple[int, ...] = field(default=())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a recorded file, or a YAML or JSON file written by hand.

        By hand, ``{protocol: survey, tasks: {semseg: {miou: 0.66}}}`` serves every split; the value
        has to be in the unit of the metric (mIoU in [0, 1], not in percent).

        Raises:
            ArgumentError: there is no such file, or it lacks a ``tasks`` or ``runs`` block.
        """
        path = Path(path)
        if not path.is_file():
            raise ArgumentError("references", "name a file", str(path))
        content = yaml.safe_load(path.read_text())
        if isinstance(content, dict) and isinstance(content.get("runs"), list):
            return cls(
                _means(content["runs"]),
                content.get("protocol", ""),
                content.get("plan_hash", ""),
                tuple(sorted({r["seed"] for r in content["runs"] if r["seed"] is not None})),
            )
        if not isinstance(content, dict) or not isinstance(content.get("tasks"), dict):
            raise ArgumentError(f"references file {path}", "hold a block 'tasks'", content)
        scores = content["tasks"]
        return cls({"val": scores, "test": scores}, content.get("protocol", ""))

    def check(self, tasks: Mapping[str, Task]) -> None:
        """Refuse to be compared with these tasks where that would mean nothing.

        Raises:
            MissingTaskError: a task has no reference in a split that has references.
            MixedProtocolError: tasks and references follow different protocols.
        """
        for split, held in self.scores.items():
            for name in tasks:
                if name not in held:
                    raise MissingTaskError(name, held, f"the single-task references ({split})")
        protocol = protocol_of(tasks)
        if protocol != self.protocol:
            raise MixedProtocolError({"this run": protocol, "the references": self.protocol})

    def gains(
        self, scores: Mapping[str, Mapping[str, float]], split: str, tasks: Mapping[str, Task]
    ) -> dict[str, float]:
        """Gain in percent of the primary metric of every task; their mean is Δm.

        Args:
            scores: value by task and metric of this run.
            split: ``val`` or ``test``.
            tasks: records by name; every one needs a reference.

        Returns:
            Gain by task. Empty where this split has no references at all, or where a task of
            this run has no value (none of its labels in the split).

        Raises:
            MissingTaskError: a task has no reference.
            MixedProtocolError: run and references follow different protocols.
        """
        held = self.scores.get(split)
        if not held:
            return {}
        primary = {name: task.primary for name, task in tasks.items()}
        if any(primary[name] not in scores.get(name, {}) for name in tasks):
            return {}
        return task_gains(
            {name: scores[name] for name in tasks},
            held,
            {name: task.higher_is_better() for name, task in tasks.items()},
            primary=primary,
            protocol=protocol_of(tasks),
            reference_protocol=self.protocol,
        )


def protocol_of(tasks: Mapping[str, Task]) -> str:
    """The one evaluation protocol of a run's tasks; empty where none names one.

    Raises:
        MixedProtocolError: there are several.
    """
    named = {name: task.evaluation for name, task in tasks.items() if task.evaluation}
    if len(set(named.values())) > 1:
        raise MixedProtocolError(named)
    return next(iter(named.values()), "")


def recorded_path(folder: Path | str, digest: str) -> Path:
    """Where the references of a plan are kept below `folder`."""
    return Path(folder) / f"{digest}.json"


def record(
    folder: Path | str,
    *,
    digest: str,
    task: str,
    protocol: str,
    seed: int | None,
    scores: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Path:
    """Add one single-task run to its plan's file; a run of the same task and seed is replaced.

    Args:
        folder: of all recorded references.
        digest: `plan_hash` of the multi-task config.
        task: the run's only task.
        protocol: its evaluation protocol.
        seed: of the run.
        scores: value by split and metric.
        facts: what else to keep (versions, wall time).
        settings: the plan itself, for people who read the file.

    Returns:
        The file.

    Raises:
        CheckpointWriteError: the system refused; the file is as it was.
    """
    path = recorded_path(folder, digest)
    content: dict[str, Any] = {"runs": []}
    if path.is_file():
        content = json.loads(path.read_text())
    runs = [r for r in content["runs"] if (r["task"], r["seed"]) != (task, seed)]
    finite = {s: {m: v for m, v in held.items() if math.isfinite(v)} for s, held in scores.items()}
    runs.append({"task": task, "seed": seed, "scores": finite, **facts})
    # A task that knows one protocol only, such as classification, says nothing about the others.
    protocol = protocol or content.get("protocol", "")
    content = {"plan_hash": digest, "protocol": protocol, "runs": runs, "plan": dict(settings)}
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2, default=str).encode())
    return path


def _means(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean over seeds by split, task and metric; a metric counts where every seed has it."""
    grouped: dict[str, dict[str, list[dict[str, float]]]] = {}
    for run in runs:
        for split, scores in run["scores"].items():
            grouped.setdefault(split, {}).setdefault(run["task"], []).append(scores)
    return {
        split: {
            task: {
                metric: math.fsum(s[metric] for s in held) / len(held)
                for metric in held[0]
                if all(metric in s for s in held)
            }
            for task, held in by_task.items()
        }
        for split, by_task in grouped.items()
    }
