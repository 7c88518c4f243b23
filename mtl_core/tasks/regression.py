"""Scalar or vector regression."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks.base import Task


class _R2(R2Score):
    """R² that is NaN, not an error, where fewer than two samples leave it undefined."""

    def compute(self) -> Tensor:
        if int(self.total) < 2:
            return torch.tensor(float("nan"), device=self.device)
        return super().compute()


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """A real vector per sample, each entry scored alike.

    Shapes: prediction (B, D); target (B,) when D = 1 or (B, D); activated (B, D), in the target's
    unit. The network works on ``(target - mean) / std``; losses are in that scale, metrics in the
    target's own.

    Args:
        dim: D, at least 1.
        loss: ``mse``, ``mae`` or ``huber`` (quadratic below one standardised unit).
        mean: centre of the targets, in their unit.
        std: spread of the targets, in their unit, positive.
    """

    dim: int = 1
    loss: Literal["mse", "mae", "huber"] = "mse"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim < 1:
            raise ArgumentError("dim", "be at least 1", self.dim)
        if not self.std > 0:
            raise ArgumentError("std", "be positive", self.std)

    @property
    def out_channels(self) -> int:
        """D."""
        return self.dim

    @property
    def primary(self) -> str:
        """Root mean squared error, lower is better."""
        return "rmse"

    def valid(self, target: Tensor) -> Tensor:
        """All entries, (B, D)."""
        return torch.ones(target.shape[0], self.dim, dtype=torch.bool, device=target.device)

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Loss of every entry in standardised units, (B, D)."""
        scaled = (target.float().reshape(valid.shape) - self.mean) / self.std
        prediction = prediction.float()
        match self.loss:
            case "mse":
                return F.mse_loss(prediction, scaled, reduction="none")
            case "mae":
                return F.l1_loss(prediction, scaled, reduction="none")
            case "huber":
                return F.huber_loss(prediction, scaled, reduction="none")

    def metrics(self) -> dict[str, Metric]:
        """RMSE, MAE and R² over all entries."""
        return {
            "rmse": MeanSquaredError(squared=False),
            "mae": MeanAbsoluteError(),
            "r2": _R2(),
        }

    def activate(self, prediction: Tensor) -> Tensor:
        """Prediction in the target's unit, (B, D)."""
        return prediction * self.std + self.mean

    def readout(self) -> dict[str, Any]:
        """Numbers (D) in the target's unit."""
        return {"kind": "regression", "activation": "destandardised", "unit": "target"}

    def score(
        self, metrics: MetricCollection, activated: Tensor, target: Tensor, valid: Tensor
    ) -> None:
        """Score valid entries only."""
        metrics.update(activated[valid], target.float().reshape(valid.shape)[valid])

    def check(self, target: Tensor) -> None:
        """Targets must be finite and (B,) or (B, D)."""
        if target.shape[1:].numel() != self.dim:
            raise LabelError(
                type(self).__name__, f"have {self.dim} value(s) a sample", tuple(target.shape)
            )
        if not bool(torch.isfinite(target.float()).all()):
            raise LabelError(type(self).__name__, "be finite", "NaN or infinity")
