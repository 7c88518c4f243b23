import numpy as np

from export.fpga.integer.linear import Linear, linear, sums


def test_a_layer_rounds_once():
    rng = np.random.default_rng(0)
    weight, bias = rng.integers(-99, 99, (3, 5)), rng.integers(-99, 99, 3)
    x, residual = rng.integers(-999, 999, (4, 5)), rng.integers(-999, 999, (4, 3))
    layer = Linear(weight, bias, align=3, shift=4)
    exact = x @ weight.T + 8 * bias
    assert (sums(x, layer) == exact).all()
    assert (linear(x, layer, 20) == np.floor(exact / 16 + 0.5)).all()
    both = linear(x, layer, 20, residual, align=2)
    assert (both == np.floor((exact + 4 * residual) / 16 + 0.5)).all()


def test_experts_of_a_bank_are_layers():
    bank = Linear(np.arange(24).reshape(2, 3, 4), np.arange(6).reshape(2, 3), 1, 2)
    assert bank.expert(1).weight.tolist() == bank.weight[1].tolist()
    assert bank.expert(1).bias.tolist() == [3, 4, 5]
