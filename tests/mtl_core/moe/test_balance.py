import pytest
import torch

from mtl_core.errors import ArgumentError, MTLError
from mtl_core.moe import (
    Collector,
    PerTaskRouter,
    balance_loss,
    choose,
    cv_squared,
    entropy,
    importance,
    load,
    z_loss,
)


def test_equal_shares_cost_nothing_and_one_expert_costs_all():
    even = choose(10 * torch.eye(8), 1, "none")
    torch.testing.assert_close(balance_loss(even), torch.tensor(0.0))
    one = choose(torch.tensor([[100.0, 0, 0, 0]]).expand(16, 4), 1, "none")
    torch.testing.assert_close(cv_squared(importance(one)), torch.tensor(4.0))
    torch.testing.assert_close(balance_loss(one), torch.tensor(8.0))
    assert float(cv_squared(torch.tensor([3.0]))) == 0.0


def test_importance_is_of_chosen_experts_only():
    out = choose(torch.tensor([[2.0, 1.0, 0.0]]), 2, "topk")
    torch.testing.assert_close(
        importance(out), torch.tensor([0.6652, 0.2447, 0.0]), atol=1e-4, rtol=0
    )


def test_load_without_noise_counts():
    out = choose(torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]), 2, "none")
    assert load(out).tolist() == [1.0, 2.0, 1.0]


def test_load_under_noise_is_the_probability_of_being_chosen():
    """In logit space: against the frequency of fresh noise on that one logit."""
    torch.manual_seed(0)
    router = PerTaskRouter(("a",), 4, 6, 2, noise="vmoe", noise_std=6.0)
    out = router(torch.randn(1, 3, 4), "a")
    found = load(out)
    wanted = torch.zeros(6)
    for t in range(3):
        for e in range(6):
            fresh = out.noisy[0, t].expand(40_000, 6).clone()
            fresh[:, e] = out.logits[0, t, e] + torch.randn(40_000) * out.scale[0, t, e]
            wanted[e] += (fresh.topk(2, -1).indices == e).any(-1).float().mean()
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0)
    (slope,) = torch.autograd.grad(cv_squared(found), router.gates["a"].weight)
    assert slope.any()


def test_terms():
    out = choose(torch.zeros(5, 4), 2, "none")
    torch.testing.assert_close(entropy(out), torch.tensor(4.0).log())
    torch.testing.assert_close(z_loss(out), torch.tensor(4.0).log().square())


def test_reading_twice_is_refused():
    collector = Collector()
    with pytest.raises(ArgumentError, match="one layer at least"):
        collector.loss()
    outs = [choose(torch.randn(5, 4), 2, "none") for _ in range(2)]
    for out in outs:
        collector.add(out)
    found = collector.loss(balance=2.0, z=0.5)
    torch.testing.assert_close(found, sum(2 * balance_loss(o) + 0.5 * z_loss(o) for o in outs))
    with pytest.raises(MTLError, match="reset it once a step"):
        collector.loss()
    with pytest.raises(MTLError, match="reset it"):
        collector.add(outs[0])
    collector.reset()
    collector.add(outs[0])
    torch.testing.assert_close(collector.loss(), balance_loss(outs[0]))
    assert len(list(collector)) == 1


@pytest.mark.parametrize("noise", ["none", "shazeer"])
def test_only_the_window_is_balanced(noise):
    """As if the experts outside of it were not there; gradients are numbers."""
    tokens = torch.randn(30, 1, 6, generator=torch.Generator().manual_seed(1))
    found = []
    for windows in ({"a": [1, 4]}, None):
        torch.manual_seed(0)
        router = PerTaskRouter(("a",), 6, 5, 2, noise=noise, task_windows=windows)
        if windows is None:
            router.keep([1, 4])
        if noise == "none":
            found.append(balance_loss(router(tokens, "a")))
        else:
            loss = balance_loss(router(tokens, "a")) + z_loss(router(tokens, "a"))
            loss.backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in router.parameters())
    if found:
        torch.testing.assert_close(*found)


def test_a_window_of_one_is_balanced():
    router = PerTaskRouter(("a",), 6, 5, 1, task_windows={"a": [3]})
    assert balance_loss(router(torch.randn(9, 6), "a")) == 0
