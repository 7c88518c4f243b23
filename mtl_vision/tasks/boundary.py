"""Semantic boundaries."""

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_vision.metrics.boundary import BoundaryODSF, Matching
from mtl_vision.tasks.dense import IGNORE, DenseTask, weighted_binary_loss


@dataclass(frozen=True, kw_only=True)
class BoundaryDetection(DenseTask):
    """Whether a pixel lies on a boundary.

    Shapes: prediction (B, 1, h, w) logits; target (B, H, W) uint8 or int64, 0, 1 or 255 = ignored;
    activated (B, H, W) probabilities.

    The loss is `weighted_binary_loss` with a constant weight, averaged over the valid pixels of the
    batch, in both protocols. The metric is the F-measure at the best threshold of the data set,
    computed in Python: it is not the number that SEISM prints (see `BoundaryODSF`). LibMTL does not
    define the task.

    Args:
        positive_weight: w of boundary pixels, in (0, 1); others weigh 1 - w. The literature's value
            is 0.95 (MLoRE: 0.925 for ViT-L on PASCAL, 0.88 on NYUD).
        max_distance: matching tolerance as a share of the image diagonal; 0.0075 is PASCAL's, NYUD
            has 0.011.
        matching: ``tolerance`` is cheap enough for every validation; ``assignment`` matches one to
            one.
    """

    protocols: ClassVar[tuple[str, ...]] = ("survey", "atrc")

    positive_weight: float = 0.95
    max_distance: float = 0.0075
    matching: Matching = "tolerance"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.positive_weight < 1:
            raise ArgumentError("positive_weight", "lie in (0, 1)", self.positive_weight)
        if not 0 < self.max_distance < 1:
            raise ArgumentError("max_distance", "lie in (0, 1)", self.max_distance)
        if self.matching not in get_args(Matching):
            raise UnknownNameError("matching", self.matching, get_args(Matching))

    @property
    def out_channels(self) -> int:
        """One."""
        return 1

    @property
    def primary(self) -> str:
        """F-measure at the best threshold of the data set, in [0, 1]; not SEISM's."""
        return "odsf"

    def valid(self, target: Tensor) -> Tensor:
        """Pixels that are not 255, (B, H, W)."""
        return target != IGNORE

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Weighted binary cross-entropy of every pixel, (B, H, W)."""
        return weighted_binary_loss(prediction.squeeze(1), target == 1, self.positive_weight)

    def metrics(self) -> dict[str, Metric]:
        """``odsf``."""
        return {"odsf": BoundaryODSF(max_distance=self.max_distance, matching=self.matching)}

    def activate(self, prediction: Tensor) -> Tensor:
        """Boundary probability (B, H, W)."""
        return prediction.squeeze(1).sigmoid()

    def readout(self) -> dict[str, Any]:
        """Boundary probabilities (H, W)."""
        return {
            "kind": "boundary",
            "activation": "sigmoid",
            "unit": "probability",
            "threshold": 0.5,
        }

    def check(self, target: Tensor) -> None:
        """Targets must be 0, 1 or 255."""
        self._check_integer_map(target, 2)
