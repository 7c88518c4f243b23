"""The all-MLP decoder of SegFormer (Xie et al., NeurIPS 2021, section 3.2, equation 4)."""

import torch
from torch import Tensor, nn

from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_vision.decoders.blocks import Norm, conv_block, map_size, resize
from mtl_vision.decoders.dense import DenseDecoder


class MLPDecoder(DenseDecoder):
    """Maps are projected, resampled to the finest, concatenated and fused, position by position.

    On a plain ViT it is the usual multi-tap head: concatenate the taps, fuse, classify.

    Shapes: maps (B, C_l, h_l, w_l) → (B, C, h_0, w_0).

    Args:
        info: shapes of the features.
        task: a dense task.
        width: channels of the projections and of the fusion.
        dropout: probability of dropping a channel before the classifier, in [0, 1).
        norm: ``batch`` or ``group``.
    """

    def __init__(
        self,
        info: FeatureInfo,
        task: Task,
        *,
        width: int = 256,
        dropout: float = 0.1,
        norm: Norm = "batch",
    ) -> None:
        super().__init__(info, task)
        self.projections = nn.ModuleList(nn.Conv2d(c, width, 1) for c in info.channels)
        self.fuse = conv_block(len(info.channels) * width, width, kernel=1, norm=norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, task.out_channels, 1)

    def forward(self, features: Features) -> Tensor:
        """Raw prediction (B, C, h_0, w_0) at the finest map's stride."""
        size = map_size(features.maps[0])
        projected = [
            resize(project(m), size)
            for project, m in zip(self.projections, features.maps, strict=True)
        ]
        prediction: Tensor = self.classifier(self.dropout(self.fuse(torch.cat(projected, 1))))
        return prediction
