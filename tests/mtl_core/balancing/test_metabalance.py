import pytest
import torch
from gramian_laws import PAPER, GramianLaws, random_rows
from toys import fit, toy_module

from mtl_core.balancing import MetaBalance, Stages
from mtl_core.errors import ArgumentError, UnknownNameError


class TestMetaBalance(GramianLaws):
    make = MetaBalance
    per_task = True
    permutes = False
    additive = True


def test_full_relaxation_gives_all_tasks_the_target_length():
    rows = random_rows(4, 0)
    weights = MetaBalance(target="2", relax=1.0, stages=PAPER).solve(rows @ rows.T)
    torch.testing.assert_close(weights * rows.norm(dim=1), rows[2].norm().expand(4))


def test_no_relaxation_is_the_plain_sum():
    rows = random_rows(4, 0)
    assert MetaBalance(relax=0.0).solve(rows @ rows.T).tolist() == [1.0] * 4


def test_follows_the_published_recursion():
    balancer, averages = MetaBalance(stages=PAPER), torch.zeros(3, dtype=torch.float64)
    for seed in range(5):
        rows = random_rows(3, seed)
        averages = 0.9 * averages + 0.1 * rows.norm(dim=1)
        torch.testing.assert_close(
            balancer.solve(rows @ rows.T), 0.7 * averages[0] / averages + 0.3
        )


def test_ratio_is_right_for_a_task_that_comes_late():
    balancer = MetaBalance(relax=1.0, stages=PAPER)
    rows = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    for _ in range(3):
        balancer.solve((rows * torch.tensor([[1.0], [0]])) @ rows.T)
    torch.testing.assert_close(balancer.solve(rows @ rows.T)[1], torch.tensor(0.25).double())


def test_tensors_have_weights_of_their_own():
    balancer = MetaBalance()
    module = toy_module()
    fit(balancer, module=module, max_steps=2)
    names = [n for n, p in module.network.named_parameters() if n.startswith("trunk")]
    assert sorted(balancer.state_dict()["family"]["groups"]) == sorted(names)
    assert balancer.stages == Stages(group="matrix")


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"relax must lie in \[0, 1\], found 2"):
        MetaBalance(relax=2)
    with pytest.raises(UnknownNameError, match="Did you mean size"):
        fit(MetaBalance(target="sise"), max_steps=1)
