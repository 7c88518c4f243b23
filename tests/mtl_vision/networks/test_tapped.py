import pytest
import torch

from mtl_core.nn import FeatureInfo, Features
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks.tapped import common_stride, on_one_grid


@pytest.mark.parametrize(
    ("strides", "grid"),
    [((4, 8, 16, 32), 16), ((16, 16, 16), 16), ((8, 8), 8), ((4, 8, 8), 8), ((32,), 32)],
)
def test_the_grid_has_stride_16_or_the_encoders_own(strides, grid):
    assert common_stride(FeatureInfo((3,) * len(strides), strides)) == grid


def test_maps_are_resampled_to_one_size_even_for_odd_images():
    encoder = TimmEncoder("resnet10t")
    features = encoder(torch.rand(1, 3, 65, 51))
    maps = on_one_grid(features, encoder.info)
    assert [tuple(m.shape[2:]) for m in maps] == [(5, 4)] * 4
    assert torch.equal(maps[2], features.maps[2])
    assert [m.shape[1] for m in maps] == list(encoder.info.channels)


def test_maps_of_one_stride_stay_as_they_are():
    maps = [torch.rand(1, 3, 4, 6), torch.rand(1, 5, 4, 6)]
    found = on_one_grid(Features(maps), FeatureInfo((3, 5), (16, 16)))
    assert all(a is b for a, b in zip(found, maps, strict=True))
