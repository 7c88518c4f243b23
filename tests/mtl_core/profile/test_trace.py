import torch
from torch import nn

from mtl_core.profile import Trace


class Pair(nn.Module):
    """Two layers, one of which is used through its weight alone, and one that is never used."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.idle = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        return self.first(x) @ self.second.weight[:4].t()


def test_arithmetic_is_told_apart_by_module_and_parameters_by_use():
    pair = Pair()
    with torch.no_grad(), Trace(pair) as trace:
        pair(torch.rand(5, 8))
    assert trace.macs == {"first": 5 * 8 * 8, "": 5 * 8 * 4}
    assert trace.touched == {"first.weight", "first.bias", "second.weight"}
    assert list(trace.ran) == ["", "first"]


def test_peak_is_what_lives_at_a_time():
    """Of a chain of equal results two live at a time; kept ones add up; views cost nothing."""
    x = torch.rand(1000)
    with torch.no_grad(), Trace(nn.Identity(), [x]) as trace:
        y = x + 1
        for _ in range(5):
            y = y + 1
        assert trace.peak == 2 * 4000
        assert trace.live == 4000
    with torch.no_grad(), Trace(nn.Identity(), [x]) as trace:
        kept = [x + i for i in range(5)]
        views = [k.view(10, 100)[2:] for k in kept]
        x.add_(1)
    assert len(views) == 5
    assert trace.peak == trace.live == 5 * 4000


def test_parameters_buffers_and_inputs_are_not_activations():
    norm = nn.BatchNorm1d(4).eval()
    x = torch.rand(3, 4)
    with torch.no_grad(), Trace(norm, [x]) as trace:
        norm(x)
    assert trace.peak == 3 * 4 * 4
    assert trace.touched == {"weight", "bias"}


def test_nothing_stays_behind():
    pair = Pair()
    with torch.no_grad():
        with Trace(pair):
            pair(torch.rand(1, 8))
        try:
            with Trace(pair) as trace:
                pair(torch.rand(1, 7))
        except RuntimeError:
            pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pair.modules())
    before = dict(trace.macs)
    pair(torch.rand(1, 8))
    assert dict(trace.macs) == before


def test_a_tied_weight_is_one_parameter():
    pair = Pair()
    pair.second.weight = pair.first.weight
    with torch.no_grad(), Trace(pair) as trace:
        pair(torch.rand(1, 8))
    assert trace.touched == {"first.weight", "first.bias"}
