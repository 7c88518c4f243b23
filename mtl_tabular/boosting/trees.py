"""Boosted trees as a baseline: XGBoost on the tasks, tables and metrics of the networks."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pandas as pd
import torch
import xgboost as xgb
from numpy.typing import NDArray
from torch import Tensor

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks.base import check_tasks
from mtl_tabular.boosting.device import check_device
from mtl_tabular.boosting.joint import JointRows, train_joint
from mtl_tabular.boosting.matrix import Columns, split_columns, tree_columns, with_task
from mtl_tabular.boosting.progress import RoundTeller
from mtl_tabular.boosting.saving import restore_trees, trees_state
from mtl_tabular.boosting.scores import labelled_scores
from mtl_tabular.boosting.targets import (
    Labels,
    check_strategy,
    objective_of,
    pooled_scale,
    row_labels,
    row_weights,
    target_labels,
)
from mtl_tabular.boosting.training import Callback
from mtl_tabular.data.rows import TableRows
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.tasks import NumericTarget, TargetColumn

STRATEGIES = ("single", "joint", "pooled", "feature")
Rows: TypeAlias = pd.DataFrame | TableRows


class BoostedTrees:
    """XGBoost for several tasks, the baseline that networks on tables have to beat.

    Predictions are what networks give (logits, standardised numbers), so the tasks' own metrics,
    their names and Δm apply to both. Missing features go their own way at every split; categories
    are split natively (one-hot columns for ``multi_output_tree``), with those that training did not
    have as one more category. Rows without a label of a task are left out for that task. Label
    smoothing is the networks' own.

    - ``single``: one model a task, each with its own early stopping.
    - ``joint``: one model for numeric tasks of the same rows; a tree has a leaf value per target,
      or every round has a tree per target.
    - ``pooled``: one model for all tasks of a long table, which does not know the task.
    - ``feature``: the same with the task as a feature.

    Source: the XGBoost baselines of MultiTab-Net (depth 6, learning rate 0.1) and the pooling and
    task-as-feature baselines of R-MTGB (Emami et al. 2025, arXiv 2507.11411), here with early
    stopping and with trees deep enough for the task to interact with other features.

    Args:
        tasks: fitted records by name, the same that the networks get.
        schema: feature columns of the table, fitted.
        strategy: ``single``, ``joint``, ``pooled`` or ``feature``.
        task_column: of a long table, the column that says which task a row belongs to.
        task_encoding: of ``feature``: one ``categorical`` column or ``one-hot`` columns.
        joint_trees: of ``joint``: ``multi_output_tree`` or ``one_output_per_tree``.
        rounds: at most so many rounds.
        patience: rounds without a better validation loss after which training stops; the best round
            is kept. Only with a validation frame.
        depth: of a tree, at least 1.
        learning_rate: in (0, 1].
        reg_lambda: quadratic penalty on leaf values, at least 0.
        min_child_weight: least sum of second derivatives in a leaf, at least 0.
        subsample: share of the rows that a tree sees, in (0, 1].
        colsample: share of the columns that a tree sees, in (0, 1].
        max_bin: bins of a numeric feature, at least 2.
        threads: of XGBoost.
        device: ``cpu``, ``cuda`` or ``cuda:<number>``.
        seed: of row and column samples.
        callbacks: called with a `Round` after every round, its block named as the strategy; True
            ends the model that grows.

    Raises:
        ArgumentError: an argument breaks its rule, a record is not fitted, or the tasks do not suit
            the strategy.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> frame = pd.DataFrame({"x": rng.normal(size=200), "z": rng.normal(size=200)})
        >>> frame["y"] = frame.x * 3
        >>> schema = TableSchema.fit(frame[["x", "z"]])
        >>> tasks = {"y": NumericTarget().fit("y", frame["y"])}
        >>> model = BoostedTrees(tasks, schema=schema, rounds=50).fit(frame[:150], frame[150:])
        >>> model.evaluate(frame[150:])["y"]["rmse"] < 1.0
        True
    """

    def __init__(
        self,
        tasks: Mapping[str, TargetColumn],
        *,
        schema: TableSchema,
        strategy: Literal["single", "joint", "pooled", "feature"] = "single",
        task_column: str = "",
        task_encoding: Literal["categorical", "one-hot"] = "categorical",
        joint_trees: Literal["multi_output_tree", "one_output_per_tree"] = "multi_output_tree",
        rounds: int = 400,
        patience: int = 20,
        depth: int = 6,
        learning_rate: float = 0.1,
        reg_lambda: float = 1.0,
        min_child_weight: float = 1.0,
        subsample: float = 1.0,
        colsample: float = 1.0,
        max_bin: int = 256,
        threads: int = 1,
        device: str = "cpu",
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        check_tasks(tasks)
        for argument, value, least in (
            ("rounds", rounds, 1),
            ("patience", patience, 1),
            ("depth", depth, 1),
            ("threads", threads, 1),
            ("max_bin", max_bin, 2),
        ):
            if value < least:
                raise ArgumentError(argument, f"be at least {least}", value)
        if not 0 < learning_rate <= 1:
            raise ArgumentError("learning_rate", "lie in (0, 1]", learning_rate)
        for argument, allowed, found in (
            ("strategy", STRATEGIES, strategy),
            ("task_encoding", ("categorical", "one-hot"), task_encoding),
            ("joint_trees", ("multi_output_tree", "one_output_per_tree"), joint_trees),
        ):
            if found not in allowed:
                raise ArgumentError(argument, f"be one of {', '.join(allowed)}", found)
        self.tasks = dict(tasks)
        self.schema = schema
        self.strategy = strategy
        self.task_column = task_column
        self.task_encoding = task_encoding
        self.joint_trees = joint_trees
        self.rounds = rounds
        self.patience = patience
        self.callbacks = tuple(callbacks)
        self.parameters: dict[str, Any] = {
            "max_depth": depth,
            "learning_rate": learning_rate,
            "reg_lambda": reg_lambda,
            "min_child_weight": min_child_weight,
            "subsample": subsample,
            "colsample_bytree": colsample,
            "max_bin": max_bin,
            "nthread": threads,
            "device": device,
            "seed": seed,
            "tree_method": "hist",
        }
        self.boosters: dict[str, xgb.Booster] = {}
        """Models by task, or one named ``all``."""
        check_strategy(self.tasks, strategy, task_column)

    @property
    def nodes(self) -> int:
        """Nodes of all trees, the size of the model."""
        return sum(_count_nodes(booster) for booster in self.boosters.values())

    def fit(self, frame: Rows, val: Rows | None = None) -> Self:
        """Train from scratch.

        Args:
            frame: training rows with feature and target columns, or a split of a table that
                `TableDataModule.dataset` gives.
            val: rows for early stopping. A task without a label in them trains all rounds, with a
                warning.

        Raises:
            ColumnError: a column is missing.
            LabelError: a task has no labelled training row.
        """
        check_device(str(self.parameters["device"]))
        self.boosters = {}
        data = self._columns(frame)
        held_out = None if val is None else self._columns(val)
        labels = self._labels(frame)
        held_labels = {} if val is None else self._labels(val)
        for name, (_, labelled) in labels.items():
            if not labelled.any():
                raise LabelError(name, "be there for at least one training row", "none")
        missing = [name for name, (_, mask) in held_labels.items() if not mask.any()]
        if missing and self.strategy == "single":
            warnings.warn(
                f"no validation row is labelled for {', '.join(missing)}: all {self.rounds} rounds "
                "are trained for them.",
                stacklevel=2,
            )
        if self.strategy == "single":
            for i, (name, task) in enumerate(self.tasks.items()):
                train = self._single_matrix(data, task, *labels[name])
                stop = None
                if held_out is not None and held_labels[name][1].any():
                    stop = self._single_matrix(held_out, task, *held_labels[name])
                self.boosters[name] = self._train(objective_of(task), train, stop, place=i)
        elif self.strategy == "joint":
            self.boosters["all"] = self._train_joint(data, labels, held_out, held_labels)
        else:
            train = self._pooled_matrix(data, labels)
            stop = None if held_out is None else self._pooled_matrix(held_out, held_labels)
            self.boosters["all"] = self._train(objective_of(self._first), train, stop)
        return self

    def predict_raw(self, frame: Rows) -> dict[str, Tensor]:
        """What the networks' forward gives: (N, C) float32 by task, for every row and task.

        Args:
            frame: N rows with the feature columns.

        Raises:
            ArgumentError: the model is not trained.
        """
        data = self._columns(frame)
        return {name: self._raw(data, name) for name in self.tasks}

    def predict(self, frame: Rows) -> dict[str, NDArray[Any]]:
        """Classes or numbers (N,) by task, for every row and task."""
        raw = self.predict_raw(frame)
        return {name: t.decode(t.activate(raw[name])) for name, t in self.tasks.items()}

    def predict_labelled(self, frame: Rows) -> dict[str, tuple[Tensor, Tensor]]:
        """Raw predictions (M, C) of every task's labelled rows, and their targets (M,).

        Tasks without a labelled row are absent.
        """
        data = self._columns(frame)
        return {
            name: (self._raw(data[labelled], name), torch.from_numpy(values[labelled]))
            for name, (values, labelled) in self._labels(frame).items()
            if labelled.any()
        }

    def evaluate(self, frame: Rows) -> dict[str, dict[str, float]]:
        """Scores by task and metric over the labelled rows, computed as those of networks are.

        Metrics that the labels leave undefined, and tasks without any label, are absent.
        """
        return labelled_scores(self.tasks, self.predict_labelled(frame))

    def save(self, path: str | Path) -> None:
        """Write arguments, tasks, schema and trees to one JSON file; callbacks are not kept.

        Raises:
            ArgumentError: the model is not trained.
            CheckpointWriteError: the system refused.
        """
        with atomic_write(path) as file:
            file.write(json.dumps(trees_state(self)).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote.

        Raises:
            ArgumentError: the file is none of this class.
        """
        return restore_trees(cls, json.loads(Path(path).read_text()))

    # ------------------------------------------------------------------ rows

    def _columns(self, frame: Rows) -> Columns:
        # XGBoost 3.2 cannot split categories in trees of several targets.
        vector = self.strategy == "joint" and self.joint_trees == "multi_output_tree"
        if isinstance(frame, TableRows):
            return split_columns(self.schema, frame, one_hot=vector)
        return tree_columns(self.schema, frame, one_hot=vector)

    def _labels(self, frame: Rows) -> Labels:
        if isinstance(frame, TableRows):
            return row_labels(self.tasks, frame)
        return target_labels(self.tasks, frame, task_column=self.task_column)

    @property
    def _first(self) -> TargetColumn:
        return next(iter(self.tasks.values()))

    # ------------------------------------------------------------------ training

    def _single_matrix(
        self, data: Columns, task: TargetColumn, values: NDArray[Any], labelled: NDArray[np.bool_]
    ) -> xgb.DMatrix:
        targets = values[labelled]
        label = (targets - task.mean) / task.std if isinstance(task, NumericTarget) else targets
        return data[labelled].matrix(label=label, weight=row_weights(task, targets))

    def _pooled_matrix(self, data: Columns, labels: Labels) -> xgb.DMatrix:
        parts, targets, weights, ids = [], [], [], []
        for i, (name, task) in enumerate(self.tasks.items()):
            values, labelled = labels[name]
            rows = np.flatnonzero(labelled)
            parts.append(rows)
            targets.append(values[rows])
            weights.append(row_weights(task, values[rows]) * task.weight)
            ids.append(np.full(len(rows), i))
        chosen = self._with_task(data[np.concatenate(parts)], np.concatenate(ids))
        label = np.concatenate(targets)
        if isinstance(self._first, NumericTarget):
            centre, spread = pooled_scale(self.tasks)
            label = (label - centre) / spread
        return chosen.matrix(label=label, weight=np.concatenate(weights))

    def _with_task(self, data: Columns, ids: NDArray[Any]) -> Columns:
        if self.strategy != "feature":
            return data
        return with_task(data, ids, len(self.tasks), one_hot=self.task_encoding == "one-hot")

    def _train(
        self,
        objective: dict[str, Any],
        train: xgb.DMatrix,
        stop: xgb.DMatrix | None,
        *,
        place: int = 0,
    ) -> xgb.Booster:
        return xgb.train(
            self.parameters | objective,
            train,
            self.rounds,
            evals=[] if stop is None else [(stop, "val")],
            callbacks=self._callbacks(place, stops=stop is not None),
            verbose_eval=False,
        )

    def _callbacks(self, place: int = 0, *, stops: bool) -> list[xgb.callback.TrainingCallback]:
        callbacks: list[xgb.callback.TrainingCallback] = []
        if stops:
            callbacks.append(xgb.callback.EarlyStopping(rounds=self.patience, save_best=True))
        if self.callbacks:
            models = len(self.tasks) if self.strategy == "single" else 1
            callbacks.append(
                RoundTeller(self.callbacks, self.strategy, self.rounds, place=place, models=models)
            )
        return callbacks

    def _train_joint(
        self,
        data: Columns,
        labels: Labels,
        held_out: Columns | None,
        held_labels: Labels,
    ) -> xgb.Booster:
        stop = None if held_out is None else self._joint_rows(held_out, held_labels)
        return train_joint(
            self.parameters,
            self.rounds,
            self._joint_rows(data, labels),
            stop,
            self._callbacks(stops=stop is not None),
            trees=self.joint_trees,
        )

    def _joint_rows(self, data: Columns, labels: Labels) -> JointRows:
        """Rows with standardised targets."""
        columns = []
        for name, task in self.tasks.items():
            assert isinstance(task, NumericTarget)  # checked by the constructor
            columns.append((labels[name][0] - task.mean) / task.std)
        there = np.stack([mask for _, mask in labels.values()], 1)
        targets = np.where(there, np.stack(columns, 1), 0.0)
        return JointRows(data.matrix(label=targets), targets, there)

    # ------------------------------------------------------------------ prediction

    def _raw(self, data: Columns, name: str) -> Tensor:
        if not self.boosters:
            raise ArgumentError("fit", "come before predictions", "an untrained model")
        task, position = self.tasks[name], list(self.tasks).index(name)
        rows = len(data)
        if self.strategy == "single":
            margin = self.boosters[name].predict(data.matrix(), output_margin=True)
            return torch.from_numpy(margin.reshape(rows, -1).astype(np.float32))
        chosen = self._with_task(data, np.full(rows, position))
        margin = self.boosters["all"].predict(chosen.matrix(), output_margin=True)
        margin = margin.reshape(rows, -1)
        if self.strategy == "joint":
            margin = margin[:, [position]]
        elif isinstance(task, NumericTarget):
            centre, spread = pooled_scale(self.tasks)
            margin = (margin * spread + centre - task.mean) / task.std
        return torch.from_numpy(margin.astype(np.float32))


def _count_nodes(booster: xgb.Booster) -> int:
    return sum(tree.count("\n") for tree in booster.get_dump())
