import pytest
import torch
from toy_columns import COLUMNS, NUMBERS, column_inputs

from mtl_core.errors import ArgumentError
from mtl_tabular.nn.flat_input import FlatInput


def test_tokens_stand_behind_each_other():
    front, inputs = FlatInput(COLUMNS, 4), column_inputs(absent=True)
    assert front.width == 20
    torch.testing.assert_close(front(inputs), front.tokenizer(inputs).flatten(1))


def test_width_zero_takes_the_numbers_and_medians():
    front = FlatInput(NUMBERS, 0)
    assert front.width == 3
    assert list(front.parameters()) == []
    numbers = torch.tensor([[1.0, -2.0, 3.0], [float("nan")] * 3])
    expected = torch.tensor([[1.0, -2.0, 3.0], [-0.2, -0.5, 0.0]])
    torch.testing.assert_close(front({"numeric": numbers}), expected)


def test_what_cannot_be_is_named():
    with pytest.raises(ArgumentError, match="'city' is a categorical column"):
        FlatInput(COLUMNS, 0)
    with pytest.raises(ArgumentError, match="token_width must be at least 0"):
        FlatInput(NUMBERS, -1)
    front = FlatInput(NUMBERS, 0)
    with pytest.raises(ArgumentError, match="hold 'numeric'"):
        front({"categorical": torch.zeros(2, 1, dtype=torch.long)})
    with pytest.raises(ArgumentError, match=r"be \(B, 3\), found \(2, 4\)"):
        front({"numeric": torch.zeros(2, 4)})
