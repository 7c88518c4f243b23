"""A step from a map of a plain transformer to a level of a pyramid."""

from torch import nn

from mtl_vision.decoders.blocks import Norm, norm_layer


def rescale_block(channels: int, width: int, octaves: float, norm: Norm) -> nn.Sequential:
    """(B, channels, h, w) → (B, width, h·2^n, w·2^n), n the nearest integer to `octaves`.

    A 1×1 convolution, then 2×2 transposed convolutions upwards or max-pooling downwards. Sizes are
    rounded up when halving.
    """
    doublings = round(octaves)
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 1)]
    for _ in range(doublings):
        layers.append(nn.ConvTranspose2d(width, width, 2, stride=2))
        layers += [norm_layer(norm)(width), nn.GELU()]
    layers += [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-doublings)]
    return nn.Sequential(*layers)
