"""All exact forms are one sum, in torch and as graphs; places that overflow lose known tokens."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.moe_forms import FORMS, GraphRouter, SortedMoE
from export.onnx import write_graph
from export.parity import session
from mtl_core.moe import ExpertBank, MoEFFN, PerTaskRouter
from mtl_core.moe.dispatch import by_capacity

DIM, HIDDEN, EXPERTS, TOP_K, TOKENS = 8, 12, 6, 2, 7


def make_layer(norm="none"):
    torch.manual_seed(3)
    router = PerTaskRouter(("a", "b"), DIM, EXPERTS, TOP_K, norm=norm)
    for gate in router.gates.values():
        nn.init.normal_(gate.weight)
    return MoEFFN(router, ExpertBank(EXPERTS, DIM, HIDDEN), backend="loop").eval()


def make_form(layer, form, task="b", **places):
    router = GraphRouter(
        layer.router.gates[task].weight,
        None,
        kept=EXPERTS,
        top_k=TOP_K,
        renormalise=layer.router.norm == "topk",
    )
    return FORMS[form](router, layer.bank.experts(), **places).eval()


def cases(layer):
    """Batches of several sizes; one image whose tokens all choose the same; one unused expert."""
    torch.manual_seed(4)
    same = torch.randn(1, 1, DIM).expand(1, TOKENS, DIM)
    found = [torch.randn(size, TOKENS, DIM) for size in (1, 2, 7)] + [same.contiguous()]
    idx = layer(found[-1], "b")[1].idx
    assert len(idx.unique()) == TOP_K < EXPERTS
    return found


class OnlyTokens(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return (self.layer(x)[0],)


@pytest.mark.parametrize("norm", ["none", "topk"])
@pytest.mark.parametrize("form", list(FORMS))
def test_exact_forms_compute_what_the_layer_computes(form, norm):
    layer = make_layer(norm)
    for places in ({}, {"capacity_factor": EXPERTS / TOP_K}, {"capacity": TOKENS}):
        made = make_form(layer, form, **places)
        for x in cases(layer):
            with torch.no_grad():
                wanted, routed = layer(x, "b")
                found, own = made(x, "b")
            assert torch.equal(own.idx, routed.idx)
            torch.testing.assert_close(own.gate, routed.gate, atol=1e-6, rtol=0)
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", list(FORMS))
def test_graphs_agree_for_all_batches_and_routings(form, tmp_path):
    layer = make_layer()
    path = tmp_path / "layer.onnx"
    profile = "cpu" if form == "nonzero" else "portable"
    example = {"x": torch.randn(3, TOKENS, DIM)}
    report = write_graph(OnlyTokens(make_form(layer, form)), example, ["y"], path, profile=profile)
    assert report.operators["MatMul"] == 1 + 2 * EXPERTS
    assert "Einsum" not in report.operators
    shapes = [tuple(t.dims) for t in onnx.load(path).graph.initializer]
    assert shapes.count((DIM, HIDDEN)) == shapes.count((HIDDEN, DIM)) == EXPERTS
    graph = session(path)
    for x in cases(layer):
        with torch.no_grad():
            wanted, _ = layer(x, "b")
        (found,) = graph.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_with_one_place_the_largest_gate_of_each_image_stays():
    layer = make_layer()
    x = torch.randn(3, TOKENS, DIM)
    made = make_form(layer, "capacity", capacity=1)
    with torch.no_grad():
        found, routed = made(x)
        for image in range(len(x)):
            one = routed.map(lambda v, i=image: v[i])
            # ceil(f · K · N / E) = 1
            factor = EXPERTS / (TOP_K * TOKENS)
            wanted = by_capacity(layer.bank, x[image], one.idx, one.gate, factor)
            torch.testing.assert_close(found[image], wanted, atol=1e-6, rtol=0)
    lengths = torch.stack([torch.bincount(i.flatten(), minlength=EXPERTS) for i in routed.idx])
    assert made.overflow(routed.idx).tolist() == (lengths - 1).clamp_min(0).sum(1).tolist()


def test_sorted_keeps_the_first_tokens():
    layer = make_layer()
    x = torch.randn(1, 1, DIM).expand(2, TOKENS, DIM)
    made = make_form(layer, "sorted", capacity=3)
    assert isinstance(made, SortedMoE)
    with torch.no_grad():
        wanted, routed = layer(x, "b")
        found, _ = made(x)
    torch.testing.assert_close(found[:, :3], wanted[:, :3], atol=1e-6, rtol=0)
    assert not found[:, 3:].any()
    assert made.overflow(routed.idx).tolist() == [TOP_K * (TOKENS - 3)] * 2


def test_kept_experts_share_the_softmax_with_the_removed_ones():
    layer = make_layer()
    weight = layer.router.gates["a"].weight
    x = torch.randn(2, TOKENS, DIM)
    kept = GraphRouter(weight, None, kept=3, top_k=2, renormalise=False)(x)
    full = layer.router(x, "a")
    assert kept.probs.shape == full.probs.shape
    assert int(kept.idx.max()) < 3
    torch.testing.assert_close(kept.gate, full.probs[..., :3].topk(2, -1).values)


def test_a_pruned_graph_holds_the_kept_experts_and_no_others(tmp_path):
    """Property 6: counted in the file itself, by their values."""
    layer = make_layer()
    kept = [1, 4]
    order = [*kept, *(e for e in range(EXPERTS) if e not in kept)]
    weight = layer.router.gates["a"].weight[order]
    router = GraphRouter(weight, None, kept=2, top_k=2, renormalise=False)
    experts = [layer.bank.expert(e) for e in kept]
    small = FORMS["dense"](router, experts).eval()
    path = tmp_path / "small.onnx"
    report = write_graph(OnlyTokens(small), {"x": torch.randn(3, TOKENS, DIM)}, ["y"], path)
    tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    for shape, name in (((DIM, HIDDEN), "w1"), ((HIDDEN, DIM), "w2")):
        found = {t.tobytes() for t in tensors if t.shape == shape}
        assert found == {getattr(e, name).detach().numpy().tobytes() for e in experts}
    of_experts = 4 * len(kept) * (2 * DIM * HIDDEN + DIM + HIDDEN)
    assert 0 <= report.weight_bytes - of_experts - 4 * DIM * EXPERTS < 200
