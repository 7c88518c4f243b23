from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.fpga import vit as floats
from export.fpga.layers import Shape, analytic_macs
from export.fpga.read import UnsupportedLayerError, read_vit
from mtl_vision.decoders import PUPDecoder
from mtl_vision.encoders import MoEViT, TimmEncoder
from mtl_vision.networks import HardSharing, M3ViT
from mtl_vision.tasks import DepthEstimation, SurfaceNormals

TASKS = {"depth": DepthEstimation(), "normals": SurfaceNormals()}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAME = "vit_tiny_patch16_224"
SHAPE = {"embed_dim": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
DECODER = partial(PUPDecoder, width=8)


def routed(model_args=SHAPE, **changes):
    settings = {"num_experts": 4, "top_k": 2, "experts": "random", **changes}
    encoder = partial(MoEViT, name=NAME, img_size=(32, 48), model_args=dict(model_args), **settings)
    torch.manual_seed(0)
    return M3ViT(TASKS, encoder=encoder, decoder=DECODER).eval()


def compare(network, task, run):
    """Floats of numpy against tokens of torch."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 48)).astype(np.uint8)
    images = torch.from_numpy(pixels).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        expected = run((images - mean) / std).tokens.numpy()
    vit = read_vit(network, [task], MEAN, STD)
    for image, tokens in zip(floats.patches(pixels, vit.patch), expected, strict=True):
        found, _ = floats.forward(image, vit, task)
        assert np.abs(found - tokens).max() < 2e-5
    return vit


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gate_input_ahead": True, "gate_norm": "topk"},
        {"routing": "conditioned", "task_width": 6},
        {"routing": "single", "experts": "upcycle"},
        {"task_windows": {"normals": (1, 3, 0)}},
        {"moe_layers": (0, 1), "model_args": {**SHAPE, "init_values": 0.3, "reg_tokens": 2}},
        {"model_args": {**SHAPE, "qkv_bias": False, "no_embed_class": True}},
    ],
)
def test_floats_are_those_of_torch(changes):
    network = routed(**changes)
    vit = compare(network, "normals", lambda x: network.encoder(x, "normals"))
    assert len(vit.mixtures) == len(network.encoder.moe_layers)


def test_products_are_those_that_torch_counts():
    torch.manual_seed(0)
    encoder = partial(TimmEncoder, NAME, img_size=(32, 48), model_args=dict(SHAPE))
    network = HardSharing(TASKS, encoder=encoder, decoder=DECODER).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.encoder(torch.zeros(1, 3, 32, 48))
    sizes = Shape(7, 24, 2, 2, 48, (), 1, 1, 1, patches=6, patch_inputs=768)
    assert counter.get_total_flops() == 2 * analytic_macs(sizes)


def test_vits_without_experts_are_read_too():
    torch.manual_seed(0)
    encoder = partial(TimmEncoder, NAME, img_size=(32, 48), model_args=dict(SHAPE))
    network = HardSharing(TASKS, encoder=encoder, decoder=DECODER).eval()
    vit = compare(network, "depth", network.encoder)
    assert not vit.mixtures
    assert vit.tokens == 7


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: setattr(m.blocks[0].mlp, "act", nn.ReLU()), "exact GELU"),
        (lambda m: setattr(m.blocks[0], "norm1", nn.BatchNorm1d(24)), "LayerNorm over tokens"),
        (lambda m: setattr(m.blocks[0].attn, "q_norm", nn.LayerNorm(12)), "q_norm must be left"),
        (lambda m: setattr(m.patch_embed.proj, "padding", (1, 1)), "without padding"),
        (lambda m: setattr(m.blocks[1].mlp, "router", nn.Linear(2, 2)), "route tokens"),
        (lambda m: delattr(m.blocks[0], "ls1"), "without ls1"),
    ],
)
def test_other_layers_are_refused_by_name(change, match):
    network = routed()
    change(network.encoder.model)
    with pytest.raises(UnsupportedLayerError, match=match):
        read_vit(network, ["depth"])


def test_other_encoders_are_refused():
    with pytest.raises(UnsupportedLayerError, match=r"encoder\.model must be a plain ViT"):
        read_vit(nn.Linear(2, 2), ["depth"])
