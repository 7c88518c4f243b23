import math

import pytest
import torch

from mtl_core.balancing import Equal
from mtl_core.balancing.preference import Preference
from mtl_core.errors import ArgumentError, UnknownNameError


def step(*entries):
    balancer = Equal()
    balancer.entries = ("size", "kind", "marks")
    balancer.prepare(3)
    return balancer.step(entries)


def test_names_that_are_not_given_have_one():
    found = Preference({"kind": 4}).raw(step("size", "kind", "marks"))
    assert found.dtype == torch.float64
    assert found.tolist() == [1.0, 4.0, 1.0]


@pytest.mark.parametrize("given", [None, {}, {"size": 3.0, "kind": 3.0, "marks": 3.0}])
def test_equal_preferences_are_one(given):
    assert Preference(given).of(step("size", "kind", "marks")).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("entries", [("size",), ("size", "marks"), ("size", "kind", "marks")])
def test_mean_over_those_present_is_one_and_ratios_are_kept(entries):
    preference = Preference({"size": 0.1, "marks": 7.0})
    found, raw = preference.of(step(*entries)), preference.raw(step(*entries))
    assert math.isclose(float(found.mean()), 1.0)
    torch.testing.assert_close(found / found[0], raw / raw[0])


def test_the_users_mapping_may_change_afterwards():
    given = {"size": 2.0}
    preference = Preference(given)
    given["size"] = 9.0
    assert preference.raw(step("size")).tolist() == [2.0]


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_weights_are_positive_and_finite(value):
    with pytest.raises(ArgumentError, match=r"share\['size'\].*positive and finite"):
        Preference({"size": value}, argument="share")


def test_unknown_names_are_refused_with_the_nearest():
    preference = Preference({"mark": 2.0}, argument="share")
    with pytest.raises(UnknownNameError, match=r"share.*mark.*marks"):
        preference.check(name for name in ("size", "marks"))
    Preference({"size": 2.0}).check(("size", "marks"))
