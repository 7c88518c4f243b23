import pytest
import torch

from mtl_vision.decoders.pyramid import rescale_block


@pytest.mark.parametrize(
    ("octaves", "size"), [(2, (20, 28)), (1, (10, 14)), (0.3, (5, 7)), (-1, (3, 4)), (-2, (2, 2))]
)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_sizes_double_and_halve_rounded_up(octaves, size, norm):
    block = rescale_block(6, 8, octaves, norm)
    assert block(torch.randn(2, 6, 5, 7)).shape == (2, 8, *size)
