import pytest
import torch
from torch import nn

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_vision.encoders import PretrainedWeightsError, TimmEncoder, build_encoder

TINY = {"embed_dim": 24, "depth": 8, "num_heads": 2}


def vit(**arguments):
    arguments = {"img_size": (64, 96), "model_args": TINY, **arguments}
    return TimmEncoder("vit_tiny_patch16_224", **arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", {"img_size": (64, 96), "model_args": TINY}),
        ("vit_tiny_patch16_224", {"img_size": (64, 96), "model_args": {**TINY, "patch_size": 8}}),
        ("vit_tiny_patch16_224", {"img_size": (64, 96), "model_args": {**TINY, "reg_tokens": 3}}),
        ("mixer_s16_224", {"img_size": (64, 96), "out_indices": (0, 1)}),
        ("swin_tiny_patch4_window7_224", {"img_size": (64, 96), "model_args": {"embed_dim": 24}}),
        ("resnet10t", {}),
        ("resnet10t", {"output_stride": 8, "out_indices": (1, 3)}),
        ("mobilenetv3_small_050", {}),
        ("convnext_atto", {"drop_path": 0.1}),
    ],
)
def test_info_describes_the_maps_and_every_parameter_is_reached(name, arguments):
    encoder = TimmEncoder(name, **arguments)
    features = encoder(torch.randn(2, 3, 64, 96))
    expected = [
        (2, c, -(-64 // s), -(-96 // s))
        for c, s in zip(encoder.info.channels, encoder.info.strides, strict=True)
    ]
    assert [tuple(m.shape) for m in features.maps] == expected
    assert features.size == (64, 96)
    assert encoder.info.size == arguments.get("img_size")
    sum(m.square().sum() for m in features.maps).backward()
    assert [k for k, p in encoder.named_parameters() if p.grad is None] == []


def test_default_taps_of_a_plain_vit_are_evenly_spaced_blocks_and_end_in_the_final_norm():
    encoder = vit().eval()
    assert encoder.indices == (1, 3, 5, 7)
    seen = {}
    for i in (1, 3, 5):
        encoder.model.blocks[i].register_forward_hook(
            lambda module, args, out, i=i: seen.update({i: out})
        )
    encoder.model.norm.register_forward_hook(lambda module, args, out: seen.update(norm=out))
    features = encoder(torch.randn(1, 3, 64, 96))
    for tap, key in zip(features.maps, (1, 3, 5, "norm"), strict=True):
        torch.testing.assert_close(tap.flatten(2).transpose(1, 2), seen[key][:, 1:])
    assert features.tokens is not None
    assert torch.equal(features.tokens, seen["norm"])


@pytest.mark.parametrize(
    ("depth", "taps"), [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (3, (0, 1, 2))]
)
def test_taps_by_depth(depth, taps):
    assert vit(model_args={**TINY, "depth": depth}).indices == taps


def test_a_patch_shows_up_where_it_stands():
    encoder = vit(model_args={**TINY, "depth": 1}).eval()
    image = torch.zeros(1, 3, 64, 96)
    changed = image.clone()
    changed[:, :, 32:48, 80:96] = 1.0
    with torch.no_grad():
        encoder.model.pos_embed.zero_()
        encoder.model.blocks[0].attn.proj.weight.zero_()
        moved = (encoder(changed).maps[0] - encoder(image).maps[0]).abs().sum(1)[0]
    assert moved.nonzero().tolist() == [[2, 5]]


def test_chosen_blocks_cut_off_what_lies_behind():
    encoder = vit(out_indices=(0, -6))
    assert encoder.indices == (0, 2)
    assert len(encoder.model.blocks) == 3


def test_a_pyramid_is_channels_first_and_coarsens():
    encoder = TimmEncoder("resnet10t")
    assert encoder.info.strides == (4, 8, 16, 32)
    assert encoder.info.size is None
    odd = encoder(torch.randn(1, 3, 65, 51)).maps
    assert [tuple(m.shape[-2:]) for m in odd] == [(17, 13), (9, 7), (5, 4), (3, 2)]


def test_checkpointing_recomputes_and_changes_no_gradient():
    image = torch.randn(2, 3, 64, 96)
    gradients, calls = [], []
    for flag in (False, True):
        torch.manual_seed(0)
        encoder = vit(grad_checkpointing=flag)
        count = []
        encoder.model.blocks[0].attn.register_forward_pre_hook(
            lambda *_, count=count: count.append(1)
        )
        sum(m.square().mean() for m in encoder(image).maps).backward()
        gradients.append([p.grad for p in encoder.parameters()])
        calls.append(len(count))
    assert calls == [1, 2]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_frozen_norm_keeps_statistics_and_frozen_all_keeps_everything():
    image = torch.randn(2, 3, 64, 64)
    norm = TimmEncoder("resnet10t", frozen="norm")
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    sum(m.sum() for m in norm(image).maps).backward()
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())
    kinds = {type(m) for m in norm.modules() if isinstance(m, nn.BatchNorm2d)}
    assert kinds
    assert norm.model.conv1[0].weight.grad is not None
    assert norm.model.bn1.weight.grad is None
    frozen = vit(frozen="all", drop_path=0.5).train()
    assert not any(p.requires_grad for p in frozen.parameters())
    image = torch.randn(2, 3, 64, 96)
    assert torch.equal(frozen(image).maps[-1], frozen(image).maps[-1])
    with pytest.raises(ArgumentError, match="has no batch norm"):
        vit(frozen="norm")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("vit_smal_patch16_224", "vit_small_patch16_224"), ("resnet18.a1_in1", "resnet18.a1_in1k")],
)
def test_unknown_names_and_tags_show_the_nearest(name, nearest):
    with pytest.raises(UnknownNameError, match=nearest):
        TimmEncoder(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_size": (100, 90)}, r"img_size must be a multiple of 16.*nearest: \(96, 96\)"),
        ({"out_indices": (3, 9)}, "out_indices must ascend within 0..7"),
        ({"out_indices": (3, 1)}, "out_indices must ascend"),
        ({"out_indices": ()}, "out_indices must ascend"),
        ({"drop_path": 1.0}, "drop_path must lie in"),
        ({"output_stride": 8}, "must fit the timm model 'vit_tiny_patch16_224'"),
        ({"model_args": {"embed_dimm": 3}}, "unexpected keyword argument 'embed_dimm'"),
        ({"model_args": {"img_size": 32}}, "leave img_size to the argument img_size"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        vit(**arguments)


def test_an_image_of_another_size_is_refused_before_it_is_embedded():
    with pytest.raises(ArgumentError, match=r"\(64, 96\), found \(96, 64\)"):
        vit()(torch.randn(1, 3, 96, 64))


def test_weights_that_cannot_be_loaded_are_explained(monkeypatch):
    def offline(name, *, pretrained, **arguments):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(PretrainedWeightsError, match=r"no route to host.*pretrained: false"):
        TimmEncoder("resnet18", pretrained=True)


def test_a_model_without_published_weights_is_refused_before_any_download():
    with pytest.raises(ArgumentError, match="no weights of 'levit_512' are published"):
        TimmEncoder("levit_512", pretrained=True)


def test_build_encoder_takes_a_name_or_a_factory_but_not_two_sets_of_arguments():
    assert build_encoder("resnet10t").info.size is None
    assert build_encoder(vit).info.size == (64, 96)
    with pytest.raises(ArgumentError, match="own init_args"):
        build_encoder(vit, img_size=(64, 96))
