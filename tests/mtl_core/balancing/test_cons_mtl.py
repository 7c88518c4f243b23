import pytest
import torch
from gramian_laws import near
from toys import fit, toy_loader, toy_module

from mtl_core.balancing import ConsMTL, FairGrad, Stages
from mtl_core.balancing.cons_mtl import limited
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.nn import Features

FIRST = {"limit_train_batches": 1, "max_epochs": 1}


def test_on_a_gramian_it_is_fairgrad():
    rows = torch.randn(3, 8, dtype=torch.float64)
    near(ConsMTL().solve(rows @ rows.T), FairGrad(alpha=2.0).solve(rows @ rows.T))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_without_the_coefficient_a_run_is_fairgrads(accumulate):
    options = {"max_epochs": 1, "accumulate_grad_batches": accumulate}
    found = fit(ConsMTL(coefficient=0.0), **options)
    torch.testing.assert_close(found, fit(FairGrad(), **options))


def test_decoders_follow_the_published_objective():
    """By autograd through one batch of the toy, unlimited."""
    method, module = ConsMTL(coefficient=0.7, limit=1e9), toy_module(lr=1.0)
    start = {n: p.detach().clone() for n, p in module.network.named_parameters()}
    fit(method, module=module, **FIRST)
    plain = toy_module(lr=1.0)
    fit(FairGrad(), module=plain, **FIRST)
    other = dict(plain.network.named_parameters())

    again = toy_module()
    batch = next(iter(toy_loader()))
    with torch.no_grad():
        hidden = again.network.trunk(batch["inputs"])
    out = again.network.run(batch["inputs"])
    sides = {t: hidden.clone().requires_grad_() for t in again.entries}
    for task, side in sides.items():
        out.predictions[task] = again.network.decode(Features([side]), task)
    losses = again.compute_losses(batch, out, 0).losses
    slopes = {
        t: torch.autograd.grad(losses[t], sides[t], create_graph=True)[0] for t in again.entries
    }
    common = sum(method.weights[t] * d.detach() for t, d in slopes.items())
    for task, slope in slopes.items():
        decoder = again.network.decoders[task]
        (-0.7 * (slope * common).sum()).backward()
        for name, parameter in decoder.named_parameters(prefix=f"decoders.{task}"):
            moved = dict(module.network.named_parameters())[name].detach()
            wanted = torch.zeros_like(moved) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(other[name].detach() - moved, wanted, rtol=1e-3, atol=1e-5)
            assert not torch.equal(moved, start[name])
    torch.testing.assert_close(
        module.network.trunk[0].weight, plain.network.trunk[0].weight, rtol=1e-5, atol=1e-6
    )


def test_the_further_gradient_is_limited():
    own, extra = [torch.ones(4), torch.ones(5)], [torch.full((4,), 3.0), torch.zeros(5)]
    assert limited(own, extra, 0.1) == pytest.approx(0.05)
    assert limited(own, extra, 10.0) == 1
    assert limited(own, [torch.zeros(4)], 0.1) == 1


def test_trains_finitely():
    assert bool(torch.isfinite(fit(ConsMTL())).all())


@pytest.mark.parametrize("options", [{"coefficient": -1.0}, {"limit": 0.0}, {"alpha": 0.0}])
def test_arguments_are_checked(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        ConsMTL(**options)


def test_set_ups_that_do_not_fit():
    with pytest.raises(ArgumentError, match="gram: exact"):
        ConsMTL(stages=Stages(gram="last_layer"))
    with pytest.raises(BalancerError, match="border"):
        fit(ConsMTL(), module=toy_module(border=False))
    with pytest.raises(BalancerError, match="compiled"):
        fit(ConsMTL(), module=toy_module(compile="eager"))
