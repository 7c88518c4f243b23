"""Estimators for scikit-learn: fit, predict and search over multi-task networks."""

from mtl_tabular.estimators.base import TableEstimator
from mtl_tabular.estimators.classifier import MultiTaskClassifier
from mtl_tabular.estimators.mixed import MultiTaskEstimator
from mtl_tabular.estimators.regressor import MultiTaskRegressor

__all__ = ["MultiTaskClassifier", "MultiTaskEstimator", "MultiTaskRegressor", "TableEstimator"]
