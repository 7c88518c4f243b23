import pytest
from toy_columns import COLUMNS, column_tasks

from mtl_core.errors import ArgumentError
from mtl_tabular import networks
from mtl_tabular.networks import SharedBottom, TableNetwork


def test_a_network_without_columns_says_where_they_come_from():
    with pytest.raises(ArgumentError, match=r"data\.schema of a fitted TableDataModule"):
        SharedBottom(column_tasks())


@pytest.mark.parametrize("name", sorted(set(networks.__all__) - {"TableNetwork"}))
def test_every_network_keeps_its_columns(name):
    cls = getattr(networks, name)
    assert issubclass(cls, TableNetwork)
    more = {"network": SharedBottom} if name == "PerTask" else {}
    assert cls(column_tasks(), schema=COLUMNS, **more).schema == COLUMNS
