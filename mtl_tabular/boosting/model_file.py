"""A trained model of ``boost`` as one JSON file, and how configs name one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.rmtgb import RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.saving import restore_trees, trees_state
from mtl_tabular.boosting.settings import Settings
from mtl_tabular.boosting.stacked import StackedRMTGB
from mtl_tabular.boosting.trees import BoostedTrees
from mtl_tabular.data.table import TableDataModule

Model: TypeAlias = StackedRMTGB | BoostedTrees
"""Both have `tasks`, `schema`, `fit`, `predict_raw` and `predict_labelled` on rows of a table."""

FORMAT = "mtl-suite boost 1"


def build(block: Mapping[str, Any], data: TableDataModule, *, seed: int) -> Model:
    """An untrained model from ``class_path`` and ``init_args``.

    Args:
        block: parsed.
        data: fitted.
        seed: of the model.

    Raises:
        ArgumentError: an argument breaks its rule, or tasks and model do not suit each other.
    """
    name = block["class_path"].rpartition(".")[2]
    arguments = dict(block.get("init_args") or {})
    if name == "BoostedTrees":
        return BoostedTrees(
            data.tasks,
            schema=data.schema,
            task_column=data.task_column,
            seed=seed,
            **arguments,
        )
    kinds = {kind.__name__: kind for kind in (RMTGBRegressor, RMTGBClassifier)}
    estimator = kinds[name](random_state=seed, **arguments)
    Settings.of(estimator)
    return StackedRMTGB(data.tasks, schema=data.schema, estimator=estimator)


def single_of(model: Model) -> BoostedTrees:
    """XGBoost on every task alone, as deep and as long as a model.

    Rounds are the sum of those of R-MTGB's blocks, for its score is the sum of their trees.

    Args:
        model: trained or not.
    """
    if isinstance(model, StackedRMTGB):
        held = model.estimator
        return BoostedTrees(
            model.tasks,
            schema=model.schema,
            rounds=max(1, held.shared_rounds + held.group_rounds + held.task_rounds),
            patience=held.patience,
            depth=held.max_depth,
            learning_rate=held.learning_rate,
            reg_lambda=held.reg_lambda,
            min_child_weight=held.min_child_weight,
            subsample=held.subsample,
            colsample=held.colsample,
            max_bin=held.max_bin,
            threads=max(1, held.n_jobs or 1),
            device=held.device,
            seed=model.seed,
        )
    single = BoostedTrees(
        model.tasks, schema=model.schema, rounds=model.rounds, patience=model.patience
    )
    single.parameters = dict(model.parameters)
    return single


def write_model(path: Path | str, model: Model, config: Mapping[str, Any]) -> None:
    """Write model, records, columns and config to one file.

    Args:
        path: the file.
        model: trained.
        config: ``tasks``, ``data`` and ``model`` as plain data.

    Raises:
        CheckpointWriteError: the system refused.
    """
    state = model.state() if isinstance(model, StackedRMTGB) else trees_state(model)
    content = {"format": FORMAT, "config": dict(config), "model": state}
    with atomic_write(path) as file:
        file.write(json.dumps(content).encode())


def read_model(path: Path | str) -> tuple[Model, dict[str, Any]]:
    """The model of a file, and the config it was trained by.

    Raises:
        ArgumentError: there is no such file, or it is none of `write_model`.
    """
    path = Path(path)
    if not path.is_file():
        raise ArgumentError("saved", "name the model file of a boost fit", str(path))
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ArgumentError("saved", "name the model file of a boost fit", str(path)) from error
    found = content.get("format") if isinstance(content, dict) else type(content)
    if found != FORMAT:
        raise ArgumentError(f"saved file {path}", f"be of format {FORMAT!r}", found)
    state: dict[str, Any] = content["model"]
    config: dict[str, Any] = content["config"]
    if "estimator" in state:
        return StackedRMTGB.restore(state), config
    return restore_trees(BoostedTrees, state), config
