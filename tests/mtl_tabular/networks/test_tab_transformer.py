import pytest
import torch
from torch import nn
from toy_columns import COLUMNS, NUMBERS, column_inputs, column_tasks

from mtl_core.errors import ArgumentError
from mtl_tabular.data import TableSchema
from mtl_tabular.networks import TabTransformer


def small(schema=COLUMNS, **options) -> TabTransformer:
    torch.manual_seed(0)
    defaults = {"width": 8, "heads": 2, "feedforward": 12, "head_hidden": (6,)}
    return TabTransformer(column_tasks(), schema=schema, **{**defaults, **options})


def test_numbers_pass_by_the_encoder():
    network = small()
    one, other = column_inputs(), column_inputs()
    other["numeric"] = torch.randn(12, 3)
    features, changed = (network.encode(inputs).maps[0] for inputs in (one, other))
    assert features.shape == (12, 2 * 8 + 3)
    assert torch.equal(features[:, :16], changed[:, :16])
    numbers = nn.functional.layer_norm(one["numeric"], (3,))
    torch.testing.assert_close(features[:, 16:], numbers)


def test_categories_read_each_other():
    network = small()
    other = column_inputs()
    other["categorical"][:, 0] = 0
    features, changed = (network.encode(i).maps[0] for i in (column_inputs(), other))
    assert (features[:, 8:16] - changed[:, 8:16]).abs().amax(1).min() > 1e-6
    assert torch.equal(features[:, 16:], changed[:, 16:])


def test_missing_numbers_count_as_medians():
    network, inputs = small(), column_inputs()
    inputs["numeric"] = torch.full((12, 3), float("nan"))
    same = {**inputs, "numeric": torch.tensor([[-0.2, -0.5, 0.0]]).expand(12, 3)}
    torch.testing.assert_close(network.encode(inputs).maps[0], network.encode(same).maps[0])


def test_one_number_alone_is_kept():
    """Layer norm over one column would turn every value into 0."""
    schema = TableSchema(numeric=COLUMNS.numeric[:1], categorical=COLUMNS.categorical)
    inputs = column_inputs()
    inputs["numeric"] = inputs["numeric"][:, :1]
    found = small(schema).encode(inputs).maps[0]
    assert torch.equal(found[:, 16:], inputs["numeric"])


def test_no_numbers_at_all():
    schema = TableSchema(categorical=COLUMNS.categorical)
    found = small(schema)({"categorical": column_inputs()["categorical"]})
    assert found["kind"].shape == (12, 3)


def test_no_categories_is_an_error_that_names_the_remedy():
    with pytest.raises(ArgumentError, match="take FTTransformer, or name columns of codes"):
        small(NUMBERS)


def test_impossible_arguments_are_named():
    with pytest.raises(ArgumentError, match="depth must be at least 1"):
        small(depth=0)
    with pytest.raises(ArgumentError, match="divide the width 8, found 3"):
        small(heads=3)
    with pytest.raises(ArgumentError, match="attention_dropout must lie in"):
        small(attention_dropout=1.0)


@pytest.mark.parametrize("init", ["reference", "library"])
def test_queries_and_keys_start_by_xavier_in_both(init):
    layer = small(init=init, width=32).layers[0]
    bound = (6 / (4 * 32)) ** 0.5
    assert 0.9 * bound < float(layer.projection.weight.detach().abs().max()) <= bound
    assert float(layer.projection.bias.detach().abs().max()) == 0
    spread = float(layer.output.weight.detach().std())
    assert (spread < 0.015) == (init == "reference")
