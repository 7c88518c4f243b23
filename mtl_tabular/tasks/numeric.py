"""A number."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks import Regression
from mtl_tabular.metrics.ranking import VarianceExplained
from mtl_tabular.tasks.base import TargetColumn


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
        constant, and explained variance is undefined.
        """
        numbers, labelled = self.encode(name, values)
        self._check_any(name, labelled)
        known = numbers[labelled].astype(np.float64)
        fitted = replace(self, rows=len(known))
        if not self.standardize or (self.mean, self.std) != (0.0, 1.0):
            return fitted
        std = float(known.std())
        if not std > 1e-12 * max(1.0, abs(float(known.mean()))):
            warnings.warn(
                f"targets of task {name!r} are all {known[0]:g} in the training rows: there is "
                "nothing to learn but the constant.",
                stacklevel=2,
            )
            std = 1.0
        return replace(fitted, mean=float(known.mean()), std=std)

    def encode(self, name: str, values: "pd.Series[Any]") -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Numbers in float32, in their own unit.

        Raises:
            LabelError: a value is no number, or infinite.
        """
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(
            dtype=np.float64, na_value=math.nan
        )
        missing = values.isna().to_numpy(dtype=bool)
        bad = (np.isnan(numbers) & ~missing) | np.isinf(numbers)
        if bad.any():
            rows = values.index[bad].tolist()
            found = [str(v) for v in values[bad].tolist()[:3]]
            raise LabelError(name, "be finite numbers", found, f"rows {rows[:4]}")
        return np.where(missing, 0.0, numbers).astype(np.float32), ~missing

    def decode(self, activated: Tensor) -> NDArray[Any]:
        """The number itself."""
        decoded: NDArray[Any] = activated.reshape(-1).double().cpu().numpy()
        return decoded
