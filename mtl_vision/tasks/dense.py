"""What all dense tasks share: maps that follow the image, and a named evaluation protocol."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks.base import Task

Protocol = Literal["survey", "atrc", "libmtl"]

IGNORE = 255
"""Value of an unlabelled pixel in the integer maps of segmentation, boundaries and saliency."""


@dataclass(frozen=True, kw_only=True)
class DenseTask(Task):
    """A task that predicts a map (B, C, h, w), resampled to its target's size before scoring.

    Args:
        protocol: evaluation and loss convention. ``survey`` (Vandenhende et al. 2021, also M³ViT),
            ``atrc`` (ATRC, InvPT, TaskPrompter, MLoRE) or ``libmtl`` (LibMTL's NYUv2). Numbers of
            different protocols are never comparable; one run uses one.
    """

    dense: ClassVar[bool] = True
    protocols: ClassVar[tuple[str, ...]] = ("survey", "atrc", "libmtl")
    """The protocols that define this task."""

    protocol: Protocol = "atrc"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol not in self.protocols:
            rule = f"be {' or '.join(self.protocols)} for {type(self).__name__}"
            raise ArgumentError("protocol", rule, self.protocol)

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

    def _check_integer_map(self, target: Tensor, num_classes: int) -> None:
        """Refuse anything but integers (B, H, W) in 0..num_classes-1, or `IGNORE`."""
        name = type(self).__name__
        if target.ndim != 3:
            raise LabelError(name, "be maps (B, H, W)", f"shape {tuple(target.shape)}")
        if target.is_floating_point() or target.dtype == torch.bool:
            raise LabelError(name, "be integers", target.dtype)
        bad = (target < 0) | ((target >= num_classes) & (target != IGNORE))
        if bool(bad.any()):
            rule = f"lie in 0..{num_classes - 1} or be {IGNORE} (ignored)"
            raise LabelError(name, rule, sorted(set(target[bad].tolist()))[:5])

    def _check_real_map(self, target: Tensor, ndim: int, letters: str) -> None:
        """Refuse anything but finite floating-point maps of `ndim` axes."""
        name = type(self).__name__
        if target.ndim != ndim:
            raise LabelError(name, f"be maps {letters}", f"shape {tuple(target.shape)}")
        if not target.is_floating_point():
            raise LabelError(name, "be floating-point", target.dtype)
        if not bool(target.isfinite().all()):
            raise LabelError(name, "be finite", "NaN" if bool(target.isnan().any()) else "infinity")


def weighted_binary_loss(logit: Tensor, target: Tensor, positive: Tensor | float) -> Tensor:
    """Binary cross-entropy with weight w on positives and 1 - w on negatives, per element.

    ``w y softplus(-z) + (1 - w) (1 - y) softplus(z)``, which equals ``(1 - w) BCE(z, y; w / (1 -
    w))`` with the second number as weight of positives (holistically-nested edge detection, Xie &
    Tu 2015, eq. 2).

    Args:
        logit: z, (B, H, W).
        target: y, (B, H, W) bool.
        positive: w in [0, 1], a number or a scalar tensor.

    Returns:
        (B, H, W) float32.
    """
    logit = logit.float()
    return torch.where(target, positive * F.softplus(-logit), (1 - positive) * F.softplus(logit))
