"""Tables: columns, splits, loaders, and the benchmark generator."""

from mtl_tabular.data.fourier_tasks import FourierTasks
from mtl_tabular.data.multitab_bench import MultiTabBench
from mtl_tabular.data.readers import TableSource
from mtl_tabular.data.relatedness import block_correlation, nearest_correlation
from mtl_tabular.data.schema import CategoricalColumn, ColumnError, NumericColumn, TableSchema
from mtl_tabular.data.synthetic import SyntheticTable
from mtl_tabular.data.synthetic_spec import SyntheticSpec
from mtl_tabular.data.table import TableDataModule

__all__ = [
    "CategoricalColumn",
    "ColumnError",
    "FourierTasks",
    "MultiTabBench",
    "NumericColumn",
    "SyntheticSpec",
    "SyntheticTable",
    "TableDataModule",
    "TableSchema",
    "TableSource",
    "block_correlation",
    "nearest_correlation",
]
