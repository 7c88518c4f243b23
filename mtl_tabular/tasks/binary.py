"""Two classes: a click, a sale, a default."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, MulticlassF1Score, MulticlassRecall

from mtl_core.errors import ArgumentError, LabelError
from mtl_tabular.levels import encode_levels, sorted_levels
from mtl_tabular.metrics.ranking import AreaUnderROC, AveragePrecision, LogLoss
from mtl_tabular.tasks.base import TargetColumn, class_texts, unseen_error


@dataclass(frozen=True, kw_only=True)
class BinaryTarget(TargetColumn):
    """One of two classes per row.

    Shapes: prediction (B, 1) logit of the second class; target (B,) of 0 and 1; activated (B, 1)
    probability of the second class.

    Args:
        weight: see `mtl_core.tasks.Task`.
        groups: likewise.
        column: see `TargetColumn`.
        level: likewise.
        rows: likewise.
        classes: the two classes as text; the second is the positive one. Empty: those of the
            training rows, numbers by value, other texts by alphabet.
        pos_weight: factor on the loss of positive rows, for rare events; at 1 the activated
            predictions are calibrated probabilities, otherwise not.
    """

    classes: tuple[str, ...] = ()
    pos_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes and len(set(self.classes)) != 2:
            raise ArgumentError("classes", "hold two names", self.classes)
        if not self.pos_weight > 0:
            raise ArgumentError("pos_weight", "be positive", self.pos_weight)

    @property
    def out_channels(self) -> int:
        """One logit."""
        return 1

    @property
    def primary(self) -> str:
        """Area under the ROC curve."""
        return "auroc"

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Binary cross-entropy on the logit, (B,)."""
        return F.binary_cross_entropy_with_logits(
            prediction.float().reshape(-1),
            target.float(),
            reduction="none",
            pos_weight=torch.tensor(self.pos_weight, device=prediction.device),
        )

    def metrics(self) -> dict[str, Metric]:
        """Ranking, calibration and decisions at probability one half."""
        return {
            "auroc": AreaUnderROC(2),
            "average_precision": AveragePrecision(2),
            "log_loss": LogLoss(),
            "accuracy": BinaryAccuracy(),
            "recall": MulticlassRecall(2, average="macro"),
            "f1": MulticlassF1Score(2, average="macro"),
        }

    def activate(self, prediction: Tensor) -> Tensor:
        """Probability of the second class, (B, 1)."""
        return prediction.sigmoid()

    def score(
        self, metrics: MetricCollection, activated: Tensor, target: Tensor, valid: Tensor
    ) -> None:
        """Score probabilities (B, 2)."""
        positive = activated.reshape(-1)
        probabilities = torch.stack([1 - positive, positive], 1)
        for name, metric in metrics.items():
            metric.update(positive if name == "accuracy" else probabilities, target.long())

    def check(self, target: Tensor) -> None:
        """Targets must be 0 or 1."""
        if bool(((target != 0) & (target != 1)).any()):
            raise LabelError(type(self).__name__, "be 0 or 1", sorted(set(target.tolist()))[:5])

    def fit(self, name: str, values: "pd.Series[Any]") -> Self:
        """Learn the two classes.

        Raises:
            LabelError: the training rows hold more or fewer than two.
        """
        texts, labelled = class_texts(name, values)
        self._check_any(name, labelled)
        found = sorted_levels(texts[labelled])
        if not self.classes and len(found) != 2:
            raise LabelError(name, "hold two classes in the training rows", found[:5])
        classes = self.classes or tuple(found)
        fitted = replace(self, classes=classes, rows=int(labelled.sum()))
        fitted.encode(name, values)
        return fitted

    def encode(self, name: str, values: "pd.Series[Any]") -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """0 and 1 in float32."""
        texts, labelled = class_texts(name, values)
        codes = encode_levels(texts, self.classes)
        unseen = labelled & (codes < 0)
        if unseen.any():
            raise unseen_error(name, values, unseen, self.classes)
        return np.where(labelled, codes, 0).astype(np.float32), labelled

    def decode(self, activated: Tensor) -> NDArray[Any]:
        """The likelier class as text."""
        chosen = (activated.reshape(-1) > 0.5).long().cpu().numpy()
        decoded: NDArray[Any] = np.array(self.classes, dtype=object)[chosen]
        return decoded

    def readout(self) -> dict[str, Any]:
        """The probability (1) of the second class; `decode` decides at one half."""
        return {
            "kind": "binary",
            "activation": "sigmoid",
            "unit": "probability",
            "classes": list(self.classes or ("0", "1")),
            "threshold": 0.5,
            **self._place(),
        }
