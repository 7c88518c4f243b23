import pytest
import torch
from torch import nn

from mtl_core.errors import ArgumentError
from mtl_tabular.nn.perceptron import BatchNorm, build_tower, check_widths, perceptron


def test_batch_norm_is_torchs_where_there_are_several_rows():
    ours, torchs = BatchNorm(3), nn.BatchNorm1d(3)
    for _ in range(3):
        x = torch.randn(5, 3) * 2 + 1
        torch.testing.assert_close(ours(x), torchs(x), rtol=0, atol=0)
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict())
    torch.testing.assert_close(ours.eval()(x[:1]), torchs.eval()(x[:1]))


def test_a_training_batch_of_one_row_counts_as_evaluation():
    norm = BatchNorm(3)
    norm(torch.randn(8, 3) + 2)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    row = torch.randn(1, 3, requires_grad=True)
    found = norm(row)
    torch.testing.assert_close(norm.state_dict(), before)
    torch.testing.assert_close(found, norm.eval()(row))
    found.sum().backward()
    assert row.grad.abs().min() > 0
    assert norm.weight.grad is not None


def test_layers_are_what_they_are_called():
    kinds = [type(m).__name__ for m in perceptron((4, 8, 2), 0.1)]
    assert kinds == ["Linear", "BatchNorm", "ReLU", "Dropout"] * 2
    kinds = [type(m).__name__ for m in perceptron((4, 8), 0.1, norm=False)]
    assert kinds == ["Linear", "ReLU", "Dropout"]
    assert list(perceptron((4,), 0.1)) == []


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_a_tower_ends_linear(hidden):
    tower = build_tower(4, hidden, 3, 0.0)
    assert isinstance(tower[-1], nn.Linear)
    assert tower(torch.randn(7, 4)).shape == (7, 3)


def test_impossible_widths_are_named():
    with pytest.raises(ArgumentError, match="shared must hold at least 1 positive widths"):
        check_widths("shared", (), 0.0)
    with pytest.raises(ArgumentError, match=r"found \(4, 0\)"):
        check_widths("tower", (4, 0), 0.0, least=0)
    with pytest.raises(ArgumentError, match=r"dropout must lie in \[0, 1\), found 1"):
        check_widths("tower", (4,), 1.0)
