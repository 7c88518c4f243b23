"""What both R-MTGB estimators share: data, blocks, training, reports, one JSON file."""

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.additive import AdditiveModel
from mtl_tabular.boosting.blocks import FeatureRows, RowSet
from mtl_tabular.boosting.device import check_device
from mtl_tabular.boosting.holdout import hold_out
from mtl_tabular.boosting.objectives import Floats, Loss
from mtl_tabular.boosting.progress import ProgressBar
from mtl_tabular.boosting.reduce import Reduce, alone, balanced_weights, common_intercept, task_rows
from mtl_tabular.boosting.report import block_gains, plot_task_scores, task_gains, task_report
from mtl_tabular.boosting.rows import (
    add_task_features,
    feature_kinds,
    known_tasks,
    take_task_column,
    task_codes,
)
from mtl_tabular.boosting.saving import checked_parameters, estimator_state, restore_estimator
from mtl_tabular.boosting.settings import TOGETHER_ROWS, Settings, candidates, new_model
from mtl_tabular.boosting.training import Boosting, Callback


class RMTGBEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of `RMTGBRegressor` and `RMTGBClassifier`, which describe the arguments."""

    model_: AdditiveModel
    chosen_: str

    def __init__(
        self,
        *,
        shared_rounds: int = 200,
        group_rounds: int = 400,
        task_rounds: int = 100,
        n_groups: int = 2,
        schedule: Literal["sequential", "interleaved", "auto"] = "sequential",
        learning_rate: float = 0.1,
        max_depth: int = 4,
        task_depth: int | None = None,
        reg_lambda: float = 1.0,
        task_reg_lambda: float | None = None,
        min_child_weight: float = 1.0,
        group_min_child_weight: float = 1e-3,
        subsample: float = 1.0,
        colsample: float = 1.0,
        max_bin: int = 256,
        theta_rate: float = 1.0,
        theta_penalty: float = 0.5,
        task_balanced: bool = False,
        task_feature: Literal["none", "categorical", "one-hot"] = "none",
        min_task_rows: int = 10,
        task_shrinkage: float = 0.0,
        early_stopping: bool = True,
        validation_fraction: float = 0.15,
        patience: int = 20,
        reference_mode: bool = False,
        categorical_features: Sequence[int | str] | None = None,
        task_column: str | int | None = None,
        callbacks: Sequence[Callback] | None = None,
        progress: bool = False,
        warm_start: bool = False,
        device: str = "cpu",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.shared_rounds = shared_rounds
        self.group_rounds = group_rounds
        self.task_rounds = task_rounds
        self.n_groups = n_groups
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.task_depth = task_depth
        self.reg_lambda = reg_lambda
        self.task_reg_lambda = task_reg_lambda
        self.min_child_weight = min_child_weight
        self.group_min_child_weight = group_min_child_weight
        self.subsample = subsample
        self.colsample = colsample
        self.max_bin = max_bin
        self.theta_rate = theta_rate
        self.theta_penalty = theta_penalty
        self.task_balanced = task_balanced
        self.task_feature = task_feature
        self.min_task_rows = min_task_rows
        self.task_shrinkage = task_shrinkage
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.reference_mode = reference_mode
        self.categorical_features = categorical_features
        self.task_column = task_column
        self.callbacks = callbacks
        self.progress = progress
        self.warm_start = warm_start
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state

    # What the two kinds differ in.

    @abstractmethod
    def _learn_targets(self, y: Any, weights: Floats) -> None:
        """Learn classes or the scale of targets."""

    @abstractmethod
    def _encode_targets(self, y: Any) -> NDArray[Any]:
        """Targets (n,) as the loss takes them."""

    @abstractmethod
    def _make_loss(self) -> Loss:
        """The loss of a row."""

    @abstractmethod
    def _target_state(self) -> dict[str, Any]:
        """What `_learn_targets` learned, as plain data."""

    @abstractmethod
    def _restore_targets(self, state: dict[str, Any]) -> None:
        """Take what `_target_state` gave."""

    @abstractmethod
    def _numeric_targets(self) -> bool:
        """Whether targets are numbers."""

    # Training.

    def fit(
        self,
        X: Any,
        y: Any,
        task: Any = None,
        sample_weight: Any = None,
        validation: tuple[Any, Any, Any] | None = None,
    ) -> Self:
        """Train, or with `warm_start` go on to the present numbers of rounds.

        Args:
            X: (n, F) numbers in an array, pandas or polars frame; NaN where missing.
            y: (n,) targets.
            task: (n,) task of every row, any values; None: one task, or `task_column`.
            sample_weight: (n,) non-negative; rows of weight 0 are left out.
            validation: ``(X, y, task)`` held out instead of a part of the training rows.

        Raises:
            ArgumentError: an argument breaks its rule.
            ColumnError: the task column is absent.
        """
        settings = Settings.of(self)
        check_device(self.device)
        going_on = self.warm_start and hasattr(self, "model_")
        features, task = self._split(X, task)
        X, y = validate_data(
            self, features, y, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan",
            ensure_min_samples=2, y_numeric=self._numeric_targets(), reset=not going_on,
        )  # fmt: skip
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        kept = np.flatnonzero(weights > 0)
        if len(kept) < 2:
            raise ArgumentError("sample_weight", "be positive for two rows or more", len(kept))
        tasks = np.zeros(len(X), dtype=np.int64)
        if not going_on:
            self._draw()
            self._learn_targets(y[kept], weights[kept])
            self.tasks_ = np.zeros(1, dtype=np.int64)
            if task is not None:
                self.tasks_ = known_tasks(np.asarray(task), len(X))
        if task is not None:
            tasks = task_codes(task, self.tasks_)
        if (tasks < 0).any():
            found = np.asarray(task)[tasks < 0][:3].tolist()
            raise ArgumentError("task", "be one of the first training to go on", found)
        self.kinds_ = feature_kinds(self.categorical_features, self._feature_names())
        self.loss_ = self._make_loss()
        targets = self._encode_targets(y)
        X, targets, weights, tasks = X[kept], targets[kept], weights[kept], tasks[kept]
        if self.task_balanced:
            weights = balanced_weights(weights, tasks, len(self.tasks_))
        held = np.zeros(len(X), dtype=bool)
        stops = self.early_stopping and not self.reference_mode
        if validation is None and (stops or self.schedule == "auto"):
            # By rank, numbers would give the extreme row of every task, or of none.
            strata = np.zeros(len(targets)) if self._numeric_targets() else targets
            held = hold_out(tasks, strata, fraction=self.validation_fraction, seed=self.seed_)
        part = self._rows(X[~held], targets[~held], weights[~held], tasks[~held])
        watched = None
        if validation is not None:
            watched = self._validation_rows(validation)
        elif held.any():
            watched = self._rows(X[held], targets[held], weights[held], tasks[held], held=True)
        self._train(settings, part, watched, going_on=going_on)
        return self

    def _train(
        self,
        settings: Settings,
        train: RowSet,
        held: RowSet | None,
        *,
        going_on: bool,
        reduce: Reduce = alone,
    ) -> None:
        bar = ProgressBar() if self.progress else None
        callbacks = [*(self.callbacks or ()), *([bar] if bar else ())]
        choices: dict[str, Settings] = {self.schedule: settings}
        if self.schedule == "auto":
            if held is None:
                raise ArgumentError("schedule", "not be auto without held-out rows", "auto")
            choices = candidates(settings)
            if going_on:
                choices = {self.chosen_: choices[self.chosen_]}
        losses: dict[str, float] = {}
        best: AdditiveModel | None = None
        try:
            for name, choice in choices.items():
                model = self.model_ if going_on else self._new_model(choice, train, reduce)
                plan = choice.plan(watched=held is not None, tasks=len(self.tasks_))
                boosting = Boosting(model, self.loss_, plan, train, held, callbacks, reduce)
                boosting.run()
                losses[name] = boosting.held_out_loss()
                if best is None or losses[name] < min(v for k, v in losses.items() if k != name):
                    best, self.chosen_, self.plan_ = model, name, plan
        finally:
            if bar is not None:
                bar.close()
        assert best is not None  # there is at least one choice
        self.model_ = best
        self.held_out_losses_ = pd.Series(losses, name="held_out_loss", dtype=float)
        self.task_report_ = task_report(best, self.loss_, self.tasks_, held, reduce)
        self.outlier_score_ = self.task_report_["outlier_score"].copy()

    def _draw(self) -> None:
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))

    def _new_model(self, settings: Settings, train: RowSet, reduce: Reduce) -> AdditiveModel:
        numeric = self._numeric_targets()
        intercept = common_intercept(
            self.loss_, train.targets, train.weights, numeric=numeric, reduce=reduce
        )
        if self.reference_mode:
            intercept = np.zeros_like(intercept)
        rows = task_rows(train.tasks, train.count, reduce)
        # Of several processes, and of rows on the disk, trees are in one forest anyway.
        stored = isinstance(train.values, np.memmap)
        small = stored or reduce is not alone or rows.mean() <= TOGETHER_ROWS
        together = "c" not in self.kinds_ and bool(small)
        return new_model(settings, rows, intercept, self.seed_, together=together)

    # Data.

    def _split(self, X: Any, task: Any) -> tuple[Any, Any]:
        if self.task_column is None:
            return X, task
        if task is not None:
            raise ArgumentError("task", "be None where task_column is given", "both")
        return take_task_column(X, self.task_column)

    def _feature_names(self) -> list[str]:
        names = getattr(self, "feature_names_in_", range(self.n_features_in_))
        return [str(name) for name in names]

    def _all_names(self) -> list[str]:
        added = add_task_features(
            np.empty((0, 0)), np.empty(0, dtype=np.int64), len(self.tasks_), self.task_feature
        )[1]
        tasks = [f"task={name}" for name in self.tasks_] if len(added) > 1 else ["task"]
        return [*self._feature_names(), *(tasks if added else ())]

    def _rows(
        self,
        values: Floats,
        targets: NDArray[Any],
        weights: Floats,
        tasks: NDArray[np.int64],
        *,
        held: bool = False,
    ) -> RowSet:
        order = np.argsort(tasks, kind="stable")
        tasks = tasks[order]
        values, added = add_task_features(
            values[order].astype(np.float32), tasks, len(self.tasks_), self.task_feature
        )
        return RowSet(
            values, targets[order], weights[order], tasks, len(self.tasks_),
            self.kinds_ + added, 0 if held or self.reference_mode else self.max_bin,
        )  # fmt: skip

    def _validation_rows(self, validation: tuple[Any, Any, Any]) -> RowSet:
        if len(validation) != 3:
            raise ArgumentError("validation", "be (X, y, task)", f"{len(validation)} entries")
        values, tasks = self._features(validation[0], validation[2])
        if (tasks < 0).any():
            found = f"{int((tasks < 0).sum())} rows of others"
            raise ArgumentError("validation", "hold rows of the training's tasks only", found)
        targets = self._encode_targets(np.asarray(validation[1]))
        return self._rows(values, targets, np.ones(len(tasks)), tasks, held=True)

    def _features(self, X: Any, task: Any) -> tuple[Floats, NDArray[np.int64]]:
        """Features (n, F) and tasks (n,), -1 where unknown."""
        features, task = self._split(X, task)
        values = validate_data(
            self, features, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan",
            reset=False,
        )  # fmt: skip
        if task is None:
            if len(self.tasks_) > 1:
                raise ArgumentError("task", "name the task of every row, as in fit", None)
            return values, np.zeros(len(values), dtype=np.int64)
        codes = task_codes(task, self.tasks_)
        if len(codes) != len(values):
            raise ArgumentError(
                "task", f"name a task for each of the {len(values)} rows", len(codes)
            )
        return values, codes

    def _asked(self, X: Any, task: Any) -> tuple[FeatureRows, NDArray[np.int64]]:
        check_is_fitted(self, "model_")
        values, tasks = self._features(X, task)
        values, added = add_task_features(
            values.astype(np.float32), tasks, len(self.tasks_), self.task_feature
        )
        return FeatureRows(values, self.kinds_ + added), tasks

    def _scores(self, X: Any, task: Any) -> Floats:
        rows, tasks = self._asked(X, task)
        return self.model_.scores(rows, tasks)

    def _staged_scores(self, X: Any, task: Any) -> Iterator[Floats]:
        rows, tasks = self._asked(X, task)
        yield from self.model_.staged(rows, tasks, together=self.plan_.interleaved)

    # Reports.

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """Share (F,) of every feature in the gain of all splits, task columns included."""
        check_is_fitted(self, "model_")
        gains: NDArray[np.float64] = (
            block_gains(self.model_, self._all_names()).sum(axis=1).to_numpy()
        )
        return gains

    def block_importances(self) -> pd.DataFrame:
        """Shares of the gain of all splits by feature and block."""
        check_is_fitted(self, "model_")
        return block_gains(self.model_, self._all_names())

    def task_importances(self) -> pd.DataFrame:
        """Shares of the gain per row by feature and task; every task's column sums to 1."""
        check_is_fitted(self, "model_")
        return task_gains(self.model_, self._all_names(), self.tasks_)

    def plot_task_scores(self, ax: Axes | None = None) -> Axes:
        """Outlier scores of all tasks in rising order."""
        check_is_fitted(self, "model_")
        return plot_task_scores(self.task_report_, ax=ax)

    # Files.

    def save(self, path: str | Path) -> None:
        """Write arguments and model to one JSON file; callbacks are not kept.

        Raises:
            ArgumentError: tasks or classes that JSON does not hold.
            CheckpointWriteError: the system refused.
        """
        check_is_fitted(self, "model_")
        with atomic_write(path) as file:
            file.write(json.dumps(estimator_state(self)).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote.

        Raises:
            ArgumentError: the file is none of this class.
        """
        state = json.loads(Path(path).read_text())
        made = cls(**checked_parameters(state, cls.__name__))
        restore_estimator(made, state)
        return made
