"""Callbacks of tables."""

from mtl_tabular.callbacks.memory_rows import MemoryRows
from mtl_tabular.callbacks.prediction_writer import TablePredictionWriter

__all__ = ["MemoryRows", "TablePredictionWriter"]
