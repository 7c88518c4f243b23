"""R-MTGB estimators as plain data, for one JSON file without pickle."""

from typing import Any

import numpy as np
import pandas as pd

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.rows import as_plain, feature_kinds, from_plain
from mtl_tabular.boosting.settings import Settings, candidates, new_model

FORMAT = "mtl-suite R-MTGB 1"


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
        settings, np.array(saved["rows"]), np.array(saved["intercept"]), estimator.seed_
    )
    estimator.model_ = model.restore(saved)
    losses = state["held_out_losses"]
    estimator.held_out_losses_ = pd.Series(losses, name="held_out_loss", dtype=float)
    index = pd.Index(estimator.tasks_, name="task")
    estimator.task_report_ = pd.DataFrame(state["report"]).set_index(index)
    estimator.outlier_score_ = estimator.task_report_["outlier_score"].copy()
