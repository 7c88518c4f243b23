import pytest
import torch
from toys import fit, toy_module

from mtl_core.balancing import Equal
from mtl_core.errors import UnknownNameError


def test_training_is_that_without_a_balancer_bit_for_bit():
    assert torch.equal(fit(Equal()), fit())
    assert torch.equal(
        fit(Equal(), module=toy_module(border=False), accumulate_grad_batches=2),
        fit(module=toy_module(border=False), accumulate_grad_batches=2),
    )


def test_weights_are_one_whatever_the_losses():
    balancer = Equal()
    balancer.entries = ("a", "b")
    losses = torch.tensor([1e-9, 1e9], dtype=torch.float64)
    assert balancer.weigh(losses, balancer.step(("a", "b"))).tolist() == [1.0, 1.0]


def test_mean():
    balancer = Equal(reduction="mean")
    balancer.start(("a", "b"))
    assert balancer.weigh(torch.ones(2), balancer.step(("a", "b"))).tolist() == [0.5, 0.5]
    with pytest.raises(UnknownNameError, match="reduction"):
        Equal(reduction="max")
