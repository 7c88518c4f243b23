import pytest
import torch
from gramian_laws import random_rows
from jacobian_laws import JacobianLaws, feed
from toys import fit, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import AdaTask, Equal
from mtl_core.balancing.rows import RowBuffer
from mtl_core.errors import ArgumentError, BalancerError


class TestAdaTask(JacobianLaws):
    make = lambda: AdaTask(eps=1e-30)  # noqa: E731  # what is beside roots has a scale
    degree = 0
    rtol = 1e-4
    opposite = 1e-6

    def test_each_task_takes_the_step_of_torchs_adam(self):
        jacobians = [random_rows(3, seed) for seed in range(6)]
        balancer = AdaTask(betas=(0.8, 0.95))
        for k in range(6):
            found = balancer.direction(jacobians[k])
        total = torch.zeros(12).double()
        for t in range(3):
            point = torch.zeros(12, dtype=torch.float64, requires_grad=True)
            adam = torch.optim.Adam([point], lr=1.0, betas=(0.8, 0.95))
            for jacobian in jacobians:
                before = point.detach().clone()
                point.grad = jacobian[t].clone()
                adam.step()
            total += before - point.detach()
        torch.testing.assert_close(found, total)


def plain_sgd(module, lr, **options):
    module.optimizer = lambda p: torch.optim.SGD(p, lr=lr, **options)
    return module


def test_scale_of_the_losses_does_not_matter():
    factors = torch.tensor([[1.0], [100.0], [0.01]]).double()
    first, second = AdaTask(), AdaTask()
    for seed in range(4):
        rows = random_rows(3, seed)
        found = first.direction(rows)
        torch.testing.assert_close(second.direction(rows * factors), found, rtol=1e-4, atol=1e-5)


def one_task_module(**options):
    module = toy_module()
    tasks = {"size": module.network.tasks["size"]}
    return toy_module(tasks=tasks, **options)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_run_of_one_task_is_a_run_of_adam(decay):
    found = fit(AdaTask(), module=plain_sgd(one_task_module(), 0.01, weight_decay=decay))
    module = one_task_module()
    module.optimizer = lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=decay)
    torch.testing.assert_close(found, fit(Equal(), module=module), rtol=1e-4, atol=1e-5)


def test_decoders_take_adams_steps():
    module = plain_sgd(toy_module(), 0.01)
    start = {n: p.detach().clone() for n, p in module.named_parameters()}
    fit(AdaTask(), module=module, max_steps=1)
    for name, parameter in module.named_parameters():
        moved = (parameter.detach() - start[name]).abs()
        if "decoders" in name:  # a first step is the learning rate, whatever the gradient
            torch.testing.assert_close(moved, torch.full_like(moved, 0.01), rtol=1e-3, atol=0)


def test_resumes_exactly(tmp_path):
    whole = fit(AdaTask(), module=plain_sgd(toy_module(), 0.01), max_epochs=3)
    module = plain_sgd(toy_module(), 0.01)
    trainer = toy_trainer(AdaTask(), max_epochs=2)
    trainer.fit(module, toy_loader(), toy_loader(count=16, seed=1))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = fit(
        AdaTask(),
        module=plain_sgd(toy_module(), 0.01),
        max_epochs=3,
        ckpt_path=tmp_path / "half.ckpt",
    )
    assert torch.equal(whole, resumed)


def test_an_auxiliary_loss_gets_its_own_steps():
    balancer = AdaTask()
    balancer.start(["a"])
    parameter = torch.nn.Parameter(torch.zeros(3))
    balancer._buffer = RowBuffer([parameter], 1)
    for _ in range(3):
        balancer._buffer.add_aux([torch.tensor([1e-3, -5.0, 0.0])])
        feed(balancer, torch.ones(1, 3), [0])
        torch.testing.assert_close(
            balancer._buffer.aux, torch.tensor([1.0, -1, 0]), rtol=1e-4, atol=0
        )
        balancer._buffer.reset()


def test_absent_tasks_add_no_step():
    balancer = AdaTask()
    balancer.start(["a", "b"])
    rows = random_rows(2, 0)
    feed(balancer, rows, [0, 1])
    found = feed(balancer, rows[:1], [0])
    alone = AdaTask()
    alone.direction(rows[:1])
    torch.testing.assert_close(found, alone.direction(rows[:1]))


@pytest.mark.parametrize(
    "optimizer", [lambda p: torch.optim.Adam(p), lambda p: torch.optim.SGD(p, lr=1, momentum=0.9)]
)
def test_other_optimisers_are_refused(optimizer):
    module = toy_module()
    module.optimizer = optimizer
    with pytest.raises(BalancerError, match=r"finished steps; (Adam|SGD with mom)"):
        fit(AdaTask(), module=module)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"betas\[1\] must lie in \[0, 1\), found 1"):
        AdaTask(betas=(0.9, 1))
    with pytest.raises(ArgumentError, match="eps must be positive"):
        AdaTask(eps=0)
