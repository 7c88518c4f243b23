import pytest
import torch

from mtl_core.balancing.task_adam import TaskAdam
from mtl_core.errors import ArgumentError

BETAS = (0.8, 0.95)


class SumOfSteps(TaskAdam):
    """The simplest rule on the moments."""

    def aggregate(self, jacobian, losses, step):
        first, second, factors = self.advance(jacobian, step)
        return (first * factors[0, :, None] / self.root(second, factors[1])).sum(0)

    def root(self, second, factors):
        return torch.stack([self.denominator(v, f) for v, f in zip(second, factors, strict=True)])


def rows(tasks, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tasks, 5, generator=generator, dtype=torch.float64)


def steps_of_adam(gradients, **options):
    """Every step that torch's Adam takes with learning rate one."""
    point = torch.zeros_like(gradients[0], requires_grad=True)
    adam = torch.optim.Adam([point], lr=1.0, **options)
    found = []
    for gradient in gradients:
        before = point.detach().clone()
        point.grad = gradient.clone()
        adam.step()
        found.append(before - point.detach())
    return found


@pytest.mark.parametrize("eps", [1e-8, 0.5])
def test_one_task_is_adam(eps):
    gradients = [rows(1, seed) for seed in range(7)]
    balancer = SumOfSteps(betas=BETAS, eps=eps)
    expected = steps_of_adam([g[0] for g in gradients], betas=BETAS, eps=eps)
    for gradient, step in zip(gradients, expected, strict=True):
        torch.testing.assert_close(balancer.direction(gradient), step)


def test_a_single_tensor_is_adam_of_its_own():
    balancer = SumOfSteps(betas=BETAS)
    names = {"weight": 0, "bias": 1}
    gradients = [rows(2, seed).float() for seed in range(5)]
    expected = {
        name: steps_of_adam([g[t] for g in gradients], betas=BETAS) for name, t in names.items()
    }
    for k, gradient in enumerate(gradients):
        for name, t in names.items():
            torch.testing.assert_close(balancer.single(name, gradient[t]), expected[name][k])


def present(balancer, *names):
    balancer.entries = ("a", "b", "c")
    return balancer.step(names)


def test_absent_tasks_keep_moments_and_count():
    balancer, alone = SumOfSteps(betas=BETAS), SumOfSteps(betas=BETAS)
    balancer.reset(3)
    for seed in range(6):
        names = ("a", "b", "c") if seed % 3 == 0 else ("a", "c")
        gradients = rows(len(names), seed)
        first, second, factors = balancer.advance(gradients, present(balancer, *names))
        if "b" in names:
            step = balancer.denominator(second[1], factors[1, 1])
            step = first[1] * factors[0, 1] / step
            torch.testing.assert_close(step, alone.direction(gradients[1:2]))
    assert balancer._count.tolist() == [6, 2, 6]


def test_the_first_step_is_the_sign():
    gradient = rows(1, 0)
    torch.testing.assert_close(SumOfSteps(eps=1e-30).direction(gradient), gradient[0].sign())


def test_round_trip_goes_on_identically():
    balancer, other = SumOfSteps(), SumOfSteps()
    for seed in range(3):
        balancer.direction(rows(2, seed))
        balancer.single("bias", rows(1, seed))
    other.direction(rows(2, 9))
    state = balancer.method_state()
    other.load_method_state(state)
    for seed in range(3, 6):
        assert torch.equal(balancer.direction(rows(2, seed)), other.direction(rows(2, seed)))
        assert torch.equal(
            balancer.single("bias", rows(1, seed)), other.single("bias", rows(1, seed))
        )


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"betas": (1.0, 0.9)}, r"betas\[0\]"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\]"),
        ({"eps": 0.0}, "eps"),
        ({"eps": float("nan")}, "eps"),
    ],
)
def test_bad_arguments_are_named(options, name):
    with pytest.raises(ArgumentError, match=name):
        SumOfSteps(**options)
