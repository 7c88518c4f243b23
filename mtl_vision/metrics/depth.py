"""Depth errors, pooled over the valid pixels of the data set.

Source: Eigen, Puhrsch & Fergus 2014, section 4.1.
"""

import torch
from torch import Tensor
from torchmetrics import Metric


class DepthSums(Metric):
    """Base: sums over valid pixels, from which every depth error follows.

    Its subclasses hold equal states, so that a `torchmetrics.MetricCollection` sums once for all of
    them. All are NaN when no pixel was valid.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(6, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) metres, not negative.
            target: (B, H, W) metres, positive where valid.
            valid: (B, H, W) bool.
        """
        p, d = preds[valid].double(), target[valid].double()
        error = p - d
        log_error = p.clamp(min=1e-9).log() - d.log()
        terms = (
            torch.ones_like(d),
            error.square(),
            log_error.square(),
            error.abs(),
            error.abs() / d,
            error.square() / d,
        )
        self.sums += torch.stack([term.sum() for term in terms])

    def _mean(self, index: int) -> Tensor:
        """Mean over pixels of a term of `update`."""
        return (self.sums[index] / self.sums[0]).float()

    def compute(self) -> Tensor:
        """Number of pixels; subclasses give their error."""
        return self.sums[0]


class DepthRMSE(DepthSums):
    """Root of the mean squared error, in metres."""

    def compute(self) -> Tensor:
        """A scalar, in metres."""
        return self._mean(1).sqrt()


class DepthLogRMSE(DepthSums):
    """Root of the mean squared difference of natural logarithms, taken of 1e-9 m at least."""

    def compute(self) -> Tensor:
        """A scalar."""
        return self._mean(2).sqrt()


class DepthMAE(DepthSums):
    """Mean absolute error, in metres."""

    def compute(self) -> Tensor:
        """A scalar, in metres."""
        return self._mean(3)


class DepthAbsRel(DepthSums):
    """Mean absolute error divided by the true depth."""

    def compute(self) -> Tensor:
        """A scalar."""
        return self._mean(4)


class DepthSqRel(DepthSums):
    """Mean squared error divided by the true depth, in metres."""

    def compute(self) -> Tensor:
        """A scalar, in metres."""
        return self._mean(5)
