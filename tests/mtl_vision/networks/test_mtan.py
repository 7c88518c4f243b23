from functools import partial
from itertools import pairwise

import pytest
import torch
from dense_laws import ENCODER, SIZE, TASKS, NetworkLaws, first, published_cost, scramble

from mtl_core.errors import ArgumentError
from mtl_core.modules.compiling import compile_parts
from mtl_core.tasks import Classification
from mtl_vision.decoders import ASPPDecoder, FPNDecoder
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks import MTAN, HardSharing
from mtl_vision.networks.mtan import AttentionMask

FPN = partial(FPNDecoder, width=16)


class TestMTAN(NetworkLaws):
    make = partial(MTAN, decoder=FPN)


def open_masks(network):
    """Masks of exactly one everywhere."""
    with torch.no_grad():
        for masks in network.masks.values():
            for mask in masks:
                mask[2].weight.zero_()
                mask[2].bias.fill_(1e3)
    return network


@pytest.mark.parametrize("encoder", [ENCODER, "resnet18", "convnext_atto"])
def test_masks_of_one_leave_hard_sharing(encoder):
    network = open_masks(scramble(MTAN(first(3), encoder=encoder, decoder=FPN)))
    plain = HardSharing(first(3), encoder=encoder, decoder=FPN).eval()
    plain.encoder.load_state_dict(network.encoder.state_dict())
    plain.decoders.load_state_dict(network.decoders.state_dict())
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        features = network.encode(images)
        for name in network.tasks:
            for found, expected in zip(
                network.attend(features, name).maps, plain.encode(images).maps, strict=True
            ):
                assert torch.equal(found, expected)
        found, expected = network(images), plain(images)
    for name in expected:
        assert torch.equal(found[name], expected[name])


def test_masks_of_zero_leave_nothing_of_the_image():
    network = scramble(MTAN(first(1), encoder=ENCODER, decoder=FPN))
    with torch.no_grad():
        network.masks["semseg"][3][2].weight.zero_()
        network.masks["semseg"][3][2].bias.fill_(-1e3)
        attended = network.attend(network.encode(torch.randn(1, 3, *SIZE)), "semseg").maps
    assert attended[-1].abs().max() == 0
    assert attended[-2].abs().max() > 0


def test_what_a_stage_sees_is_refined_and_pooled_to_its_size():
    """a_s = pool(refine(m_s ⊙ u_s)) goes into the next stage's mask beside b_{s+1}."""
    network = scramble(MTAN(first(1), encoder="resnet18", decoder=FPN))
    seen = []
    network.masks["semseg"][1].register_forward_hook(lambda m, x, y: seen.append(x[0]))
    with torch.no_grad():
        features = network.encode(torch.randn(1, 3, *SIZE))
        attended = network.attend(features, "semseg").maps
        refined = torch.nn.functional.max_pool2d(network.refinements[0](attended[0]), 2)
    assert torch.equal(seen[0], torch.cat([features.maps[2], refined], 1))


def test_parameters_beside_trunk_and_decoders():
    """Masks (C_in + C)·C/4 + 2.5·C a stage and task, bottlenecks once for all tasks."""
    network = MTAN(first(2), encoder="resnet18", decoder=FPN)
    channels = network.encoder.info.channels
    masks = sum(
        (c_in + c) * c // 4 + 5 * c // 2
        for c, c_in in zip(channels, [64, 128 + 128, 256 + 256, 512 + 512], strict=True)
    )
    refinements = sum(
        a * b // 4 + 9 * b * b // 16 + b * b // 4 + a * b + b + 4 * b for a, b in pairwise(channels)
    )
    plain = HardSharing(first(2), encoder="resnet18", decoder=FPN)
    extra = sum(p.numel() for p in network.parameters()) - sum(
        p.numel() for p in plain.parameters()
    )
    assert extra == 2 * masks + refinements


def test_cost_as_published():
    """M³ViT's table for NYUD: 192 billion for one task alone, 320 for MTAN with two."""
    single = partial(HardSharing, decoder=ASPPDecoder)
    assert published_cost(single, ["semseg"]) == pytest.approx(192, abs=0.5)
    assert published_cost(MTAN, ["semseg", "depth"]) == pytest.approx(320, abs=0.6)


@pytest.mark.parametrize(
    "encoder",
    [
        partial(TimmEncoder, "resnet18", output_stride=8),
        partial(TimmEncoder, "hrnet_w18_small"),
        partial(TimmEncoder, "vit_tiny_patch16_224", img_size=SIZE, model_args={"depth": 1}),
    ],
    ids=["dilated", "hrnet", "one block"],
)
def test_other_encoders(encoder):
    network = MTAN(first(1), encoder=encoder, decoder=FPN).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, *SIZE))["semseg"].shape == (1, 4, *SIZE)


def test_a_task_of_whole_images():
    tasks = {"depth": TASKS["depth"], "scene": Classification(num_classes=3)}
    network = MTAN(tasks, encoder=ENCODER, decoder=FPN)
    assert network(torch.randn(2, 3, *SIZE))["scene"].shape == (2, 3)


def test_shared_refinements_close_the_border():
    """They lie behind the features, so that a cut there would lose their gradients."""
    network = MTAN(first(2), encoder=ENCODER, decoder=FPN)
    assert not network.independent_decoders()
    shared = {id(p) for p in network.shared_parameters()}
    assert {id(p) for p in network.refinements.parameters()} <= shared
    assert network.required_tasks("depth") == ("depth",)


def test_an_encoder_without_stages_is_refused():
    with pytest.raises(ArgumentError, match=r"encoder must be a timm model that has stages"):
        MTAN(first(1), encoder="mobilenetv3_small_050", decoder=FPN)


def test_a_mask_lies_between_zero_and_one():
    mask = AttentionMask(6, 8)(torch.randn(2, 6, 5, 4)).detach()
    assert mask.shape == (2, 8, 5, 4)
    assert 0 < float(mask.min()) <= float(mask.max()) < 1


@pytest.mark.slow
def test_compiled_in_parts_it_computes_the_same():
    network = scramble(MTAN(first(1), encoder=ENCODER, decoder=FPN))
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected = network(images)["semseg"]
        compile_parts(network.compiled_parts(), backend="eager")
        torch.testing.assert_close(network(images)["semseg"], expected)
