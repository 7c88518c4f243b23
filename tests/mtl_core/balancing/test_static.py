import pytest
import torch
from toys import fit, toy_module, toy_tasks

from mtl_core.balancing import Static
from mtl_core.errors import ArgumentError, UnknownNameError


def test_weights_by_name_wherever_the_task_stands():
    balancer = Static(weights={"b": 3.0, "c": 0.0}, default=2.0)
    balancer.start(("a", "b", "c"))
    ones = torch.ones(3, dtype=torch.float64)
    assert balancer.weigh(ones, balancer.step(("a", "b", "c"))).tolist() == [2.0, 3.0, 0.0]
    assert balancer.weigh(ones[:2], balancer.step(("b", "a"))).tolist() == [3.0, 2.0]


def test_it_trains_like_the_tasks_own_weights():
    tasks = toy_tasks()
    own = {
        n: type(t)(**{**vars(t), "weight": 0.25 if n == "kind" else 1.0}) for n, t in tasks.items()
    }
    torch.testing.assert_close(
        fit(Static(weights={"kind": 0.25})), fit(module=toy_module(tasks=own))
    )


def test_unknown_names_raise_when_the_run_starts():
    with pytest.raises(UnknownNameError, match="weights must be a known name, found 'sizes'"):
        fit(Static(weights={"sizes": 1.0}))


def test_bad_weights():
    with pytest.raises(ArgumentError, match=r"weights\['a'\] must be finite and not negative"):
        Static(weights={"a": -1.0})
    with pytest.raises(ArgumentError, match="default must be finite"):
        Static(default=float("nan"))
    with pytest.raises(ArgumentError, match="at least one task above zero"):
        Static(default=0.0).start(("a",))
