"""Removing experts: exactly, outside of trained windows, or with a loss that is measured."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from export.evaluate import MetricTable
from export.moe import MoESettings, moe_layers, pick_form, window
from export.recipes import QuantizationError
from mtl_core.errors import UnknownNameError
from mtl_core.moe import MoEFFN, RouterOut
from mtl_core.nn import MultiTaskNetwork
from mtl_core.types import Inputs, TaskName

NOTHING = "every task uses every expert; nothing can be removed exactly"
"""What is said where training set no windows."""


class PruningError(QuantizationError):
    """Experts cannot be removed: there are no windows, or a task would lose too much."""


@dataclass(frozen=True)
class Usage:
    """What one layer of experts does for a task on some samples.

    Args:
        mass: (E,) sum of the gates that each expert gets.
        longest: most tokens of one image that one expert gets.
        tokens: of an image.
        lengths: (images, E) tokens of each expert by image.
    """

    mass: Tensor
    longest: int
    tokens: int
    lengths: Tensor

    def overflow_rate(self, capacity: int) -> float:
        """Share of the pairs of token and expert that find no place."""
        lost = (self.lengths - capacity).clamp_min(0).sum()
        return float(lost) / float(self.lengths.sum())

    @property
    def ranking(self) -> list[int]:
        """Experts, those with the largest mass first; of equal ones the first."""
        return [int(e) for e in self.mass.argsort(descending=True, stable=True)]


@torch.no_grad()
def measure_usage(
    network: MultiTaskNetwork, task: TaskName, batches: Sequence[Inputs]
) -> dict[str, Usage]:
    """Who computes what for a task, layer by layer.

    Args:
        network: in evaluation mode; no part of it is changed.
        task: one of its tasks.
        batches: inputs as the network takes them, at least one.

    Raises:
        UnknownNameError: there is no such task.
    """
    if task not in network.tasks:
        raise UnknownNameError("task", task, network.tasks)
    masses: dict[str, list[Tensor]] = defaultdict(list)
    lengths: dict[str, list[Tensor]] = defaultdict(list)
    tokens: dict[str, int] = {}
    layers = moe_layers(network)

    def watch(name: str, layer: MoEFFN) -> Any:
        def hook(_: Any, __: Any, out: RouterOut) -> None:
            empty = torch.zeros(*out.idx.shape[:-1], layer.router.num_experts)
            flat = empty.scatter(-1, out.idx, out.gate.float()).double().flatten(0, -2)
            masses[name].append(flat.sum(0))
            counts = torch.zeros(len(out.idx), layer.router.num_experts, dtype=torch.long)
            pairs = out.idx.flatten(1)
            lengths[name].append(counts.scatter_add(1, pairs, torch.ones_like(pairs)))
            tokens[name] = out.idx.shape[1]

        return layer.router.register_forward_hook(hook)

    handles = [watch(name, layer) for name, layer in layers.items()]
    try:
        for inputs in batches:
            network(inputs, tasks=[task])
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name in layers:
        held = torch.cat(lengths[name])
        mass = torch.stack(masses[name]).sum(0)
        found[name] = Usage(mass, int(held.max()), tokens[name], held)
    return found


def can_remove(network: MultiTaskNetwork, task: TaskName) -> dict[str, list[int]]:
    """Experts by layer that a task may not use, so that they can be removed exactly.

    Args:
        network: any.
        task: one of its tasks.
    """
    found = {}
    for name, layer in moe_layers(network).items():
        allowed = window(layer.router, task)
        if allowed is not None:
            count = layer.router.num_experts
            found[name] = [e for e in range(count) if e not in allowed]
    return {name: experts for name, experts in found.items() if experts}


def prepare(
    network: MultiTaskNetwork, task: TaskName, settings: MoESettings, batches: Sequence[Inputs]
) -> tuple[MoESettings, list[dict[str, Any]]]:
    """Settings of one task with what has to be measured: rankings and capacities.

    A form with places gets as many as the longest queue on `batches` needs, unless a capacity was
    given; that is no guarantee for other data, so the notes say how many pairs would be lost.

    Args:
        network: in evaluation mode.
        task: one of its tasks.
        settings: of the build.
        batches: calibration inputs as the network takes them.

    Returns:
        Settings for `export.moe.convert`, and notes by layer: ``layer``, ``tokens``,
        ``calibrated_max``, ``overflow_rate`` (None where the form has no places).

    Raises:
        PruningError: windows are to be kept where the task has none.
    """
    layers = moe_layers(network)
    if not layers:
        return settings, []
    if settings.keep == "window" and not can_remove(network, task):
        raise PruningError(
            f"--keep-experts window must find task_windows that training set for {task!r}: "
            f"{NOTHING}."
        )
    usage = measure_usage(network, task, batches)
    if isinstance(settings.keep, int):
        ranking = {name: held.ranking for name, held in usage.items()}
        settings = replace(settings, ranking=ranking)
    notes, capacities = [], dict(settings.capacities or {})
    for name, layer in layers.items():
        held = usage[name]
        count = settings.keep if isinstance(settings.keep, int) else layer.router.num_experts
        static = pick_form(settings, count) in ("capacity", "sorted")
        places = None
        if static and settings.capacity_factor is None and isinstance(settings.keep, int):
            places = held.tokens  # queues become longer where experts are removed
        elif static and settings.capacity_factor is None:
            places = capacities.setdefault(name, held.longest)
        elif static:
            assert settings.capacity_factor is not None
            mean = layer.router.top_k * held.tokens / count
            places = min(held.tokens, int(-(-settings.capacity_factor * mean // 1)))
        notes.append(
            {
                "layer": name,
                "tokens": held.tokens,
                "calibrated_max": held.longest,
                "overflow_rate": None if places is None else held.overflow_rate(places),
            }
        )
    return replace(settings, capacities=capacities or None), notes


def check_loss(
    tasks: Mapping[TaskName, Any],
    before: MetricTable,
    after: MetricTable,
    max_drop: float = 0.005,
) -> dict[TaskName, float]:
    """How much worse each primary metric is without the removed experts; refused where too much.

    Args:
        tasks: records by name.
        before: metrics of the whole network.
        after: metrics of the pruned graphs.
        max_drop: accepted, absolute; of errors relative.

    Raises:
        PruningError: a task loses more, or cannot be scored.
    """
    found: dict[TaskName, float] = {}
    for name, values in after.items():
        primary = tasks[name].primary
        old, new = before.get(name, {}).get(primary), values.get(primary)
        if old is None or new is None:
            raise PruningError(f"task {name!r} must have labels to be scored after pruning.")
        better = tasks[name].higher_is_better()[primary]
        found[name] = old - new if better else (new - old) / max(abs(old), 1e-12)
    worse = {name: value for name, value in found.items() if value > max_drop}
    if worse:
        shown = ", ".join(f"{name} by {value:.3g}" for name, value in worse.items())
        raise PruningError(
            f"removing experts must not cost more than max_drop = {max_drop:g}: {shown}. Keep more "
            "experts, or train with task_windows, outside of which they can be removed exactly."
        )
    return found
