import torch

from mtl_core.balancing.scalars import LearnedScalars


def test_equals_torchs_adam_where_all_are_present():
    torch.manual_seed(0)
    scalars = LearnedScalars(3, lr=0.1, init=0.5, decay=0.01)
    reference = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([reference], lr=0.1, weight_decay=0.01)
    for _ in range(5):
        gradient = torch.randn(3, dtype=torch.float64)
        reference.grad = gradient.clone()
        adam.step()
        scalars.step(gradient, torch.arange(3))
    torch.testing.assert_close(scalars.values, reference.detach())


def test_absent_entries_keep_value_moments_and_count():
    scalars, alone = LearnedScalars(2, lr=0.1), LearnedScalars(1, lr=0.1)
    one = torch.tensor([1.0], dtype=torch.float64)
    for turn in range(4):
        scalars.step(one, torch.tensor([turn % 2]))
    for _ in range(2):
        alone.step(one, torch.tensor([0]))
    assert scalars.values[0] == scalars.values[1] == alone.values[0]


def test_state_goes_on():
    scalars, other = LearnedScalars(2, lr=0.1), LearnedScalars(2, lr=0.1)
    at, gradient = torch.arange(2), torch.tensor([1.0, -2.0], dtype=torch.float64)
    scalars.step(gradient, at)
    other.load(scalars.state())
    scalars.step(gradient * 2, at)
    assert not torch.equal(other.values, scalars.values)
    other.step(gradient * 2, at)
    assert torch.equal(other.values, scalars.values)
