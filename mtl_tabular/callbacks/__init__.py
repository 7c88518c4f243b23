"""Callbacks of tables."""

from mtl_tabular.callbacks.prediction_writer import TablePredictionWriter

__all__ = ["TablePredictionWriter"]
