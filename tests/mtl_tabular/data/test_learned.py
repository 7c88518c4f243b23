"""What is learned from training rows, whatever the kind of storage; more in `test_table.py`."""

import pytest
from toy_tables import long_frame, long_tasks, wide_frame, wide_tasks

from mtl_tabular.data import TableDataModule


def test_both_kinds_of_storage_learn_the_same(tmp_path):
    found = []
    for storage in ("memory", "disk"):
        data = TableDataModule(
            wide_tasks(), table=wide_frame(), storage=storage, cache_dir=str(tmp_path)
        )
        assert not data.fitted
        data.fit()
        assert data.fitted
        found.append((data.schema, data.tasks))
    assert found[0] == found[1]


@pytest.mark.parametrize("task_column", ["", "site"])
def test_records_know_the_number_of_their_rows(task_column):
    frame = long_frame()
    data = TableDataModule(long_tasks(), table=frame, task_column=task_column)
    data.fit()
    assert sum(task.rows for task in data.tasks.values()) == 240 - 2 * 36
