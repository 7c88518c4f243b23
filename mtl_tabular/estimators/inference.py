"""Trained networks applied to encoded tables, chunk by chunk."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl_core.types import Predictions
from mtl_tabular.networks import TableNetwork

CHUNK = 8192
"""Rows that are predicted at once."""


def raw_predictions(
    network: TableNetwork, arrays: Mapping[str, NDArray[Any]], *, accelerator: str
) -> Predictions:
    """Raw predictions (N, C) by task, float64 on the CPU.

    Computed in double precision where the device has it, so that what a row is predicted does not
    depend on how many rows are predicted with it.

    Args:
        network: on the CPU; it is not changed.
        arrays: as `TableSchema.encode` gives them.
        accelerator: as Lightning's trainer takes it.
    """
    chunks: list[Predictions] = [
        ready(inputs) for ready, inputs in _chunks(network, arrays, accelerator)
    ]
    return {name: torch.cat([c[name].cpu() for c in chunks]).double() for name in network.tasks}


def embeddings(
    network: TableNetwork, arrays: Mapping[str, NDArray[Any]], *, accelerator: str
) -> NDArray[np.float64]:
    """All that the encoder hands to the decoders, flattened, (N, D)."""
    return np.concatenate(
        [
            shared_vector(ready, inputs).double().cpu().numpy()
            for ready, inputs in _chunks(network, arrays, accelerator)
        ]
    )


def shared_vector(network: TableNetwork, inputs: Mapping[str, Tensor]) -> Tensor:
    """The encoder's features of a batch side by side, (B, D)."""
    return torch.cat([tensor.flatten(1) for tensor in network.encode(inputs).tensors()], 1)


def _chunks(
    network: TableNetwork, arrays: Mapping[str, NDArray[Any]], accelerator: str
) -> Iterator[tuple[TableNetwork, dict[str, Tensor]]]:
    """The network ready for inference, with one chunk of inputs after the other."""
    device = _device(accelerator)
    precise = torch.float32 if device.type == "mps" else torch.float64
    ready = copy.deepcopy(network).to(device, precise).eval()
    rows = len(next(iter(arrays.values())))
    with torch.inference_mode():
        for start in range(0, rows, CHUNK):
            chunk = {}
            for name, array in arrays.items():
                tensor = torch.from_numpy(array[start : start + CHUNK]).to(device)
                chunk[name] = tensor.to(precise) if tensor.is_floating_point() else tensor
            yield ready, chunk


def _device(accelerator: str) -> torch.device:
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
