"""Surface normals."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import LabelError
from mtl_vision.metrics.normals import MeanAngle, MedianAngle, RMSAngle, WithinAngle
from mtl_vision.tasks.dense import DenseTask


@dataclass(frozen=True, kw_only=True)
class SurfaceNormals(DenseTask):
    """Unit normal of the visible surface per pixel.

    Shapes: prediction (B, 3, h, w), any length; target (B, 3, H, W) float32 unit vectors, the zero
    vector = unknown; activated (B, 3, H, W) unit vectors.

    With p the normalised prediction and g the target, the loss of a pixel is

    * ``survey``: the mean over the three components of ``|p - g|`` (a mean over valid *elements*);
    * ``atrc``: their sum (divided by valid *pixels*, so three times larger at the same weight);
    * ``libmtl``: ``1 - p·g``.

    The primary metric is the mean angle between p and g, in degrees.
    """

    @property
    def out_channels(self) -> int:
        """Three."""
        return 3

    @property
    def primary(self) -> str:
        """Mean angle in degrees."""
        return "mean"

    def valid(self, target: Tensor) -> Tensor:
        """Pixels whose normal is known, (B, H, W)."""
        return (target != 0).any(1)

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Loss of every pixel, (B, H, W)."""
        unit, target = self.activate(prediction), target.float()
        if self.protocol == "libmtl":
            return 1 - (unit * target).sum(1)
        distance = (unit - target).abs().sum(1)
        return distance / 3 if self.protocol == "survey" else distance

    def metrics(self) -> dict[str, Metric]:
        """Angles in degrees; shares of pixels below 11.25, 22.5 and 30 degrees, in [0, 1]."""
        found: dict[str, Metric] = {
            "mean": MeanAngle(),
            "median": MedianAngle(),
            "within_11_25": WithinAngle(11.25),
            "within_22_5": WithinAngle(22.5),
            "within_30": WithinAngle(30.0),
        }
        if self.protocol != "libmtl":
            found["rmse"] = RMSAngle()
        return found

    def activate(self, prediction: Tensor) -> Tensor:
        """Unit vectors (B, 3, H, W); a vector shorter than 1e-6 is divided by 1e-6."""
        return F.normalize(prediction.float(), dim=1, eps=1e-6)

    def readout(self) -> dict[str, Any]:
        """Unit vectors (3, H, W)."""
        return {
            "kind": "normals",
            "activation": "normalised",
            "unit": "unit vector",
            "channels": ["x", "y", "z"],
        }

    def check(self, target: Tensor) -> None:
        """Targets must be finite, and of length 1 (within 0.02, what 8-bit files give) or 0."""
        self._check_real_map(target, 4, "(B, 3, H, W)")
        name = type(self).__name__
        if target.shape[1] != 3:
            raise LabelError(name, "be maps (B, 3, H, W)", f"shape {tuple(target.shape)}")
        length = target.norm(dim=1)
        bad = ((length - 1).abs() > 0.02) & self.valid(target)
        if bool(bad.any()):
            rule = "be unit vectors, or zero where unknown"
            raise LabelError(
                name, rule, f"lengths {[round(v, 3) for v in length[bad][:5].tolist()]}"
            )
