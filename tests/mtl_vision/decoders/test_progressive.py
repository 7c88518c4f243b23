"""mtl_vision.decoders.progressive: what both progressive decoders share."""

from functools import partial

import pytest
import torch

from mtl_core.nn import FeatureInfo, Features
from mtl_vision.decoders import ProgressiveDecoder, PUPDecoder, PUPLightDecoder
from mtl_vision.tasks import SemanticSegmentation

TASK = SemanticSegmentation(num_classes=5)
KINDS = [PUPDecoder, PUPLightDecoder, partial(PUPLightDecoder, full=0, norm="group")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_features_of_every_stage_are_handed_out_on_the_way(kind):
    decoder = kind(FeatureInfo((8,), (16,)), TASK, width=16, stages=3).eval()
    assert isinstance(decoder, ProgressiveDecoder)
    features = Features(maps=[torch.randn(2, 8, 3, 5)], size=(48, 80))
    stages = []
    prediction = decoder(features, stages)
    assert torch.equal(prediction, decoder(features))
    assert [tuple(s.shape) for s in stages] == [(2, 16, 3, 5), (2, 16, 6, 10), (2, 16, 12, 20)]
    assert decoder.stage_channels == (16, 16, 16)
    assert torch.equal(decoder.classifier(stages[-1]), prediction)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_reached(kind):
    decoder = kind(FeatureInfo((8,), (16,)), TASK, width=16, stages=3)
    decoder(Features(maps=[torch.randn(2, 8, 3, 5)], size=(48, 80))).square().mean().backward()
    assert [k for k, p in decoder.named_parameters() if p.grad is None] == []
