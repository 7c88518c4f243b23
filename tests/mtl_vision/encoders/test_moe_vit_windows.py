"""mtl_vision.encoders.moe_vit: windows of experts by task."""

from functools import partial

import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.hub import from_pretrained, save_pretrained
from mtl_core.moe import MoEFFN
from mtl_vision.decoders import PUPLightDecoder
from mtl_vision.encoders import MoEViT, TimmEncoder
from mtl_vision.networks import M3ViT
from mtl_vision.tasks import DepthEstimation, SurfaceNormals

SHAPE = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
WINDOWS = {"depth": [0, 1, 4, 5], "normals": [2, 3, 4, 5, 6, 7]}


def vit(tasks=("depth", "normals"), **arguments):
    torch.manual_seed(0)
    given = {"img_size": (16, 24), "model_args": SHAPE, "num_experts": 8, "top_k": 2}
    given |= {"task_windows": WINDOWS, "experts": "random"}
    return MoEViT(tasks, name="vit_tiny_patch16_224", **(given | arguments))


@pytest.mark.parametrize("routing", ["multi_gate", "conditioned"])
def test_a_task_depends_on_its_window_only(routing):
    encoder = vit(routing=routing)
    images = torch.randn(2, 3, 16, 24)
    features = encoder.forward_tasks(images, ["depth", "normals"])
    sum(value for f in features.values() for value in f.aux.values()).backward()
    encoder.zero_grad()
    encoder(images, "depth").maps[-1].sum().backward()
    (layer,) = (m for m in encoder.modules() if isinstance(m, MoEFFN))
    used = layer.bank.w1.grad.flatten(1).any(1)
    assert not used[[2, 3, 6, 7]].any()
    assert used[WINDOWS["depth"]].any()


def test_all_tasks_at_once_are_the_single_ones():
    encoder = vit().eval()
    images = torch.randn(2, 3, 16, 24)
    both = encoder.forward_tasks(images, ["depth", "normals"])
    for task in both:
        torch.testing.assert_close(both[task].maps[-1], encoder(images, task).maps[-1])


def test_upcycled_with_windows_it_is_the_dense_network():
    encoder = vit(experts="upcycle", pretrained=False).eval()
    dense = TimmEncoder("vit_tiny_patch16_224", img_size=(16, 24), model_args=SHAPE)
    encoder.load_dense(dense.state_dict())
    images = torch.randn(2, 3, 16, 24)
    wanted = dense.eval()(images).maps[-1]
    for task in WINDOWS:
        torch.testing.assert_close(encoder(images, task).maps[-1], wanted, atol=1e-5, rtol=1e-5)


def test_windows_are_part_of_a_saved_network(tmp_path):
    encoder = partial(
        MoEViT,
        name="vit_tiny_patch16_224",
        img_size=(16, 24),
        model_args=SHAPE,
        num_experts=8,
        top_k=2,
        experts="random",
        task_windows=WINDOWS,
    )
    tasks = {"depth": DepthEstimation(), "normals": SurfaceNormals()}
    network = M3ViT(tasks, encoder=encoder, decoder=partial(PUPLightDecoder, width=8)).eval()
    save_pretrained(network, tmp_path / "saved")
    again = from_pretrained(tmp_path / "saved").eval()
    (layer,) = (m for m in again.modules() if isinstance(m, MoEFFN))
    assert layer.router.task_windows == {k: tuple(v) for k, v in WINDOWS.items()}
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        for task, prediction in network(images).items():
            assert torch.equal(again(images)[task], prediction)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"routing": "single"}, "task_windows must be left out where routing knows no task"),
        ({"experts": "upcycle", "gate_norm": "none"}, "gate_norm must be topk for windows"),
        (
            {"experts": "upcycle", "task_windows": {"depth": [0, 1, 2]}},
            "task_windows of depth must hold whole copies",
        ),
        ({"task_windows": {"depth": [1]}}, "task_windows of depth must hold top_k = 2"),
    ],
)
def test_windows_that_cannot_be(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        vit(**arguments)
