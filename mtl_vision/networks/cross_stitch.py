"""Cross-stitch networks: single-task networks with learned channel-wise mixing."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_vision.decoders import ASPPDecoder, DecoderFactory
from mtl_vision.encoders import EncoderFactory
from mtl_vision.networks.mixing import MixingNetwork


class CrossStitchUnit(nn.Module):
    """x_i ← Σ_j α_ij ⊙ x_j, a weight for every pair of tasks and channel.

    Shapes: T maps (B, C, h, w) → the chosen ones of T maps (B, C, h, w).

    Args:
        weights: (T, T) initial α, the same for all channels.
        channels: C.
    """

    def __init__(self, weights: Tensor, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(weights[..., None].repeat(1, 1, channels))

    def forward(self, maps: list[Tensor], targets: list[int]) -> list[Tensor]:
        """Mixed maps of the tasks with the indices `targets`."""
        alpha = self.alpha if len(targets) == len(maps) else self.alpha[targets]
        mixed = torch.einsum("ijc,jbchw->ibchw", alpha, torch.stack(maps))
        return list(mixed.unbind())


class CrossStitch(MixingNetwork):
    """Cross-stitch network (Misra et al., CVPR 2016), on any encoder that has stages.

    T whole single-task networks; behind every stage task i goes on with Σ_j α_ij ⊙ x_j. Parameters:
    those of T single-task networks and T²·C a stage. Cost: T single-task networks, for any number
    of tasks that are asked for.

    As published, it starts from trained single-task networks (`start_from`) and learns α a hundred
    times faster, by SGD with momentum; the survey's code refuses Adam, whose steps do not depend on
    the gradient's size.

    Shapes: images (B, 3, H, W) → for a dense task (B, C, H, W), otherwise (B, C).

    Args:
        tasks: records by name.
        encoder: of every task, a timm name or a class with its ``init_args``; see
            `mtl_vision.encoders.run_in_stages` for the families that have stages.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        decoder: of every dense task. Tasks of whole images take `mtl_core.nn.LinearDecoder`.
        decoders: exceptions by task name.
        diagonal: initial α_ii; 0.9 with two to four tasks, 0.8 with five (survey).
        off_diagonal: initial α_ij; 0.1 and 0.05 likewise.
        start_from: single-task networks to start from, a `HardSharing` per task: checkpoints of the
            command line, or folders of `mtl_core.hub.save_pretrained`. Tasks left out start fresh.
            Not read when a saved network is rebuilt.
        mixing_rate: multiple of the optimiser's learning rate for α.

    Raises:
        UnknownNameError: `start_from` or `decoders` names no task.
        ArgumentError: a network to start from lacks the task, or has another structure.
        RebuildError: a checkpoint cannot be read.

    Example:
        >>> from mtl_vision.tasks import DepthEstimation, SemanticSegmentation
        >>> tasks = {"semseg": SemanticSegmentation(num_classes=4), "depth": DepthEstimation()}
        >>> network = CrossStitch(tasks, encoder="resnet10t")
        >>> [tuple(unit.alpha.shape) for stage in network.mixers for unit in stage]
        [(2, 2, 64), (2, 2, 128), (2, 2, 256), (2, 2, 512)]
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
    ) -> None:
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
        """A `CrossStitchUnit`."""
        return CrossStitchUnit(weights, channels)
