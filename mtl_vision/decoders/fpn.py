"""Feature pyramid (Lin et al., CVPR 2017), read out as in Kirillov et al. (CVPR 2019)."""

from collections import OrderedDict
from math import log2

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_vision.decoders.blocks import Norm, conv_block, map_size, norm_layer, resize
from mtl_vision.decoders.dense import DenseDecoder
from mtl_vision.decoders.pyramid import rescale_block


class FPNDecoder(DenseDecoder):
    """Top-down pyramid over all maps; its levels are resampled to the finest, summed and read out.

    The maps of a plain ViT all have one stride. They are first spread over strides `stride`,
    2·`stride`, 4·`stride`, ... by 2×2 transposed convolutions upwards and 2×2 max-pooling
    downwards, as the simple pyramid of ViTDet (Li et al., ECCV 2022, section 3) does with the last
    map alone; strides that are no power of two apart come as near as doubling allows. Departures
    from the sources: each tap serves one level, channels are reduced before scaling up, and levels
    are resampled once instead of in convolved steps.

    Shapes: maps (B, C_l, h_l, w_l) → (B, C, h, w), h = h_0 for a pyramid, about H / `stride`
    otherwise.

    Args:
        info: shapes of the features.
        task: a dense task.
        width: channels of the pyramid.
        stride: finest stride in pixels where all maps have one stride; ignored for a pyramid, which
            keeps its own.
        dropout: probability of dropping a channel before the classifier, in [0, 1).
        norm: ``batch`` or ``group``.
    """

    def __init__(
        self,
        info: FeatureInfo,
        task: Task,
        *,
        width: int = 128,
        stride: int = 4,
        dropout: float = 0.0,
        norm: Norm = "batch",
    ) -> None:
        super().__init__(info, task)
        if stride < 1:
            raise ArgumentError("stride", "be at least 1", stride)
        flat = len(set(info.strides)) == 1
        self.rescale = nn.ModuleList(
            rescale_block(channels, width, log2(own / stride) - level, norm)
            if flat
            else nn.Identity()
            for level, (channels, own) in enumerate(zip(info.channels, info.strides, strict=True))
        )
        self.pyramid = FeaturePyramidNetwork(
            [width] * len(info.channels) if flat else list(info.channels),
            width,
            norm_layer=norm_layer(norm),
        )
        self.fuse = conv_block(width, width, norm=norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, task.out_channels, 1)

    def forward(self, features: Features) -> Tensor:
        """Raw prediction (B, C, h, w) at the finest level's stride."""
        scaled = [rescale(m) for rescale, m in zip(self.rescale, features.maps, strict=True)]
        levels = self.pyramid(OrderedDict((str(i), m) for i, m in enumerate(scaled)))
        size = map_size(scaled[0])
        merged = sum((resize(levels[str(i)], size) for i in range(1, len(scaled))), levels["0"])
        prediction: Tensor = self.classifier(self.dropout(self.fuse(merged)))
        return prediction
