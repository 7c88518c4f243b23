"""Whether predictions of a sample depend on what else is in its batch."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph import ExportNetwork
from export.moe_forms import CapacityMoE
from export.parity import NEAR_TIE, Array, compare, routing_margins
from export.samples import InputSpec
from mtl_core.errors import MTLError
from mtl_core.moe import RouterOut
from mtl_core.nn import MultiTaskNetwork
from mtl_core.types import Inputs, TaskName

DEPENDENCE = 1e-4
"""Difference, relative to the largest prediction or 1, that rounding does not explain."""


class BatchDependenceError(MTLError, ValueError):
    """A network gives a sample another prediction in another batch, so its graph would too.

    Args:
        found: largest relative difference, by task.
    """

    def __init__(self, found: dict[TaskName, float]) -> None:
        shown = ", ".join(f"{task} by {value:.2g}" for task, value in found.items())
        super().__init__(
            "predictions must not depend on the other samples of a batch: between a batch of three "
            f"and the samples one by one they differ ({shown}). For MultiTab-Net train with "
            "inter_sample: memory or rowwise; --allow-batch-dependence exports it nevertheless, "
            "and is right only where batches are served as in training."
        )
        self.found = found


def check_batching(module: ExportNetwork, spec: InputSpec, samples: Mapping[str, Array]) -> None:
    """Raise `BatchDependenceError` if three samples together are predicted otherwise than alone.

    Args:
        module: all tasks that are to be exported.
        spec: of its inputs.
        samples: at least one; repeated where there are fewer than three.
    """
    whole = repeat(samples, 3)

    def together(batch: Mapping[str, Array]) -> dict[TaskName, Array]:
        found = module.outputs({name: torch.from_numpy(value) for name, value in batch.items()})
        return {name: value.numpy() for name, value in found.items()}

    def alone(batch: Mapping[str, Array]) -> dict[TaskName, Array]:
        rows = [together({k: v[i : i + 1] for k, v in batch.items()}) for i in range(3)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    ties = partial(near_ties, module.network, spec, module.names, NEAR_TIE)
    found = compare(alone, together, [whole], near_ties=ties, tolerance=DEPENDENCE)
    apart = {task: parity.max_rel for task, parity in found.items() if not parity.ok}
    if apart:
        raise BatchDependenceError(apart)


def near_ties(
    network: MultiTaskNetwork,
    spec: InputSpec,
    tasks: Sequence[TaskName],
    margin: float,
    batch: Mapping[str, Array],
    *,
    converted: MultiTaskNetwork | None = None,
) -> NDArray[np.bool_]:
    """Which samples (B,) of a batch hang on rounding between two experts, or tokens for a place.

    Args:
        network: with routers, or without.
        spec: of its inputs.
        tasks: that are run.
        margin: below which rounding decides.
        batch: as graphs take it.
        converted: the network in the form of the graph, whose experts may have a number of places.
    """
    inputs = spec.tensors(batch)
    margins = routing_margins(network, inputs, tasks)
    if converted is not None:
        margins = torch.minimum(margins, place_margins(converted, inputs, tasks))
    near: NDArray[np.bool_] = (margins < margin).numpy()
    return near


def place_margins(network: MultiTaskNetwork, inputs: Inputs, tasks: Sequence[TaskName]) -> Tensor:
    """Smallest margin between the last token that finds a place and the first that does not, (B,).

    Args:
        network: with experts that have places for the tokens of largest gates
            (`export.moe_forms.CapacityMoE`); without any, margins are infinite.
        inputs: as the network takes them.
        tasks: to run.
    """
    first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
    found = [torch.full((len(first),), float("inf"))]

    def watch(layer: nn.Module, _: object, out: tuple[Tensor, RouterOut]) -> None:
        assert isinstance(layer, CapacityMoE)
        weights = layer.weights(out[1])
        size = layer.places(weights.shape[1])
        if size < weights.shape[1]:
            queued = layer.chosen(out[1]).sum(-2) > 0
            ranked = torch.where(queued, weights, -1.0).sort(1, descending=True).values
            last, left = ranked[:, size - 1], ranked[:, size]
            found.append(torch.where(left >= 0, last - left, float("inf")).amin(1))

    layers = [layer for layer in network.modules() if isinstance(layer, CapacityMoE)]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        with torch.no_grad():
            for task in tasks:
                if layers:
                    network(inputs, tasks=[task])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found).amin(0)


def repeat(samples: Mapping[str, Array], count: int) -> dict[str, Array]:
    """The first `count` samples, begun anew where there are fewer."""
    return {name: np.resize(value, (count, *value.shape[1:])) for name, value in samples.items()}
