import pytest
import torch
from torch import nn

from mtl_core.errors import UnknownNameError
from mtl_tabular.nn.initialization import init_std, initialize


def test_reference_draws_every_linear_layer_anew():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(40, 50), nn.Sequential(nn.Linear(50, 40, bias=False)))
    initialize(module, "reference")
    assert 0.009 < float(module[0].weight.detach().std()) < 0.011
    assert 0.009 < float(module[1][0].weight.detach().std()) < 0.011
    assert float(module[0].bias.detach().abs().max()) == 0


def test_library_leaves_weights_alone():
    linear = nn.Linear(4, 5)
    before = linear.weight.detach().clone()
    initialize(linear, "library")
    assert torch.equal(linear.weight, before)


def test_unknown_rules_name_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean library"):
        init_std("libary")
