"""Monocular depth."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import LabelError
from mtl_vision.metrics.depth import (
    DepthAbsRel,
    DepthLogRMSE,
    DepthMAE,
    DepthRMSE,
    DepthSqRel,
)
from mtl_vision.tasks.dense import DenseTask


@dataclass(frozen=True, kw_only=True)
class DepthEstimation(DenseTask):
    """Depth in metres per pixel.

    Shapes: prediction (B, 1, h, w); target (B, H, W) float32 metres, 0 = unknown; activated
    (B, H, W) metres.

    The loss is the absolute error averaged over the valid pixels of the batch, in every protocol.
    The primary metric is the RMSE over all valid pixels of the data set (not the mean of per-image
    RMSEs); ``libmtl`` scores the absolute and the relative error instead. LibMTL averages them over
    batches; here they are pooled over pixels, so that they do not depend on the batch size.
    """

    @property
    def out_channels(self) -> int:
        """One."""
        return 1

    @property
    def primary(self) -> str:
        """RMSE in metres; under ``libmtl`` the absolute error in metres."""
        return "abs_err" if self.protocol == "libmtl" else "rmse"

    def valid(self, target: Tensor) -> Tensor:
        """Pixels of known depth, (B, H, W)."""
        return target > 0

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Absolute error of every pixel in metres, (B, H, W). The prediction is not clamped."""
        return (prediction.float().squeeze(1) - target.float()).abs()

    def metrics(self) -> dict[str, Metric]:
        """Errors pooled over the valid pixels of the data set; see the class for the protocols."""
        if self.protocol == "libmtl":
            return {"abs_err": DepthMAE(), "rel_err": DepthAbsRel()}
        return {
            "rmse": DepthRMSE(),
            "log_rmse": DepthLogRMSE(),
            "abs_err": DepthMAE(),
            "abs_rel": DepthAbsRel(),
            "sq_rel": DepthSqRel(),
        }

    def activate(self, prediction: Tensor) -> Tensor:
        """Depth in metres, (B, H, W): at least 1e-9 under ``survey``, at least 0 otherwise."""
        return prediction.squeeze(1).clamp(min=1e-9 if self.protocol == "survey" else 0.0)

    def readout(self) -> dict[str, Any]:
        """Metres (H, W)."""
        return {"kind": "depth", "activation": "clamp", "unit": "m"}

    def check(self, target: Tensor) -> None:
        """Targets must be finite and not negative."""
        self._check_real_map(target, 3, "(B, H, W)")
        if target.numel() and float(target.min()) < 0:
            rule = "be metres, 0 where unknown, never negative"
            raise LabelError(type(self).__name__, rule, float(target.min()))
