from dataclasses import replace

import torch
from bilevel_laws import BilevelLaws
from toys import toy_loader, toy_module

from mtl_core.balancing import MOML
from mtl_core.balancing.bilevel import softmax_gradient
from mtl_core.balancing.lookahead import LookAhead
from mtl_core.balancing.moml import common_descent, products
from mtl_core.data.batch import take_samples


class TestMOML(BilevelLaws):
    make = staticmethod(lambda **options: MOML(**{"lr": 0.05, "inner_lr": 0.05, **options}))


def test_softmax_gradient_is_autograds():
    logits = torch.randn(4, dtype=torch.float64, requires_grad=True)
    for row in torch.randn(3, 4, dtype=torch.float64):
        wanted = torch.autograd.grad(torch.softmax(logits, 0) @ row, logits)[0]
        torch.testing.assert_close(softmax_gradient(logits.detach(), row), wanted)


def test_common_descent():
    rows = torch.tensor([[3.0, 0.0], [0.0, 1e-6], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(common_descent(rows), torch.full((2,), 0.5).double())
    torch.testing.assert_close(common_descent(rows * 1e-8), common_descent(rows))
    assert not common_descent(torch.zeros(2, 2).double()).any()
    assert float(common_descent(torch.tensor([[1.0], [-2.0]]).double())) == 0


def test_products_are_exact():
    first, second = torch.randn(2, 3, 600_000)
    torch.testing.assert_close(products(first, second), first.double() @ second.double().t())


def test_rows_add_up_to_the_gradient():
    module, batch = toy_module(), next(iter(toy_loader()))

    def recompute(*, tasks=None, part=None):
        taken = take_samples(batch, part)
        return module.compute_losses(taken, module.network.run(taken["inputs"]), 0)

    step = replace(recompute(part=slice(None)), recompute=recompute)
    ahead = LookAhead(
        step, list(module.network.parameters()), module.entries, scale=4.0, name="MOML"
    )
    rows = ahead.rows(ahead.evaluate(0))
    half = ahead.evaluate(0)
    weights = dict.fromkeys(half.means, 2.0)
    torch.testing.assert_close(ahead.gradient(half, weights), 2 * rows.sum(0))
