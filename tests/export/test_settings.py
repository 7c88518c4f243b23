"""Options of a build, and the rules that they keep."""

import pytest

from export.settings import BuildSettings
from mtl_core.errors import ArgumentError, UnknownNameError


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"layout": "pertask"}, UnknownNameError, "Did you mean per-task"),
        ({"profile": "gpu"}, UnknownNameError, "profile"),
        ({"moe": "none"}, UnknownNameError, "moe"),
        ({"precision": "int8"}, UnknownNameError, "int8-"),
        ({"static_batch": 0}, ArgumentError, "static_batch must be at least 1"),
        ({"metric_samples": 0}, ArgumentError, "metric_samples"),
        ({"size": (0, 4)}, ArgumentError, "positive height and width"),
        ({"max_drop": -0.1}, ArgumentError, "max_drop"),
    ],
)
def test_rules(given, error, message):
    with pytest.raises(error, match=message):
        BuildSettings(**given)


def test_the_fixed_point_path_has_a_batch_of_one():
    assert BuildSettings().batch is None
    assert BuildSettings(profile="fpga").batch == 1
    assert BuildSettings(profile="fpga", static_batch=4).batch == 4


def test_what_experts_are_told():
    found = BuildSettings(profile="portable", moe="capacity", capacity_factor=1.5).experts
    assert (found.form, found.profile, found.capacity_factor) == ("capacity", "portable", 1.5)
