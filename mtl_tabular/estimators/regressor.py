"""Several regressions from one table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from mtl_tabular.estimators.base import TableEstimator
from mtl_tabular.estimators.targets import assemble
from mtl_tabular.tasks import NumericTarget, TargetColumn


class MultiTaskRegressor(RegressorMixin, TableEstimator):  # type: ignore[misc]  # no types
    """Regressor for one or several numbers, standardised inside.

    Takes the parameters of `TableEstimator`. With several tasks a label may be missing (NaN or
    None); the row then counts for the other tasks.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(60, 3))
        >>> y = np.stack([100 * X[:, 0], X[:, 1] - X[:, 2]], 1)
        >>> MultiTaskRegressor(max_epochs=3, random_state=0).fit(X, y).predict(X).shape
        (60, 2)
    """

    def _start_records(
        self, columns: dict[str, NDArray[Any]], labels: Sequence[str], vector: bool
    ) -> dict[str, TargetColumn]:
        return {name: NumericTarget() for name in columns}

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Numbers in their own units.

        Args:
            X: (n_samples, n_features), columns as at fit.

        Returns:
            (n_samples,) or (n_samples, n_tasks), as y was.
        """
        columns = self._predicted(X)
        predicted: NDArray[np.float64] = assemble(
            columns, "vector" if self._form == "vector" else "array"
        )
        return predicted

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² on labelled rows, mean over the tasks that have any.

        Args:
            X: (n_samples, n_features).
            y: labels as at fit.
            sample_weight: weights (n_samples,) of the rows in the score.
        """
        labels = self._labels(y)
        scores = []
        for values, predicted in zip(labels.values(), self._predicted(X).values(), strict=True):
            known = ~pd.isna(values)
            if known.any():
                weight = None if sample_weight is None else np.asarray(sample_weight)[known]
                numbers = values[known].astype(np.float64)
                scores.append(r2_score(numbers, predicted[known], sample_weight=weight))
        return float(np.mean(scores)) if scores else float("nan")
