"""Networks of one task: same predictions, experts by themselves, only those that were kept."""

from functools import partial

import pytest
import torch
from toy_experts import LAYER, make_network

from export.moe import MoESettings, convert, moe_layers
from export.moe_forms import DenseMoE, GraphMoE, NonzeroMoE
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_vision.decoders import PUPLightDecoder
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import DepthEstimation


@pytest.mark.parametrize("routing", ["multi_gate", "conditioned", "single"])
@pytest.mark.parametrize("norm", ["none", "topk"])
def test_each_task_predicts_what_it_did(routing, norm):
    network = make_network(routing=routing, gate_norm=norm)
    images = torch.rand(3, 3, 32, 32)
    for task in network.tasks:
        found = convert(network, task)
        assert [note["form"] for note in found.layers] == ["nonzero"]
        with torch.no_grad():
            wanted = network(images, tasks=[task])[task]
            torch.testing.assert_close(found.network(images, tasks=[task])[task], wanted)
    assert len(moe_layers(network)) == 1  # the network itself is as it was


def test_notes_name_layer_form_and_experts():
    (note,) = convert(
        make_network(), "depth", MoESettings(form="capacity", capacity_factor=3)
    ).layers
    assert note == {
        "layer": LAYER,
        "form": "capacity",
        "experts": list(range(6)),
        "of": 6,
        "top_k": 2,
        "exact": True,
        "capacity": None,
        "capacity_factor": 3,
    }


@pytest.mark.parametrize(
    ("profile", "experts", "form"),
    [
        ("cpu", 6, "nonzero"),
        ("cpu", 4, "dense"),
        ("portable", 6, "capacity"),
        ("portable", 4, "dense"),
        ("fpga", 6, "dense"),
    ],
)
def test_the_form_follows_the_profile(profile, experts, form):
    found = convert(make_network(num_experts=experts), "depth", MoESettings(profile=profile))
    assert found.layers[0]["form"] == form


def test_lossy_pruning_keeps_the_best_and_their_denominator():
    network = make_network()
    ranking = {LAYER: [5, 0, 3, 1, 2, 4]}
    found = convert(network, "depth", MoESettings(keep=3, ranking=ranking))
    layer = found.network.get_submodule(LAYER)
    assert isinstance(layer, DenseMoE)
    assert len(layer.experts) == 3
    assert found.layers[0]["experts"] == [0, 3, 5]
    assert not found.layers[0]["exact"]
    x = torch.randn(2, 5, 16)
    full = moe_layers(network)[LAYER].router(x, "depth")
    wanted = full.probs[..., [0, 3, 5]].topk(2, -1).values
    torch.testing.assert_close(layer(x)[1].gate, wanted)


def test_all_experts_kept_is_no_loss():
    ranking = {LAYER: [5, 0, 3, 1, 2, 4]}
    found = convert(make_network(), "depth", MoESettings(keep=6, ranking=ranking))
    assert found.layers[0]["exact"]
    assert isinstance(found.network.get_submodule(LAYER), NonzeroMoE)


def test_networks_without_experts_come_back():
    tasks = {"depth": DepthEstimation()}
    network = HardSharing(
        tasks, encoder="resnet10t", decoder=partial(PUPLightDecoder, width=8)
    ).eval()
    found = convert(network, "depth")
    assert found.network is network
    assert found.layers == []


def test_frozen_experts_are_exported_in_their_order():
    network = make_network()
    moe_layers(network)[LAYER].bank.freeze([0, 4])
    images = torch.rand(2, 3, 32, 32)
    found = convert(network, "semseg").network
    assert isinstance(found.get_submodule(LAYER), GraphMoE)
    with torch.no_grad():
        wanted = network(images, tasks=["semseg"])["semseg"]
        torch.testing.assert_close(found(images, tasks=["semseg"])["semseg"], wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "sparse"}, "form must be a known name"),
        ({"profile": "gpu"}, "profile must be a known name"),
        ({"keep": "windows"}, "Did you mean window"),
        ({"keep": 0, "ranking": {}}, "keep must be 'window' or at least 1"),
        ({"capacity_factor": 0.0}, "capacity_factor must be positive"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises((ArgumentError, UnknownNameError), match=message):
        MoESettings(**options)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("dept", {}, "Did you mean depth"),
        ("depth", {"keep": "window"}, "every task uses every expert; nothing can be removed"),
        ("depth", {"keep": 1, "ranking": {LAYER: [1, 2]}}, "at least top_k = 2"),
        ("depth", {"keep": 2, "ranking": {}}, f"hold the layer {LAYER}"),
        ("depth", {"keep": 2}, f"hold the layer {LAYER}"),
    ],
)
def test_what_cannot_be_converted_is_said(task, options, message):
    with pytest.raises((ArgumentError, UnknownNameError), match=message):
        convert(make_network(), task, MoESettings(**options))
