"""Operations in pieces equal the plain ones, whatever the pieces."""

import pytest
import torch
from torch.autograd import gradcheck

from mtl_tabular.nn import chunked
from mtl_tabular.nn.chunked import (
    feed_forward,
    plain_attention,
    plain_feed_forward,
    self_attention,
)
from mtl_tabular.nn.masks import blocked_pairs

B, N, D, HEADS = 11, 9, 8, 2


def close(found, wanted, tolerance=1e-5):
    """Equal up to a share of the largest entry."""
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(1 + b.detach().abs().max()))


def attention_inputs(scale=1.0):
    torch.manual_seed(0)
    shapes = [(B, N, D), (3 * D, D), (3 * D,), (D, D), (D,)]
    tensors = [torch.randn(shape) * 0.5 for shape in shapes]
    tensors[0] *= scale
    return [t.requires_grad_() for t in tensors]


def feed_forward_inputs():
    torch.manual_seed(0)
    shapes = [(B, N, D), (32, D), (32,), (5, 32), (5,)]
    return [torch.randn(shape).requires_grad_() for shape in shapes]


@pytest.fixture(params=[1000, 1 << 19], ids=["several pieces", "one piece"])
def floats(request, monkeypatch):
    monkeypatch.setattr(chunked, "_FLOATS", request.param)


def both(fast, plain, inputs):
    """Values and gradients of both, for the same outgoing gradient."""
    results = []
    for function in (fast, plain):
        out = function()
        slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        results.append([out, *torch.autograd.grad(out, inputs, slope)])
    return results


@pytest.mark.parametrize("scale", [1.0, 40.0], ids=["small scores", "scores beyond exp"])
@pytest.mark.parametrize("readers", [N, 3])
@pytest.mark.parametrize("mask", ["none", "FxT_TxT"])
@pytest.mark.usefixtures("floats")
def test_attention_equals_the_plain_one(scale, readers, mask):
    inputs = attention_inputs(scale)
    blocked = blocked_pairs(mask, 3, N - 3)[:readers] if mask != "none" else None
    close(
        *both(
            lambda: self_attention(*inputs, heads=HEADS, readers=readers, blocked=blocked),
            lambda: plain_attention(*inputs, HEADS, readers, blocked),
            inputs,
        ),
        tolerance=1e-5 if scale == 1 else 1e-3,  # large scores lose digits in either form
    )


@pytest.mark.usefixtures("floats")
def test_feed_forward_equals_the_plain_one():
    inputs = feed_forward_inputs()
    close(*both(lambda: feed_forward(*inputs), lambda: plain_feed_forward(*inputs), inputs))


def test_scores_beyond_exp_do_occur():
    """Otherwise the shift above would not be tested."""
    x, w_in, b_in = attention_inputs(40.0)[:3]
    q, k, _ = torch.nn.functional.linear(x, w_in, b_in).chunk(3, -1)
    assert (q @ k.transpose(1, 2)).max() > 100


@pytest.mark.parametrize("kind", ["attention", "feed forward"])
def test_graphs_may_be_kept_and_walked_again(kind):
    inputs = attention_inputs() if kind == "attention" else feed_forward_inputs()
    run = (
        (lambda: self_attention(*inputs, heads=HEADS, readers=N))
        if kind == "attention"
        else (lambda: feed_forward(*inputs))
    )
    out = run().square().sum()
    first = torch.autograd.grad(out, inputs, retain_graph=True)
    second = torch.autograd.grad(out, inputs)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["attention", "feed forward"])
def test_gradients_can_be_differentiated(kind):
    inputs = attention_inputs() if kind == "attention" else feed_forward_inputs()
    pair = (
        (
            lambda: self_attention(*inputs, heads=HEADS, readers=N),
            lambda: plain_attention(*inputs, HEADS, N),
        )
        if kind == "attention"
        else (lambda: feed_forward(*inputs), lambda: plain_feed_forward(*inputs))
    )
    found = []
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for run in pair:
            (slope,) = torch.autograd.grad(run().tanh().sum(), inputs[0], create_graph=True)
            found.append(torch.autograd.grad(slope.square().sum(), inputs[1]))
    close(*found)


def test_only_wanted_gradients_are_given():
    inputs = feed_forward_inputs()
    for frozen in inputs[1:]:
        frozen.requires_grad_(False)
    feed_forward(*inputs).sum().backward()
    assert inputs[0].grad is not None
    assert all(t.grad is None for t in inputs[1:])


def test_plain_operations_elsewhere():
    """Other types and autocast run the plain operations, whose gradients PyTorch vouches for."""
    inputs = [t.detach().double().requires_grad_() for t in attention_inputs()]
    inputs[0] = inputs[0].detach()[:2].requires_grad_()
    assert gradcheck(lambda *t: self_attention(*t, heads=HEADS, readers=2), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert feed_forward(*feed_forward_inputs()).dtype == torch.bfloat16


def test_no_rows_give_no_rows():
    inputs = feed_forward_inputs()
    assert feed_forward(inputs[0][:0], *inputs[1:]).shape == (0, N, 5)
    attention = attention_inputs()
    out = self_attention(attention[0][:0], *attention[1:], heads=HEADS, readers=N)
    assert out.shape == (0, N, D)
