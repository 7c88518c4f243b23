"""What leaves the suite of a trained model of boosted trees: arrays, records and native answers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError
from mtl_core.tasks import Task
from mtl_tabular.boosting.estimator import RMTGBEstimator
from mtl_tabular.boosting.matrix import Columns
from mtl_tabular.boosting.model_file import FORMAT as BOOST_FORMAT
from mtl_tabular.boosting.model_file import read_model
from mtl_tabular.boosting.rmtgb import RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.saving import FORMAT, TREES_FORMAT
from mtl_tabular.boosting.stacked import ABSENT, StackedRMTGB
from mtl_tabular.boosting.tables import (
    BoostedTables,
    TreeTable,
    base_margins,
    block_table,
    booster_table,
    own_table,
)
from mtl_tabular.boosting.targets import check_one_kind, objective_of, pooled_scale
from mtl_tabular.boosting.trees import BoostedTrees
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget, TargetColumn

Answer = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float64]]
EVERY = "*"
"""Key of tables that serve all tasks."""


@dataclass(frozen=True)
class Boosted:
    """A trained model, ready to be written in another form.

    Args:
        class_path: of the model.
        tables: by task, or one for all of them under ``*``.
        readouts: what a reader of predictions has to know, by task in the order of task ids.
        scores: name and direction of the primary metric by task, where the model has records.
        preprocess: how a table's columns become the features (F,), as JSON data.
        answer: activated predictions (n, C) of features (n, F) and task ids (n,) of tasks that have
            the same table; -1 is a task that training did not have.
    """

    class_path: str
    tables: dict[str, BoostedTables]
    readouts: dict[str, dict[str, Any]]
    scores: dict[str, tuple[str, bool]]
    preprocess: dict[str, Any]
    answer: Answer


def load_boosted(path: Path | str) -> Boosted:
    """The model of a file that ``boost fit``, `BoostedTrees.save` or an R-MTGB estimator wrote.

    Raises:
        ArgumentError: the file is none of these, or holds trees that are not read.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError("model", "be a JSON file of boosted trees", str(path)) from error
    found = held.get("format") if isinstance(held, dict) else None
    if found == BOOST_FORMAT:
        model, config = read_model(path)
        whole = boosted(model)
        # R-MTGB itself does not know which column named the tasks of its training table.
        column = str((config.get("data") or {}).get("task_column") or "")
        return replace(whole, preprocess=whole.preprocess | {"task_column": column})
    if found == TREES_FORMAT:
        return boosted(BoostedTrees.load(path))
    if found == FORMAT:
        kinds = {kind.__name__: kind for kind in (RMTGBRegressor, RMTGBClassifier)}
        return boosted(kinds[held["kind"]].load(path))
    rule = f"be of format {BOOST_FORMAT!r}, {FORMAT!r} or {TREES_FORMAT!r}"
    raise ArgumentError(f"model file {path}", rule, found)


def boosted(model: StackedRMTGB | BoostedTrees | RMTGBEstimator) -> Boosted:
    """The same of a model in memory.

    Args:
        model: trained.
    """
    match model:
        case StackedRMTGB():
            return _stacked(model)
        case BoostedTrees():
            return _trees(model)
        case RMTGBEstimator():
            return _estimator(model)
    raise ArgumentError("model", "be R-MTGB or BoostedTrees", type(model).__name__)


def _path(model: object) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _records(
    tasks: Mapping[str, TargetColumn], schema: TableSchema, task_column: str = ""
) -> dict[str, Any]:
    known: dict[str, Task] = dict(tasks)
    return {
        "readouts": {name: task.readout() for name, task in known.items()},
        "scores": {
            name: (task.primary, task.higher_is_better()[task.primary])
            for name, task in known.items()
        },
        "preprocess": {
            **schema.operations(),
            "kind": "trees",
            "task_column": task_column,
            "tasks": [{"name": name, "level": t.level} for name, t in tasks.items()],
        },
    }


# R-MTGB.


def _parts(
    estimator: RMTGBEstimator, slots: NDArray[np.int64], names: tuple[str, ...]
) -> dict[str, Any]:
    """Blocks, shares and base of an estimator.

    Args:
        estimator: trained.
        slots: (T,) id at the estimator of every exported task, -1 where it does not know it.
        names: of the exported tasks.
    """
    model = estimator.model_
    K = model.outputs
    everyone = np.append(slots, -1)
    place = np.full(max(model.count, 1), -1)
    place[slots[slots >= 0]] = np.flatnonzero(slots >= 0)
    own = own_table(model.own)
    kept = place[own.tasks] if len(own.tasks) else own.tasks
    shared = [block_table(model.shared, 0)]
    shared += [block_table(block, (1 + g) * K) for g, block in enumerate(model.groups)]
    return {
        "tasks": names,
        "width": estimator.n_features_in_,
        "outputs": K,
        "shared": TreeTable.join(shared),
        "own": TreeTable(**{**vars(own), "tasks": kept}),
        "shares": model.row_shares(everyone),
        "base": np.repeat(model.intercept[None], len(everyone), axis=0),
        "task_feature": estimator.task_feature,
        "codes": everyone,
        "seen": len(estimator.tasks_),
    }


def _decided(estimator: RMTGBEstimator) -> tuple[NDArray[np.float64], str]:
    """Matrix from scores to logits of the estimator's own classes, and the link."""
    K = estimator.model_.outputs
    if not isinstance(estimator, RMTGBClassifier):
        return np.eye(K), "identity"
    if len(estimator.classes_) > 2:
        return np.eye(K), "softmax"
    return (np.ones((1, 1)) if K == 1 else np.array([[-1.0, 1.0]])), "sigmoid"


def _stacked(model: StackedRMTGB) -> Boosted:
    estimator = model.estimator
    names = tuple(model.tasks)
    known = {str(name): r for r, name in enumerate(estimator.tasks_)}
    slots = np.array([known.get(name, -1) for name in names], dtype=np.int64)
    parts = _parts(estimator, slots, names)
    mixing, link = _decided(estimator)
    offset = np.zeros(len(mixing))
    scale, shift = np.ones(len(names) + 1), np.zeros(len(names) + 1)
    record = next(iter(model.tasks.values()))
    if isinstance(estimator, RMTGBRegressor):
        numbers = [t for t in model.tasks.values() if isinstance(t, NumericTarget)]
        # A task that training did not have is read as the first one, as `boost predict` does.
        numbers.append(numbers[0])
        scale = estimator.target_scale_ * np.array([t.std for t in numbers])
        shift = np.array([t.mean for t in numbers])
    elif isinstance(record, MulticlassTarget) and len(estimator.classes_) < len(record.classes):
        mixing, offset, link = _widened(estimator, mixing, len(record.classes))
    elif isinstance(record, MulticlassTarget) and len(estimator.classes_) == 2:
        mixing, link = np.concatenate([np.zeros_like(mixing), mixing]), "softmax"
        offset = np.zeros(2)
    tables = BoostedTables(
        **parts, mixing=mixing, offset=offset, scale=scale, shift=shift, link=link
    )

    def answer(values: NDArray[np.float32], tasks: NDArray[np.int64]) -> NDArray[np.float64]:
        order = [*model.tasks.values(), record]
        raw = model._raw(values, np.array([*names, ""], dtype=object)[tasks])
        rows = [order[r].activate(raw[[i]]) for i, r in enumerate(tasks)]
        return torch.cat([*rows, torch.zeros(0, len(mixing))]).numpy().astype(np.float64)

    return Boosted(
        _path(model), {EVERY: tables}, **_records(model.tasks, model.schema), answer=answer
    )


def _widened(
    estimator: RMTGBEstimator, mixing: NDArray[np.float64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Logits of all classes of a record where training rows had some of them only."""
    assert isinstance(estimator, RMTGBClassifier)
    if len(mixing) == 1:
        mixing = np.concatenate([np.zeros_like(mixing), mixing])
    whole, offset = np.zeros((classes, mixing.shape[1])), np.full(classes, ABSENT)
    chosen = estimator.classes_.astype(np.int64)
    whole[chosen], offset[chosen] = mixing, 0.0
    return whole, offset, "softmax"


def _estimator(model: RMTGBEstimator) -> Boosted:
    names = tuple(str(name) for name in model.tasks_)
    parts = _parts(model, np.arange(len(names)), names)
    mixing, link = _decided(model)
    count = len(names) + 1
    scale = np.full(count, getattr(model, "target_scale_", 1.0))
    tables = BoostedTables(
        **parts,
        mixing=mixing,
        offset=np.zeros(len(mixing)),
        scale=scale,
        shift=np.zeros(count),
        link=link,
    )
    readout: dict[str, Any] = {"kind": "numeric", "activation": "identity", "unit": None}
    if isinstance(model, RMTGBClassifier):
        kind = "binary" if link == "sigmoid" else "multiclass"
        classes = [str(name) for name in model.classes_]
        readout = {"kind": kind, "activation": link, "unit": None, "classes": classes}
    tasks = np.array([*model.tasks_, None], dtype=object)

    def answer(values: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        asked = tasks[ids] if len(names) > 1 else None
        named: Any = values
        if isinstance(model, RMTGBClassifier):
            found = model._probabilities(model._scores(named, asked))
            return np.asarray(found[:, 1:] if link == "sigmoid" else found, dtype=np.float64)
        assert isinstance(model, RMTGBRegressor)
        return (model._scores(named, asked) * model.target_scale_).astype(np.float64)

    columns = [
        {"name": name, "mean": 0.0, "std": 1.0, "median": 0.0} for name in model._feature_names()
    ]
    preprocess = {
        "kind": "trees",
        "numeric": columns,
        "categorical": [],
        "task_column": "" if model.task_column is None else str(model.task_column),
        "tasks": [{"name": name, "level": name} for name in names],
    }
    readouts = dict.fromkeys(names, readout)
    return Boosted(_path(model), {EVERY: tables}, readouts, {}, preprocess, answer)


# XGBoost.


def _trees(model: BoostedTrees) -> Boosted:
    if not model.boosters:
        raise ArgumentError("fit", "come before export", "an untrained model")
    vector = model.strategy == "joint" and model.joint_trees == "multi_output_tree"
    if vector and model.schema.categorical:
        raise ArgumentError(
            "joint_trees",
            "be one_output_per_tree to be exported where columns are categories, as trees with "
            "vectors in their leaves split one-hot columns",
            model.joint_trees,
        )
    names = list(model.tasks)
    if model.strategy == "single":
        try:
            check_one_kind(model.tasks, "for one table")
            kinds = [names]
        except ArgumentError:
            kinds = [[name] for name in names]
    else:
        kinds = [names]
    tables = {EVERY if len(kinds) == 1 else chosen[0]: _xgboost(model, chosen) for chosen in kinds}

    def answer(values: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        categories = len(model.schema.categorical)
        columns = ("c",) * categories + ("q",) * (values.shape[1] - categories)
        data = Columns(values, columns)
        width = max(model.tasks[names[r]].out_channels for r in ids) if len(ids) else 1
        found = np.full((len(values), width), np.nan)
        for r in np.unique(ids[ids >= 0]):
            raw = model._raw(data[ids == r], names[r])
            found[ids == r] = model.tasks[names[r]].activate(raw).numpy()
        return found

    records = _records(model.tasks, model.schema, model.task_column)
    return Boosted(_path(model), tables, **records, answer=answer)


def _xgboost(model: BoostedTrees, names: list[str]) -> BoostedTables:
    records = [model.tasks[name] for name in names]
    record, T = records[0], len(names)
    objective = str(objective_of(record)["objective"])
    joint, single = model.strategy == "joint", model.strategy == "single"
    K = 1 if joint else record.out_channels
    scale, shift = np.full(T + 1, np.nan), np.full(T + 1, np.nan)
    if not isinstance(record, NumericTarget):
        scale[:T], shift[:T] = 1.0, 0.0
    elif joint or single:
        scale[:T] = [getattr(t, "std", 1.0) for t in records]
        shift[:T] = [getattr(t, "mean", 0.0) for t in records]
    else:
        centre, spread = pooled_scale(model.tasks)
        scale[:T], shift[:T] = spread, centre
    base = np.zeros((T + 1, K))
    shared, own = TreeTable.empty(), TreeTable.empty()
    shares = np.zeros((T + 1, T if joint else 0))
    if single:
        boosters = [model.boosters[name] for name in names]
        own = TreeTable.join([booster_table(b, task=r) for r, b in enumerate(boosters)])
        base[:T] = [np.broadcast_to(base_margins(b, objective), K) for b in boosters]
    else:
        booster = model.boosters["all"]
        shared = booster_table(booster, first_target=K if joint else 0)
        margins = base_margins(booster, objective)
        if joint:
            shares[:T] = np.eye(T)
            base[:T, 0] = np.broadcast_to(margins, T)
        else:
            base[:T] = np.broadcast_to(margins, K)
    link = "identity"
    if isinstance(record, BinaryTarget | MulticlassTarget):
        link = "sigmoid" if isinstance(record, BinaryTarget) else "softmax"
    feature = model.task_encoding if model.strategy == "feature" else "none"
    return BoostedTables(
        tasks=tuple(names),
        width=len(model.schema),
        outputs=K,
        shared=shared,
        own=own,
        shares=shares,
        base=base,
        mixing=np.eye(K),
        offset=np.zeros(K),
        scale=scale,
        shift=shift,
        link=link,
        task_feature=feature,
        codes=np.append(np.arange(T), -1),
        seen=T,
    )
