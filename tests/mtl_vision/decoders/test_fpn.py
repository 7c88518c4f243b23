import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_vision.decoders import FPNDecoder
from mtl_vision.tasks import DepthEstimation

TASK = DepthEstimation()


@pytest.mark.parametrize(
    ("own", "stride", "sizes"),
    [
        (16, 4, [(16, 24), (8, 12), (4, 6), (2, 3)]),
        (8, 4, [(16, 24), (8, 12), (4, 6), (2, 3)]),
        (16, 8, [(8, 12), (4, 6), (2, 3), (1, 2)]),
        (32, 16, [(4, 6), (2, 3), (1, 2), (1, 1)]),
    ],
)
def test_a_plain_vit_is_spread_over_doubling_strides(own, stride, sizes):
    decoder = FPNDecoder(FeatureInfo((6,) * 4, (own,) * 4), TASK, width=8, stride=stride)
    maps = [torch.randn(2, 6, 64 // own, 96 // own) for _ in range(4)]
    scaled = [r(m) for r, m in zip(decoder.rescale, maps, strict=True)]
    assert [tuple(m.shape) for m in scaled] == [(2, 8, *size) for size in sizes]
    assert decoder(Features(maps=maps, size=(64, 96))).shape == (2, 1, *sizes[0])


def test_a_patch_of_14_comes_as_near_to_stride_4_as_doubling_allows():
    decoder = FPNDecoder(FeatureInfo((6,) * 4, (14,) * 4), TASK, width=8)
    maps = [torch.randn(2, 6, 4, 6) for _ in range(4)]
    assert decoder(Features(maps=maps, size=(56, 84))).shape == (2, 1, 16, 24)


def test_a_pyramid_keeps_its_strides_and_information_flows_from_coarse_to_fine():
    decoder = FPNDecoder(FeatureInfo((4, 6, 8), (4, 8, 32)), TASK, width=16).eval()
    assert not list(decoder.rescale.parameters())
    maps = [
        torch.randn(1, 4, 16, 24),
        torch.randn(1, 6, 8, 12),
        torch.randn(1, 8, 2, 3).requires_grad_(),
    ]
    prediction = decoder(Features(maps=maps, size=(64, 96)))
    assert prediction.shape == (1, 1, 16, 24)
    prediction[0, 0, 15, 23].backward()
    assert bool((maps[2].grad[0, :, 1, 2] != 0).any())


def test_shifting_a_pyramid_by_its_coarsest_stride_shifts_the_prediction():
    decoder = FPNDecoder(FeatureInfo((4, 6), (4, 8)), TASK, width=16).eval()
    maps = [torch.zeros(1, 4, 32, 32), torch.zeros(1, 6, 16, 16)]
    maps[0][:, :, 14:18, 14:18] = torch.randn(1, 4, 4, 4)
    maps[1][:, :, 7:9, 7:9] = torch.randn(1, 6, 2, 2)
    shifted = [maps[0].roll(2, 3), maps[1].roll(1, 3)]
    with torch.no_grad():
        plain, moved = (decoder(Features(maps=m, size=(128, 128))) for m in (maps, shifted))
    inner = slice(8, 24)
    torch.testing.assert_close(
        moved[:, :, inner, 10:26], plain[:, :, inner, 8:24], atol=1e-6, rtol=1e-5
    )


def test_a_stride_below_one_is_refused():
    with pytest.raises(ArgumentError, match="stride must be at least 1"):
        FPNDecoder(FeatureInfo((4,), (4,)), TASK, stride=0)
