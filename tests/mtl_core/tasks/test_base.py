import dataclasses
import json

import pytest
import torch
from torch import nn

from mtl_core.errors import ArgumentError, LabelError, MixedProtocolError
from mtl_core.tasks import (
    Classification,
    MultiLabel,
    Regression,
    Task,
    check_tasks,
    reduce_loss,
)


def test_reduction_is_the_mean_over_valid_elements():
    loss, valid = torch.rand(3, 4, 5), torch.rand(3, 4, 5) > 0.5
    total, count = reduce_loss(loss, valid)
    assert total.shape == count.shape == (3,)
    torch.testing.assert_close(total.sum() / count.sum(), loss[valid].mean())


def test_reduction_of_nothing_is_an_exact_zero_with_finite_gradient():
    loss = torch.full((2, 3), float("inf"), requires_grad=True)
    total, count = reduce_loss(loss, torch.zeros(2, 3, dtype=torch.bool))
    assert total.tolist() == count.tolist() == [0.0, 0.0]
    total.sum().backward()
    assert loss.grad.tolist() == [[0.0] * 3] * 2


def test_tasks_are_frozen_and_equal_by_value():
    assert Regression(dim=2) == Regression(dim=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Regression().dim = 3


@pytest.mark.parametrize("name", ["", "a.b", "two words", "2nd", "a/b"])
def test_names_have_to_be_identifiers(name):
    with pytest.raises(ArgumentError, match="tasks must be named by letters"):
        check_tasks({name: Regression()})


@pytest.mark.parametrize("name", ["type", "keys", "items", "forward", "training", "_modules"])
def test_names_must_not_be_attributes_of_a_mapping_of_modules(name):
    with pytest.raises(ArgumentError, match=rf"ModuleDict .*column='{name}'\).*found '{name}'"):
        check_tasks({name: Regression()})


def test_every_other_name_keys_modules():
    names = ["kind", "column", "loss", "step", "trainer", "T", "_hidden", "weight", "bias", "class"]
    check_tasks(dict.fromkeys(names, Regression()))
    modules = nn.ModuleDict({name: nn.Identity() for name in names})
    assert list(modules) == names


def test_no_tasks():
    with pytest.raises(ArgumentError, match="at least one task"):
        check_tasks({})


def test_protocols_are_not_mixed():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Scored(Regression):
        rules: str = "survey"

        @property
        def evaluation(self) -> str:
            return self.rules

    check_tasks({"a": Scored(), "b": Scored(), "c": Regression()})
    with pytest.raises(MixedProtocolError, match="a: survey, b: atrc"):
        check_tasks({"a": Scored(), "b": Scored(rules="atrc")})


def test_directions_come_from_the_metrics():
    assert Regression().higher_is_better() == {"rmse": False, "mae": False, "r2": True}
    assert Classification(num_classes=2).higher_is_better() == {"accuracy": True, "f1": True}


@pytest.mark.parametrize(
    "task", [Regression(), Classification(num_classes=2), MultiLabel(num_labels=2)]
)
def test_primary_is_one_of_the_metrics(task):
    assert task.primary in task.metrics()


def test_weight_is_positive():
    with pytest.raises(ArgumentError, match="weight must be positive, found 0"):
        Regression(weight=0)


def test_nan_targets():
    with pytest.raises(LabelError, match="NaN"):
        MultiLabel(num_labels=2).check(torch.tensor([[float("nan"), 1.0]]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plainest(Regression):
    """A record that says nothing about how to read it."""

    readout = Task.readout


@pytest.mark.parametrize(
    "task",
    [Regression(), Classification(num_classes=2), MultiLabel(num_labels=2), Plainest()],
    ids=lambda task: type(task).__name__,
)
def test_readouts_are_plain_data_with_kind_activation_and_unit(task):
    found = task.readout()
    assert json.loads(json.dumps(found)) == found
    assert {"kind", "activation", "unit"} <= found.keys()


def test_a_task_without_a_readout_of_its_own_is_named():
    assert Plainest().readout() == {"kind": "Plainest", "activation": None, "unit": None}
