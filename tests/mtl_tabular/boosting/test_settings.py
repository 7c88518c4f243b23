import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting import ABLATIONS, RMTGBRegressor
from mtl_tabular.boosting.settings import Settings, candidates, new_model


def settings(**given) -> Settings:
    return Settings.of(RMTGBRegressor(**given))


@pytest.mark.parametrize(
    ("argument", "value", "rule"),
    [
        ("shared_rounds", -1, "at least 0"),
        ("n_groups", 1, "at least 2"),
        ("learning_rate", 0.0, r"lie in \(0, 1\]"),
        ("subsample", 1.5, r"lie in \(0, 1\]"),
        ("theta_rate", 2.0, r"lie in \(0, 1\]"),
        ("task_depth", 0, "at least 1"),
        ("n_jobs", 0, "at least 1"),
        ("task_reg_lambda", -1.0, "at least 0"),
        ("theta_penalty", 0.0, "positive"),
        ("validation_fraction", 0.6, r"lie in \(0, 0\.5\]"),
        ("schedule", "random", "one of sequential, interleaved, auto"),
        ("task_feature", "ordinal", "one of none, categorical, one-hot"),
    ],
)
def test_every_argument_has_its_rule(argument, value, rule):
    with pytest.raises(ArgumentError, match=f"{argument} must .*{rule}"):
        settings(**{argument: value})


def test_a_model_needs_a_block():
    with pytest.raises(ArgumentError, match="or those of another block"):
        settings(shared_rounds=0, group_rounds=0, task_rounds=0)
    with pytest.raises(ArgumentError, match="reference_mode"):
        settings(reference_mode=True, schedule="interleaved")


def test_trees_of_every_block():
    trees = settings(task_depth=2, task_reg_lambda=9.0, task_shrinkage=10.0).trees(
        7, np.array([30, 10]), 1
    )
    assert [p["max_depth"] for p in (trees["shared"], *trees["grouped"], *trees["own"])] == [
        4, 4, 4, 2, 2
    ]  # fmt: skip
    assert [p["learning_rate"] for p in trees["own"]] == pytest.approx([0.075, 0.05])
    assert trees["own"][0]["reg_lambda"] == 9.0
    assert trees["grouped"][0]["min_child_weight"] < trees["shared"]["min_child_weight"]
    seeds = [p["seed"] for p in (trees["shared"], *trees["grouped"], *trees["own"])]
    assert len(set(seeds)) == 5
    halved = settings(schedule="interleaved").trees(0, np.array([5]), 1)
    assert halved["shared"]["learning_rate"] == 0.05
    assert settings(n_jobs=-1).trees(0, np.array([5]), 1)["shared"]["nthread"] == 0


def test_one_task_has_no_groups():
    assert settings().plan(watched=True, tasks=1).rounds == (200, 0, 100)
    only = settings(shared_rounds=0, task_rounds=0)
    assert only.plan(watched=True, tasks=1).rounds == (0, 400, 0)
    assert settings().plan(watched=False, tasks=3).patience == 0


def test_candidates_leave_blocks_out():
    found = candidates(settings(schedule="auto"))
    rounds = {n: (s.shared_rounds, s.group_rounds, s.task_rounds) for n, s in found.items()}
    assert rounds == {
        "pooled": (400, 0, 0), "single": (0, 0, 400), "mtgb": (400, 0, 100),
        "sequential": (200, 400, 100), "groups": (0, 400, 100), "interleaved": (200, 400, 100),
    }  # fmt: skip
    assert [n for n, s in found.items() if s.interleaved] == ["interleaved"]
    for given in ABLATIONS.values():
        assert settings(**given).group_rounds == 0


def test_new_models_are_empty():
    model = new_model(settings(), np.array([5, 6]), np.zeros(2), 0)
    assert model.rounds == (0, 0, 0)
    assert (model.count, model.outputs, len(model.groups), len(model.own)) == (2, 2, 2, 2)
