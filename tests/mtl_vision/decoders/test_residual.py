import pytest
import torch

from mtl_vision.decoders.residual import BasicBlock, Bottleneck


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("channels", [(8, 8), (8, 18), (18, 3)])
def test_shape_stays_and_nothing_is_negative(block, norm, channels):
    made = block(*channels, norm=norm)
    out = made(torch.randn(2, channels[0], 5, 7))
    assert out.shape == (2, channels[1], 5, 7)
    assert out.detach().min() >= 0


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_without_its_residual_it_is_the_shortcut(block):
    made = block(8, 8).eval()
    torch.nn.init.zeros_(made.residual[-1].weight)
    x = torch.rand(2, 8, 5, 7)
    torch.testing.assert_close(made(x), x)


def test_parameters():
    a, b = 8, 16
    assert sum(p.numel() for p in Bottleneck(b, b).parameters()) == (
        b * b // 4 + 9 * (b // 4) ** 2 + b * b // 4 + 4 * b // 4 + 2 * b
    )
    assert sum(p.numel() for p in BasicBlock(a, b).parameters()) == (
        9 * a * b + 9 * b * b + a * b + 6 * b
    )
