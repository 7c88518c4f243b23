import pytest
import torch
from torch import nn
from toy_columns import COLUMNS, NUMBERS, column_inputs, column_tasks

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.networks import SharedBottom
from mtl_tabular.tasks import NumericTarget


def test_without_hidden_layers_a_tower_is_linear():
    """The reference's single-task network."""
    network = SharedBottom({"only": NumericTarget()}, schema=COLUMNS, shared=(5, 4), tower=())
    network.eval()
    assert [type(m) for m in network.towers["only"]] == [nn.Linear]
    shared = network.encode(column_inputs()).maps[0]
    torch.testing.assert_close(
        network.decode(network.encode(column_inputs()), "only"), network.towers["only"][0](shared)
    )


def test_raw_numbers():
    network = SharedBottom(column_tasks(), schema=NUMBERS, token_width=0, shared=(5, 4))
    assert network.shared[0].in_features == 3
    inputs = {"numeric": torch.tensor([[float("nan"), 0.0, 1.0], [-0.2, 0.0, 1.0]])}
    found = network.eval()(inputs)
    assert all(torch.equal(p[0], p[1]) for p in found.values())


@pytest.mark.parametrize(("init", "low", "high"), [("reference", 0.0, 0.06), ("library", 0.1, 1.0)])
def test_initial_weights(init, low, high):
    torch.manual_seed(0)
    network = SharedBottom(column_tasks(), schema=COLUMNS, init=init)
    largest = float(network.towers["kind"][-1].weight.detach().abs().max())
    assert low < largest < high


def test_impossible_arguments_are_named():
    with pytest.raises(ArgumentError, match="shared must hold at least 1"):
        SharedBottom(column_tasks(), schema=COLUMNS, shared=())
    with pytest.raises(ArgumentError, match="dropout must lie in"):
        SharedBottom(column_tasks(), schema=COLUMNS, dropout=1.5)
    with pytest.raises(ArgumentError, match="'city' is a categorical column"):
        SharedBottom(column_tasks(), schema=COLUMNS, token_width=0)
    with pytest.raises(UnknownNameError, match="Did you mean reference"):
        SharedBottom(column_tasks(), schema=COLUMNS, init="referense")
