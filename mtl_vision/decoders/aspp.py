"""Atrous spatial pyramid pooling (DeepLab v3, Chen et al., 2017, section 3.3)."""

import torch
from torch import Tensor, nn

from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_vision.decoders.blocks import Norm, conv_block, map_size, resize
from mtl_vision.decoders.dense import DenseDecoder


class ASPPDecoder(DenseDecoder):
    """DeepLab-v3 head on the last map: the baseline of Vandenhende et al. (TPAMI 2021).

    A 1×1 branch, one 3×3 branch per dilation and a global-average branch are concatenated,
    projected, and read out by a 3×3 and a 1×1 convolution. The pooled branch has a single position
    per sample, where batch statistics do not exist for one sample; it is normalised over its
    channels instead, so that a batch of one trains. With ``norm: batch`` the other branches still
    need more than one position in all.

    Shapes: last map (B, D, h, w) → (B, C, h, w).

    Args:
        info: shapes of the features; meant for a stride of 8 or 16.
        task: a dense task.
        width: channels of every branch.
        dilations: of the 3×3 branches, in positions of the map. (12, 24, 36) is for stride 8 at
            about 512 pixels; small images want small ones.
        dropout: probability of dropping a value after the projection, in [0, 1).
        norm: ``batch`` or ``group``.
    """

    def __init__(
        self,
        info: FeatureInfo,
        task: Task,
        *,
        width: int = 256,
        dilations: tuple[int, ...] = (12, 24, 36),
        dropout: float = 0.5,
        norm: Norm = "batch",
    ) -> None:
        super().__init__(info, task)
        channels = info.channels[-1]
        self.branches = nn.ModuleList(
            [
                conv_block(channels, width, kernel=1, norm=norm),
                *(conv_block(channels, width, dilation=d, norm=norm) for d in dilations),
            ]
        )
        self.pooled = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, width, 1, bias=False),
            nn.GroupNorm(1, width),
            nn.ReLU(),
        )
        self.project = nn.Sequential(
            conv_block((len(dilations) + 2) * width, width, kernel=1, norm=norm),
            nn.Dropout(dropout),
        )
        self.head = nn.Sequential(
            conv_block(width, width, norm=norm), nn.Conv2d(width, task.out_channels, 1)
        )

    def forward(self, features: Features) -> Tensor:
        """Raw prediction (B, C, h, w) at the last map's stride."""
        last = features.maps[-1]
        branches = [branch(last) for branch in self.branches]
        branches.append(resize(self.pooled(last), map_size(last)))
        prediction: Tensor = self.head(self.project(torch.cat(branches, 1)))
        return prediction
