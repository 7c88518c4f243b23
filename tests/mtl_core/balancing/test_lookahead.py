import pytest
import torch

from mtl_core.balancing.lookahead import kept_weights


def test_kept_weights_come_back_after_an_error():
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.detach().clone()

    def fail():
        with kept_weights(list(layer.parameters())), torch.no_grad():
            layer.weight.add_(0.1)
            assert not torch.equal(layer.weight, before)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(layer.weight, before)
