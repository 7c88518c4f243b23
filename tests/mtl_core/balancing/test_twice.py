import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from mtl_core.balancing.twice import MathAttention, find_once_differentiable


class Fused(nn.Module):
    def __init__(self, fails=False):
        super().__init__()
        self.fails = fails

    def forward(self, x):
        if self.fails:
            raise KeyError
        return scaled_dot_product_attention(x, x, x)


def curvature(module, x):
    out = module(x)
    first = torch.autograd.grad(out.square().sum(), x, create_graph=True)[0]
    return torch.autograd.grad(first.square().sum(), x)[0]


def test_attention_can_be_differentiated_twice_while_it_holds():
    module, x = Fused(), torch.randn(2, 2, 8, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="derivative"):
        curvature(module, x)
    held = MathAttention([module])
    assert curvature(module, x).isfinite().all()
    module.eval()
    with pytest.raises(RuntimeError, match="derivative"):
        curvature(module, x)
    module.train()
    held.close()
    with pytest.raises(RuntimeError, match="derivative"):
        curvature(module, x)


def test_an_error_inside_ends_it_too():
    outer = nn.Sequential(Fused(fails=True))
    MathAttention([outer])
    x = torch.randn(2, 2, 8, 4, requires_grad=True)
    with pytest.raises(KeyError):
        outer(x)
    with pytest.raises(RuntimeError, match="derivative"):
        curvature(Fused(), x)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class Squared(nn.Module):
    def forward(self, x):
        return Once.apply(x)


def test_the_innermost_module_is_named():
    bad = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Tanh(), Squared()))
    good = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.GELU())
    for p in (*bad.parameters(), *good.parameters()):
        p.grad = torch.ones_like(p)
    x = torch.randn(4, 3)

    def evaluate():
        return bad(x), good(x)

    assert find_once_differentiable([("good", good)], evaluate) is None
    modules = [("good", good), ("bad", bad)]
    assert find_once_differentiable(modules, evaluate) == "bad.1.1 (Squared)"
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in bad.parameters())
    assert not any(m._forward_hooks for m in bad.modules())
