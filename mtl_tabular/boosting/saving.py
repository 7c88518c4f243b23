"""R-MTGB estimators and boosted trees as plain data, for one JSON file without pickle."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xgboost as xgb
from jsonargparse import ArgumentParser

from mtl_core.errors import ArgumentError
from mtl_core.rebuild import describe_tasks
from mtl_core.tasks import Task
from mtl_tabular.boosting.device import present_device
from mtl_tabular.boosting.rows import as_plain, feature_kinds, from_plain
from mtl_tabular.boosting.settings import Settings, candidates, new_model
from mtl_tabular.data.schema import TableSchema

Trees = TypeVar("Trees")

FORMAT = "mtl-suite R-MTGB 2"
TREES_FORMAT = "mtl-suite boosted trees 1"
_NAMES = {
    "depth": "max_depth",
    "colsample": "colsample_bytree",
    "threads": "nthread",
}  # of arguments of `BoostedTrees` that XGBoost calls otherwise
_SAME = (
    "learning_rate", "reg_lambda", "min_child_weight", "subsample", "max_bin", "device", "seed",
)  # fmt: skip
_OWN = ("strategy", "task_column", "task_encoding", "joint_trees", "rounds", "patience")


def estimator_state(estimator: Any) -> dict[str, Any]:
    """Arguments and everything learned.

    Args:
        estimator: a trained `RMTGBRegressor` or `RMTGBClassifier`.

    Raises:
        ArgumentError: tasks or classes that JSON does not hold.
    """
    parameters = estimator.get_params() | {"callbacks": None}
    if not isinstance(estimator.random_state, int | None):
        parameters["random_state"] = None
    if estimator.categorical_features is not None:
        parameters["categorical_features"] = list(estimator.categorical_features)
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "format": FORMAT,
        "kind": type(estimator).__name__,
        "parameters": parameters,
        "seed": estimator.seed_,
        "features": None if names is None else list(names),
        "count": estimator.n_features_in_,
        "tasks": as_plain(estimator.tasks_, "task"),
        "targets": estimator._target_state(),
        "chosen": estimator.chosen_,
        "held_out_losses": estimator.held_out_losses_.to_dict(),
        "report": estimator.task_report_.reset_index(drop=True).to_dict("list"),
        "model": estimator.model_.state(),
    }


def checked_parameters(state: Any, kind: str) -> dict[str, Any]:
    """Arguments in a saved state.

    Args:
        state: what the file holds.
        kind: name of the class that shall take it.

    Raises:
        ArgumentError: a state of another class or format, or none at all.
    """
    found = (state.get("format"), state.get("kind")) if isinstance(state, dict) else type(state)
    if found != (FORMAT, kind):
        raise ArgumentError("path", f"name a file of {kind} in format {FORMAT!r}", found)
    parameters: dict[str, Any] = state["parameters"]
    return parameters


def restore_estimator(estimator: Any, state: dict[str, Any]) -> None:
    """Give a new estimator what a saved one had learned.

    Args:
        estimator: made with the saved arguments.
        state: of `estimator_state`.
    """
    estimator.seed_ = state["seed"]
    estimator.n_features_in_ = state["count"]
    if state["features"] is not None:
        estimator.feature_names_in_ = np.array(state["features"], dtype=object)
    estimator.tasks_ = from_plain(state["tasks"])
    estimator._restore_targets(state["targets"])
    estimator.kinds_ = feature_kinds(estimator.categorical_features, estimator._feature_names())
    estimator.loss_ = estimator._make_loss()
    estimator.chosen_ = state["chosen"]
    settings = Settings.of(estimator)
    if settings.schedule == "auto":
        settings = candidates(settings)[estimator.chosen_]
    saved = state["model"]
    estimator.plan_ = settings.plan(watched=False, tasks=len(estimator.tasks_))
    model = new_model(
        settings, np.array(saved["rows"]), np.array(saved["intercept"]), estimator.seed_,
        together=saved["own"]["kind"] == "forest",
    )  # fmt: skip
    estimator.model_ = model.restore(saved)
    losses = state["held_out_losses"]
    estimator.held_out_losses_ = pd.Series(losses, name="held_out_loss", dtype=float)
    index = pd.Index(estimator.tasks_, name="task")
    estimator.task_report_ = pd.DataFrame(state["report"]).set_index(index)
    estimator.outlier_score_ = estimator.task_report_["outlier_score"].copy()


def trees_state(model: Any) -> dict[str, Any]:
    """Arguments, tasks, schema and trees of a `BoostedTrees`; callbacks are not kept.

    Args:
        model: trained.

    Raises:
        ArgumentError: it is not trained.
    """
    if not model.boosters:
        raise ArgumentError("fit", "come before save", "an untrained model")
    theirs = _NAMES | {name: name for name in _SAME}
    arguments = {name: model.parameters[their] for name, their in theirs.items()}
    return {
        "format": TREES_FORMAT,
        "parameters": {name: getattr(model, name) for name in _OWN} | arguments,
        **records_state(model.tasks, model.schema),
        "boosters": {
            name: json.loads(booster.save_raw("json").decode())
            for name, booster in model.boosters.items()
        },
    }


def restore_trees(kind: type[Trees], state: Any) -> Trees:
    """A `BoostedTrees` as it was saved.

    Args:
        kind: its class.
        state: of `trees_state`.

    Raises:
        ArgumentError: a state of another class or format, or none at all.
    """
    found = state.get("format") if isinstance(state, dict) else type(state)
    if found != TREES_FORMAT:
        raise ArgumentError("path", f"name a file of format {TREES_FORMAT!r}", found)
    made: Any = kind(**restore_records(state["tasks"], state["schema"]), **state["parameters"])
    for name, held in state["boosters"].items():
        there = {"device": present_device(made.parameters["device"])}
        booster = xgb.Booster(made.parameters | there)
        booster.load_model(bytearray(json.dumps(held).encode()))
        made.boosters[name] = booster
    restored: Trees = made
    return restored


def records_state(tasks: Mapping[str, Task], schema: TableSchema) -> dict[str, Any]:
    """Fitted records and columns as plain data.

    Args:
        tasks: by name.
        schema: fitted.
    """
    return {"tasks": describe_tasks(tasks), "schema": asdict(schema)}


def restore_records(tasks: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Fitted records ``tasks`` and ``schema`` from plain data.

    Args:
        tasks: as `mtl_core.rebuild.describe_tasks` gives them.
        schema: as `dataclasses.asdict` gives it.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--tasks", type=dict[str, Task], required=True)
    parser.add_argument("--schema", type=TableSchema, required=True)
    parsed = parser.parse_object({"tasks": tasks, "schema": json.loads(json.dumps(schema))})
    made = parser.instantiate(parsed)
    return {"tasks": made.tasks, "schema": made.schema}
