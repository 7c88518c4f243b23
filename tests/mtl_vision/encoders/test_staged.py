import copy
from functools import partial

import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features
from mtl_vision.encoders import Encoder, TimmEncoder, run_in_stages

TINY = {"embed_dim": 24, "depth": 5, "num_heads": 2}
VIT = partial(TimmEncoder, "vit_tiny_patch16_224", img_size=(64, 96), model_args=TINY)
SWIN = partial(
    TimmEncoder,
    "swin_tiny_patch4_window7_224",
    img_size=(64, 96),
    model_args={"embed_dim": 24, "window_size": 2, "depths": [2, 1, 2, 2]},
)
ENCODERS = {
    "resnet": partial(TimmEncoder, "resnet18"),
    "one block a stage": partial(TimmEncoder, "resnet10t"),
    "dilated": partial(TimmEncoder, "resnet18", output_stride=8),
    "with its stem, two levels": partial(TimmEncoder, "resnet18", out_indices=(0, 2)),
    "regnet": partial(TimmEncoder, "regnetx_002"),
    "convnext": partial(TimmEncoder, "convnext_atto"),
    "swin": SWIN,
    "vit": VIT,
    "vit, last block": partial(VIT, out_indices=(-1,)),
    "vit without class token": partial(
        VIT, model_args={**TINY, "class_token": False, "global_pool": "avg"}
    ),
    "hrnet": partial(TimmEncoder, "hrnet_w18_small"),
    "hrnet, two branches": partial(TimmEncoder, "hrnet_w18_small", out_indices=(1, 3)),
    "hrnet, narrow": partial(TimmEncoder, "hrnet_w18_small", model_args={"head": "none"}),
    "hrnet, several modules": partial(TimmEncoder, "hrnet_w18_small_v2"),
}


def scrambled(make):
    """Without the zeros that let the last block of a stage do nothing."""
    torch.manual_seed(0)
    encoder = make()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return encoder.eval()


def in_stages(staged, images):
    state, states = staged.start(images), []
    for stage in range(len(staged)):
        state = staged.advance(state, stage)
        states.append(state)
    return states


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS.keys())
def test_stage_by_stage_is_the_same_as_at_once(make):
    encoder = scrambled(make)
    staged = run_in_stages(encoder)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = encoder(images)
        states = in_stages(staged, images)
        found = staged.finish(states, (64, 96))
        pairs = staged.pairs(images)
    assert found.size == expected.size
    assert (found.tokens is None) == (expected.tokens is None)
    for a, b in zip(found.tensors(), expected.tensors(), strict=True):
        assert torch.equal(a, b)
    for state, channels in zip(states, staged.channels, strict=True):
        assert tuple(t.shape[staged.axis] for t in state) == channels
    for (before, after), width, map_ in zip(pairs, staged.before, expected.maps, strict=True):
        assert torch.equal(after, map_)
        assert before.shape[1] == width
        assert before.shape[2:] == after.shape[2:]


@pytest.mark.parametrize(("name", "same"), [("resnet18", False), ("resnet10t", True)])
def test_the_last_block_lies_between_a_pair(name, same):
    """Where a stage's only block also changes the size, there is nothing in front of it."""
    staged = run_in_stages(scrambled(partial(TimmEncoder, name)))
    with torch.no_grad():
        pairs = staged.pairs(torch.randn(1, 3, 64, 64))
    assert [torch.equal(before, after) for before, after in pairs] == [same] * 4


def test_any_size_where_the_encoder_takes_any():
    encoder = scrambled(ENCODERS["resnet"])
    staged = run_in_stages(encoder)
    images = torch.randn(1, 3, 51, 67)
    with torch.no_grad():
        found = staged.finish(in_stages(staged, images), (51, 67))
        for a, b in zip(found.maps, encoder(images).maps, strict=True):
            assert torch.equal(a, b)
    with pytest.raises(ArgumentError, match="height and width that img_size fixes"):
        run_in_stages(VIT()).start(images)


@pytest.mark.parametrize("kind", ["resnet", "vit", "swin", "hrnet"])
def test_units_hold_every_parameter_that_runs(kind):
    """All but position embeddings and class token, which are no modules."""
    encoder = ENCODERS[kind]()
    units = run_in_stages(encoder).units()
    found = {id(p) for unit in units for p in unit.parameters()}
    missing = [name for name, p in encoder.named_parameters() if id(p) not in found]
    assert set(missing) <= {"model.cls_token", "model.pos_embed"}


def test_recomputed_activations_give_the_same_gradients():
    plain, saving = (VIT(grad_checkpointing=on) for on in (False, True))
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for encoder in (plain, saving):
        pairs = run_in_stages(encoder).pairs(torch.ones(1, 3, 64, 96))
        pairs[-1][1].square().mean().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert a is b is None or torch.equal(a, b)


@pytest.mark.parametrize("kind", ["resnet", "vit", "hrnet"])
def test_a_copy_runs_its_own_modules(kind):
    encoder = scrambled(ENCODERS[kind])
    holder = torch.nn.Module()
    holder.encoder, holder.staged = encoder, run_in_stages(encoder)
    twin = copy.deepcopy(holder)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for p in encoder.parameters():
            p.zero_()
        found = twin.staged.finish(in_stages(twin.staged, images), (64, 96))
        assert torch.equal(found.maps[-1], twin.encoder(images).maps[-1])
        assert found.maps[-1].abs().max() > 0


def test_encoders_without_known_stages_are_refused():
    class Own(Encoder):
        def forward(self, images):
            return Features([images])

    with pytest.raises(ArgumentError, match=r"ResNet, .* or HRNet\), found 'Own'"):
        run_in_stages(Own(FeatureInfo((3,), (1,))))
    with pytest.raises(ArgumentError, match="found 'MobileNetV3'"):
        run_in_stages(TimmEncoder("mobilenetv3_small_050"))
    with pytest.raises(ArgumentError, match="leave out the stem"):
        run_in_stages(TimmEncoder("hrnet_w18_small", out_indices=(0, 1)))
