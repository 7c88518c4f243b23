from functools import partial

import pytest
import torch
from dense_laws import ENCODER, SIZE, NetworkLaws, first, published_cost, scramble
from torch.utils.flop_counter import FlopCounterMode

from mtl_vision.decoders import FPNDecoder
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks import CrossStitch, HardSharing
from mtl_vision.networks.cross_stitch import CrossStitchUnit

FPN = partial(FPNDecoder, width=16)


class TestCrossStitch(NetworkLaws):
    make = partial(CrossStitch, decoder=FPN)

    def permute(self, state, order):
        index = torch.tensor(order)
        return {k: v[index][:, index] if k.endswith("alpha") else v for k, v in state.items()}


@pytest.mark.parametrize(
    "encoder",
    [
        ENCODER,
        "resnet10t",
        "convnext_atto",
        "regnetx_002",
        partial(TimmEncoder, "hrnet_w18_small"),
    ],
    ids=["vit", "resnet", "convnext", "regnet", "hrnet"],
)
def test_identity_gives_exactly_the_single_task_networks(encoder):
    tasks = first(2)
    network = CrossStitch(tasks, encoder=encoder, decoder=FPN, diagonal=1, off_diagonal=0).eval()
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        found = network(images)
        for name, task in tasks.items():
            single = HardSharing({name: task}, encoder=encoder, decoder=FPN).eval()
            single.encoder.load_state_dict(network.encoders[name].state_dict())
            single.decoders[name].load_state_dict(network.decoders[name].state_dict())
            # Behind a mixing, ConvNeXt's maps lie otherwise in memory, which takes other kernels.
            atol = 1e-6 if encoder == "convnext_atto" else 0
            torch.testing.assert_close(found[name], single(images)[name], atol=atol, rtol=0)


def test_equal_weights_make_equal_features():
    """α_ij = 1/T: behind the last stage all tasks have the same features."""
    network = CrossStitch(first(2), encoder="resnet10t", diagonal=0.5, off_diagonal=0.5).eval()
    with torch.no_grad():
        semseg, depth = network.encode_tasks(torch.randn(1, 3, 64, 64), list(first(2))).values()
    for a, b in zip(semseg.maps, depth.maps, strict=True):
        torch.testing.assert_close(a, b)


def test_a_unit_weighs_every_channel_of_every_pair():
    unit = CrossStitchUnit(torch.tensor([[1.0, 0.5], [0.25, 2.0]]), 3)
    with torch.no_grad():
        unit.alpha[0, 1, 2] = -1
    a, b = torch.randn(2, 2, 3, 4, 5)
    factor = torch.tensor([0.5, 0.5, -1])[:, None, None]
    mixed = unit([a, b], [0, 1])
    torch.testing.assert_close(mixed[0], a + factor * b)
    torch.testing.assert_close(mixed[1], 0.25 * a + 2 * b)
    torch.testing.assert_close(unit([a, b], [1])[0], mixed[1])


def test_cost_is_that_of_single_networks_and_the_mixing():
    """Parameters T·single + T²·ΣC; multiply-accumulates T·single + T²·ΣC·h·w."""
    tasks = first(3)
    with torch.device("meta"):
        network = CrossStitch(tasks, encoder="resnet10t", decoder=FPN)
        images = torch.randn(1, 3, 64, 64)
        singles = [HardSharing({n: t}, encoder="resnet10t", decoder=FPN) for n, t in tasks.items()]
    channels = (64, 128, 256, 512)
    numbers = [sum(p.numel() for p in net.parameters()) for net in (network, *singles)]
    assert numbers[0] == sum(numbers[1:]) + 9 * sum(channels)
    costs = []
    for net in (network, *singles):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(images)
        costs.append(counter.get_total_flops() // 2)
    mixing = 9 * sum(c * (64 // s) ** 2 for c, s in zip(channels, (4, 8, 16, 32), strict=True))
    assert costs[0] == sum(costs[1:]) + mixing


def test_cost_as_published():
    """M³ViT's table for NYUD has 310 billion, its neighbours' last digits being rounded."""
    assert published_cost(CrossStitch, ["semseg", "depth"]) == pytest.approx(310, rel=0.005)


def test_alone_a_task_still_needs_all_encoders():
    network = scramble(CrossStitch(first(2), encoder=ENCODER, decoder=FPN))
    ran = []
    for name, encoder in network.encoders.items():
        encoder.model.blocks[0].register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        network(torch.randn(1, 3, *SIZE), tasks=["depth"])
    assert ran == ["semseg", "depth"]
    assert network.required_tasks("depth") == ("semseg", "depth")
    encoders = {id(p) for p in network.encoders.parameters()}
    norms = {id(p) for e in network.encoders.values() for p in e.model.norm.parameters()}
    shared = {id(p) for p in network.shared_parameters()}
    assert encoders - norms <= shared
    assert not norms & shared
