"""What all estimators share: reading tables, fitting, predicting, embedding."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from mtl_core.balancing import Balancer
from mtl_core.errors import ArgumentError, LabelError, UnknownNameError
from mtl_core.types import Predictions
from mtl_tabular.data import TableSchema
from mtl_tabular.estimators.choices import NetworkFactory, make_balancer, network_factory
from mtl_tabular.estimators.features import (
    Categorical,
    categorical_names,
    feature_frame,
    to_pandas,
)
from mtl_tabular.estimators.inference import embeddings, raw_predictions, shared_vector
from mtl_tabular.estimators.targets import (
    class_record,
    classes_of,
    probabilities,
    read_targets,
    task_identifiers,
)
from mtl_tabular.estimators.training import Recipe, train
from mtl_tabular.networks import TableNetwork
from mtl_tabular.tasks import TargetColumn


class TableEstimator(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]  # no types
    """Base of the estimators: a `MultiTaskModule` behind fit, predict and transform.

    Rows are predicted in double precision, so that a row's prediction does not depend on the rows
    beside it (as long as the network itself keeps rows apart, which all do by default).

    Args:
        network: the name of a network (``multitab``, ``shared_bottom``, ...), or what builds one
            from the tasks and ``schema=``: a class or a `functools.partial` of one.
        balancer: the name of a balancer (``pcgrad``, ``uw``, ...), what makes one, or None for
            equal weights.
        max_epochs: at most so many passes over the training rows.
        batch_size: rows a step, at least 2.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        validation_fraction: share of the rows, in (0, 1), that early stopping sets aside.
        early_stopping: whether to stop when the mean of the tasks' primary metrics on rows set
            aside has not improved for `patience` epochs, and to keep the best epoch's weights.
        patience: see `early_stopping`.
        random_state: seed or generator of everything random; with a seed, fits repeat exactly on
            one machine and no global generator is touched.
        categorical_features: ``from_dtype`` (text, booleans and pandas' categories), or the names,
            indices or mask of further features that are categories although they hold numbers.
        accelerator: as Lightning's trainer takes it: ``auto``, ``cpu``, ``gpu``, ...
        verbose: whether to show a progress bar.

    Attributes:
        network_: the trained network, on the CPU.
        schema_: the features as the network sees them.
        tasks_: fitted records by task name.
        task_names_: names of the tasks as y had them.
        history_: logged values of every epoch (``train/TASK/loss``, ``val/TASK/METRIC``).
        n_features_in_: number of features.
        feature_names_in_: their names, where X had names.
    """

    def __init__(
        self,
        network: str | NetworkFactory = "multitab",
        *,
        balancer: str | Callable[[], Balancer] | None = None,
        max_epochs: int = 50,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-5,
        validation_fraction: float = 0.1,
        early_stopping: bool = False,
        patience: int = 10,
        random_state: int | np.random.RandomState | None = None,
        categorical_features: Categorical = "from_dtype",
        accelerator: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.network = network
        self.balancer = balancer
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.patience = patience
        self.random_state = random_state
        self.categorical_features = categorical_features
        self.accelerator = accelerator
        self.verbose = verbose

    network_: TableNetwork
    schema_: TableSchema
    tasks_: dict[str, TargetColumn]
    task_names_: list[str]
    history_: list[dict[str, float]]
    n_features_in_: int

    @abstractmethod
    def _start_records(
        self, columns: dict[str, NDArray[Any]], labels: Sequence[str], vector: bool
    ) -> dict[str, TargetColumn]:
        """A record per task; `_class_record` makes those of classes. Sets ``classes_``."""

    def _class_record(
        self, name: str, values: NDArray[Any], record: TargetColumn | None = None
    ) -> TargetColumn:
        """The record of a task with classes; remembers them with their own type."""
        self._classes[name] = classes_of(name, values)
        return class_record(name, self._classes[name], record)

    def fit(self, X: Any, y: Any) -> Self:
        """Train on a table.

        Args:
            X: (n_samples, n_features) array or frame. Numbers, text, booleans and categories;
                values may be missing.
            y: labels (n_samples,), or (n_samples, n_tasks) as array or frame, or a mapping of
                columns. With several tasks labels may be missing (NaN, None); rows without any
                are left out.

        Raises:
            ValueError: X or y breaks a rule; the message names it.
        """
        recipe = self._recipe()
        frame = self._read(X, reset=True)
        targets = read_targets(y, estimator=type(self).__name__)
        check_consistent_length(frame, next(iter(targets.columns.values())))
        labels = list(targets.columns)
        names = task_identifiers(labels)
        columns = dict(zip(names, targets.columns.values(), strict=True))
        self._classes: dict[str, NDArray[Any]] = {}
        records = {
            name: replace(record, column=_free(label, list(frame.columns)))
            for label, (name, record) in zip(
                labels,
                self._start_records(columns, labels, targets.form == "vector").items(),
                strict=True,
            )
        }
        categorical = categorical_names(self.categorical_features, list(frame.columns))
        table = frame.copy(deep=False)
        for name, record in records.items():
            table[record.column] = columns[name]
        labelled = ~pd.DataFrame(columns).isna().all(axis=1).to_numpy()
        table = table[labelled].reset_index(drop=True)
        if len(table) < 2:
            raise LabelError(", ".join(names), "be there for at least two rows", len(table))
        trained = train(
            table,
            dict(records),
            recipe,
            features=list(frame.columns),
            categorical=categorical,
            val_fraction=self.validation_fraction if self.early_stopping else 0.0,
        )
        self.network_ = trained.network
        self.schema_ = trained.schema
        self.history_ = trained.history
        self.tasks_ = {
            n: t for n, t in trained.network.tasks.items() if isinstance(t, TargetColumn)
        }
        self.task_names_ = labels
        self._form = targets.form
        return self

    def _recipe(self) -> Recipe:
        """The parameters, checked."""
        if not 0 < self.validation_fraction < 1:
            raise ArgumentError("validation_fraction", "lie in (0, 1)", self.validation_fraction)
        return Recipe(
            network=network_factory(self.network),
            balancer=make_balancer(self.balancer),
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            accelerator=self.accelerator,
            verbose=self.verbose,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )

    def _read(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """Features as a frame; `reset` learns names and number, otherwise they are compared."""
        if isinstance(to_pandas(X), pd.DataFrame):
            validate_data(self, X, reset=reset, skip_check_array=True)
            table = to_pandas(X)
            if len(table) < (2 if reset else 1) or not table.shape[1]:
                raise ValueError(
                    f"Found array with {len(table)} sample(s) and {table.shape[1]} feature(s) "
                    f"(shape={table.shape}) while a minimum of {2 if reset else 1} sample(s) and 1 "
                    f"feature(s) is required by {type(self).__name__}."
                )
        else:
            table = validate_data(
                self,
                X,
                reset=reset,
                dtype=None,
                ensure_all_finite="allow-nan",
                ensure_min_samples=2 if reset else 1,
            )
        given = getattr(self, "feature_names_in_", None)
        names = [f"x{k}" for k in range(table.shape[1])] if given is None else given.tolist()
        return feature_frame(table, names)

    def _activated(self, X: Any) -> Predictions:
        """Activated predictions (N, C) by task: probabilities, or numbers in their own unit."""
        return {name: self.tasks_[name].activate(raw) for name, raw in self._raw(X).items()}

    def _raw(self, X: Any) -> Predictions:
        """Raw predictions (N, C) by task, in float64 on the CPU."""
        check_is_fitted(self)
        arrays = self.schema_.encode(self._read(X, reset=False))
        return raw_predictions(self.network_, arrays, accelerator=self.accelerator)

    def _predicted(self, X: Any) -> dict[str, NDArray[Any]]:
        """Predicted labels (N,) by the task's name in y: classes with their own type, numbers."""
        activated = self._activated(X)
        columns: dict[str, NDArray[Any]] = {}
        for label, (name, task) in zip(self.task_names_, self.tasks_.items(), strict=True):
            if name in self._classes:
                chosen = probabilities(activated[name]).argmax(1)
                columns[label] = self._classes[name][chosen]
            else:
                columns[label] = task.decode(activated[name])
        return columns

    def _labels(self, y: Any) -> dict[str, NDArray[Any]]:
        """Labels to score against, by task; they must be of the fitted tasks."""
        targets = read_targets(y, estimator=type(self).__name__)
        if targets.form == "frame" and self._form == "frame":
            for label in self.task_names_:
                if label not in targets.columns:
                    raise UnknownNameError("task", label, targets.columns)
            values = [targets.columns[label] for label in self.task_names_]
        else:
            values = list(targets.columns.values())
        if len(values) != len(self.tasks_):
            raise ArgumentError("y", f"hold {len(self.tasks_)} tasks", len(values))
        return dict(zip(self.tasks_, values, strict=True))

    def encoded(self, X: Any, y: Any) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Inputs of `network_`, and labels (n_samples,) by the names in `tasks_`.

        Args:
            X: (n_samples, n_features), columns as at fit.
            y: labels as at fit.
        """
        check_is_fitted(self)
        labels = self._labels(y)
        frame = self._read(X, reset=False)
        check_consistent_length(frame, *labels.values())
        return self.schema_.encode(frame), labels

    def _per_task(self, values: dict[str, Any]) -> Any:
        """One value for one task given as (n_samples,), otherwise a list in the order of tasks."""
        found = [values.get(name) for name in self.tasks_]
        return found[0] if self._form == "vector" else found

    def transform(self, X: Any) -> NDArray[np.float64]:
        """What the trunk makes of every row, flattened: the input of all the tasks' decoders.

        Args:
            X: (n_samples, n_features), columns as at fit.

        Returns:
            (n_samples, width).
        """
        check_is_fitted(self)
        arrays = self.schema_.encode(self._read(X, reset=False))
        return embeddings(self.network_, arrays, accelerator=self.accelerator)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of what `transform` gives: ``shared0``, ``shared1``, ...

        Args:
            input_features: ignored; there for scikit-learn's sake.
        """
        check_is_fitted(self)
        inputs = {
            "numeric": torch.zeros(1, len(self.schema_.numeric)),
            "categorical": torch.zeros(1, len(self.schema_.categorical), dtype=torch.int64),
        }
        with torch.inference_mode():
            width = shared_vector(self.network_, inputs).shape[1]
        return np.array([f"shared{k}" for k in range(width)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float64"]
        return tags


def _free(label: str, taken: list[str]) -> str:
    """A column's name in the training table: its own, unless a feature has that."""
    while label in taken:
        label = f"target {label}"
    return label
