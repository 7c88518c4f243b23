"""One of several classes."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall

from mtl_core.errors import ArgumentError, LabelError
from mtl_tabular.levels import encode_levels, sorted_levels
from mtl_tabular.metrics.ranking import AreaUnderROC, AveragePrecision, LogLoss
from mtl_tabular.tasks.base import TargetColumn, class_texts, unseen_error


@dataclass(frozen=True, kw_only=True)
class MulticlassTarget(TargetColumn):
    """One of K classes per row.

    Shapes: prediction (B, K) logits; target (B,) int64 in 0..K-1; activated (B, K) probabilities.

    Args:
        weight: see `mtl_core.tasks.Task`.
        groups: likewise.
        column: see `TargetColumn`.
        level: likewise.
        rows: likewise.
        classes: the K classes as text, at least two. Empty: those of the training rows, numbers by
            value, other texts by alphabet.
        label_smoothing: share of the target mass spread evenly over all classes, in [0, 1).
    """

    classes: tuple[str, ...] = ()
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            raise ArgumentError("classes", "hold at least two different names", self.classes)
        if not 0 <= self.label_smoothing < 1:
            raise ArgumentError("label_smoothing", "lie in [0, 1)", self.label_smoothing)

    @property
    def out_channels(self) -> int:
        """K.

        Raises:
            ArgumentError: the classes are not known yet.
        """
        if not self.classes:
            raise ArgumentError("classes", "be known: fit the task on its column first", ())
        return len(self.classes)

    @property
    def primary(self) -> str:
        """Area under the ROC curve, one class against the rest, mean over classes."""
        return "auroc"

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Cross-entropy, (B,)."""
        return F.cross_entropy(
            prediction.float(), target, reduction="none", label_smoothing=self.label_smoothing
        )

    def metrics(self) -> dict[str, Metric]:
        """Ranking, calibration and decisions for the likeliest class; means are over classes."""
        K = self.out_channels
        return {
            "auroc": AreaUnderROC(K),
            "average_precision": AveragePrecision(K),
            "log_loss": LogLoss(),
            "accuracy": MulticlassAccuracy(K, average="micro"),
            "recall": MulticlassRecall(K, average="macro"),
            "f1": MulticlassF1Score(K, average="macro"),
        }

    def activate(self, prediction: Tensor) -> Tensor:
        """Class probabilities (B, K)."""
        return prediction.softmax(1)

    def score(
        self, metrics: MetricCollection, activated: Tensor, target: Tensor, valid: Tensor
    ) -> None:
        """Score probabilities (B, K)."""
        metrics.update(activated, target)

    def check(self, target: Tensor) -> None:
        """Targets must be integers in 0..K-1."""
        if target.is_floating_point():
            raise LabelError(type(self).__name__, "be integers", target.dtype)
        K = self.out_channels
        if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < K:
            found = sorted(set(target[(target < 0) | (target >= K)].tolist()))
            raise LabelError(type(self).__name__, f"lie in 0..{K - 1}", found[:5])

    def fit(self, name: str, values: "pd.Series[Any]") -> Self:
        """Learn the classes.

        Raises:
            LabelError: the training rows hold fewer than two.
        """
        texts, labelled = class_texts(name, values)
        self._check_any(name, labelled)
        found = sorted_levels(texts[labelled])
        if not self.classes and len(found) < 2:
            raise LabelError(name, "hold at least two classes in the training rows", found)
        classes = self.classes or tuple(found)
        fitted = replace(self, classes=classes, rows=int(labelled.sum()))
        fitted.encode(name, values)
        return fitted

    def encode(self, name: str, values: "pd.Series[Any]") -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Positions among the classes, int64."""
        texts, labelled = class_texts(name, values)
        codes = encode_levels(texts, self.classes)
        unseen = labelled & (codes < 0)
        if unseen.any():
            raise unseen_error(name, values, unseen, self.classes)
        return np.where(labelled, codes, 0), labelled

    def decode(self, activated: Tensor) -> NDArray[Any]:
        """The likeliest class as text."""
        chosen = activated.argmax(1).cpu().numpy()
        decoded: NDArray[Any] = np.array(self.classes, dtype=object)[chosen]
        return decoded

    def readout(self) -> dict[str, Any]:
        """Probabilities (K) of named classes, which sum to 1."""
        return {
            "kind": "multiclass",
            "activation": "softmax",
            "unit": "probability",
            "classes": list(self.classes),
            **self._place(),
        }
