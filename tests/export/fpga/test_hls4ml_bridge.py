import os

import numpy as np
import pytest
import torch
from torch import nn

from export.fpga.hls4ml_bridge import (
    BridgeError,
    Perceptrons,
    convert,
    named,
    output_order,
    read_perceptrons,
    refuse,
)
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe import ExpertBank, MoEFFN, SingleRouter
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.networks import MultiTabNet, SharedBottom
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget


def network():
    torch.manual_seed(0)
    tasks = {
        "kind": MulticlassTarget(classes=("a", "b", "c")),
        "sold": BinaryTarget(),
    }
    made = SharedBottom(tasks, schema=columns(), token_width=0, shared=(8, 6), tower=(5,))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return made.eval()


def columns():
    import pandas as pd

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)), columns=list("wxyz"))
    return TableSchema.fit(frame)


def test_perceptrons_are_the_network_with_batch_norms_inside():
    made = network()
    x = torch.randn(7, 4)
    with torch.no_grad():
        expected = made({"numeric": x})
        flat = made.front({"numeric": x})
        found = dict(zip(("kind", "sold"), read_perceptrons(made)(flat), strict=True))
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-5
    one = read_perceptrons(made, ["sold"])
    assert one.names == ("sold",)
    assert one.widths == {"sold": 1}
    assert one.inputs == flat.shape[1]
    with pytest.raises(UnknownNameError, match="sold"):
        read_perceptrons(made, ["solt"])


def moe():
    return MoEFFN(SingleRouter(("a",), 4, 3, 1), ExpertBank(3, 4, 4))


@pytest.mark.parametrize(
    ("module", "example", "match"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), None, "variance table"),
        (nn.Linear(4, 4), torch.zeros(2, 5, 4), "reshaped instead of transposed"),
        (nn.Softmax(-1), torch.zeros(2, 8, 8), "normalised over the whole tensor"),
        (nn.Softmax(-1), None, "pass an example input"),
        (nn.MultiheadAttention(4, 1), None, "products of two activations"),
        (moe(), None, "choosing experts"),
        (nn.GELU(), None, "knows no GELU"),
    ],
)
def test_what_hls4ml_gets_wrong_is_refused_with_the_reason(module, example, match):
    with pytest.raises(BridgeError, match=match):
        refuse(module, example)


def test_what_it_gets_right_is_let_through():
    refuse(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(3, 4))
    refuse(nn.Softmax(-1), torch.zeros(3, 4))


def test_networks_of_another_layout_are_refused():
    tasks = {"sold": BinaryTarget()}
    with pytest.raises(BridgeError, match="hls4ml"):
        read_perceptrons(MultiTabNet(tasks, schema=columns()))
    with pytest.raises(BridgeError, match="`shared` and `towers`"):
        read_perceptrons(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ArgumentError, match="heads"):
        Perceptrons([], {})


@pytest.mark.parametrize("order", [("wide", "one"), ("one", "wide")])
def test_outputs_are_taken_by_name_and_their_width_is_checked(order):
    widths = {"wide": 3, "one": 1}
    arrays = [np.zeros((5, widths[name])) for name in order]
    found = named(order, arrays, widths, 5)
    assert list(found) == ["wide", "one"]
    assert found["wide"].shape == (5, 3)
    with pytest.raises(BridgeError, match="another order"):
        named(order, arrays[::-1], widths, 5)


def test_names_of_outputs_say_their_task():
    assert output_order(["head_ab", "head_a"], ["a", "ab"]) == ("ab", "a")
    for layers in (["head_a", "dense_3"], ["head_a", "head_a"], ["head_a"]):
        with pytest.raises(BridgeError, match="output"):
            output_order(layers, ["a", "b"])


def test_absent_hls4ml_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "hls4ml", None)
    head = [(torch.zeros(1, 2), torch.zeros(1))]
    with pytest.raises(BridgeError, match="install the extra fpga"):
        convert(Perceptrons([], {"a": head}), tmp_path)


@pytest.mark.skipif(os.environ.get("MTL_HLS4ML") != "1", reason="set MTL_HLS4ML=1: 30 s of g++")
@pytest.mark.filterwarnings("ignore")
def test_compiled_outputs_return_under_their_names(tmp_path):
    module = read_perceptrons(network())
    x = np.random.default_rng(0).normal(size=(40, module.inputs)).astype(np.float32)
    made = convert(module, tmp_path / "hls")
    found = made.predict(x)
    with torch.no_grad():
        expected = dict(zip(module.names, module(torch.from_numpy(x)), strict=True))
    assert found.keys() == expected.keys() == {"kind", "sold"}
    for name, value in expected.items():
        assert np.abs(found[name] - value.numpy()).max() < 2e-3
