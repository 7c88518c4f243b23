import pytest
import torch
from torch import nn

from mtl_vision.decoders.blocks import conv_block, map_size, norm_layer, resize


@pytest.mark.parametrize("channels", [3, 8, 12, 48, 64, 256])
def test_groups_keep_a_variance_on_a_single_position(channels):
    norm = norm_layer("group")(channels)
    assert isinstance(norm, nn.GroupNorm)
    assert channels % norm.num_groups == 0
    assert norm.num_groups == 1 or channels // norm.num_groups >= 8
    out = norm(torch.randn(1, channels, 1, 1))
    assert out.isfinite().all()
    assert out.abs().sum() > 0


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 4)])
def test_convolutions_keep_the_size(kernel, dilation):
    block = conv_block(4, 6, kernel=kernel, dilation=dilation)
    assert block(torch.randn(2, 4, 9, 7)).shape == (2, 6, 9, 7)


def test_resampling_keeps_constants_and_equal_sizes():
    maps = torch.full((1, 2, 3, 4), 5.0)
    torch.testing.assert_close(resize(maps, (6, 7)), torch.full((1, 2, 6, 7), 5.0))
    assert resize(maps, (3, 4)) is maps
    assert map_size(maps) == (3, 4)
