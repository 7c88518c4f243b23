"""Decoders that refine one map stage by stage, and can hand out what every stage gives."""

from collections.abc import Sequence

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_vision.decoders.blocks import map_size, resize
from mtl_vision.decoders.dense import DenseDecoder


class ProgressiveDecoder(DenseDecoder):
    """Stages on the last map, the resolution doubled between two of them, then a linear layer.

    The input is normalised over its channels first, each task its own, epsilon 1e-6. A subclass
    makes the stages and calls `refine` in its ``forward``, through which other modules
    (`mtl_vision.networks.TaskDistillation`) get at the features of every stage.

    Shapes: last map (B, D, h, w) → (B, C, h·2^(n-1), w·2^(n-1)) with n stages.

    Args:
        info: shapes of the features.
        task: a dense task.
        stages: modules that keep the resolution.
        channels: of the output of every stage.
    """

    def __init__(
        self, info: FeatureInfo, task: Task, *, stages: Sequence[nn.Module], channels: Sequence[int]
    ) -> None:
        super().__init__(info, task)
        self.norm = LayerNorm2d(info.channels[-1], eps=1e-6)
        self.stages = nn.ModuleList(stages)
        self.stage_channels = tuple(channels)
        self.classifier = nn.Conv2d(self.stage_channels[-1], task.out_channels, 1)

    def refine(self, features: Features, stages: list[Tensor] | None = None) -> Tensor:
        """Raw prediction (B, C, ...); where a list is given, the stages' outputs are added to it.

        Args:
            features: of the encoder.
            stages: gets one map (B, `stage_channels` [i], h·2^i, w·2^i) a stage.
        """
        x = self.norm(features.maps[-1])
        for i, stage in enumerate(self.stages):
            if i:
                height, width = map_size(x)
                x = resize(x, (2 * height, 2 * width))
            x = stage(x)
            if stages is not None:
                stages.append(x)
        prediction: Tensor = self.classifier(x)
        return prediction
