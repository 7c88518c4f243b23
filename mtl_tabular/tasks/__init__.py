"""Tasks whose targets are columns of a table."""

from mtl_tabular.tasks.base import TargetColumn
from mtl_tabular.tasks.binary import BinaryTarget
from mtl_tabular.tasks.multiclass import MulticlassTarget
from mtl_tabular.tasks.numeric import NumericTarget

__all__ = ["BinaryTarget", "MulticlassTarget", "NumericTarget", "TargetColumn"]
