import importlib

import pytest
import torch

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe import ExpertBank, MoEFFN, PerTaskRouter, dispatch, overflow
from mtl_core.moe.dispatch import GATHER_LIMIT, places

EXACT = ("sorted", "dense", "gather")


def routing(tokens=13, experts=8, top_k=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    idx = torch.rand(tokens, experts, generator=generator).topk(top_k, -1).indices
    return idx, torch.rand(tokens, top_k, generator=generator)


def results(backend, *, x, idx, gate, bank, **options):
    x, gate = x.clone().requires_grad_(), gate.clone().requires_grad_()
    y = dispatch(bank, x, idx, gate, backend=backend, **options)
    return y, torch.autograd.grad(y.square().sum(), [x, gate, *bank.parameters()])


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("top_k", [1, 2, 8])
@pytest.mark.parametrize("frozen", [(), (0, 5)])
def test_exact_back_ends_agree_in_values_and_gradients(backend, top_k, frozen):
    torch.manual_seed(0)
    bank = ExpertBank(8, dim=6, hidden=5)
    bank.freeze(frozen)
    idx, gate = routing(top_k=top_k)
    x = torch.randn(13, 6)
    wanted, slopes = results("loop", x=x, idx=idx, gate=gate, bank=bank)
    found, others = results(backend, x=x, idx=idx, gate=gate, bank=bank)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    for one, other in zip(others, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("frozen", [(), (0, 5)])
def test_grouped_products_agree_to_rounding(monkeypatch, top_k, frozen):
    """What CUDA takes, on the CPU, where torch computes it too; some experts have no token."""
    torch.manual_seed(0)
    bank = ExpertBank(16, dim=8, hidden=16)
    bank.freeze(frozen)
    idx, gate = routing(experts=16, top_k=top_k)
    x = torch.randn(13, 8).bfloat16().float()
    wanted, slopes = results("loop", x=x, idx=idx, gate=gate, bank=bank)
    module = importlib.import_module("mtl_core.moe.dispatch")  # the package's is the function
    monkeypatch.setattr(module, "has_grouped", lambda *a: True)
    found, others = results("sorted", x=x, idx=idx, gate=gate, bank=bank)
    assert found.dtype == torch.bfloat16
    for one, other in zip((found, *others), (wanted, *slopes), strict=True):
        assert (one.float() - other).norm() <= 0.02 * other.norm()


def test_enough_capacity_is_exact():
    torch.manual_seed(0)
    bank = ExpertBank(8, dim=6, hidden=5)
    idx, gate = routing()
    x = torch.randn(13, 6)
    wanted, slopes = results("loop", x=x, idx=idx, gate=gate, bank=bank)
    found, others = results("capacity", x=x, idx=idx, gate=gate, bank=bank, capacity=8 / 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    for one, other in zip(others, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert int(overflow(idx, 8, 8 / 2)) == 0


def test_overflow_counts_what_capacity_drops():
    bank = ExpertBank(4, dim=3, hidden=2)
    idx = torch.zeros(8, 1, dtype=torch.int64)
    gate = torch.linspace(0.1, 0.8, 8).unsqueeze(1)
    x = torch.randn(8, 3)
    y = dispatch(bank, x, idx, gate, backend="capacity", capacity=2.0)
    assert places(8, 1, 4, 2.0) == 4
    assert int(overflow(idx, 4, 2.0)) == 4
    dropped = (y == 0).all(1)
    assert dropped.tolist() == [True] * 4 + [False] * 4, "those with the largest weights stay"


def test_all_experts_weighted_by_their_probabilities_are_the_dense_mixture():
    torch.manual_seed(0)
    router = PerTaskRouter(("a",), 6, num_experts=4, top_k=4)
    ffn = MoEFFN(router, ExpertBank(4, dim=6, hidden=5))
    x = torch.randn(2, 7, 6)
    y, routed = ffn(x, "a")
    each = torch.stack([e(x.flatten(0, 1)) for e in ffn.bank.experts()], 1).view(2, 7, 4, 6)
    torch.testing.assert_close(y, (routed.probs.unsqueeze(-1) * each).sum(-2))


def test_identical_experts_are_one_whatever_the_router():
    torch.manual_seed(0)
    bank = ExpertBank(4, dim=6, hidden=5)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
    ffn = MoEFFN(PerTaskRouter(("a",), 6, num_experts=4, top_k=3, norm="topk"), bank)
    x = torch.randn(2, 7, 6)
    torch.testing.assert_close(ffn(x, "a")[0], bank.expert(0)(x.flatten(0, 1)).view(2, 7, 6))


@pytest.mark.parametrize("backend", ["sorted", "loop", "dense", "capacity"])
def test_no_tokens_still_give_every_parameter_a_gradient(backend):
    """So that a process without samples of a task takes part in the exchange of gradients."""
    bank = ExpertBank(4, dim=3, hidden=2)
    idx, gate = torch.empty(0, 2, dtype=torch.int64), torch.empty(0, 2)
    y = dispatch(bank, torch.empty(0, 3), idx, gate, backend=backend)
    assert y.shape == (0, 3)
    found = torch.autograd.grad(y.sum(), list(bank.parameters()))
    assert all(not g.any() for g in found)


def test_unused_experts_get_zeros():
    bank = ExpertBank(4, dim=3, hidden=2)
    idx = torch.full((5, 1), 2)
    dispatch(bank, torch.randn(5, 3), idx, torch.ones(5, 1)).sum().backward()
    used = bank.w1.grad.flatten(1).any(1)
    assert used.tolist() == [False, False, True, False]


def test_two_experts_weights_at_once(monkeypatch):
    """Expert by expert: weights of different experts never meet in one operation."""
    bank = ExpertBank(16, dim=3, hidden=2)
    seen = []
    whole = torch.addmm

    def recorded(bias, x, weight):
        seen.append(weight.shape)
        return whole(bias, x, weight)

    monkeypatch.setattr(torch, "addmm", recorded)
    with torch.no_grad():
        idx, gate = routing(40, 16, 4)
        dispatch(bank, torch.randn(40, 3), idx, gate)
    assert seen
    assert all(len(shape) == 2 for shape in seen)


def test_vectorised_backward():
    """Balancers may walk a trunk for several tasks at once."""
    torch.manual_seed(0)
    bank = ExpertBank(4, dim=3, hidden=2)
    idx, gate = routing(9, 4, 2)
    x = torch.randn(9, 3, requires_grad=True)
    y = dispatch(bank, x, idx, gate)
    signals = torch.randn(5, *y.shape)
    (found,) = torch.autograd.grad(y, x, signals, is_grads_batched=True, retain_graph=True)
    for signal, row in zip(signals, found, strict=True):
        torch.testing.assert_close(torch.autograd.grad(y, x, signal, retain_graph=True)[0], row)


def test_compiles_where_shapes_are_static():
    torch.manual_seed(0)
    ffn = MoEFFN(
        PerTaskRouter(("a",), 6, num_experts=4, top_k=2), ExpertBank(4, 6, 5), backend="dense"
    )
    x = torch.randn(2, 7, 6)
    compiled = torch.compile(ffn, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, "a")[0], ffn(x, "a")[0])


def test_bad_input():
    bank = ExpertBank(4, dim=3, hidden=2)
    idx, gate = routing(9, 4, 2)
    with pytest.raises(UnknownNameError, match="Did you mean sorted"):
        dispatch(bank, torch.randn(9, 3), idx, gate, backend="sort")
    with pytest.raises(ArgumentError, match="x, idx and gate"):
        dispatch(bank, torch.randn(8, 3), idx, gate)
    with pytest.raises(ArgumentError, match="capacity must be positive"):
        dispatch(bank, torch.randn(9, 3), idx, gate, backend="capacity", capacity=0)
    many = GATHER_LIMIT + 1
    with pytest.raises(ArgumentError, match="copies weights"):
        dispatch(bank, torch.randn(many, 3), *routing(many, 4, 2), backend="gather")
    with pytest.raises(ArgumentError, match="same number of experts"):
        MoEFFN(PerTaskRouter(("a",), 3, num_experts=5, top_k=2), bank)
    with pytest.raises(UnknownNameError, match="backend"):
        MoEFFN(PerTaskRouter(("a",), 3, num_experts=4, top_k=2), bank, backend="lop")
