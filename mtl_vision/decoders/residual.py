"""Residual blocks of the dense networks (He et al., CVPR 2016)."""

from torch import Tensor, nn

from mtl_vision.decoders.blocks import Norm, conv_block, norm_layer


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution over a quarter of the output's channels, and a shortcut.

    The shortcut is the identity where the channels stay, else a normalised 1×1 convolution.

    Shapes: (B, in_channels, h, w) → (B, out_channels, h, w), non-negative.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; a quarter of them, rounded down, lies in between.
        norm: ``batch`` or ``group``.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm = "batch") -> None:
        super().__init__()
        inner = max(1, out_channels // 4)
        self.residual = nn.Sequential(
            conv_block(in_channels, inner, kernel=1, norm=norm),
            conv_block(inner, inner, norm=norm),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            norm_layer(norm)(out_channels),
        )
        self.shortcut = _shortcut(in_channels, out_channels, norm)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Non-negative maps (B, out_channels, h, w)."""
        out: Tensor = self.activation(self.shortcut(x) + self.residual(x))
        return out


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, as in `Bottleneck`.

    Shapes: (B, in_channels, h, w) → (B, out_channels, h, w), non-negative.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        norm: ``batch`` or ``group``.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm = "batch") -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_block(in_channels, out_channels, norm=norm),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            norm_layer(norm)(out_channels),
        )
        self.shortcut = _shortcut(in_channels, out_channels, norm)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Non-negative maps (B, out_channels, h, w)."""
        out: Tensor = self.activation(self.shortcut(x) + self.residual(x))
        return out


def _shortcut(in_channels: int, out_channels: int, norm: Norm) -> nn.Module:
    if in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), norm_layer(norm)(out_channels)
    )
