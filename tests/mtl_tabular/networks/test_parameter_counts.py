"""Sizes of the reference implementation's networks, as measured there, and what differs here.

Every categorical column has two codes more (unseen and missing), of one vector each; a class token
is one vector instead of weight and bias.
"""

import pytest

from mtl_tabular.data import CategoricalColumn, NumericColumn, TableSchema
from mtl_tabular.networks import (
    PLE,
    STEM,
    FTTransformer,
    MMoE,
    PerTask,
    Saint,
    SharedBottom,
)
from mtl_tabular.tasks import NumericTarget

WIDTH = 16
SYNTHETIC = TableSchema(numeric=tuple(NumericColumn(name=f"x{i}") for i in range(32)))
HIGGS = TableSchema(
    numeric=tuple(NumericColumn(name=f"x{i}") for i in range(17)),
    categorical=tuple(CategoricalColumn(name=f"c{i}", levels=("0", "1", "2")) for i in range(4)),
)
CODES = 4 * 2 * WIDTH
"""Further numbers in a table of embeddings of HIGGS."""


def size(network) -> int:
    return sum(p.numel() for p in network.parameters())


def tasks(count: int) -> dict[str, NumericTarget]:
    return {f"task{i}": NumericTarget() for i in range(1, count + 1)}


@pytest.mark.parametrize(
    ("kind", "count"), [(MMoE, 1_408_831), (PLE, 3_118_147), (STEM, 3_168_407)]
)
def test_synthetic(kind, count):
    assert size(kind(tasks(7), schema=SYNTHETIC)) == count


def perceptron_of_the_reference(tasks, *, schema) -> SharedBottom:
    return SharedBottom(tasks, schema=schema, shared=(512, 256, 64), tower=())


def test_synthetic_single_tasks():
    network = PerTask(tasks(7), schema=SYNTHETIC, network=perceptron_of_the_reference)
    assert size(network) == 2_892_295


def test_higgs_experts():
    assert size(MMoE(tasks(8), schema=HIGGS)) == 1_049_384 + CODES
    stem = STEM(tasks(8), schema=HIGGS, shared_experts=1, task_experts=1)
    assert size(stem) == 1_246_473 + 9 * CODES


def test_higgs_feature_transformers():
    network = PerTask(tasks(8), schema=HIGGS, network=FTTransformer)
    assert size(network) == 169_224 + 8 * (CODES - WIDTH)


def saint_rowwise(tasks, *, schema) -> Saint:
    return Saint(tasks, schema=schema, inter_sample="rowwise")


def test_higgs_saint():
    """The reference counts two numbers a token of rotary positions, which are no weights."""
    positions, row = 2 * (1 + 21), (1 + 21) * WIDTH
    expected = 5_526_760 + 8 * (CODES - WIDTH - positions)
    assert size(PerTask(tasks(8), schema=HIGGS, network=Saint)) == expected
    without_queries_and_keys = expected - 8 * (2 * row**2 + 2 * row)
    found = size(PerTask(tasks(8), schema=HIGGS, network=saint_rowwise))
    assert found == without_queries_and_keys
