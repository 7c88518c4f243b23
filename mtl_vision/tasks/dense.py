"""What all dense tasks share: maps that follow the image, and a named evaluation protocol."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from mtl_core.tasks.base import Task

Protocol = Literal["survey", "atrc", "libmtl"]


@dataclass(frozen=True, kw_only=True)
class DenseTask(Task):
    """A task whose prediction is a map (B, C, h, w), resampled to the label's size before loss and metrics.

    Args:
        protocol: evaluation and loss convention. ``survey`` (Vandenhende et al. 2021, also M³ViT), ``atrc``
            (ATRC, InvPT, TaskPrompter, MLoRE) or ``libmtl`` (LibMTL's NYUv2). Numbers of different
            protocols are never comparable; one run uses one.
    """

    dense: ClassVar[bool] = True
    protocol: Protocol = "atrc"

    @property
    def evaluation(self) -> str:
        """The protocol."""
        return self.protocol

    def match(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Bilinear resampling (corners not aligned) to the target's height and width."""
        size = target.shape[-2:]
        if prediction.shape[-2:] == size:
            return prediction
        return F.interpolate(prediction.float(), size=size, mode="bilinear", align_corners=False)
