"""Saliency scores: the survey's, averaged over images, and ATRC's, pooled over the data set."""

from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, 0 where the denominator is 0 (0/0 → 0)."""
    return torch.where(denominator > 0, numerator / denominator, 0.0)


def _f_measure(precision: Tensor, recall: Tensor, beta_squared: float) -> Tensor:
    """``(1 + β²) P R / (β² P + R)``, 0 where both are 0."""
    return _divide((1 + beta_squared) * precision * recall, beta_squared * precision + recall)


class SaliencyPerImage(Metric):
    """Base: precision, recall and Jaccard index of every image at 15 thresholds from 0.2 to 0.9.

    A pixel is predicted salient if its probability exceeds the threshold. Images count alike,
    whatever their number of valid pixels; one without any is left out, and NaN is the score of none
    at all. For an image without predicted (true) salient pixels the precision (recall) is 0; the
    Jaccard index of two empty masks is 1. Source: dense-prediction survey (Vandenhende et al.
    2021).

    Its subclasses hold equal states, so that a `torchmetrics.MetricCollection` counts once for
    both.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    sums: Tensor
    images: Tensor
    thresholds: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.linspace(0.2, 0.9, 15), persistent=False)
        self.add_state("sums", torch.zeros(3, 15, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) foreground probabilities.
            target: (B, H, W), 1 = salient.
            valid: (B, H, W) bool.
        """
        b, bins = len(preds), len(self.thresholds) + 1
        exceeded = torch.bucketize(
            preds.float(), self.thresholds
        )  # how many thresholds lie below the value
        row = 2 * torch.arange(b, device=preds.device)[:, None, None] + (target == 1)
        counts = torch.bincount((row * bins + exceeded)[valid], minlength=2 * b * bins)
        # Entry k of the reversed cumulative sum: pixels above at least k thresholds.
        above = counts.view(b, 2, bins).flip(2).cumsum(2).flip(2).double()
        above = above[above[:, :, 0].sum(1) > 0]
        hits, predicted, actual = above[:, 1, 1:], above.sum(1)[:, 1:], above[:, 1, :1]
        union = predicted + actual - hits
        jaccard = torch.where(union > 0, hits / union, 1.0)
        scores = torch.stack([_divide(hits, predicted), _divide(hits, actual), jaccard])
        self.sums += scores.sum(1)
        self.images += len(above)

    def compute(self) -> Tensor:
        """Means over images (3, 15) of precision, recall and Jaccard index."""
        return self.sums / self.images


class SaliencyMIoU(SaliencyPerImage):
    """Jaccard index averaged over images, at the best threshold, in [0, 1]."""

    def compute(self) -> Tensor:
        """A scalar."""
        jaccard: Tensor = (self.sums / self.images)[2]
        return jaccard.max().float()


class SaliencyImageMaxF(SaliencyPerImage):
    """F-measure (β² = 1) of mean precision and recall over images, best threshold, in [0, 1]."""

    def compute(self) -> Tensor:
        """A scalar."""
        precision, recall, _ = (self.sums / self.images).unbind()
        if not bool(self.images):
            return precision.new_full((), torch.nan).float()
        return _f_measure(precision, recall, 1.0).max().float()


class SaliencyMaxF(Metric):
    """F-measure (β² = 0.3) of pooled counts at the best threshold of 0.05, 0.10, ..., 0.95.

    A pixel is predicted salient if its probability is at least the threshold. In [0, 1]; 0/0 → 0;
    NaN when no pixel was valid. Source: F_β of Achanta et al. 2009, maximised as in ATRC
    (Brüggemann et al. 2021).

    Args:
        double_sigmoid: apply a sigmoid to the probabilities before thresholding, as the published
            code of this line does. Since σ(p) ≥ t means p ≥ ln(t / (1 - t)) and p lies in [0, 1],
            only 0, 0.2007, 0.4055, 0.6190 and 0.8473 are then effective thresholds.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    beta_squared: ClassVar[float] = 0.3

    histogram: Tensor
    thresholds: Tensor
    twice: Tensor

    def __init__(self, *, double_sigmoid: bool = False) -> None:
        super().__init__()
        self.double_sigmoid = double_sigmoid
        # Both readings count into one histogram: torchmetrics merges metrics of a collection whose
        # states agree after the first batch, which is right only if they agree for ever.
        clean = torch.arange(1, 20, dtype=torch.float64) / 20
        second = clean.logit()
        second = second[(second > 0) & (second < 1)]
        thresholds, order = torch.cat([clean, second]).float().sort()
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.register_buffer("twice", order >= len(clean), persistent=False)
        shape = (2, len(thresholds) + 1)
        self.add_state("histogram", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) foreground probabilities.
            target: (B, H, W), 1 = salient.
            valid: (B, H, W) bool.
        """
        bins = len(self.thresholds) + 1
        reached = torch.bucketize(preds[valid].float(), self.thresholds, right=True)
        index = (target[valid] == 1) * bins + reached
        self.histogram += torch.bincount(index, minlength=2 * bins).view(2, bins)

    def compute(self) -> Tensor:
        """A scalar."""
        total = self.histogram.sum()
        if not bool(total):
            return total.new_full((), torch.nan, dtype=torch.float32)
        above = self.histogram.flip(1).cumsum(1).flip(1).double()
        actual, selected = above[1, 0], above[:, 1:]
        if self.double_sigmoid:
            # Every threshold up to 0.5 passes every pixel.
            selected = torch.cat([above[:, :1], selected[:, self.twice]], 1)
        else:
            selected = selected[:, ~self.twice]
        hits, predicted = selected[1], selected.sum(0)
        precision, recall = _divide(hits, predicted), _divide(hits, actual)
        return _f_measure(precision, recall, self.beta_squared).max().float()
