"""The module that becomes a graph: normalise, run the network, activate, in the order of tasks."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from export.plain import PlainOperations
from mtl_core.errors import ArgumentError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.types import TaskName

IMAGE = ("image",)
"""Inputs of a network on images; those of one on tables are ``numeric`` and ``categorical``."""


class ExportNetwork(nn.Module):
    """A network with its normalisation before it and the activations of its tasks behind it.

    What is visible from outside is free of statistics: images are RGB in [0, 1], predictions are
    what `mtl_core.tasks.Task.activate` gives, dense ones at the height and width of the images.

    Shapes: ``image`` (B, 3, H, W), or ``numeric`` (B, d) and ``categorical`` (B, d), in the order
    of `inputs` → a tuple with (B, ...) a task.

    Args:
        network: in evaluation mode.
        tasks: names, one or more; their order is that of the outputs.
        inputs: names of the inputs.
        mean: of the RGB channels in [0, 1], subtracted; ignored for tables.
        std: of the RGB channels in [0, 1], divided by; ignored for tables.
        pixels: take images as cameras and files give them: uint8 (B, H, W, 3).

    Raises:
        UnknownNameError: there is no such task.
        ArgumentError: the network is in training mode, or there is no task.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: MultiTaskNetwork,
        tasks: Sequence[TaskName],
        *,
        inputs: Sequence[str] = IMAGE,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        pixels: bool = False,
    ) -> None:
        super().__init__()
        if network.training:
            raise ArgumentError("network", "be in evaluation mode, call eval() first", "training")
        chosen = network.select(tasks)
        if not chosen:
            raise ArgumentError("tasks", "name at least one task", list(tasks))
        self.network = network
        self.names = tuple(dict.fromkeys(tasks))
        self.inputs = tuple(inputs)
        self.pixels = pixels
        for key, value in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(value, dtype=torch.float32).view(1, -1, 1, 1))
        self.train(False)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Activated predictions."""
        given: Tensor | dict[str, Tensor]
        if self.inputs == IMAGE:
            image = tensors[0].permute(0, 3, 1, 2) / 255 if self.pixels else tensors[0]
            given = (image - self.mean) / self.std
        else:
            given = dict(zip(self.inputs, tensors, strict=True))
        with PlainOperations() if torch.compiler.is_exporting() else nullcontext():
            raw = self.network(given, tasks=self.names)
        return tuple(self.network.tasks[name].activate(raw[name].float()) for name in self.names)

    @torch.no_grad()
    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[TaskName, Tensor]:
        """The same by name."""
        return dict(zip(self.names, self(*(inputs[name] for name in self.inputs)), strict=True))
