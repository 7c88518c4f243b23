import pytest
import torch
from gramian_laws import PAPER, GramianLaws, near, random_rows

from mtl_core.balancing import GradNorm, Stages
from mtl_core.balancing.gradnorm import grad_norm_gradient
from mtl_core.errors import ArgumentError, BalancerError


def warm(**options):
    return GradNorm(**({"warmup": 1, "stages": PAPER} | options))


class TestGradNorm(GramianLaws):
    """Those of the plain sum, which it starts as."""

    make = GradNorm
    per_task = True
    additive = True

    def test_resumed_run_goes_on_equally(self):
        first, second = warm(warmup=2), warm(warmup=2)
        for seed in range(6):
            rows, losses = random_rows(3, seed), torch.rand(3).double() + 0.5
            if seed == 3:
                second.start(first.entries)
                second.load_state_dict(first.state_dict())
            found = first.solve(rows @ rows.T, losses)
            if seed >= 3:
                assert torch.equal(second.solve(rows @ rows.T, losses), found)


def test_gradient_is_that_of_the_objective():
    generator = torch.Generator().manual_seed(0)
    norms, rates = torch.rand(2, 4, dtype=torch.float64, generator=generator) + 0.1
    weights = torch.rand(4, dtype=torch.float64, generator=generator).add(0.5).requires_grad_()
    weighted = weights * norms / norms.mean()
    target = (weighted.mean() * (rates / rates.mean()) ** 1.5).detach()
    (weighted - target).abs().sum().backward()
    found = grad_norm_gradient(weights.detach(), norms, rates, 1.5)
    torch.testing.assert_close(found, weights.grad)


def test_weights_stay_one_until_the_initial_losses_are_known():
    balancer = warm(warmup=3)
    rows = random_rows(3, 0)
    for _ in range(4):  # the fourth learns, after it answered
        near(balancer.solve(rows @ rows.T, torch.ones(3)), [1, 1, 1])
    assert float((balancer.solve(rows @ rows.T, torch.ones(3)) - 1).abs().max()) > 0.01


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_equal_rates_end_at_equal_lengths(scale):
    balancer = warm(lr=0.01)
    rows = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)) * scale
    for _ in range(600):
        weights = balancer.solve(rows @ rows.T, torch.tensor([3.0, 1.0, 0.1]))
    assert float(weights.sum()) == pytest.approx(3)
    near(weights * rows.diagonal() / scale, torch.full((3,), 12 / 7).double(), atol=0.05)


def test_slow_tasks_get_more_weight():
    balancer = warm(lr=0.01)
    rows = torch.eye(2, dtype=torch.float64)
    balancer.solve(rows, torch.ones(2))
    for _ in range(300):
        weights = balancer.solve(rows, torch.tensor([0.8, 0.4]))
    ratio = (4 / 3) ** 1.5 / (2 / 3) ** 1.5
    assert float(weights[0] / weights[1]) == pytest.approx(ratio, rel=0.1)


def test_absent_tasks_keep_their_weight():
    balancer = warm()
    rows = random_rows(3, 0)
    for seed in range(5):
        rows = random_rows(3, seed)
        balancer.solve(rows @ rows.T, torch.ones(3))
    former = balancer.scalars.values.clone()
    rows[1] = 0
    balancer.solve(rows @ rows.T, torch.ones(3))
    assert balancer.scalars.values[1] == former[1]
    assert float(balancer.scalars.values.sum()) == pytest.approx(3)
    assert not torch.equal(balancer.scalars.values, former)


def test_defaults_and_errors():
    assert GradNorm().stages == Stages(gram="last_layer", weight_decoders=True)
    with pytest.raises(BalancerError, match="training rates need positive losses, but that of 1"):
        GradNorm().solve(torch.eye(2), torch.tensor([1.0, -1.0]))
    for name, value in {"alpha": -1, "lr": 0, "warmup": 0}.items():
        with pytest.raises(ArgumentError, match=name):
            GradNorm(**{name: value})
