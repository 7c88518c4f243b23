"""Scores of class probabilities, and explained variance, that are NaN where labels say nothing."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.regression import ExplainedVariance
from torchmetrics.utilities import dim_zero_cat


class _Ranking(Metric):
    """A score of one class against the rest, mean over the classes that have both kinds of rows.

    torchmetrics' own multi-class scores give 0 for a class without positive rows, which passes for
    a bad score. With two classes the score is that of the second.

    Args:
        num_classes: K, at least 2.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    score: Callable[[Tensor, Tensor], Tensor]
    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add rows: probabilities (B, K) in [0, 1], targets (B,) int64."""
        self.probabilities.append(probabilities)
        self.targets.append(target)

    def compute(self) -> Tensor:
        """A scalar in [0, 1]; NaN where no class has both positive and negative rows."""
        probabilities, targets = dim_zero_cat(self.probabilities), dim_zero_cat(self.targets)
        scores = []
        for k in [1] if self.num_classes == 2 else range(self.num_classes):
            positive = targets == k
            if 0 < int(positive.sum()) < len(targets):
                scores.append(type(self).score(probabilities[:, k], positive.long()))
        if not scores:
            return torch.tensor(float("nan"), device=probabilities.device)
        return torch.stack(scores).mean()


class AreaUnderROC(_Ranking):
    """Area under the ROC curve, exact, one class against the rest.

    Shapes: probabilities (B, K) and targets (B,) int64; a scalar in [0, 1] or NaN.

    Args:
        num_classes: K, at least 2.
    """

    score = staticmethod(binary_auroc)


class AveragePrecision(_Ranking):
    """Average precision, exact, one class against the rest.

    Shapes: probabilities (B, K) and targets (B,) int64; a scalar in [0, 1] or NaN.

    Args:
        num_classes: K, at least 2.
    """

    score = staticmethod(binary_average_precision)


class LogLoss(Metric):
    """Mean negative logarithm of the true class's probability, in nats.

    Probabilities below 1e-7 count as 1e-7.

    Shapes: probabilities (B, K) and targets (B,) int64.
    """

    higher_is_better = False
    is_differentiable = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state(
            "total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum"
        )
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add rows: probabilities (B, K), targets (B,) int64."""
        chosen = probabilities.gather(1, target[:, None]).clamp_min(1e-7)
        self.total -= chosen.log().sum()
        self.count += len(target)

    def compute(self) -> Tensor:
        """The mean over all rows."""
        return (self.total / self.count).float()


class VarianceExplained(ExplainedVariance):
    """1 - Var(target - prediction) / Var(target); NaN where all targets are equal.

    Shapes: predictions and targets (B,); a scalar of at most 1, or NaN. torchmetrics gives 0 or 1
    for equal targets.
    """

    def compute(self) -> Tensor:
        """The score of all rows."""
        spread = self.sum_squared_target / self.num_obs - (self.sum_target / self.num_obs) ** 2
        level = self.sum_squared_target / self.num_obs
        if not bool((spread > 1e-6 * level).all()):
            return torch.tensor(float("nan"), device=self.device)
        score = super().compute()
        assert isinstance(score, Tensor)  # of one output
        return score
