"""The contract of every tabular network: tasks and columns in, predictions by task name out."""

from abc import ABC
from collections.abc import Mapping

from mtl_core.errors import ArgumentError
from mtl_core.nn import MultiTaskNetwork
from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema


class TableNetwork(MultiTaskNetwork, ABC):
    """A network whose inputs are the columns of a table, see `TableSchema`.

    Args:
        tasks: records by name, fitted (`TargetColumn.fit`) where their kind needs it.
        schema: the columns. The command line and the estimators fill it in from the training rows.

    Raises:
        ArgumentError: the schema has no columns.
    """

    def __init__(self, tasks: Mapping[TaskName, Task], schema: TableSchema = NO_COLUMNS) -> None:
        super().__init__(tasks)
        if not len(schema):
            raise ArgumentError(
                "schema",
                "hold the table's columns: take data.schema of a fitted TableDataModule (which the "
                "command line does by itself)",
                schema,
            )
        self.schema = schema
