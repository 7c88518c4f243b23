"""The whole layer, and `mtl_core.moe.grouped`; `test_router.py` tests `mtl_core.moe.per_task`
and `mtl_core.moe.conditioned`.
"""

import copy
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.moe import ExpertBank, MoEFFN, PerTaskRouter
from mtl_core.moe.grouped import grouped_linear, has_grouped


def ffn(**options):
    torch.manual_seed(0)
    router = PerTaskRouter(("a", "b"), 8, 4, 2, norm="topk")
    return MoEFFN(router, ExpertBank(4, 8, 8), **options)


X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))


def test_permuting_tokens_permutes_the_outputs():
    own, order = ffn(), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(own(X[:, order], "a")[0], own(X, "a")[0][:, order])


def test_a_router_may_see_something_else():
    own = ffn()
    y, routed = own(X, "a", X.flip(1))
    assert torch.equal(routed.idx, own.router(X.flip(1), "a").idx)
    assert not torch.allclose(y, own(X, "a")[0])


def test_bfloat16_experts_and_float32_gates():
    own = ffn()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, routed = own(X.bfloat16(), "a")
    assert y.dtype == torch.bfloat16
    assert routed.gate.dtype == torch.float32
    torch.testing.assert_close(y.float(), own(X, "a")[0], atol=0.05, rtol=0.05)


def test_growing_and_keeping_router_and_bank_together():
    own = ffn()
    before = own(X, "a")
    own.grow(2)
    own.keep([0, 1, 2, 3])
    torch.testing.assert_close(own(X, "a")[0], before[0])
    own.keep([2, 3, 1])
    assert own.bank.num_experts == own.router.num_experts == 3
    assert own(X, "a")[1].logits.shape == (3, 5, 3)


def test_costs_can_be_counted_without_computing():
    """On ``meta`` every expert has its equal share: the same arithmetic as a dense MLP."""
    with torch.device("meta"):
        own = MoEFFN(PerTaskRouter(("a",), 8, 4, 2), ExpertBank(4, 8, 16))
        x = torch.empty(2, 8, 8)
    with FlopCounterMode(display=False) as counter:
        own(x, "a")
    by_experts = 2 * 16 * 2 * (8 * 16 + 16 * 8)
    by_router = 2 * 16 * 8 * 4
    assert counter.get_total_flops() == by_experts + by_router


@pytest.mark.ddp
def test_gradients_on_two_processes_without_looking_for_unused_parameters(tmp_path):
    """Each process sees other tokens, so other experts; one is frozen."""
    first, second = run_ranks("moe_worker", tmp_path, folder=Path(__file__).parent)
    assert torch.equal(first["w1"], second["w1"])
    assert first["w1"].any()


def test_evaluation_repeats_itself_and_copies_are_equal():
    own = ffn().eval()
    assert torch.equal(own(X, "a")[0], own(X, "a")[0])
    assert torch.equal(copy.deepcopy(own)(X, "b")[0], own(X, "b")[0])


def test_grouped_products_are_for_cuda():
    assert not has_grouped(torch.zeros(4, 8, dtype=torch.bfloat16))


CUDA = pytest.param(
    "cuda",
    marks=(
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ),
)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_grouped_products_equal_single_ones(device):
    x = torch.randn(16, 8, device=device, dtype=torch.bfloat16)
    if device == "cuda" and not has_grouped(x):
        pytest.skip("torch has no grouped products here")
    weight = torch.randn(4, 8, 16, device=device)
    bias = torch.randn(4, 16, device=device)
    expert = torch.arange(4, device=device).repeat_interleave(4)
    ends = torch.tensor([4, 8, 12, 16], device=device)
    found = grouped_linear(x, weight, bias, expert, ends)
    wanted = torch.stack([x[i].float() @ weight[e] + bias[e] for i, e in enumerate(expert)])
    torch.testing.assert_close(found.float(), wanted, atol=0.1, rtol=0.05)
