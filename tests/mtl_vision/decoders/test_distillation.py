import torch
import torch.nn.functional as F

from mtl_vision.decoders.distillation import Distillation


def test_one_grouped_convolution_is_a_gate_and_a_message_a_source():
    module = Distillation(2, 4)
    own, a, b = torch.randn(3, 2, 4, 5, 6)
    weight = module.convs.weight.view(2, 2, 4, 4, 3, 3)
    bias = module.convs.bias.view(2, 2, 4)
    expected = own
    for i, source in enumerate((a, b)):
        gate, message = (F.conv2d(source, weight[i, k], bias[i, k], padding=1) for k in range(2))
        expected = expected + torch.sigmoid(gate) * message
    torch.testing.assert_close(module(own, [a, b]), expected)


def test_closed_gates_change_nothing():
    module = Distillation(2, 4)
    with torch.no_grad():
        module.convs.bias.view(2, 2, 4)[:, 0] = -1e4
    own, a, b = torch.randn(3, 2, 4, 5, 6)
    assert torch.equal(module(own, [a, b]), own)


def test_without_sources_there_is_nothing_to_learn():
    module = Distillation(0, 4)
    own = torch.randn(2, 4, 5, 6)
    assert module(own, []) is own
    assert list(module.parameters()) == []
