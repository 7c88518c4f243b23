import pytest
import torch
from torch import nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Classification
from mtl_vision.encoders import Encoder
from mtl_vision.networks import HardSharing


class Patches(Encoder):
    """The smallest encoder of one's own."""

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        super().__init__(FeatureInfo((5,), (4,), size))
        self.project = nn.Conv2d(3, 5, 4, stride=4)

    def forward(self, images):
        self.check_size(images)
        return Features([self.project(images)], size=tuple(images.shape[-2:]))


def test_an_encoder_of_ones_own_in_a_network():
    network = HardSharing({"kind": Classification(num_classes=3)}, encoder=Patches)
    assert network(torch.randn(2, 3, 8, 12))["kind"].shape == (2, 3)


def test_fixed_sizes_are_checked():
    Patches((8, 8))(torch.randn(1, 3, 8, 8))
    with pytest.raises(ArgumentError, match=r"img_size fixes, \(8, 8\), found \(8, 12\)"):
        Patches((8, 8))(torch.randn(1, 3, 8, 12))
