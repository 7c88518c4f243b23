"""mtl_vision.encoders.moe_block: a timm block in two halves around its experts."""

import pytest
import torch
from timm.layers.mlp import Mlp, SwiGLU
from timm.models.vision_transformer import Block
from torch import nn

from mtl_core.moe import ExpertBank, MoEFFN, SingleRouter
from mtl_vision.encoders import MoEBlock
from mtl_vision.encoders.moe_block import sliceable

D = 16


class Silent(nn.Module):
    """Experts that add nothing, and show what router and experts were given."""

    def forward(self, x, task, gate_input):
        return torch.zeros_like(x), (x, gate_input)


def block(**arguments):
    torch.manual_seed(0)
    return Block(D, num_heads=2, **arguments)


def test_a_bank_of_one_copy_of_the_mlp_leaves_the_block_as_it_was():
    dense = block(init_values=0.3, qkv_bias=True).eval()
    bank = ExpertBank(1, D, 4 * D)
    with torch.no_grad():
        for stack, weights in [
            (bank.w1, dense.mlp.fc1.weight.t()),
            (bank.b1, dense.mlp.fc1.bias),
            (bank.w2, dense.mlp.fc2.weight.t()),
            (bank.b2, dense.mlp.fc2.bias),
        ]:
            stack.copy_(weights[None])
        x = torch.randn(2, 5, D)
        sparse = MoEBlock(dense, MoEFFN(SingleRouter(("a",), D, 1, 1), bank)).eval()
        found, routed = sparse(x, "a")
        torch.testing.assert_close(found, dense(x), atol=1e-6, rtol=1e-5)
    assert routed.idx.shape == (2, 5, 1)
    inherited = {k for k in dense.state_dict() if not k.startswith("mlp.")}
    assert inherited == {k for k in sparse.state_dict() if not k.startswith("mlp.")}


@pytest.mark.parametrize("ahead", [False, True])
def test_the_router_sees_the_experts_input_or_the_blocks(ahead):
    sparse = MoEBlock(block(), Silent(), gate_input_ahead=ahead).eval()
    x = torch.randn(2, 5, D)
    waiting = sparse.attend(x)
    out, (inner, seen) = sparse.feed(waiting, "a")
    assert torch.equal(out, waiting.tokens)
    assert torch.equal(inner, sparse.norm2(waiting.tokens))
    assert torch.equal(seen, x if ahead else inner)


def test_waiting_tokens_are_repeated_task_by_task():
    waiting = MoEBlock(block(), Silent()).eval().attend(torch.randn(2, 5, D))
    thrice = waiting.repeated(3)
    for one, three in zip(waiting, thrice, strict=True):
        assert all(torch.equal(part, one) for part in three.chunk(3))


@pytest.mark.parametrize(
    ("mlp", "reason"),
    [
        (Mlp(D, 2 * D), ""),
        (Mlp(D, 2 * D, norm_layer=nn.LayerNorm), "norm inside"),
        (Mlp(D, 2 * D, act_layer=nn.ReLU), "activation ReLU"),
        (Mlp(D, 2 * D, act_layer=lambda: nn.GELU("tanh")), "activation GELU"),
        (SwiGLU(D, 2 * D), "SwiGLU"),
    ],
)
def test_which_mlps_can_be_cut(mlp, reason):
    found = sliceable(mlp)
    assert reason in found
    assert bool(found) == bool(reason)
