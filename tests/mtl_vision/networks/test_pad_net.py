from functools import partial

import pytest
import torch
from dense_laws import ENCODER, SIZE, TASKS, NetworkLaws, first, scramble, turn_others

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.tasks import Classification
from mtl_vision.networks import PADNet


class TestPADNet(NetworkLaws):
    make = partial(PADNet, width=16)

    def permute(self, state, order):
        names = list(first(3))
        new = [names[i] for i in order]
        return {
            k: turn_others(v, new.index(k.split(".")[1]), order)
            if k.startswith("distillation")
            else v
            for k, v in state.items()
        }


class TestPADNetOnAllMaps(TestPADNet):
    make = partial(PADNet, width=16, maps="all", norm="group")


def test_closed_gates_leave_plain_heads():
    network = scramble(PADNet(first(3), encoder=ENCODER, width=16))
    with torch.no_grad():
        for module in network.distillation.values():
            module.convs.bias.view(2, 2, 16)[:, 0] = -1e4
        images = torch.randn(1, 3, *SIZE)
        found = network.run(images).predictions
        last = network.encode(images).maps[-1]
        for name in network.tasks:
            plain = network.heads[name](network.initial[name](last))
            assert torch.equal(found[name], plain)


def test_one_task_has_nothing_to_distil():
    network = scramble(PADNet(first(1), encoder=ENCODER, width=16))
    assert list(network.distillation.parameters()) == []
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        features = network.initial["semseg"](network.encode(images).maps[-1])
        out = network.run(images)
    assert torch.equal(out.predictions["semseg"], network.heads["semseg"](features))
    [initial] = out.intermediate["semseg"]
    assert torch.equal(initial, network.initial_heads["semseg"](features))


def test_parameters_of_the_distillation():
    """A gate and a message for every ordered pair of tasks: 2·(9·C² + C)."""
    network = PADNet(first(3), encoder=ENCODER, width=16)
    found = sum(p.numel() for p in network.distillation.parameters())
    assert found == 3 * 2 * 2 * (9 * 16 * 16 + 16)


def test_an_auxiliary_task_only_helps():
    network = scramble(PADNet(first(3), encoder=ENCODER, width=16, auxiliary=("normals",)))
    assert set(network.heads) == set(network.distillation) == {"semseg", "depth"}
    out = network.run(torch.randn(2, 3, *SIZE))
    assert list(out.predictions) == list(first(3))
    assert set(out.intermediate) == {"semseg", "depth"}
    helped = torch.autograd.grad(
        out.predictions["depth"].sum(), list(network.initial["normals"].parameters())
    )
    assert any(g.abs().max() > 0 for g in helped)


def test_the_last_map_or_all_of_them():
    images = torch.randn(1, 3, *SIZE)
    sizes = {"last": (2, 3), "all": (16, 24)}
    for maps, size in sizes.items():
        network = PADNet(first(1), encoder="resnet10t", width=16, maps=maps).eval()
        with torch.no_grad():
            assert network.run(images).predictions["semseg"].shape[2:] == size


def test_what_it_cannot_do():
    make = partial(PADNet, first(2), encoder=ENCODER, width=16)
    with pytest.raises(UnknownNameError, match="Did you mean depth"):
        make(auxiliary=("dept",))
    with pytest.raises(ArgumentError, match="auxiliary must leave at least one task"):
        make(auxiliary=tuple(first(2)))
    tasks = {"depth": TASKS["depth"], "scene": Classification(num_classes=3)}
    with pytest.raises(ArgumentError, match=r"tasks of PADNet must all be dense.*scene"):
        PADNet(tasks, encoder=ENCODER)
