"""Scores of a per-pixel class map, all from one confusion matrix over the data set."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import UnknownNameError

Absent: TypeAlias = Literal["zero", "skip"]


class ConfusionMatrix(Metric):
    """Base: counts of (label, predicted class) over valid pixels; a subclass reads off a number.

    Its subclasses hold equal states, so that a `torchmetrics.MetricCollection` counts once for all
    of them.

    Args:
        num_classes: K.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, K, H, W) scores; the largest one wins.
            target: (B, H, W) class indices.
            valid: (B, H, W) bool.
        """
        k = self.num_classes
        pair = target[valid].long() * k + preds.argmax(1)[valid]
        self.confusion += torch.bincount(pair, minlength=k * k).view(k, k)

    def compute(self) -> Tensor:
        """The matrix itself (K, K), labels by row."""
        return self.confusion


class MeanIoU(ConfusionMatrix):
    """Intersection over union of each class over the data set, averaged over classes, in [0, 1].

    ``IoU_c = tp / (tp + fp + fn)`` (PASCAL VOC, Everingham et al. 2010). NaN when no pixel was
    valid.

    Args:
        num_classes: K.
        absent: a class in neither labels nor predictions is 0/0. ``zero`` counts it as 0, the dense
            multi-task survey and the ATRC line; ``skip`` leaves it out of the mean.
    """

    def __init__(self, num_classes: int, *, absent: Absent = "zero") -> None:
        super().__init__(num_classes)
        if absent not in get_args(Absent):
            raise UnknownNameError("absent", absent, get_args(Absent))
        self.absent = absent

    def compute(self) -> Tensor:
        """Mean over classes, a scalar."""
        hits = self.confusion.diagonal().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        classes = (union > 0).sum() if self.absent == "skip" else self.num_classes
        mean = (hits / union.clamp(min=1)).sum() / classes
        return torch.where(self.confusion.sum() > 0, mean, torch.nan).float()


class PixelAccuracy(ConfusionMatrix):
    """Share of valid pixels whose class is right, in [0, 1]; NaN when there is none."""

    def compute(self) -> Tensor:
        """A scalar."""
        return (self.confusion.diagonal().sum().double() / self.confusion.sum()).float()
