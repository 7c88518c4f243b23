import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mtl_core.balancing.linear_use import linear_use


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_signals_and_inputs_make_the_gradient(shape, bias):
    layer = nn.Linear(4, 3, bias=bias)
    x = torch.randn(shape, requires_grad=True)
    y = layer(x.tanh()).relu()
    parameters = list(layer.parameters())
    use = linear_use([y], parameters)
    assert use.bias is bias
    signal, *wanted = torch.autograd.grad(y.square().sum(), [use.edge, *parameters])
    torch.testing.assert_close(signal.t() @ use.inputs, wanted[0])
    if bias:
        torch.testing.assert_close(signal.sum(0), wanted[1])


def first(layer, x):
    return layer(x)


def twice(layer, x):
    return layer(x) + layer(x.tanh())


def tied(layer, x):
    return layer(x) + F.linear(x, layer.weight)


def decayed(layer, x):
    return layer(x) + layer.weight.square().sum()


def biased(layer, x):
    return layer(x) + layer.bias


def scaled(layer, x):
    return torch.addmm(layer.bias, x, layer.weight.t(), alpha=2)


def residual(layer, x):
    return torch.addmm(x, x, layer.weight.t()) + layer.bias


def transposed(layer, x):
    return torch.addmm(layer.bias, layer.weight.t(), x.t()).t()


def elsewhere(layer, x):
    return x.tanh()


def half(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x)


@pytest.mark.parametrize(
    "call", [twice, tied, decayed, biased, scaled, residual, transposed, elsewhere, half]
)
def test_only_one_plain_product_counts(call):
    layer, x = nn.Linear(4, 4), torch.randn(4, 4, requires_grad=True)
    assert linear_use([first(layer, x)], list(layer.parameters())) is not None
    assert linear_use([call(layer, x)], list(layer.parameters())) is None


def test_other_layers_and_partly_frozen_ones_do_not():
    x = torch.randn(2, 4, 6, requires_grad=True)
    layer = nn.Conv1d(4, 4, 3)
    assert linear_use([layer(x)], list(layer.parameters())) is None
    layer = nn.Linear(6, 3)
    layer.bias.requires_grad_(False)
    assert linear_use([layer(x)], [layer.weight]) is None
    layer = nn.Embedding(4, 4)
    assert linear_use([layer(torch.tensor([1, 2]))], list(layer.parameters())) is None


def test_use_among_several_outputs():
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    assert linear_use([x, x.clone().requires_grad_().tanh(), layer(x)], list(layer.parameters()))
    assert linear_use([layer(x), layer(x)], list(layer.parameters())) is None
