"""Whether predictions of a sample depend on what else is in its batch."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from export.graph import ExportNetwork
from export.parity import NEAR_TIE, Array, compare, routing_margins
from export.samples import InputSpec
from mtl_core.errors import MTLError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.types import TaskName

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
) -> NDArray[np.bool_]:
    """Which samples (B,) of a batch hang on rounding between two experts.

    Args:
        network: with routers, or without.
        spec: of its inputs.
        tasks: that are run.
        margin: below which rounding decides.
        batch: as graphs take it.
    """
    margins = routing_margins(network, spec.tensors(batch), tasks)
    near: NDArray[np.bool_] = (margins < margin).numpy()
    return near


def repeat(samples: Mapping[str, Array], count: int) -> dict[str, Array]:
    """The first `count` samples, begun anew where there are fewer."""
    return {name: np.resize(value, (count, *value.shape[1:])) for name, value in samples.items()}
