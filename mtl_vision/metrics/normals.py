"""Angles between predicted and true surface normals (Fouhey, Gupta & Hebert 2013)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import ArgumentError

BINS_PER_DEGREE = 100
"""Resolution of the histogram: 0.01 degree, so that 11.25, 22.5 and 30 are borders of bins."""


def angle(p: Tensor, g: Tensor) -> Tensor:
    """Angle between vectors in degrees, ``2 atan2(|p - g|, |p + g|)`` with g brought to length 1.

    Unlike the arc cosine of the scalar product it is accurate for small angles too (Kahan 2006,
    section 12), but only between vectors of equal length: a length of 0.98, which stored normals
    may have, would count as 1.2 degrees.

    Args:
        p: (B, 3, H, W) unit vectors, or zero, which is at 90 degrees from everything.
        g: (B, 3, H, W), of any length.

    Returns:
        (B, H, W), in [0, 180].
    """
    g = F.normalize(g, dim=1)
    return torch.rad2deg(2 * torch.atan2((p - g).norm(dim=1), (p + g).norm(dim=1)))


class AngleHistogram(Metric):
    """Base: sums and a histogram of the angle over the valid pixels of the data set, in degrees.

    Its subclasses hold equal states, so that a `torchmetrics.MetricCollection` counts once for all
    of them. All are NaN when no pixel was valid.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    sums: Tensor
    histogram: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        bins = torch.zeros(180 * BINS_PER_DEGREE + 1, dtype=torch.int64)
        self.add_state("histogram", bins, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, 3, H, W) unit vectors.
            target: (B, 3, H, W) unit vectors where valid, of length 1 within 0.02.
            valid: (B, H, W) bool.
        """
        error = angle(preds, target)[valid].double()
        self.sums += torch.stack([error.sum(), error.square().sum()])
        last = self.histogram.numel() - 1
        # A prediction of NaN has no bin: the sums become NaN, the histogram takes the worst angle.
        bins = (error.nan_to_num(180.0) * BINS_PER_DEGREE).long().clamp(max=last)
        self.histogram += torch.bincount(bins, minlength=last + 1)

    def compute(self) -> Tensor:
        """Number of pixels; subclasses give their score."""
        return self.histogram.sum()


class MeanAngle(AngleHistogram):
    """Mean angle, in degrees."""

    def compute(self) -> Tensor:
        """A scalar."""
        return (self.sums[0] / self.histogram.sum()).float()


class RMSAngle(AngleHistogram):
    """Root of the mean squared angle, in degrees."""

    def compute(self) -> Tensor:
        """A scalar."""
        return (self.sums[1] / self.histogram.sum()).sqrt().float()


class MedianAngle(AngleHistogram):
    """Lower median angle in degrees, from the histogram: within 0.01 degree of the exact one."""

    def compute(self) -> Tensor:
        """A scalar."""
        below = self.histogram.cumsum(0)
        half = below[-1].double() / 2
        index = (below < half).sum()
        inside = self.histogram[index].double()
        share = (half - below[index] + inside) / inside
        return ((index + share) / BINS_PER_DEGREE).clamp(max=180).float()


class WithinAngle(AngleHistogram):
    """Share of pixels whose angle is below a threshold, in [0, 1].

    Args:
        threshold: degrees, a multiple of 0.01 in (0, 180].
    """

    higher_is_better = True

    def __init__(self, threshold: float) -> None:
        super().__init__()
        bins = threshold * BINS_PER_DEGREE
        if not 0 < threshold <= 180 or abs(bins - round(bins)) > 1e-6:
            raise ArgumentError("threshold", "be a multiple of 0.01 in (0, 180]", threshold)
        self.threshold = threshold

    def compute(self) -> Tensor:
        """A scalar."""
        below = self.histogram[: round(self.threshold * BINS_PER_DEGREE)].sum()
        return (below.double() / self.histogram.sum()).float()
