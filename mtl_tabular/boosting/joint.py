"""One boosted model for several numeric targets of the same rows, some of which may be missing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

TINY_HESSIAN = 1e-6  # of a missing label: XGBoost refuses NaN among several targets


@dataclass(frozen=True)
class JointRows:
    """Rows with a number per target.

    Args:
        matrix: (N, d) features.
        targets: (N, T), anything finite where there is no label.
        there: (N, T) which labels are there.
    """

    matrix: xgb.DMatrix
    targets: NDArray[Any]
    there: NDArray[np.bool_]


def train_joint(
    parameters: dict[str, Any],
    rounds: int,
    train: JointRows,
    stop: JointRows | None,
    callbacks: list[xgb.callback.TrainingCallback],
    *,
    trees: str,
) -> xgb.Booster:
    """Least squares over the labels that are there.

    Args:
        parameters: of XGBoost.
        rounds: at most.
        train: training rows.
        stop: rows on which the error is watched, under the name ``val``.
        callbacks: of XGBoost.
        trees: ``multi_output_tree`` or ``one_output_per_tree``.
    """
    sets = {id(rows.matrix): rows for rows in (train, stop) if rows is not None}

    def objective(
        predictions: NDArray[Any], matrix: xgb.DMatrix
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = sets[id(matrix)]
        residual = predictions.reshape(rows.targets.shape) - rows.targets
        return np.where(rows.there, residual, 0.0), np.where(rows.there, 1.0, TINY_HESSIAN)

    def rmse(predictions: NDArray[Any], matrix: xgb.DMatrix) -> tuple[str, float]:
        rows = sets[id(matrix)]
        residual = predictions.reshape(rows.targets.shape) - rows.targets
        return "rmse", float(np.sqrt(np.mean(residual[rows.there] ** 2)))

    settings = {
        "multi_strategy": trees,
        "base_score": 0.0,
        "num_target": train.targets.shape[1],
        "disable_default_eval_metric": True,
    }
    return xgb.train(
        parameters | settings, train.matrix, rounds,
        evals=[] if stop is None else [(stop.matrix, "val")], obj=objective,
        custom_metric=rmse, callbacks=callbacks, verbose_eval=False,
    )  # fmt: skip
