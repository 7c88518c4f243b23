import pytest
import torch
from scalarise import slopes
from torchjd import scalarization

from mtl_core.balancing import UW
from mtl_core.errors import ArgumentError, UnknownNameError


def started(**kwargs) -> UW:
    balancer = UW(**kwargs)
    balancer.entries = ("a", "b", "c")
    balancer.reset(3)
    return balancer


def test_fixed_losses_drive_log_variances_to_log_losses():
    balancer, losses = started(lr=0.05), torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    for _ in range(2000):
        balancer.advance(losses, balancer.step(balancer.entries))
    torch.testing.assert_close(balancer.scalars.values, losses.log(), atol=1e-3, rtol=0)
    weights = balancer.weigh(losses, balancer.step(balancer.entries))
    torch.testing.assert_close(
        weights * losses, torch.full((3,), 0.5, dtype=torch.float64), rtol=2e-3, atol=0
    )


def test_steps_agree_with_torch_adam():
    balancer = started(lr=0.1, init=0.3)
    reference = torch.full((3,), 0.3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([reference], lr=0.1)
    for i in range(20):
        losses = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64) * (1 + i)
        balancer.advance(losses, balancer.step(balancer.entries))
        optimizer.zero_grad()
        (0.5 * (-reference).exp() * losses + 0.5 * reference).sum().backward()
        optimizer.step()
    torch.testing.assert_close(balancer.scalars.values, reference.detach())


def test_absent_tasks_keep_their_state():
    balancer = started()
    balancer.advance(torch.tensor([2.0, 3.0], dtype=torch.float64), balancer.step(("a", "c")))
    assert balancer.scalars.values[1] == 0
    assert balancer.scalars.values[0] != 0
    assert balancer.scalars.values[2] != 0


def test_state_round_trip():
    balancer = started()
    balancer.advance(
        torch.tensor([2.0, 3.0, 0.1], dtype=torch.float64), balancer.step(balancer.entries)
    )
    other = started()
    other.load_state_dict(balancer.state_dict())
    for one in (balancer, other):
        one.advance(torch.ones(3, dtype=torch.float64), one.step(one.entries))
    assert torch.equal(balancer.scalars.values, other.scalars.values)


def test_bad_rate():
    with pytest.raises(ArgumentError, match="lr must be positive, found 0"):
        UW(lr=0)


def test_papers_form_ends_at_the_same_weights():
    """Classification: s ends at log 2ℓ, of which the weight is again 1 / 2ℓ."""
    kinds = {"a": "regression", "b": "classification", "c": "classification"}
    balancer = UW(lr=0.05, form="paper", kinds=kinds)
    balancer.start(("a", "b", "c"))
    losses = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    first = balancer.weigh(losses, balancer.step(balancer.entries))
    assert first.tolist() == [0.5, 1.0, 1.0]
    for _ in range(2500):
        balancer.advance(losses, balancer.step(balancer.entries))
    expected = (losses * torch.tensor([1.0, 2.0, 2.0])).log()
    torch.testing.assert_close(balancer.scalars.values, expected, atol=1e-3, rtol=0)
    weights = balancer.weigh(losses, balancer.step(balancer.entries))
    torch.testing.assert_close(weights, 0.5 / losses, rtol=2e-3, atol=0)


def test_agrees_with_torchjd():
    balancer, peer = UW(init=0.4), scalarization.UW(3).double()
    balancer.start(("a", "b", "c"))
    peer.log_var.data.fill_(0.4)
    losses = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(
        balancer.weigh(losses, balancer.step(balancer.entries)), slopes(peer, losses)
    )


def test_bad_kinds():
    with pytest.raises(UnknownNameError, match=r"kinds\['a'\]"):
        UW(form="paper", kinds={"a": "ranking"})
    with pytest.raises(UnknownNameError, match="form"):
        UW(form="full")
    with pytest.raises(ArgumentError, match="kinds must be empty with form: half"):
        UW(kinds={"a": "regression"})
    with pytest.raises(ArgumentError, match=r"every task with form: paper \(b missing\)"):
        UW(form="paper", kinds={"a": "regression"}).start(("a", "b"))
    with pytest.raises(ArgumentError, match="init must be finite"):
        UW(init=float("inf"))
