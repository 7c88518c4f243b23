import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_vision.decoders import PUPDecoder, PUPLightDecoder
from mtl_vision.tasks import SemanticSegmentation

TASK = SemanticSegmentation(num_classes=21)


def gmacs(decoder, height=32, width=32):
    features = Features(maps=[torch.empty(1, 384, height, width, device="meta")], size=(512, 512))
    with FlopCounterMode(display=False) as counter:
        decoder(features)
    return counter.get_total_flops() / 2e9


def light(**arguments):
    with torch.device("meta"):
        return PUPLightDecoder(FeatureInfo((384,), (16,)), TASK, **arguments).eval()


def test_costs_at_512():
    """By hand: full 3×3 at strides 16 and 8, separable at 4 (and 2), the classifier at the last."""
    first = 32**2 * 9 * 384 * 256 + 64**2 * 9 * 256**2
    separable = 9 * 256 + 256**2
    three = first + 128**2 * (separable + 256 * 21)
    four = first + (128**2 + 256**2) * separable + 256**2 * 256 * 21
    assert gmacs(light()) == pytest.approx(three / 1e9, rel=1e-6)
    assert gmacs(light(stages=4)) == pytest.approx(four / 1e9, rel=1e-6)
    assert three / 1e9 == pytest.approx(4.52, abs=0.01)
    assert four / 1e9 == pytest.approx(9.23, abs=0.01)
    assert gmacs(light(full=0)) < gmacs(light(full=1)) < gmacs(light())


def test_with_ordinary_stages_only_it_is_the_pup_decoder():
    info = FeatureInfo((8,), (16,))
    whole = PUPDecoder(info, TASK, width=16, stages=3).eval()
    same = PUPLightDecoder(info, TASK, width=16, stages=3, full=3).eval()
    same.load_state_dict(whole.state_dict())
    features = Features(maps=[torch.randn(2, 8, 3, 5)], size=(48, 80))
    assert torch.equal(whole(features), same(features))


def test_separable_stages_follow_the_full_ones():
    decoder = PUPLightDecoder(FeatureInfo((8,), (16,)), TASK, width=16, stages=4, full=1)
    groups = [[m.groups for m in s.modules() if isinstance(m, nn.Conv2d)] for s in decoder.stages]
    assert groups == [[1], [16, 1], [16, 1], [16, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"stages": 0}, "stages must be at least 1"), ({"full": 4}, r"full must lie in 0\.\.3")],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        PUPLightDecoder(FeatureInfo((8,), (16,)), TASK, **arguments)
