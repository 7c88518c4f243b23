import torch

from mtl_core.nn import FeatureInfo, Features
from mtl_vision.decoders import MLPDecoder
from mtl_vision.tasks import DepthEstimation


def test_equal_maps_are_treated_position_by_position():
    decoder = MLPDecoder(FeatureInfo((6, 6), (8, 8)), DepthEstimation(), width=16).eval()
    maps = [torch.randn(1, 6, 4, 5), torch.randn(1, 6, 4, 5)]
    order = torch.randperm(20)
    shuffled = [m.flatten(2)[:, :, order].reshape(m.shape) for m in maps]
    with torch.no_grad():
        plain = decoder(Features(maps=maps, size=(32, 40)))
        moved = decoder(Features(maps=shuffled, size=(32, 40)))
    torch.testing.assert_close(moved, plain.flatten(2)[:, :, order].reshape(plain.shape))


def test_the_output_has_the_finest_stride():
    decoder = MLPDecoder(FeatureInfo((4, 6), (4, 32)), DepthEstimation(), width=8)
    maps = [torch.randn(2, 4, 17, 23), torch.randn(2, 6, 3, 3)]
    assert decoder(Features(maps=maps, size=(65, 90))).shape == (2, 1, 17, 23)
