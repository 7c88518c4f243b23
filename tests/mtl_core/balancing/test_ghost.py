"""The Gramian from activations; whole fits are in `test_surrogates`."""

import pytest
import torch
from torch import nn

from mtl_core.balancing.ghost import Ghost, layer_gramian
from mtl_core.balancing.rows import gramian


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("samples", [2, 40])
def test_by_pairs_and_by_rows_equal_the_rows(samples, bias):
    """Two samples are cheaper by pairs, forty by rows."""
    torch.manual_seed(0)
    inputs, signals = torch.randn(samples, 5), torch.randn(3, samples, 4)
    rows = torch.einsum("tmo,mi->toi", signals, inputs).flatten(1)
    if bias:
        rows = torch.cat([rows, signals.sum(1)], 1)
    torch.testing.assert_close(
        layer_gramian(inputs, signals, bias), gramian(rows), rtol=1e-5, atol=1e-5
    )


def test_weights_of_several_modules_are_left_to_the_rows():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight

    network = Tied()
    ghost = Ghost(network)
    assert ghost._modules == [network.three]
    ghost.close()


def test_hooks_are_taken_off():
    network = nn.Sequential(nn.Linear(3, 3))
    ghost = Ghost(network)
    assert len(network[0]._forward_hooks) == 1
    ghost.close()
    assert not network[0]._forward_hooks
