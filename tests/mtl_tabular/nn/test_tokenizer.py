import pytest
import torch
from torch import nn
from toy_columns import COLUMNS, NUMBERS, column_inputs

from mtl_core.errors import ArgumentError
from mtl_tabular.data import TableSchema
from mtl_tabular.data.schema import MISSING, UNSEEN
from mtl_tabular.nn import Tokenizer


def test_it_equals_a_layer_per_column():
    """An embedding a categorical column, a linear layer a numeric one (spec, property 5)."""
    tokenizer, inputs = Tokenizer(COLUMNS, 5, init_std=None), column_inputs(9)
    expected, first = [], 0
    for k, size in enumerate(COLUMNS.cardinalities):
        table = nn.Embedding.from_pretrained(tokenizer.embedding[first : first + size].detach())
        expected.append(table(inputs["categorical"][:, k]))
        first += size
    for k in range(len(COLUMNS.numeric)):
        layer = nn.Linear(1, 5)
        with torch.no_grad():
            layer.weight.copy_(tokenizer.weight[k][:, None])
            layer.bias.copy_(tokenizer.bias[k])
        expected.append(layer(inputs["numeric"][:, k, None]))
    torch.testing.assert_close(tokenizer(inputs), torch.stack(expected, 1), atol=1e-6, rtol=1e-6)


def test_a_missing_number_counts_as_the_median_and_says_so_where_training_had_some():
    tokenizer, inputs = Tokenizer(COLUMNS, 4), column_inputs(1)
    medians = torch.tensor([[(c.median - c.mean) / c.std for c in COLUMNS.numeric]])
    at_median = tokenizer({**inputs, "numeric": medians})
    absent = tokenizer({**inputs, "numeric": torch.full((1, 3), float("nan"))})
    first = len(COLUMNS.categorical)
    for k, column in enumerate(COLUMNS.numeric):
        change = absent[0, first + k] - at_median[0, first + k]
        expected = tokenizer.missing[0] if column.missing else torch.zeros(4)
        torch.testing.assert_close(change, expected)


def test_missing_and_unseen_categories_have_places_of_their_own():
    tokenizer, inputs = Tokenizer(COLUMNS, 4), column_inputs(3)
    inputs["categorical"][:, 0] = torch.tensor([UNSEEN, MISSING, 2])
    tokens = tokenizer(inputs)[:, 0]
    assert torch.equal(tokens[0], torch.zeros(4))
    assert not torch.equal(tokens[1], tokens[0])
    assert not torch.equal(tokens[1], tokens[2])


def test_order_of_the_columns_is_the_order_of_tokens():
    """Columns permuted together with their weights give permuted tokens."""
    order = [2, 0, 1]
    permuted = TableSchema(numeric=tuple(NUMBERS.numeric[k] for k in order))
    one, other = Tokenizer(NUMBERS, 4), Tokenizer(permuted, 4)
    with torch.no_grad():
        other.weight.copy_(one.weight[order])
        other.bias.copy_(one.bias[order])
        other.missing.copy_(one.missing)
    numbers = column_inputs(6, absent=True)["numeric"]
    torch.testing.assert_close(
        other({"numeric": numbers[:, order]}), one({"numeric": numbers})[:, order]
    )


@pytest.mark.parametrize("init_std", [0.01, None])
def test_number_of_parameters_and_their_spread(init_std):
    torch.manual_seed(0)
    tokenizer = Tokenizer(COLUMNS, 64, init_std=init_std)
    count = sum(p.numel() for p in tokenizer.parameters())
    assert count == 64 * (2 * 3 + 1 + sum(COLUMNS.cardinalities))
    spread = 0.01 if init_std else 64**-0.5 / 3**0.5
    assert tokenizer.weight.detach().std().item() == pytest.approx(spread, rel=0.25)
    assert bool(tokenizer.bias.any()) == (init_std is None)


def test_bad_inputs_are_named():
    tokenizer, inputs = Tokenizer(COLUMNS, 4), column_inputs(2)
    with pytest.raises(ArgumentError, match="'categorical'"):
        tokenizer({"numeric": inputs["numeric"]})
    with pytest.raises(ArgumentError, match="one tensor"):
        tokenizer(inputs["numeric"])
    with pytest.raises(ArgumentError, match=r"be \(B, 3\)"):
        tokenizer({**inputs, "numeric": inputs["numeric"][:, :2]})
    with pytest.raises(ArgumentError, match="columns"):
        Tokenizer(TableSchema(), 4)
