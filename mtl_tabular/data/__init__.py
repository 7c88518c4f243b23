"""Tables: columns, splits, loaders, and the benchmark generator."""

from mtl_tabular.data.schema import CategoricalColumn, ColumnError, NumericColumn, TableSchema

__all__ = ["CategoricalColumn", "ColumnError", "NumericColumn", "TableSchema"]
