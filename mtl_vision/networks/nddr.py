"""NDDR-CNN: single-task networks with a 1×1 convolution over all tasks behind every stage."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_vision.decoders import ASPPDecoder, DecoderFactory
from mtl_vision.encoders import EncoderFactory
from mtl_vision.networks.mixing import MixingNetwork


class NDDRUnit(nn.Module):
    """For every task: concatenate all tasks' maps, 1×1 convolution, batch norm, activation.

    Shapes: T maps (B, C, h, w) → the chosen ones of T maps (B, C, h, w).

    Args:
        weights: (T, T) initial weights, the same for all channels; no bias.
        channels: C.
        activation: ``relu`` or ``none``.
    """

    def __init__(self, weights: Tensor, channels: int, *, activation: str = "relu") -> None:
        super().__init__()
        count = len(weights)
        convs = [nn.Conv2d(count * channels, channels, 1, bias=False) for _ in range(count)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(count))
        self.activation: nn.Module = nn.ReLU() if activation == "relu" else nn.Identity()
        identity = torch.eye(channels)
        with torch.no_grad():
            for conv, row in zip(convs, weights, strict=True):
                start = torch.cat([weight * identity for weight in row], 1)
                conv.weight.copy_(start[..., None, None])

    def forward(self, maps: list[Tensor], targets: list[int]) -> list[Tensor]:
        """Mixed maps of the tasks with the indices `targets`."""
        together = torch.cat(maps, 1)
        mixed = [self.norms[i](self.convs[i](together)) for i in targets]
        return [self.activation(m) for m in mixed]


class NDDRCNN(MixingNetwork):
    """Neural discriminative dimensionality reduction (Gao et al., CVPR 2019).

    T whole single-task networks; behind every stage, each task goes on with a 1×1 convolution of
    all tasks' features, normalised and rectified. Parameters: those of T single-task networks and
    T²·C² + 2·T·C a stage. Cost: T single-task networks and the convolutions.

    Starts and trains as `CrossStitch` does. The activation fits encoders whose stages end in a ReLU
    (ResNet, RegNet, HRNet); the residual streams of ConvNeXt and transformers have negative
    values that it would cut off, so choose ``none`` there.

    Shapes: images (B, 3, H, W) → for a dense task (B, C, H, W), otherwise (B, C).

    Args:
        tasks: records by name.
        encoder: of every task, a timm name or a class with its ``init_args``; see
            `mtl_vision.encoders.run_in_stages` for the families that have stages.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        decoder: of every dense task. Tasks of whole images take `mtl_core.nn.LinearDecoder`.
        decoders: exceptions by task name.
        diagonal: initial weight of a task's own features.
        off_diagonal: initial weight of every other task's.
        start_from: single-task networks to start from, a `HardSharing` per task: checkpoints of the
            command line, or folders of `mtl_core.hub.save_pretrained`. Tasks left out start fresh.
            Not read when a saved network is rebuilt.
        mixing_rate: multiple of the optimiser's learning rate for the convolutions and norms.
        activation: behind the norm, ``relu`` or ``none``.

    Raises:
        UnknownNameError: `start_from` or `decoders` names no task.
        ArgumentError: a network to start from lacks the task, or has another structure.
        RebuildError: a checkpoint cannot be read.

    Example:
        >>> from mtl_vision.tasks import DepthEstimation, SemanticSegmentation
        >>> tasks = {"semseg": SemanticSegmentation(num_classes=4), "depth": DepthEstimation()}
        >>> network = NDDRCNN(tasks, encoder="resnet10t")
        >>> network.mixers[0][0].convs[0].weight.shape
        torch.Size([64, 128, 1, 1])
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        decoder: DecoderFactory = ASPPDecoder,
        decoders: dict[TaskName, DecoderFactory] | None = None,
        diagonal: float = 0.9,
        off_diagonal: float = 0.1,
        start_from: dict[TaskName, Path] | None = None,
        mixing_rate: float = 100.0,
        activation: Literal["relu", "none"] = "relu",
    ) -> None:
        self._activation = activation
        super().__init__(
            tasks,
            encoder=encoder,
            pretrained=pretrained,
            img_size=img_size,
            decoder=decoder,
            decoders=decoders,
            diagonal=diagonal,
            off_diagonal=off_diagonal,
            start_from=start_from,
            mixing_rate=mixing_rate,
        )

    def mixer(self, weights: Tensor, channels: int) -> nn.Module:
        """An `NDDRUnit`."""
        return NDDRUnit(weights, channels, activation=self._activation)

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """Also the convolutions and norms of the last stage that only this task reads."""
        i = list(self.tasks).index(task)
        last = cast("Iterable[NDDRUnit]", self.mixers[-1])
        own = [m for unit in last for m in (unit.convs[i], unit.norms[i])]
        return [*super().decoder_modules(task), *own]
