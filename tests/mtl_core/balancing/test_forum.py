import pytest
import torch
from bilevel_laws import BilevelLaws, random_gramian
from toys import fit, parameters_of, toy_loader, toy_module

from mtl_core.balancing import FORUM
from mtl_core.balancing.forum import forum_weights
from mtl_core.data.batch import take_samples
from mtl_core.errors import ArgumentError


def value(weights, gramian, pulls, square, phi):
    """Objective with the best admissible penalty for given weights."""
    nu = (phi - weights @ pulls / square).clamp_min(0)
    cross = weights @ gramian @ weights + 2 * nu * (weights @ pulls) + nu**2 * square
    return cross - nu * phi * square


class TestFORUM(BilevelLaws):
    make = staticmethod(
        lambda **options: FORUM(**{"lr": 0.05, "inner_lr": 0.05, "steps": 2, **options})
    )


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("tasks", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_weights_are_the_minimum(tasks, size, seed):
    rows = random_gramian(tasks + 1, seed, raw=True)
    outer = rows[:-1] / rows[:-1].norm(dim=1, keepdim=True)
    penalty = rows[-1] / rows[-1].norm() * size
    problem = (outer @ outer.t(), outer @ penalty, penalty @ penalty, 0.1)
    found = forum_weights(problem[0], problem[1], float(problem[2]), 0.1)
    assert float(found.sum()) == pytest.approx(1)
    assert float(found.min()) >= 0
    best = value(found, *problem)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        other = torch.distributions.Dirichlet(torch.ones(tasks).double())
        point = other.sample() if tasks > 1 else torch.ones(1).double()
        mix = float(torch.rand((), generator=generator))
        point = mix * found + (1 - mix) * point
        assert float(value(point, *problem)) >= float(best) - 1e-7 * max(1.0, size**2)


def test_without_a_penalty_it_is_the_shortest_vector():
    outer = torch.eye(2, dtype=torch.float64)
    found = forum_weights(outer, torch.zeros(2).double(), 0.0, 0.1)
    torch.testing.assert_close(found, torch.full((2,), 0.5).double())


def test_one_step_is_the_published_direction():
    """By hand on the toy: halves, virtual steps, penalty and unit outer rows."""
    module = toy_module(lr=0.1)
    start = [p.detach().clone() for p in module.network.parameters()]
    fit(FORUM(steps=1, inner_lr=0.05), module=module, limit_train_batches=1, max_epochs=1)
    moved = parameters_of(module.network) - torch.cat([p.flatten() for p in start])

    module = toy_module(lr=0.1)
    batch = next(iter(toy_loader()))
    parameters = list(module.network.parameters())

    def losses(part):
        taken = take_samples(batch, part)
        return module.compute_losses(taken, module.network.run(taken["inputs"]), 0).losses

    def flat(loss):
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten()
                for p, g in zip(parameters, found, strict=True)
            ]
        ).double()

    inner = losses(slice(0, None, 2))
    weight = 1 / len(inner)
    penalty = flat(sum(inner.values()) * weight)
    before = torch.stack([x.detach() for x in inner.values()]).double()
    outer = torch.stack([flat(x) for x in losses(slice(1, None, 2)).values()])
    outer = outer / outer.norm(dim=1, keepdim=True)
    with torch.no_grad():
        start, at = 0, penalty.float()
        for p in parameters:
            p -= 0.05 * at[start : start + p.numel()].view_as(p)
            start += p.numel()
    after = torch.stack([x.detach() for x in losses(slice(0, None, 2)).values()]).double()
    change = before - after
    by_logits = weight * (change - change.mean())
    square = float(penalty @ penalty + by_logits @ by_logits)
    pulls = outer @ penalty
    weights = forum_weights(outer @ outer.t(), pulls, square, 0.1)
    nu = max(0.1 - float(weights @ pulls) / square, 0)
    wanted = (weights @ outer + nu * penalty).float()
    torch.testing.assert_close(-moved / 0.1, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{"phi": 0.0}, {"steps": 0}])
def test_arguments_are_checked(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        FORUM(**options)
