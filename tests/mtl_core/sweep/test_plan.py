"""The file of a sweep: what it may say, and what it may not."""

import pytest
import yaml

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.sweep import Objective, Plan

LEAST = {"space": {"x": [1, 2]}, "objectives": {"val/a/acc": {"direction": "maximize"}}}


def test_least_file_has_defaults():
    plan = Plan.parse(LEAST)
    assert plan.objectives == {"val/a/acc": Objective(("val/a/acc",), "maximize")}
    assert (plan.sampler, plan.pruner) == ({"name": "tpe"}, {"name": "none"})
    assert plan.seeds == (0,)


def test_plain_form_gives_the_same_plan_and_does_not_depend_on_spelling():
    long = {
        **LEAST,
        "objectives": {"val/a/acc": {"value": ["val/a/acc"], "direction": "maximize"}},
        "sampler": {"name": "tpe"},
        "pruner": None,
        "seeds": [0],
    }
    assert Plan.parse(long).plain == Plan.parse(LEAST).plain
    assert Plan.parse(Plan.parse(long).plain).plain == Plan.parse(long).plain


def test_objectives_of_several_keys_are_means():
    both = Objective(("val/a/acc", "val/b/acc"), "maximize")
    assert both.at({"val/a/acc": 0.5, "val/b/acc": 0.7}) == pytest.approx(0.6)
    assert both.at({"val/a/acc": 0.5, "val/b/acc": None}) is None
    assert both.at({"val/a/acc": 0.5}) is None
    assert both.validated
    assert not Objective(("val/delta_m",), "maximize").validated


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"sapce": {}}, UnknownNameError, "Did you mean space"),
        ({"objectives": {}}, ArgumentError, "at least one objective"),
        (
            {"objectives": {"a": {"value": "train/loss", "direction": "minimize"}}},
            ArgumentError,
            "val/TASK",
        ),
        ({"objectives": {"seconds": {"direction": "min"}}}, UnknownNameError, "minimize"),
        ({"objectives": {"seconds": {}}}, ArgumentError, "direction"),
        (
            {"objectives": {"seconds": {"direction": "minimize", "epoch": "best"}}},
            ArgumentError,
            "be last",
        ),
        ({"sampler": "tpee"}, UnknownNameError, "tpe"),
        ({"pruner": {"name": "medain"}}, UnknownNameError, "median"),
        ({"seeds": []}, ArgumentError, "different integers"),
        ({"seeds": [1, 1]}, ArgumentError, "different integers"),
        ({"seeds": "0"}, ArgumentError, "list of int"),
        ({"start": [{"y": 1}]}, UnknownNameError, "y"),
        ({"sampler": "grid", "space": {"x": {"low": 0.0, "high": 1.0}}}, ArgumentError, "points"),
        (
            {
                "pruner": "median",
                "objectives": {
                    "val/a/acc": {"direction": "maximize"},
                    "seconds": {"direction": "minimize"},
                },
            },
            ArgumentError,
            "one objective",
        ),
        (
            {"pruner": "median", "objectives": {"seconds": {"direction": "minimize"}}},
            ArgumentError,
            "one objective",
        ),
    ],
)
def test_mistakes_are_named(change, kind, message):
    with pytest.raises(kind, match=message):
        Plan.parse({**LEAST, **change})


def test_file_has_to_exist(tmp_path):
    with pytest.raises(ArgumentError, match="name a file"):
        Plan.load(tmp_path / "none.yaml")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(LEAST))
    assert Plan.load(tmp_path / "plan.yaml").plain == Plan.parse(LEAST).plain
