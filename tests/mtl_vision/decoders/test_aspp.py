import torch

from mtl_core.nn import FeatureInfo, Features
from mtl_vision.decoders import ASPPDecoder
from mtl_vision.tasks import SemanticSegmentation

INFO = FeatureInfo((8,), (8,))
TASK = SemanticSegmentation(num_classes=3)


def test_defaults_have_the_published_sizes():
    decoder = ASPPDecoder(FeatureInfo((2048,), (8,)), TASK)
    shapes = [tuple(branch[0].weight.shape) for branch in decoder.branches]
    assert shapes == [(256, 2048, 1, 1)] + [(256, 2048, 3, 3)] * 3
    assert [b[0].dilation[0] for b in decoder.branches] == [1, 12, 24, 36]
    assert decoder.project[0][0].weight.shape[:2] == (256, 1280)


def test_the_pooled_branch_carries_every_position_to_every_other():
    torch.manual_seed(0)
    decoder = ASPPDecoder(INFO, TASK, width=16, dilations=(1,)).eval()
    x = torch.randn(1, 8, 32, 32, requires_grad=True)
    decoder(Features(maps=[x], size=(256, 256)))[0, :, 0, 0].sum().backward()
    assert bool((x.grad.abs().sum(1) > 0).all())


def test_dilations_larger_than_the_map_see_the_centre_only():
    decoder = ASPPDecoder(INFO, TASK, width=16, dilations=(9,)).eval()
    x = torch.randn(1, 8, 4, 4)
    branch = decoder.branches[1]
    centre = torch.nn.functional.conv2d(x, branch[0].weight[:, :, 1:2, 1:2])
    torch.testing.assert_close(branch(x), branch[2](branch[1](centre)))
