import pytest
import torch

from mtl_core.balancing import Equal
from mtl_core.balancing.by_name import ByName, check_choice
from mtl_core.errors import UnknownNameError


def test_a_task_stands_for_its_groups_and_an_entry_comes_first():
    values = ByName("weights", {"lift": 2.0, "lift/wing": 3.0}, 1.0)
    balancer = Equal()
    balancer.start(("lift/wing", "lift/tail", "drag"))
    values.check(balancer.entries)
    assert values.tensor(balancer.step(balancer.entries)).tolist() == [3.0, 2.0, 1.0]
    assert values.tensor(balancer.step(balancer.entries)).dtype == torch.float64


def test_unknown_names():
    with pytest.raises(UnknownNameError, match=r"'lfit'.*Did you mean lift\?"):
        ByName("weights", {"lfit": 2.0}, 1.0).check(("lift", "drag"))
    with pytest.raises(UnknownNameError, match="scale must be a known name, found 'summ'"):
        check_choice("scale", "summ", ("sum", "paper"))
