"""Metrics of tables that are NaN, not wrong, where the labels leave them undefined."""

from mtl_tabular.metrics.ranking import AreaUnderROC, AveragePrecision, LogLoss, VarianceExplained

__all__ = ["AreaUnderROC", "AveragePrecision", "LogLoss", "VarianceExplained"]
