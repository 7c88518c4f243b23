"""Progressive up-sampling at a fraction of the cost: separable convolutions, coarser output."""

from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_vision.decoders.blocks import Norm, conv_block
from mtl_vision.decoders.progressive import ProgressiveDecoder


class PUPLightDecoder(ProgressiveDecoder):
    """`PUPDecoder` whose costly stages are depth-wise separable and whose last one is left out.

    Every stage of progressive up-sampling costs four times the one before it. Here the first `full`
    stages, on small maps, keep their 3×3 convolutions; the others take a 3×3 convolution of every
    channel by itself and a 1×1 convolution (Howard et al., MobileNets, 2017, section 3.1). On
    ViT-S at 512×512 with 21 classes the default costs 4.5 billion multiply-accumulates instead of
    52, and the whole single-task model 36.3 instead of 83.7. Four stages (predictions at stride 2,
    as with the paper's head) cost 9.2 and 41.0 billion.

    Shapes: last map (B, D, h, w) → (B, C, h·2^(stages-1), w·2^(stages-1)).

    Args:
        info: shapes of the features.
        task: a dense task.
        width: channels of the stages.
        stages: at least 1; the resolution doubles between two of them.
        full: leading stages with ordinary convolutions, 0 to `stages`.
        norm: ``batch`` or ``group``.
    """

    def __init__(
        self,
        info: FeatureInfo,
        task: Task,
        *,
        width: int = 256,
        stages: int = 3,
        full: int = 2,
        norm: Norm = "batch",
    ) -> None:
        if stages < 1:
            raise ArgumentError("stages", "be at least 1", stages)
        if not 0 <= full <= stages:
            raise ArgumentError("full", f"lie in 0..{stages}, the number of stages", full)
        channels = [info.channels[-1], *[width] * stages]
        blocks = [
            (conv_block if i < full else _separable)(channels[i], channels[i + 1], norm=norm)
            for i in range(stages)
        ]
        super().__init__(info, task, stages=blocks, channels=channels[1:])

    def forward(self, features: Features, stages: list[Tensor] | None = None) -> Tensor:
        """Raw prediction at 2^(stages-1) times the last map's resolution; see `refine`."""
        return self.refine(features, stages)


def _separable(in_channels: int, out_channels: int, *, norm: Norm) -> nn.Sequential:
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, *conv_block(in_channels, out_channels, kernel=1, norm=norm))
