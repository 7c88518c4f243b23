"""R-MTGB for regression and classification, as scikit-learn estimators."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.estimator import RMTGBEstimator
from mtl_tabular.boosting.objectives import Floats, Logistic, Loss, Softmax, Squared, softmax
from mtl_tabular.boosting.rows import as_plain, from_plain


class RMTGBRegressor(RegressorMixin, RMTGBEstimator):  # type: ignore[misc]  # as its base
    """Robust multi-task gradient boosting of numbers.

    Every row belongs to a task (a school, a patient). Its score is a sum of ensembles of trees:
    one that all tasks share, one a group of tasks, and one a task,
    ``F = a(x) + Σ_g π_rg f_g(x) + d_r(x)``. The shares π of a task r are learned with the trees,
    so that a few tasks that contradict the rest leave the common group instead of spoiling it.
    Targets are standardised inside.

    Rows of a task that training did not have get the mean shares of the training rows and no task
    ensemble. A row's prediction does not depend on the other rows of a call.

    Source: Emami, Martínez-Muñoz, Hernández-Lobato, "Robust-Multi-Task Gradient Boosting" (2025,
    arXiv 2507.11411), here on XGBoost's histogram trees with Newton leaves, an intercept, damped
    Newton steps of the shares and early stopping of every block.

    Args:
        shared_rounds: rounds of the shared ensemble at most; 0 leaves it out.
        group_rounds: rounds of the groups at most; 0 leaves them out.
        task_rounds: rounds of the task ensembles at most; 0 leaves them out.
        n_groups: groups of tasks, at least 2.
        schedule: ``sequential`` trains one block after the other, as published; ``interleaved``
            grows all blocks in every round, each for the largest of the three numbers of rounds and
            at half the learning rate; ``auto`` trains both and their ablations and keeps the model
            of least held-out loss (`chosen_`).
        learning_rate: factor on every tree, in (0, 1].
        max_depth: of trees, at least 1.
        task_depth: of the task ensembles' trees; None means `max_depth`.
        reg_lambda: quadratic penalty on leaf values.
        task_reg_lambda: of the task ensembles; None means `reg_lambda`.
        min_child_weight: least sum of second derivatives in a leaf.
        group_min_child_weight: of the groups' trees, whose second derivatives are scaled by the
            squares of the shares; small, so that tasks with small shares are not cut off.
        subsample: share of rows a tree sees, in (0, 1].
        colsample: share of columns a tree sees, in (0, 1].
        max_bin: bins of a feature.
        theta_rate: length of the Newton steps of the shares' logits, in (0, 1].
        theta_penalty: quadratic penalty on these logits, in the sum over a task's rows, positive.
        task_balanced: whether all tasks weigh the same in the shared blocks.
        task_feature: whether trees see the task: ``none``, one ``categorical`` feature, ``one-hot``
            ones.
        min_task_rows: tasks with fewer training rows get no ensemble of their own.
        task_shrinkage: k of the task ensembles' learning rate ν n / (n + k) for n rows.
        early_stopping: whether a block ends where the held-out loss stops falling; the best round
            is kept.
        validation_fraction: held out of every task, in (0, 0.5].
        patience: rounds without improvement that end a block.
        reference_mode: the published algorithm: exact stumps, first-order leaves, no penalty, no
            intercept, raw targets, both groups from one gradient, summed gradient steps of the
            logits, no early stopping.
        categorical_features: positions or names of features with codes from 0.
        task_column: name or position of a column of X with the task, instead of ``task=``.
        callbacks: called with a `Round` after every round; True ends the block.
        progress: whether to draw a progress bar.
        warm_start: whether `fit` goes on from the present model.
        device: ``cpu``, ``cuda`` or ``cuda:<number>``. A GPU that is not there is an error of
            `fit`; a model that was trained on one predicts anywhere.
        n_jobs: threads of XGBoost; None means 1, -1 all.
        random_state: of the held-out rows, the logits' start and samples.

    Attributes:
        tasks_: (T,) tasks in ascending order.
        outlier_score_: share of all but the largest group, by task.
        task_report_: see `mtl_tabular.boosting.report.task_report`.
        held_out_losses_: by candidate; of a fixed schedule one.
        chosen_: schedule or ablation that was kept.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, task = rng.normal(size=(600, 2)), np.repeat(["a", "b", "odd"], 200)
        >>> y = np.where(task == "odd", -2, 2) * X[:, 0]
        >>> model = RMTGBRegressor(shared_rounds=0, group_rounds=60, random_state=0)
        >>> model.fit(X, y, task=task).outlier_score_.round().tolist()
        [0.0, 0.0, 1.0]
    """

    def _numeric_targets(self) -> bool:
        return True

    def _learn_targets(self, y: Any, weights: Floats) -> None:
        centre = np.average(y, weights=weights)
        spread = float(np.sqrt(np.average((y - centre) ** 2, weights=weights)))
        constant = not spread > 1e-12 * max(1.0, abs(float(centre)))
        self.target_scale_ = 1.0 if constant or self.reference_mode else spread

    def _encode_targets(self, y: Any) -> NDArray[Any]:
        return np.asarray(y, dtype=np.float64) / self.target_scale_

    def _make_loss(self) -> Loss:
        return Squared()

    def _target_state(self) -> dict[str, Any]:
        return {"scale": self.target_scale_}

    def _restore_targets(self, state: dict[str, Any]) -> None:
        self.target_scale_ = float(state["scale"])

    def predict(self, X: Any, task: Any = None) -> NDArray[np.float64]:
        """Numbers (n,).

        Args:
            X: (n, F) as in `fit`.
            task: (n,) as in `fit`; unknown and missing ones are allowed.
        """
        return self._scores(X, task)[:, 0].astype(np.float64) * self.target_scale_

    def staged_predict(self, X: Any, task: Any = None) -> Iterator[NDArray[np.float64]]:
        """Predictions (n,) after every round."""
        for scores in self._staged_scores(X, task):
            yield scores[:, 0].astype(np.float64) * self.target_scale_

    def score(self, X: Any, y: Any, task: Any = None, sample_weight: Any = None) -> float:
        """R² over all rows."""
        return float(r2_score(y, self.predict(X, task), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Tags:
        """NaN is allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class RMTGBClassifier(ClassifierMixin, RMTGBEstimator):  # type: ignore[misc]  # as its base
    """Robust multi-task gradient boosting of two or more classes.

    `RMTGBRegressor` describes the model, its arguments and attributes. Two classes have one logit,
    more have one a class; all tasks have the same classes.

    Attributes:
        classes_: (K,) in ascending order.
    """

    def _numeric_targets(self) -> bool:
        return False

    def _learn_targets(self, y: Any, weights: Floats) -> None:
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            found = f"one class, {self.classes_.tolist()}"
            raise ArgumentError("y", "hold at least two classes", found)

    def _encode_targets(self, y: Any) -> NDArray[Any]:
        y = np.asarray(y)
        unseen = ~np.isin(y, self.classes_)
        if unseen.any():
            found = np.unique(y[unseen])[:5].tolist()
            raise ArgumentError("y", "hold the classes of training only", found)
        codes: NDArray[Any] = np.searchsorted(self.classes_, y)
        return codes

    def _make_loss(self) -> Loss:
        K = len(self.classes_)
        return Logistic() if K == 2 and not self.reference_mode else Softmax(K)

    def _target_state(self) -> dict[str, Any]:
        return as_plain(self.classes_, "y")

    def _restore_targets(self, state: dict[str, Any]) -> None:
        self.classes_ = from_plain(state)

    def decision_function(self, X: Any, task: Any = None) -> Floats:
        """Logits: (n,) of the second of two classes, (n, K) of more."""
        return self._decision(self._scores(X, task))

    def _decision(self, scores: Floats) -> Floats:
        if len(self.classes_) > 2:
            return scores
        return scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]

    def _probabilities(self, scores: Floats) -> Floats:
        logits = self._decision(scores).astype(np.float64)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], 1)
        return softmax(logits)

    def predict_proba(self, X: Any, task: Any = None) -> Floats:
        """Probabilities (n, K) in the order of `classes_`.

        Args:
            X: (n, F) as in `fit`.
            task: (n,) as in `fit`; unknown and missing ones are allowed.
        """
        return self._probabilities(self._scores(X, task))

    def predict(self, X: Any, task: Any = None) -> NDArray[Any]:
        """The likeliest classes (n,)."""
        chosen = self.predict_proba(X, task).argmax(1)
        classes: NDArray[Any] = self.classes_[chosen]
        return classes

    def staged_predict(self, X: Any, task: Any = None) -> Iterator[NDArray[Any]]:
        """Classes (n,) after every round."""
        for probabilities in self.staged_predict_proba(X, task):
            yield self.classes_[probabilities.argmax(1)]

    def staged_predict_proba(self, X: Any, task: Any = None) -> Iterator[Floats]:
        """Probabilities (n, K) after every round."""
        for scores in self._staged_scores(X, task):
            yield self._probabilities(scores)

    def score(self, X: Any, y: Any, task: Any = None, sample_weight: Any = None) -> float:
        """Accuracy over all rows."""
        return float(accuracy_score(y, self.predict(X, task), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Tags:
        """NaN is allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
