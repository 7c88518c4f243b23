import pytest
import torch
from toy_columns import COLUMNS, column_inputs

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.nn.multitab_encoder import MultiTabEncoder

PLAIN = {
    "tokens": 2,
    "depth": 2,
    "heads": 2,
    "width": 8,
    "feedforward": 16,
    "mask": "TxT",
    "inter_sample": "rowwise",
    "memory_rows": 4,
    "ff_dropout": 0.0,
    "attention_dropout": 0.0,
}


def encoder(**changes) -> MultiTabEncoder:
    torch.manual_seed(0)
    return MultiTabEncoder(COLUMNS, **{**PLAIN, **changes})


@pytest.mark.parametrize("mode", ["none", "rowwise", "full"])
def test_what_leaves_is_the_beginning_of_what_all_layers_compute(mode):
    """The last layer computes task tokens only; whole layers give the same ones."""
    network, inputs = encoder(inter_sample=mode), column_inputs(6)
    whole = network.embed(inputs)
    for i in range(2):
        whole = network._block(i, whole, None)
    torch.testing.assert_close(network(inputs), whole[:, :2], atol=1e-5, rtol=1e-4)


def test_attention_is_of_tasks_to_columns_in_every_block():
    maps = encoder().attention(column_inputs(6))
    assert maps.shape == (2, 2, len(COLUMNS))
    assert bool((maps > 0).all())
    assert bool((maps.sum(-1) < 1).all()), "the rest goes to the task's own token"


def test_maps_to_initialise_are_all_there():
    network = encoder(inter_sample="full")
    assert len(list(network.attention_maps())) == 4


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"inter_sample": "rowwize"}, UnknownNameError),
        ({"depth": 0}, ArgumentError),
        ({"ff_dropout": 1.0}, ArgumentError),
        ({"heads": 3}, ArgumentError),
    ],
)
def test_mistakes_are_named(change, error):
    with pytest.raises(error, match=next(iter(change))):
        encoder(**change)
