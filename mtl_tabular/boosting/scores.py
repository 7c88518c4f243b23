"""Scores of raw predictions of labelled rows, as those of networks, and what sums them up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mtl_core.data.batch import Batch
from mtl_core.metrics.logged import logged_scores
from mtl_core.modules.scores import Scores
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget, TargetColumn


def labelled_scores(
    tasks: Mapping[str, TargetColumn], labelled: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, dict[str, float]]:
    """Scores by task and metric, as those of networks.

    Args:
        tasks: fitted records by name.
        labelled: raw predictions (M, C) and targets (M,) by task.
    """
    scores = Scores(tasks, ())
    for name, (raw, targets) in labelled.items():
        batch: Batch = {"inputs": torch.empty(0), "targets": {name: targets}}
        scores.add_predictions({name: raw}, batch)
    logged = {f"test/{key}": value for key, value in scores.compute().items()}
    return logged_scores(logged, "test", tasks)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Scores of all tasks together, by metric; empty where tasks have none in common.

    Args:
        overall: over all labelled rows, whichever task they belong to; empty where tasks differ in
            unit or classes.
        mean: over tasks.
        worst: of the task that is worst by this metric.
        worst_task: the one that is worst by the primary metric; empty where `worst` is.
    """

    overall: Mapping[str, float]
    mean: Mapping[str, float]
    worst: Mapping[str, float]
    worst_task: str


def summary(
    tasks: Mapping[str, TargetColumn],
    labelled: Mapping[str, tuple[Tensor, Tensor]],
    scores: Mapping[str, Mapping[str, float]],
) -> Summary:
    """Sum up several tasks; tasks without a score are left out.

    Args:
        tasks: fitted records by name.
        labelled: raw predictions (M, C) and targets (M,) by task.
        scores: value by task and metric.
    """
    held = {name: values for name, values in scores.items() if values}
    primaries = {tasks[name].primary for name in held}
    if len(held) < 2 or len(primaries) > 1:
        return Summary(overall={}, mean={}, worst={}, worst_task="")
    higher = tasks[next(iter(held))].higher_is_better()
    common = [m for m in higher if all(m in values for values in held.values())]
    mean = {m: math.fsum(values[m] for values in held.values()) / len(held) for m in common}

    def worst_of(metric: str) -> str:
        return min(held, key=lambda name: held[name][metric] * (1 if higher[metric] else -1))

    primary = primaries.pop()
    return Summary(
        overall=_overall(tasks, labelled),
        mean=mean,
        worst={m: held[worst_of(m)][m] for m in common},
        worst_task=worst_of(primary) if primary in common else "",
    )


def _overall(
    tasks: Mapping[str, TargetColumn], labelled: Mapping[str, tuple[Tensor, Tensor]]
) -> Mapping[str, float]:
    records = [tasks[name] for name in labelled]
    units = {
        (type(t), (t.column if t.level else "") if isinstance(t, NumericTarget) else t.classes)
        for t in records
        if isinstance(t, NumericTarget | BinaryTarget | MulticlassTarget)
    }
    if len(units) > 1 or (isinstance(records[0], NumericTarget) and not records[0].level):
        return {}
    # In the targets' own unit, because tasks differ in mean and spread.
    raws = [tasks[n].activate(raw) if isinstance(tasks[n], NumericTarget) else raw
            for n, (raw, _) in labelled.items()]  # fmt: skip
    record = replace(records[0], groups=())
    if isinstance(record, NumericTarget):
        record = replace(record, mean=0.0, std=1.0)
    targets = torch.cat([target for _, target in labelled.values()])
    return labelled_scores({"all": record}, {"all": (torch.cat(raws), targets)}).get("all", {})
