"""Properties that every dense decoder has."""

import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Classification
from mtl_vision.decoders import (
    ASPPDecoder,
    FPNDecoder,
    LinearMapDecoder,
    MLPDecoder,
    PUPDecoder,
)
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation

TASK = SemanticSegmentation(num_classes=5)
VIT = FeatureInfo(channels=(24,) * 4, strides=(16,) * 4, size=(64, 96))
PYRAMID = FeatureInfo(channels=(8, 16, 24, 32), strides=(4, 8, 16, 32))
INFOS = {"vit": VIT, "pyramid": PYRAMID, "single": FeatureInfo((16,), (8,))}
WIDTHS = {ASPPDecoder: {"width": 16, "dilations": (1, 2)}, LinearMapDecoder: {}}
DECODERS = [LinearMapDecoder, ASPPDecoder, FPNDecoder, MLPDecoder, PUPDecoder]


def build(cls, info, task=TASK, **arguments):
    return cls(info, task, **{**WIDTHS.get(cls, {"width": 16}), **arguments})


def features(info, batch=2, size=(64, 96)):
    maps = [
        torch.randn(batch, c, -(-size[0] // s), -(-size[1] // s))
        for c, s in zip(info.channels, info.strides, strict=True)
    ]
    return Features(maps=maps, size=size)


@pytest.mark.parametrize("info", INFOS)
@pytest.mark.parametrize("cls", DECODERS)
def test_gives_the_tasks_channels_and_reaches_every_parameter(cls, info):
    decoder = build(cls, INFOS[info])
    prediction = decoder(features(INFOS[info]))
    assert prediction.shape[:2] == (2, 5)
    assert prediction.shape[3] * 64 == prediction.shape[2] * 96
    prediction.square().mean().backward()
    assert [k for k, p in decoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (32, 32)])
@pytest.mark.parametrize("info", ["vit", "pyramid"])
@pytest.mark.parametrize("cls", DECODERS)
def test_one_sample_of_any_size_trains_with_group_norm(cls, info, size):
    extra = {} if cls is LinearMapDecoder else {"norm": "group"}
    decoder = build(cls, INFOS[info], **extra).train()
    inputs = features(INFOS[info], batch=1, size=size)
    prediction = decoder(inputs)
    assert TASK.match(prediction, torch.zeros(1, *size)).shape == (1, 5, *size)
    prediction.sum().backward()


@pytest.mark.parametrize("cls", DECODERS)
def test_one_sample_trains_with_batch_norm(cls):
    assert bool(build(cls, VIT).train()(features(VIT, batch=1)).isfinite().all())


@pytest.mark.parametrize("info", ["vit", "pyramid"])
@pytest.mark.parametrize("cls", DECODERS)
def test_samples_do_not_see_each_other_in_evaluation(cls, info):
    decoder = build(cls, INFOS[info]).eval()
    both = features(INFOS[info])
    with torch.no_grad():
        together = decoder(both)
        for i in range(2):
            alone = decoder(both.with_tensors([m[i : i + 1] for m in both.maps]))
            torch.testing.assert_close(alone, together[i : i + 1])


@pytest.mark.parametrize("cls", DECODERS)
def test_constant_features_give_a_constant_prediction_away_from_the_border(cls):
    decoder = build(cls, PYRAMID).eval()
    maps = [m[:, :, :1, :1].expand_as(m) for m in features(PYRAMID, 1, (512, 512)).maps]
    with torch.no_grad():
        prediction = decoder(Features(maps=maps, size=(512, 512)))
    side = prediction.shape[2]
    border = 0 if cls in (LinearMapDecoder, MLPDecoder) else 3 * side // 8
    inner = prediction[:, :, border : side - border, border : side - border]
    assert inner.shape[2] >= 4
    torch.testing.assert_close(inner, inner[:, :, :1, :1].expand_as(inner), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", DECODERS)
def test_two_decoders_of_different_tasks_differ_in_the_last_layer_only(cls):
    one = {k: tuple(p.shape) for k, p in build(cls, PYRAMID).named_parameters()}
    two = {k: tuple(p.shape) for k, p in build(cls, PYRAMID, DepthEstimation()).named_parameters()}
    assert one.keys() == two.keys()
    assert len([k for k in one if one[k] != two[k]]) == 2


@pytest.mark.parametrize("cls", DECODERS)
def test_a_task_without_maps_is_refused(cls):
    with pytest.raises(ArgumentError, match=r"must be dense.*found 'Classification'"):
        build(cls, VIT, Classification(num_classes=3))


@pytest.mark.parametrize("cls", DECODERS)
def test_traced_graphs_have_fixed_sizes_and_the_same_values(cls):
    decoder = build(cls, PYRAMID).eval()
    inputs = features(PYRAMID, batch=1)

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = decoder

        def forward(self, *maps):
            return self.decoder(Features(maps=list(maps), size=(64, 96)))

    exported = torch.export.export(Flat(), tuple(inputs.maps)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(*inputs.maps), decoder(inputs))
