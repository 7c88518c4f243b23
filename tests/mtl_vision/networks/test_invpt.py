from functools import partial

import pytest
import torch
from dense_laws import ENCODER, SIZE, NetworkLaws, first, scramble, turn

from mtl_core.errors import ArgumentError
from mtl_core.modules.compiling import compile_parts
from mtl_vision.networks import InvPT

SMALL = partial(InvPT, width=32, feature_width=24)


class TestInvPT(NetworkLaws):
    make = SMALL

    def permute(self, state, order):
        by_task = ("features.", "embeddings.", "norms.")
        return {
            k: turn(v, 0, order) if (k.startswith(by_task) or ".halve." in k) and v.ndim else v
            for k, v in state.items()
        }


def stage_shapes(network, images):
    shapes, keys = [], []

    def look(module, inputs, found):
        shapes.append(tuple(found[0].shape))
        keys.append(found[1].shape[-1])

    for stage in network.stages:
        stage.register_forward_hook(look)
    with torch.no_grad():
        out = network.run(images)
    return out, shapes, keys


def test_resolution_doubles_and_channels_halve_from_stage_to_stage():
    """At 64×96 and stride 32 the first stage has 2×3 positions, the prediction stride 4."""
    network = SMALL(first(3), encoder=ENCODER).eval()
    out, shapes, keys = stage_shapes(network, torch.randn(1, 3, *SIZE))
    assert shapes == [(1, 3, 32, 2, 3), (1, 3, 16, 4, 6), (1, 3, 8, 8, 12)]
    assert keys == [3 * 1 * 2] * 3
    for name, task in first(3).items():
        assert out.predictions[name].shape == (1, task.out_channels, 16, 24)
        [initial] = out.intermediate[name]
        assert initial.shape == (1, task.out_channels, 2, 3)


def test_sizes_that_no_stride_divides():
    network = SMALL(first(2), encoder="resnet10t", stride=16).eval()
    _, shapes, keys = stage_shapes(network, torch.randn(1, 3, 75, 51))
    assert [s[3:] for s in shapes] == [(5, 3), (10, 6), (20, 12)]
    assert keys == [2 * 3 * 2] * 3


def test_the_first_stage_takes_no_map_of_the_encoder():
    network = SMALL(first(2), encoder=ENCODER)
    assert set(network.skips) == {"1", "2"}
    assert isinstance(network.skips["1"], torch.nn.Conv2d)
    assert isinstance(network.skips["2"], torch.nn.ConvTranspose2d)
    features = network.eval().encode(torch.randn(1, 3, *SIZE))
    maps = [m.detach().requires_grad_() for m in features.maps]
    decoded = network.decode(features.with_tensors([*maps, features.tokens]), "depth")
    decoded.prediction.sum().backward()
    assert [m.grad is not None for m in maps] == [True, True, False, True]


def test_messages_can_be_left_out():
    with_, without = (SMALL(first(2), encoder=ENCODER, messages=on) for on in (True, False))
    assert [s.attention.fuse is not None for s in with_.stages] == [False, True, True]
    numbers = [sum(p.numel() for p in net.parameters()) for net in (with_, without)]
    # Two 1×1 convolutions from four maps of logits to two.
    assert numbers[0] - numbers[1] == 2 * (4 * 2 + 2)
    assert without.eval()(torch.randn(1, 3, *SIZE))["depth"].shape == (1, 1, *SIZE)


def test_one_tasks_prediction_depends_on_anothers_tokens():
    network = scramble(SMALL(first(2), encoder=ENCODER))
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        before = network(images, tasks=["depth"])["depth"]
        network.tokens["semseg"].bias.add_(1.0)
        after = network(images, tasks=["depth"])["depth"]
    assert (before - after).abs().max() > 1e-4
    assert network.required_tasks("depth") == ("semseg", "depth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 36}, "width must be a multiple of 4 x heads = 8"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"drop_path": 1.0}, "drop_path must lie in"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        SMALL(first(1), encoder=ENCODER, **arguments)


@pytest.mark.slow
def test_compiled_in_parts_it_computes_the_same():
    network = scramble(SMALL(first(1), encoder=ENCODER))
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected = network(images)["semseg"]
        compile_parts(network.compiled_parts(), backend="eager")
        torch.testing.assert_close(network(images)["semseg"], expected)
