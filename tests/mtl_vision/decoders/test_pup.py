import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_vision.decoders import PUPDecoder
from mtl_vision.tasks import SemanticSegmentation

TASK = SemanticSegmentation(num_classes=21)


def test_cost_at_512_is_that_of_the_m3vit_tables():
    with torch.device("meta"):
        decoder = PUPDecoder(FeatureInfo((384,), (16,)), TASK).eval()
        features = Features(maps=[torch.empty(1, 384, 32, 32)], size=(512, 512))
        with FlopCounterMode(display=False) as counter:
            prediction = decoder(features)
    assert prediction.shape == (1, 21, 256, 256)
    assert counter.get_total_flops() / 2e9 == pytest.approx(51.99, abs=0.005)


@pytest.mark.parametrize(("stages", "scale"), [(1, 1), (2, 2), (3, 4)])
def test_every_further_stage_doubles_the_resolution(stages, scale):
    decoder = PUPDecoder(FeatureInfo((8,), (16,)), TASK, width=16, stages=stages)
    features = Features(maps=[torch.randn(2, 8, 3, 5)], size=(48, 80))
    assert decoder(features).shape == (2, 21, 3 * scale, 5 * scale)


def test_scale_of_the_features_does_not_matter():
    decoder = PUPDecoder(FeatureInfo((8,), (16,)), TASK, width=16).eval()
    x = torch.randn(1, 8, 4, 4) * 10
    one, two = (decoder(Features(maps=[m], size=(64, 64))) for m in (x, 7 * x))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_no_stage_is_refused():
    with pytest.raises(ArgumentError, match="stages must be at least 1"):
        PUPDecoder(FeatureInfo((8,), (16,)), TASK, stages=0)
