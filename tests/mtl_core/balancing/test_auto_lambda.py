import pytest
import torch
from bilevel_laws import BilevelLaws
from toys import fit, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import AutoLambda, Equal
from mtl_core.data.batch import take_samples
from mtl_core.errors import BalancerError, UnknownNameError
from mtl_core.nn import Outputs


class TestAutoLambda(BilevelLaws):
    make = staticmethod(lambda **options: AutoLambda(**{"lr": 0.05, **options}))


@pytest.mark.parametrize("primary", [(), ("size", "marks")])
def test_difference_is_the_hypergradient(monkeypatch, primary):
    """Against autograd through the virtual step."""
    found = []
    original = AutoLambda.look
    monkeypatch.setattr(
        AutoLambda, "look", lambda self, ahead: found.append(original(self, ahead)) or found[-1]
    )
    fit(AutoLambda(inner_lr=0.1, primary=primary), limit_train_batches=1, max_epochs=1)

    module, batch = toy_module(), next(iter(toy_loader()))
    names = [name for name, _ in module.network.named_parameters()]
    parameters = dict(module.network.named_parameters())

    def losses(values, part):
        taken = take_samples(batch, part)
        out = torch.func.functional_call(module.network, values, (taken["inputs"],))
        return module.compute_losses(taken, Outputs(out), 0).losses

    logits = torch.zeros(3, requires_grad=True)
    inner = losses(parameters, slice(0, None, 2))
    total = (torch.softmax(logits, 0) * 3 * torch.stack(list(inner.values()))).sum()
    steps = torch.autograd.grad(total, list(parameters.values()), create_graph=True)
    moved = {n: parameters[n] - 0.1 * s for n, s in zip(names, steps, strict=True)}
    outer = losses(moved, slice(1, None, 2))
    sum(loss for task, loss in outer.items() if not primary or task in primary).backward()
    assert found[0][0] == list(inner)
    torch.testing.assert_close(found[0][1].float(), logits.grad, rtol=0.02, atol=1e-4)


def test_first_step_is_that_of_equal_weights():
    first = {"limit_train_batches": 1, "max_epochs": 1}
    torch.testing.assert_close(fit(AutoLambda(), **first), fit(Equal(), **first))


def test_unknown_primary_task():
    with pytest.raises(UnknownNameError, match="primary"):
        fit(AutoLambda(primary=["sise"]))


def test_a_virtual_step_that_diverges_is_explained():
    trainer = toy_trainer(AutoLambda(inner_lr=1e30), max_epochs=1)
    with pytest.raises(BalancerError, match="smaller inner_lr"):
        trainer.fit(toy_module(), toy_loader(), toy_loader())
