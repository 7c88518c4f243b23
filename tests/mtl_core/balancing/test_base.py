import pytest
import torch
from torch.utils.data import DataLoader
from toys import ToyNetwork, fit, parameters_of, toy_loader, toy_module, toy_samples, toy_trainer

from mtl_core.balancing import MGDAUB, UW, Equal, GradDrop, PCGrad
from mtl_core.balancing.base import Balanceable
from mtl_core.data.batch import collate
from mtl_core.errors import BalancerError, NonFiniteLossError
from mtl_core.modules import MultiTaskModule

FAMILIES = [Equal, UW, PCGrad, GradDrop, MGDAUB]


def test_module_is_balanceable():
    assert isinstance(toy_module(), Balanceable)


def test_equal_weights_are_the_plain_sum_bit_for_bit():
    assert torch.equal(fit(), fit(Equal()))


@pytest.mark.parametrize("balancer", FAMILIES)
def test_nothing_enters_the_state_dict_and_backward_is_given_back(balancer):
    module, plain = toy_module(), toy_module()
    fit(balancer(), module=module, max_steps=2)
    assert module.state_dict().keys() == plain.state_dict().keys()
    assert "backward" not in vars(module)
    assert not module.wants_cut
    assert module.task_losses is None


@pytest.mark.parametrize("balancer", [Equal, PCGrad, GradDrop])
def test_one_task_is_trained_as_without_a_balancer(balancer):
    tasks = {"marks": toy_module().tasks["marks"]}
    torch.testing.assert_close(
        fit(balancer(), module=toy_module(tasks=tasks)), fit(module=toy_module(tasks=tasks))
    )


def test_interacting_decoders_are_differentiated_directly():
    """Without a border the rows come from the losses; they are the same."""
    with_border = fit(PCGrad(), module=toy_module())
    without = fit(PCGrad(), module=toy_module(border=False))
    torch.testing.assert_close(with_border, without)
    with pytest.raises(BalancerError, match="border between encoder and decoders"):
        fit(MGDAUB(), module=toy_module(border=False))


def test_exactly_one_balancer():
    with pytest.raises(BalancerError, match="exactly one balancer, found Equal, PCGrad"):
        fit(Equal(), PCGrad())


def test_module_with_its_own_backward_is_refused():
    class Own(MultiTaskModule):
        def backward(self, loss, *args, **kwargs):
            loss.backward()

    base = toy_module()
    with pytest.raises(BalancerError, match="Own overrides it"):
        fit(Equal(), module=Own(base.tasks, ToyNetwork))


def test_lbfgs_is_refused():
    module = toy_module()
    module.optimizer = lambda p: torch.optim.LBFGS(list(p))
    with pytest.raises(BalancerError, match="LBFGS"):
        fit(Equal(), module=module)


@pytest.mark.parametrize("balancer", [PCGrad, GradDrop, MGDAUB])
def test_frozen_trunk_has_nothing_to_balance(balancer):
    module = toy_module()
    module.network.trunk.requires_grad_(False)
    with pytest.raises(BalancerError, match="shared parameters"):
        fit(balancer(), module=module)


def test_checkpoint_of_other_tasks_is_refused(tmp_path):
    balancer = UW()
    balancer.load_state_dict({"entries": ["other"], "index": 3, "method": {}})
    with pytest.raises(BalancerError, match="has entries other, this run size, kind, marks"):
        fit(balancer)


@pytest.mark.parametrize("balancer", [PCGrad, GradDrop, MGDAUB])
def test_infinite_gradient_behind_a_finite_loss_stops_the_run_and_names_the_task(balancer):
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("inf")

    class Broken(ToyNetwork):
        def decode(self, features, task):
            out = super().decode(features, task)
            return Root.apply(out) if task == "kind" else out

    module = toy_module()
    module.network = Broken(module.tasks)
    with pytest.raises(NonFiniteLossError, match="gradient of kind"):
        fit(balancer(), module=module)


@pytest.mark.parametrize("balancer", FAMILIES)
def test_weights_of_absent_tasks_are_not_numbers(balancer):
    method = balancer()
    samples = [s for s in toy_samples(24) if "size" not in s["targets"] and "kind" in s["targets"]]
    module = toy_module()
    trainer = toy_trainer(method, max_steps=1, limit_val_batches=0)
    loader = DataLoader(samples, len(samples), collate_fn=collate)
    trainer.fit(module, loader, toy_loader())
    assert method.weights["size"] != method.weights["size"]
    if balancer is not GradDrop:
        assert method.weights["kind"] > 0


@pytest.mark.parametrize("balancer", FAMILIES)
def test_memory_of_the_graph_is_released(balancer):
    module = toy_module()
    fit(balancer(), module=module)
    assert module.task_losses is None
    assert all(p.grad is None or p.grad.grad_fn is None for p in module.parameters())
    assert parameters_of(module).isfinite().all()


@pytest.mark.parametrize("balancer", [PCGrad, MGDAUB])
def test_parameters_are_sorted_once_a_backward_and_anew_in_the_next(balancer, monkeypatch):
    module = toy_module()
    network, calls = module.network, []
    plain = network.split_parameters

    def counted():
        calls.append(0)
        return plain()

    monkeypatch.setattr(network, "split_parameters", counted)
    method = balancer()
    fit(method, module=module, max_steps=1)
    once = len(calls)
    fit(method, module=module, max_steps=3)
    assert len(calls) - once == once + 2, "a backward more, a call more"
    assert method._split is None, "nothing is held behind it"
