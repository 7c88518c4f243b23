"""Parameters over dotted keys: names, conditions, words, grids."""

import json

import optuna
import pytest

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.sweep import Choice, Number, Space
from mtl_core.sweep.space import as_text

CONTENT = {
    "model.optimizer.lr": {"low": "1e-4", "high": 1e-2, "log": True},
    "data.batch_size": [32, 64],
    "trainer.callbacks": {
        "choices": {
            "equal": [],
            "UW": {"class_path": "UW", "init_args": {"lr": {"low": 0.01, "high": 0.1}}},
            "two": [
                {"class_path": "PCGrad"},
                {"class_path": "Stop", "init_args": {"patience": {"low": 1, "high": 3}}},
            ],
        }
    },
    "model.network.decoder": {
        "choices": [
            {"class_path": "LinearDecoder"},
            {
                "class_path": "mtl_vision.decoders.FPNDecoder",
                "init_args": {"norm": {"choices": [None, {"class_path": "Norm", "eps": [1, 2]}]}},
            },
        ]
    },
}
NAMES = (
    "model.optimizer.lr",
    "data.batch_size",
    "trainer.callbacks",
    "trainer.callbacks.UW.lr",
    "trainer.callbacks.two.1.patience",
    "model.network.decoder",
    "model.network.decoder.FPNDecoder.norm",
)


def drawn(space: Space, count: int = 60):
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(count):
        trial = study.ask()
        yield space.suggest(trial), trial.params


def test_parameters_are_named_by_key_label_and_path():
    space = Space(CONTENT)
    assert space.names == NAMES
    assert space.parameters["model.optimizer.lr"] == Number(1e-4, 1e-2, log=True)
    assert isinstance(space.parameters["trainer.callbacks"], Choice)


def test_parameters_of_what_is_not_chosen_do_not_exist():
    for values, params in drawn(Space(CONTENT)):
        assert values == params
        assert ("trainer.callbacks.UW.lr" in values) == (values["trainer.callbacks"] == "UW")
        two = values["trainer.callbacks"] == "two"
        assert ("trainer.callbacks.two.1.patience" in values) == two
        fpn = values["model.network.decoder"] == "FPNDecoder"
        assert ("model.network.decoder.FPNDecoder.norm" in values) == fpn


def test_words_hold_exactly_what_was_drawn():
    space = Space(CONTENT)
    for values, _ in drawn(space):
        held = dict(word.removeprefix("--").split("=", 1) for word in space.words(values))
        assert list(held) == list(CONTENT)
        assert float(held["model.optimizer.lr"]) == values["model.optimizer.lr"]
        callbacks = json.loads(held["trainer.callbacks"])
        if values["trainer.callbacks"] == "UW":
            lr = values["trainer.callbacks.UW.lr"]
            assert callbacks == {"class_path": "UW", "init_args": {"lr": lr}}
        elif values["trainer.callbacks"] == "equal":
            assert callbacks == []


@pytest.mark.parametrize(
    ("value", "text"),
    [("PCGrad", "PCGrad"), (None, "null"), (True, "true"), (1e-5, "1e-05"), ([1], "[1]")],
)
def test_values_as_the_shell_takes_them(value, text):
    assert as_text(value) == text


def test_integers_stay_integers_and_floats_floats():
    space = Space({"a": {"low": 1, "high": 3}, "b": {"low": 1, "high": 3.0}})
    for values, _ in drawn(space, 20):
        assert type(values["a"]) is int
        assert type(values["b"]) is float


def test_grid_has_every_combination_once_and_conditions_only_where_they_apply():
    space = Space(
        {
            "x": {"low": 0.0, "high": 1.0, "step": 0.5},
            "kind": {
                "choices": [
                    {"class_path": "A"},
                    {"class_path": "B", "init_args": {"width": {"low": 1, "high": 3}}},
                ]
            },
        }
    )
    grid = list(space.grid())
    assert len(grid) == 3 * (1 + 3)
    assert len({json.dumps(values) for values in grid}) == len(grid)
    assert all(("kind.B.width" in values) == (values["kind"] == "B") for values in grid)
    assert all(space.words(values) for values in grid)


def test_points_of_a_grid_hit_both_ends():
    held = Space({"lr": {"low": 1e-4, "high": 1e-2, "log": True, "points": 3}})
    assert [values["lr"] for values in held.grid()] == pytest.approx([1e-4, 1e-3, 1e-2])
    held = Space({"n": {"low": 1, "high": 100, "log": True, "points": 3}})
    assert [values["n"] for values in held.grid()] == [1, 10, 100]
    held = Space({"x": {"low": -1.0, "high": 2.0, "points": 4}})
    assert [values["x"] for values in held.grid()] == [-1.0, 0.0, 1.0, 2.0]


def test_short_names_are_unique_ends():
    short = Space(CONTENT).short_names
    assert short["model.optimizer.lr"] == "optimizer.lr"
    assert short["trainer.callbacks.UW.lr"] == "UW.lr"
    assert short["trainer.callbacks"] == "callbacks"
    assert len(set(short.values())) == len(short)


def test_start_may_be_a_part_but_no_other():
    space = Space(CONTENT)
    space.check_start({"data.batch_size": 32})
    space.check_start({"trainer.callbacks": "UW", "trainer.callbacks.UW.lr": 0.05})
    with pytest.raises(UnknownNameError, match=r"data\.batch_size"):
        space.check_start({"data.batchsize": 32})
    with pytest.raises(ArgumentError, match="belong to what start chooses"):
        space.check_start({"trainer.callbacks": "equal", "trainer.callbacks.UW.lr": 0.05})
    with pytest.raises(ArgumentError, match=r"model\.optimizer\.lr"):
        space.check_start({"model.optimizer.lr": 1.0})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "at least one dotted key"),
        ({"x": 3}, "have low and high"),
        ({"x": {"low": 1}}, "have low and high"),
        ({"x": {"low": 2, "high": 1}}, "low < high"),
        ({"x": {"low": 0, "high": 1, "log": True}}, "low > 0"),
        ({"x": {"low": 1, "high": 2, "log": True, "step": 1}}, "no step with log"),
        ({"x": {"low": "a", "high": 2}}, r"space\.x\.low must be a number"),
        ({"x": {"low": 1, "high": 2, "step": -1}}, "positive"),
        ({"x": {"choices": []}}, "at least one choice"),
        ({"x": []}, "at least one choice"),
        ({"x": [{"class_path": "a.B"}, {"class_path": "c.B"}]}, "labels of their own"),
        (
            {
                "x": {"choices": {"A": {"b": {"low": 0, "high": 1}}}},
                "x.A.b": {"low": 0, "high": 1},
            },
            "name each parameter once",
        ),
    ],
)
def test_mistakes_are_named(content, message):
    with pytest.raises(ArgumentError, match=message):
        Space(content)


def test_a_float_without_step_has_no_grid():
    with pytest.raises(ArgumentError, match="step or points"):
        list(Space({"x": {"low": 0.0, "high": 1.0}}).grid())


def test_words_need_every_value_within_its_bounds():
    space = Space({"x": {"low": 0, "high": 1}, "y": [1, 2]})
    with pytest.raises(UnknownNameError, match="y"):
        space.words({"x": 1})
    with pytest.raises(ArgumentError, match="y must"):
        space.words({"x": 1, "y": 3})
