"""A number."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks import Regression
from mtl_tabular.metrics.ranking import VarianceExplained
from mtl_tabular.tasks.base import TargetColumn

LEAST_SPREAD = 100 * 2.0**-24
"""Share of the mean below which a spread is too small for float32: rounding, up to 2^-24 of the
mean, is then above a hundredth of it."""


@dataclass(frozen=True, kw_only=True)
class NumericTarget(TargetColumn, Regression):
    """A real number per row, standardised inside and reported in its own unit.

    Shapes: prediction (B, 1); target (B,); activated (B, 1) in the target's unit.

    Args:
        weight: see `mtl_core.tasks.Task`.
        groups: likewise.
        column: see `TargetColumn`.
        level: likewise.
        rows: likewise.
        dim: 1.
        loss: ``mse``, ``mae`` or ``huber`` of standardised values.
        mean: centre of the targets; fitted unless `mean` or `std` is given.
        std: spread of the targets; likewise.
        standardize: False trains on raw values, as the reference implementation does.
    """

    standardize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim != 1:
            raise ArgumentError("dim", "be 1: a column holds one number a row", self.dim)

    @property
    def primary(self) -> str:
        """Explained variance, at most 1 and 0 for a constant prediction."""
        return "explained_variance"

    def metrics(self) -> dict[str, Metric]:
        """RMSE, MAE, R² and explained variance."""
        return {**super().metrics(), "explained_variance": VarianceExplained()}

    def fit(self, name: str, values: "pd.Series[Any]") -> Self:
        """Learn mean and standard deviation of the labelled rows.

        Targets that are all equal keep a spread of 1, with a warning: the network then learns the
        constant, and explained variance is undefined. A spread below `LEAST_SPREAD` of the mean
        warns, because float32 loses it: it resolves 1e9 in steps of 64.

        Raises:
            LabelError: no row is labelled, or a value is no number, infinite or too large.
        """
        numbers, labelled = self._numbers(name, values)
        self._check_any(name, labelled)
        known = numbers[labelled]
        fitted = replace(self, rows=len(known))
        mean, std = float(known.mean()), float(known.std())
        constant = not std > 1e-12 * abs(mean)
        if not constant and std < LEAST_SPREAD * abs(mean):
            warnings.warn(
                f"targets of task {name!r} lie around {mean:g} with a spread of only {std:g}: "
                "targets and predictions are float32, which keeps seven digits. Subtract a "
                "constant from the column, and add it to the predictions.",
                stacklevel=2,
            )
        if not self.standardize or (self.mean, self.std) != (0.0, 1.0):
            return fitted
        if constant:
            warnings.warn(
                f"targets of task {name!r} are all {known[0]:g} in the training rows: there is "
                "nothing to learn but the constant.",
                stacklevel=2,
            )
            return replace(fitted, mean=float(known[0]), std=1.0)
        return replace(fitted, mean=mean, std=std)

    def encode(self, name: str, values: "pd.Series[Any]") -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Numbers in float32, in their own unit.

        Raises:
            LabelError: a value is no number, or infinite, or too large for float32.
        """
        numbers, labelled = self._numbers(name, values)
        return numbers.astype(np.float32), labelled

    def _numbers(
        self, name: str, values: "pd.Series[Any]"
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Numbers in the precision of the column, zero where there is none, and where there are."""
        if values.dtype.kind in "mMc":
            raise LabelError(name, "be finite numbers", values.dtype)
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(
            dtype=np.float64, na_value=math.nan
        )
        missing = values.isna().to_numpy(dtype=bool)
        bad = (np.isnan(numbers) & ~missing) | (np.abs(numbers) > float(np.finfo(np.float32).max))
        if bad.any():
            rows = values.index[bad].tolist()
            found = [str(v) for v in values[bad].tolist()[:3]]
            raise LabelError(name, "be finite numbers", found, f"rows {rows[:4]}")
        return np.where(missing, 0.0, numbers), ~missing

    def update(
        self, metrics: MetricCollection, prediction: Tensor, target: Tensor, valid: Tensor
    ) -> None:
        """Score predictions and targets less the mean, in the target's unit.

        None of the metrics changes by that, but the sums of squares that R² and explained variance
        are made of keep their digits.
        """
        centred = target.float().reshape(valid.shape) - self.mean
        metrics.update((prediction.float() * self.std)[valid], centred[valid])

    def score(
        self, metrics: MetricCollection, activated: Tensor, target: Tensor, valid: Tensor
    ) -> None:
        """The same from predictions (B, 1) in the target's unit."""
        centred = target.double().reshape(valid.shape) - self.mean
        predicted = activated.double() - self.mean
        metrics.update(predicted[valid].float(), centred[valid].float())

    def decode(self, activated: Tensor) -> NDArray[Any]:
        """The number itself."""
        decoded: NDArray[Any] = activated.reshape(-1).double().cpu().numpy()
        return decoded

    def readout(self) -> dict[str, Any]:
        """The number (1) in the column's own unit."""
        return {
            "kind": "numeric",
            "activation": "destandardised",
            "unit": "target",
            **self._place(),
        }
