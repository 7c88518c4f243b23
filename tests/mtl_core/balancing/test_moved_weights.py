import pytest
import torch
from torch import nn

from mtl_core.balancing.moved_weights import MovedWeights


def test_weights_come_back_bit_for_bit():
    layer = nn.Linear(3, 2)
    before = [p.detach().clone() for p in layer.parameters()]
    with MovedWeights(list(layer.parameters())) as moved:
        for parameter in layer.parameters():
            parameter.data.add_(1e-9).mul_(3)
        moved.restore()
        assert all(map(torch.equal, layer.parameters(), before))
        layer.weight.data.zero_()
    assert all(map(torch.equal, layer.parameters(), before))


def test_weights_come_back_after_an_error():
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()

    def fail():
        with MovedWeights([layer.weight]):
            layer.weight.data.zero_()
            layer(torch.ones(5))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fail()
    assert torch.equal(layer.weight, before)
