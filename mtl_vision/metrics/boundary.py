"""Boundary F-measure at the best threshold of a data set, in Python: not SEISM's number."""

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree
from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_vision.thinning import Mask, thin

Matching: TypeAlias = Literal["tolerance", "assignment"]


def suppress_non_maxima(probability: Tensor, sigma: float = 1.5) -> Tensor:
    """Zero every pixel that is lower than a neighbour across the ridge it lies on.

    The direction across a ridge is the eigenvector of the eigenvalue of largest magnitude of the
    Hessian of the smoothed map (Steger 1998), also on the convex flanks of a wide ridge; the
    neighbours lie one pixel away, bilinearly interpolated (Canny 1986). Ties survive, so a map of
    lines that are one pixel wide is returned as it is.

    Args:
        probability: (B, H, W) in [0, 1].
        sigma: standard deviation of the smoothing, in pixels.

    Returns:
        (B, H, W), each value unchanged or 0.
    """
    _, h, w = probability.shape
    reach = math.ceil(3 * sigma)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32, device=probability.device)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = kernel / kernel.sum()
    x = F.pad(probability[:, None].float(), [reach + 1] * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]

    def at(dy: int, dx: int) -> Tensor:
        return x[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    xx = at(0, 1) - 2 * at(0, 0) + at(0, -1)
    yy = at(1, 0) - 2 * at(0, 0) + at(-1, 0)
    xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    along = 0.5 * torch.atan2(2 * xy, xx - yy)
    convex = xx + yy > 0
    dx = torch.where(convex, along.cos(), -along.sin())
    dy = torch.where(convex, along.sin(), along.cos())

    column = torch.arange(w, device=x.device, dtype=torch.float32)
    row = torch.arange(h, device=x.device, dtype=torch.float32)[:, None]
    source = probability[:, None].float()
    highest = torch.zeros_like(probability, dtype=torch.float32)
    for sign in (1, -1):
        grid = torch.stack(
            [
                (column + sign * dx) * 2 / max(w - 1, 1) - 1,
                (row + sign * dy) * 2 / max(h - 1, 1) - 1,
            ],
            dim=-1,
        )
        value = F.grid_sample(source, grid, padding_mode="zeros", align_corners=True)[:, 0]
        highest = torch.maximum(highest, value)
    # Interpolating along a straight line of equal values gives them up to rounding.
    return torch.where(probability >= highest - 1e-6, probability, 0.0)


def dilate(values: Tensor, radius: float) -> Tensor:
    """Largest value within `radius` pixels (Euclidean) of each pixel.

    Args:
        values: (B, H, W), not negative.
        radius: pixels, at least 0.

    Returns:
        (B, H, W).
    """
    h = values.shape[1]
    reach = math.floor(radius)
    padded = F.pad(values, (0, 0, reach, reach))
    rows_by_width: dict[int, list[int]] = {}
    for dy in range(-reach, reach + 1):
        half = math.floor(math.sqrt(radius * radius - dy * dy))
        rows_by_width.setdefault(half, []).append(dy)
    result = values
    for half, rows in rows_by_width.items():
        wide = F.max_pool2d(padded[:, None], (1, 2 * half + 1), stride=1, padding=(0, half))[:, 0]
        for dy in rows:
            result = torch.maximum(result, wide[:, reach + dy : reach + dy + h])
    return result


class BoundaryODSF(Metric):
    """F-measure of boundary matching at the best threshold of the data set ("ODS F"), in [0, 1].

    Probabilities pass non-maximum suppression and are thresholded. A predicted and a true boundary
    pixel may match if they are at most `max_distance` of the image diagonal apart; precision and
    recall are pooled over images per threshold. Source: Martin, Fowlkes & Malik 2004, with the
    tolerance of the BSDS benchmark.

    **Not SEISM**: the literature's values come from Matlab tool chains that thin, match and choose
    thresholds in their own way; expect differences of about a point, and never put both in one
    table. With ``matching="tolerance"`` a pixel counts as matched as soon as a counterpart lies
    within the tolerance. This runs on the device of the predictions at the price of two dilations a
    batch, and on the same pixels is an upper bound of ``matching="assignment"``, which thins the
    map at every threshold and counts a maximum one-to-one matching on the CPU (seconds for a large
    image).

    NaN when no pixel was valid; 0 where nothing is predicted or nothing is there.

    Args:
        max_distance: matching tolerance, as a share of the image diagonal.
        matching: ``tolerance`` or ``assignment``.
        thresholds: their number T; they are 1 / (T + 1), ..., T / (T + 1).
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    matched_predictions: Tensor
    predictions: Tensor
    matched_labels: Tensor
    labels: Tensor
    pixels: Tensor
    thresholds: Tensor

    def __init__(
        self,
        *,
        max_distance: float = 0.0075,
        matching: Matching = "tolerance",
        thresholds: int = 99,
    ) -> None:
        super().__init__()
        if not 0 < max_distance < 1:
            raise ArgumentError("max_distance", "lie in (0, 1)", max_distance)
        if matching not in get_args(Matching):
            raise UnknownNameError("matching", matching, get_args(Matching))
        if thresholds < 1:
            raise ArgumentError("thresholds", "be at least 1", thresholds)
        self.max_distance = max_distance
        self.matching = matching
        values = torch.arange(1, thresholds + 1, dtype=torch.float64) / (thresholds + 1)
        self.register_buffer("thresholds", values.float(), persistent=False)
        for name in ("matched_predictions", "predictions", "matched_labels"):
            zeros = torch.zeros(thresholds, dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        for name in ("labels", "pixels"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) boundary probabilities.
            target: (B, H, W), 1 = boundary.
            valid: (B, H, W) bool; other pixels are neither predicted nor true boundary.
        """
        radius = self.max_distance * math.hypot(*preds.shape[-2:])
        thin_preds = torch.where(valid, suppress_non_maxima(preds.float()), 0.0)
        truth = (target == 1) & valid
        self.labels += truth.sum()
        self.pixels += valid.sum()
        if self.matching == "tolerance":
            near_truth = dilate(truth.float(), radius) > 0
            self.predictions += self._reaching(thin_preds)
            self.matched_predictions += self._reaching(thin_preds[near_truth])
            self.matched_labels += self._reaching(dilate(thin_preds, radius)[truth])
        else:
            for probability, boundary in zip(thin_preds, truth, strict=True):
                self._assign(probability, boundary.cpu().numpy(), radius)

    def compute(self) -> Tensor:
        """A scalar."""
        hits, found = self.matched_predictions.double(), self.matched_labels.double()
        precision = hits / self.predictions.clamp(min=1)
        recall = found / self.labels.clamp(min=1)
        f = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        return torch.where(self.pixels > 0, f.max(), torch.nan).float()

    def _reaching(self, values: Tensor) -> Tensor:
        """How many of `values` reach each threshold, (T,)."""
        reached = torch.bucketize(values.flatten(), self.thresholds, right=True)
        counts = torch.bincount(reached, minlength=len(self.thresholds) + 1)
        return counts.flip(0).cumsum(0).flip(0)[1:]

    def _assign(self, probability: Tensor, boundary: Mask, radius: float) -> None:
        """Match one image one to one at every threshold."""
        scores = probability.cpu().numpy()
        levels = self.thresholds.cpu().numpy()
        candidates = np.argwhere(scores >= levels[0])
        truth = np.argwhere(boundary)
        if not len(candidates):
            return
        graph = None
        if len(truth):
            pairs = cKDTree(candidates).sparse_distance_matrix(
                cKDTree(truth), radius, output_type="ndarray"
            )
            entries = (np.ones(len(pairs), dtype=np.int8), (pairs["i"], pairs["j"]))
            graph = csr_matrix(entries, shape=(len(candidates), len(truth)))
        row, column = candidates.T
        passing, predicted, matched = -1, 0, 0
        for k, level in enumerate(levels):
            above = scores >= level
            if int(above.sum()) != passing:  # else the same pixels as at the threshold before
                passing = int(above.sum())
                kept = np.flatnonzero(thin(above)[row, column])
                predicted = len(kept)
                matched = 0
                if graph is not None and predicted:
                    partner = maximum_bipartite_matching(graph[kept], perm_type="column")
                    matched = int((partner >= 0).sum())
            self.predictions[k] += predicted
            self.matched_predictions[k] += matched
            self.matched_labels[k] += matched
