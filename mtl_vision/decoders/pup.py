"""Progressive up-sampling (SETR-PUP, Zheng et al., CVPR 2021, section 3.3), as in M³ViT."""

from torch import Tensor

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_vision.decoders.blocks import Norm, conv_block
from mtl_vision.decoders.progressive import ProgressiveDecoder


class PUPDecoder(ProgressiveDecoder):
    """3×3 convolutions on the last map, doubling the resolution between them.

    The input is normalised over its channels first (each task its own, epsilon 1e-6). With the
    default four stages a ViT of patch 16 gives predictions at stride 2, and the decoder dominates
    the cost: 52 billion multiply-accumulates at 512×512. Three stages stop at stride 4, about four
    times cheaper; `PUPLightDecoder` is cheaper still.

    Shapes: last map (B, D, h, w) → (B, C, h·2^(stages-1), w·2^(stages-1)).

    Args:
        info: shapes of the features.
        task: a dense task.
        width: channels of the convolutions.
        stages: number of convolutions, at least 1; the resolution doubles between two of them.
        norm: ``batch`` or ``group``.
    """

    def __init__(
        self,
        info: FeatureInfo,
        task: Task,
        *,
        width: int = 256,
        stages: int = 4,
        norm: Norm = "batch",
    ) -> None:
        if stages < 1:
            raise ArgumentError("stages", "be at least 1", stages)
        channels = [info.channels[-1], *[width] * stages]
        blocks = [conv_block(channels[i], channels[i + 1], norm=norm) for i in range(stages)]
        super().__init__(info, task, stages=blocks, channels=channels[1:])

    def forward(self, features: Features, stages: list[Tensor] | None = None) -> Tensor:
        """Raw prediction at 2^(stages-1) times the last map's resolution; see `refine`."""
        return self.refine(features, stages)
