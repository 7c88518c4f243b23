"""Saliency: the foreground that catches the eye."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import ArgumentError
from mtl_vision.metrics.saliency import SaliencyImageMaxF, SaliencyMaxF, SaliencyMIoU
from mtl_vision.tasks.dense import IGNORE, DenseTask, weighted_binary_loss


@dataclass(frozen=True, kw_only=True)
class SaliencyDetection(DenseTask):
    """Whether a pixel is salient foreground.

    Shapes: prediction (B, C, h, w) logits with C = 1 under ``survey`` and 2 (background,
    foreground) under ``atrc``; target (B, H, W) uint8 or int64, 0, 1 or 255 = ignored; activated
    (B, H, W) foreground probabilities.

    The loss is `weighted_binary_loss` of the foreground logit (of the difference of both logits
    when C = 2, the same thing as a weighted cross-entropy), averaged over the valid pixels of the
    batch. Its weight of positives is the share of negatives among these pixels. A batch without
    positives, or without negatives, gets plain binary cross-entropy. LibMTL does not define the
    task.

    Args:
        double_sigmoid: add the value that the published code of the ``atrc`` line computes, which
            squashes probabilities a second time before thresholding; it becomes the primary metric.
    """

    protocols: ClassVar[tuple[str, ...]] = ("survey", "atrc")

    double_sigmoid: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.double_sigmoid and self.protocol != "atrc":
            rule = "be false unless protocol is atrc, whose meter it reproduces"
            raise ArgumentError("double_sigmoid", rule, self.double_sigmoid)

    @property
    def out_channels(self) -> int:
        """One under ``survey``, two under ``atrc``."""
        return 1 if self.protocol == "survey" else 2

    @property
    def primary(self) -> str:
        """``survey``: mean IoU; ``atrc``: maximal F-measure; both in [0, 1]."""
        if self.protocol == "survey":
            return "miou"
        return "maxf_double_sigmoid" if self.double_sigmoid else "maxf"

    def valid(self, target: Tensor) -> Tensor:
        """Pixels that are not 255, (B, H, W)."""
        return target != IGNORE

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Class-balanced binary cross-entropy of every pixel, (B, H, W)."""
        positive = target == 1
        count = valid.sum()
        positives = (positive & valid).sum()
        weight = (count - positives).float() / count.clamp(min=1)
        one_sided = (positives == 0) | (positives == count)
        # Half weights on both sides, doubled, are plain binary cross-entropy.
        weight = torch.where(one_sided, 0.5, weight)
        loss = weighted_binary_loss(self._logit(prediction), positive, weight)
        return torch.where(one_sided, 2 * loss, loss)

    def metrics(self) -> dict[str, Metric]:
        """``survey``: ``miou`` and ``maxf`` per image; ``atrc``: ``maxf`` of pooled counts."""
        if self.protocol == "survey":
            return {"miou": SaliencyMIoU(), "maxf": SaliencyImageMaxF()}
        found: dict[str, Metric] = {"maxf": SaliencyMaxF()}
        if self.double_sigmoid:
            found["maxf_double_sigmoid"] = SaliencyMaxF(double_sigmoid=True)
        return found

    def activate(self, prediction: Tensor) -> Tensor:
        """Foreground probability (B, H, W)."""
        return self._logit(prediction).sigmoid()

    def readout(self) -> dict[str, Any]:
        """Foreground probabilities (H, W)."""
        return {
            "kind": "saliency",
            "activation": "sigmoid",
            "unit": "probability",
            "threshold": 0.5,
        }

    def check(self, target: Tensor) -> None:
        """Targets must be 0, 1 or 255."""
        self._check_integer_map(target, 2)

    def _logit(self, prediction: Tensor) -> Tensor:
        """Foreground logit (B, H, W): a softmax of two depends on their difference only."""
        prediction = prediction.float()  # half precision would round the difference
        if self.out_channels == 1:
            return prediction.squeeze(1)
        return prediction[:, 1] - prediction[:, 0]
