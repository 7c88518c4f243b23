"""Several yes/no labels per sample."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class MultiLabel(Task):
    """K independent yes/no labels per sample; any of them may be unknown.

    Shapes: prediction (B, K) logits; target (B, K) of 0, 1 or -1 (unknown: neither loss nor
    metric); activated (B, K) probabilities.

    Args:
        num_labels: K, at least 2 (a single one is a `Classification` of two classes).
        class_names: names of the K labels.
    """

    num_labels: int
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_labels < 2:
            raise ArgumentError("num_labels", "be at least 2", self.num_labels)
        if self.class_names and len(self.class_names) != self.num_labels:
            raise ArgumentError("class_names", f"hold {self.num_labels} names", self.class_names)

    @property
    def out_channels(self) -> int:
        """K."""
        return self.num_labels

    @property
    def primary(self) -> str:
        """F1, macro-averaged over labels at threshold 0.5."""
        return "f1"

    def valid(self, target: Tensor) -> Tensor:
        """Known labels, (B, K)."""
        return target >= 0

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Binary cross-entropy of every label, (B, K)."""
        return F.binary_cross_entropy_with_logits(
            prediction.float(), target.clamp(0, 1).float(), reduction="none"
        )

    def metrics(self) -> dict[str, Metric]:
        """Macro-averaged F1 at 0.5 and average precision (on a grid of 101 thresholds)."""
        return {
            "f1": MultilabelF1Score(self.num_labels, ignore_index=-1),
            "ap": MultilabelAveragePrecision(self.num_labels, thresholds=101, ignore_index=-1),
        }

    def activate(self, prediction: Tensor) -> Tensor:
        """Label probabilities (B, K)."""
        return prediction.sigmoid()

    def readout(self) -> dict[str, Any]:
        """Probabilities (K) of named labels; 0.5 is where F1 decides."""
        classes = self.class_names or tuple(map(str, range(self.num_labels)))
        return {
            "kind": "multilabel",
            "activation": "sigmoid",
            "unit": "probability",
            "classes": list(classes),
            "threshold": 0.5,
        }

    def score(
        self, metrics: MetricCollection, activated: Tensor, target: Tensor, valid: Tensor
    ) -> None:
        """Score known labels; unsigned and boolean targets are widened, so that -1 exists."""
        metrics.update(activated, target.long())

    def check(self, target: Tensor) -> None:
        """Targets must be -1, 0 or 1."""
        super().check(target)
        bad = (target != -1) & (target != 0) & (target != 1)
        if bool(bad.any()):
            found = sorted(set(target[bad].tolist()))
            raise LabelError(type(self).__name__, "be 0, 1 or -1 (unknown)", found[:5])
