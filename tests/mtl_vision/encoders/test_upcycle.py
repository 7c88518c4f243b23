"""mtl_vision.encoders.upcycle: slices of a dense MLP that compute what it computes."""

import pytest
import torch
from torch import nn

from mtl_core.errors import ArgumentError
from mtl_vision.encoders import dense_weights, split_mlp, tie_columns

D, H = 6, 24


def mlp(bias=True):
    layers = {"fc1": nn.Linear(D, H, bias=bias), "fc2": nn.Linear(H, D, bias=bias)}
    return nn.ModuleDict(layers)


def dense(module, x):
    return module["fc2"](nn.functional.gelu(module["fc1"](x)))


def expert(experts, e, x):
    hidden = nn.functional.gelu(x @ experts.w1[e] + experts.b1[e])
    return hidden @ experts.w2[e] + experts.b2[e]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("num_experts", "top_k"), [(16, 4), (8, 2), (3, 1), (4, 4)])
def test_one_copy_with_equal_gates_is_the_mlp(num_experts, top_k, bias):
    module, x = mlp(bias), torch.randn(5, D)
    experts = split_mlp(dict(module.named_parameters()), num_experts=num_experts, top_k=top_k)
    assert experts.w1.shape == (num_experts, D, H // top_k)
    assert experts.w2.shape == (num_experts, H // top_k, D)
    for copy in range(num_experts // top_k):
        members = range(copy * top_k, (copy + 1) * top_k)
        found = sum(expert(experts, e, x) for e in members) / top_k
        torch.testing.assert_close(found, dense(module, x), atol=1e-6, rtol=1e-5)


def test_with_the_published_gates_it_is_the_mlp_where_the_router_is_uniform():
    module, x = mlp(), torch.randn(5, D)
    weights = dict(module.named_parameters())
    experts = split_mlp(weights, num_experts=8, top_k=4, gate_norm="none")
    found = sum(expert(experts, e, x) / 8 for e in range(4))
    torch.testing.assert_close(found, dense(module, x), atol=1e-6, rtol=1e-5)


def test_columns_are_equal_within_a_copy_and_differ_between_copies():
    columns = torch.randn(2, 5, 12)
    tied = tie_columns(columns, 4)
    assert tied.shape == columns.shape
    groups = tied.unflatten(-1, (3, 4))
    assert torch.equal(groups, groups[..., :1].expand_as(groups))
    assert torch.equal(groups[..., 0], columns[..., ::4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_experts": 6, "top_k": 4}, "num_experts must be a multiple of top_k = 4"),
        ({"num_experts": 10, "top_k": 5}, "top_k must divide the 24 hidden units"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        split_mlp(dict(mlp().named_parameters()), **arguments)


def test_weights_of_a_run_are_the_networks(tmp_path):
    state = {"network.encoder.a": torch.ones(2), "other.b": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    found = dense_weights(tmp_path / "last.ckpt")
    assert list(found) == ["encoder.a"]
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ArgumentError, match="start_from must be a checkpoint of a run"):
        dense_weights(tmp_path / "broken.ckpt")
