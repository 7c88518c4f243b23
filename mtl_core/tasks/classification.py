"""Single-label classification."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One of K classes per sample.

    Shapes: prediction (B, K) logits; target (B,) int64 in 0..K-1; activated (B, K) probabilities.

    Args:
        num_classes: K, at least 2.
        class_names: names of the K classes, for tables and pictures.
        label_smoothing: share of the target mass spread evenly over all classes, in [0, 1).
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes < 2:
            raise ArgumentError("num_classes", "be at least 2", self.num_classes)
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ArgumentError("class_names", f"hold {self.num_classes} names", self.class_names)
        if not 0 <= self.label_smoothing < 1:
            raise ArgumentError("label_smoothing", "lie in [0, 1)", self.label_smoothing)

    @property
    def out_channels(self) -> int:
        """K."""
        return self.num_classes

    @property
    def primary(self) -> str:
        """Accuracy."""
        return "accuracy"

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Cross-entropy of every sample, (B,)."""
        return F.cross_entropy(
            prediction.float(), target, reduction="none", label_smoothing=self.label_smoothing
        )

    def metrics(self) -> dict[str, Metric]:
        """Accuracy over all samples and macro-averaged F1."""
        return {
            "accuracy": MulticlassAccuracy(self.num_classes, average="micro"),
            "f1": MulticlassF1Score(self.num_classes, average="macro"),
        }

    def activate(self, prediction: Tensor) -> Tensor:
        """Class probabilities (B, K)."""
        return prediction.softmax(1)

    def readout(self) -> dict[str, Any]:
        """Probabilities (K) of named classes, which sum to 1."""
        classes = self.class_names or tuple(map(str, range(self.num_classes)))
        return {
            "kind": "classification",
            "activation": "softmax",
            "unit": "probability",
            "classes": list(classes),
        }

    def check(self, target: Tensor) -> None:
        """Targets must be integers in 0..K-1."""
        if target.is_floating_point() or target.dtype == torch.bool:
            raise LabelError(type(self).__name__, "be integers", target.dtype)
        if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < self.num_classes:
            found = sorted(set(target[(target < 0) | (target >= self.num_classes)].tolist()))
            raise LabelError(type(self).__name__, f"lie in 0..{self.num_classes - 1}", found[:5])
