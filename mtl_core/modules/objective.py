"""From predictions and a batch to separate scalar losses."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_core.data.batch import Batch
from mtl_core.errors import ArgumentError, LabelError
from mtl_core.nn.network import Outputs
from mtl_core.tasks.base import Task, reduce_loss
from mtl_core.types import TaskName


@dataclass(frozen=True)
class Entry:
    """One balanced loss: a task, or one group of it.

    Args:
        name: ``task`` or ``task/group``.
        task: the task.
        group: index of the group, or None for a task without groups.
    """

    name: str
    task: TaskName
    group: int | None = None


def list_entries(tasks: Mapping[TaskName, Task]) -> tuple[Entry, ...]:
    """All entries of a run, in the order of the tasks and of their groups."""
    entries: list[Entry] = []
    for name, task in tasks.items():
        if task.groups:
            entries.extend(Entry(f"{name}/{g}", name, i) for i, g in enumerate(task.groups))
        else:
            entries.append(Entry(name, name))
    return tuple(entries)


def label_mask(task: Task, name: TaskName, batch: Batch) -> Tensor:
    """Bool mask (B, ...) of the elements of a target that count in this batch.

    Combines the task's own sentinel, ``batch["valid"]`` and ``batch["labelled"]``.
    """
    target = batch["targets"][name]
    mask = task.valid(target)
    extra = batch.get("valid", {}).get(name)
    if extra is not None:
        if extra.shape != mask.shape:
            raise LabelError(
                name, f"have a validity mask of shape {tuple(mask.shape)}", tuple(extra.shape)
            )
        mask = mask & extra
    labelled = batch.get("labelled", {}).get(name)
    if labelled is not None:
        mask = mask & labelled.view(-1, *[1] * (mask.ndim - 1))
    return mask


def group_index(task: Task, name: TaskName, batch: Batch) -> Tensor:
    """Group of every sample (B,), for a task that has groups."""
    index = batch.get("group", {}).get(name)
    if index is None:
        raise ArgumentError(
            "batch['group']", f"give the group of every sample for task {name!r}", None
        )
    return index


def check_groups(tasks: Mapping[TaskName, Task], batch: Batch) -> None:
    """Refuse labelled samples whose group is not one of the task's.

    Raises:
        LabelError: names the task and the index found.
    """
    for name, task in tasks.items():
        if not task.groups or name not in batch["targets"]:
            continue
        index = group_index(task, name, batch)
        labelled = batch.get("labelled", {}).get(name)
        known = index if labelled is None else index[labelled]
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < len(task.groups):
            found = sorted(set(known.tolist()) - set(range(len(task.groups))))
            raise LabelError(name, f"have a group in 0..{len(task.groups) - 1}", found[:5])


def entry_losses(
    entries: tuple[Entry, ...],
    tasks: Mapping[TaskName, Task],
    out: Outputs,
    batch: Batch,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss of every entry whose task has targets in the batch: the mean over its labelled elements.

    Intermediate predictions are scored by the same targets and added. A task's static weight is
    applied.

    Returns:
        Scalar losses and scalar counts of labelled elements, float32 on the predictions' device. A
        count of zero comes with a loss of exactly zero and a finite gradient.
    """
    losses: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    reduced: dict[TaskName, tuple[Tensor, Tensor]] = {}
    for entry in entries:
        name = entry.task
        if name not in batch["targets"] or name not in out.predictions:
            continue
        task = tasks[name]
        if name not in reduced:
            target, mask = batch["targets"][name], label_mask(task, name, batch)
            total, count = reduce_loss(
                task.element_loss(task.match(out.predictions[name], target), target, mask), mask
            )
            for extra in out.intermediate.get(name, ()):
                more = task.element_loss(task.match(extra, target), target, mask)
                total = total + reduce_loss(more, mask)[0]
            reduced[name] = (total, count)
        total, count = reduced[name]
        if entry.group is not None:
            member = (group_index(task, name, batch) == entry.group).to(total.dtype)
            total, count = total * member, count * member
        counts[entry.name] = count.sum()
        losses[entry.name] = task.weight * total.sum() / counts[entry.name].clamp_min(1)
    return losses, counts


def to_host(scalars: list[Tensor]) -> list[float]:
    """Values of many scalars in one transfer."""
    return torch.stack([s.detach().float() for s in scalars]).tolist() if scalars else []
