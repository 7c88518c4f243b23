"""Samplers whose draws depend on the plan, the trial's number and the history alone."""

import warnings

import optuna
import pytest

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.sweep import Plan
from mtl_core.sweep.samplers import RepeatableSampler, make_pruner

SPACE = {
    "x": {"low": 0.0, "high": 1.0},
    "n": {"low": 1, "high": 64, "log": True},
    "kind": {"choices": [{"class_path": "A"}, {"class_path": "B", "b": {"low": 0.0, "high": 1.0}}]},
}


def plan(sampler, **more) -> Plan:
    objectives = {"val/a/score": {"direction": "maximize"}}
    return Plan.parse({"space": SPACE, "objectives": objectives, "sampler": sampler, **more})


def course(held: Plan, count: int, *, restart: bool, partial: int = -1) -> list[dict]:
    """Parameters of a sequence of trials, with a new study before each if asked."""
    storage = optuna.storages.InMemoryStorage()
    study = None
    for number in range(count):
        if study is None or restart:
            study = optuna.create_study(
                storage=storage, study_name="s", load_if_exists=True, direction="maximize"
            )
            study.sampler = RepeatableSampler(held)
        trial = study.ask()
        if number == partial:  # killed after the first parameter, and taken up again
            trial.suggest_float("x", 0.0, 1.0)
            study.sampler = RepeatableSampler(held)
            trial = optuna.trial.Trial(study, trial._trial_id)
        values = held.space.suggest(trial)
        study.tell(trial, -((values["x"] - 0.3) ** 2) + (values["kind"] == "B") * 0.1)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "tpe", "n_startup_trials": 4},
        {"name": "tpe", "n_startup_trials": 4, "multivariate": True, "group": True},
        {"name": "random"},
        {"name": "nsga2", "population_size": 4},
        {"name": "gp", "n_startup_trials": 4},
    ],
    ids=lambda held: "-".join(map(str, held.values())),
)
def test_interruptions_change_no_draw(sampler):
    held = plan(sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        count = 7 if sampler["name"] == "gp" else 12
        whole = course(held, count, restart=False)
        assert course(held, count, restart=True) == whole
        assert course(held, count, restart=True, partial=5) == whole
    assert len({str(params) for params in whole}) == count


def test_seed_matters():
    first = course(plan({"name": "random", "seed": 0}), 3, restart=False)
    assert course(plan({"name": "random", "seed": 1}), 3, restart=False) != first


def test_model_of_the_history_is_used():
    """TPE comes nearer to the best x than random draws do."""
    tpe = course(plan({"name": "tpe", "n_startup_trials": 8}), 40, restart=False)[20:]
    random = course(plan({"name": "random"}), 40, restart=False)[20:]

    def miss(params):
        return sum(abs(held["x"] - 0.3) for held in params) / len(params)

    assert miss(tpe) < 0.7 * miss(random)


def test_grid_is_walked_through():
    space = {"x": {"low": 0.0, "high": 1.0, "points": 3}, "kind": ["a", "b"]}
    objectives = {"val/a/score": {"direction": "maximize"}}
    held = Plan.parse({"space": space, "objectives": objectives, "sampler": "grid"})
    assert RepeatableSampler(held).limit == 6
    study = optuna.create_study(sampler=RepeatableSampler(held))
    found = [held.space.suggest(study.ask()) for _ in range(6)]
    assert found == list(held.space.grid())


def test_start_comes_first_and_the_rest_is_drawn():
    held = plan("random", start=[{"x": 0.25}, {"kind": "B", "kind.B.b": 0.5}])
    found = course(held, 3, restart=False)
    assert found[0]["x"] == 0.25
    assert (found[1]["kind"], found[1]["kind.B.b"]) == ("B", 0.5)
    assert found[1]["x"] != 0.25


def test_unknown_arguments_are_refused():
    with pytest.raises(UnknownNameError, match="n_startup_trials"):
        RepeatableSampler(plan({"name": "tpe", "startup_trials": 4}))
    with pytest.raises(UnknownNameError, match="n_warmup_steps"):
        make_pruner({"name": "median", "warmup_steps": 4})


@pytest.mark.parametrize("name", ["none", "median", "halving", "hyperband"])
def test_pruners_are_made(name):
    assert isinstance(make_pruner({"name": name}), optuna.pruners.BasePruner)


def test_sampler_without_its_package_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cmaes", None)
    with pytest.raises(ArgumentError, match="pip install cmaes"):
        RepeatableSampler(plan("cmaes"))
