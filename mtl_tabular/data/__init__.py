"""Tables: columns, splits, loaders, and the benchmark generator."""

from mtl_tabular.data.relatedness import block_correlation, nearest_correlation
from mtl_tabular.data.schema import CategoricalColumn, ColumnError, NumericColumn, TableSchema
from mtl_tabular.data.synthetic import SyntheticTable
from mtl_tabular.data.synthetic_spec import SyntheticSpec

__all__ = [
    "CategoricalColumn",
    "ColumnError",
    "NumericColumn",
    "SyntheticSpec",
    "SyntheticTable",
    "TableSchema",
    "block_correlation",
    "nearest_correlation",
]
