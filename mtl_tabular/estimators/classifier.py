"""Several classifications from one table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin

from mtl_tabular.estimators.base import TableEstimator
from mtl_tabular.estimators.targets import assemble, probabilities
from mtl_tabular.tasks import TargetColumn


class MultiTaskClassifier(ClassifierMixin, TableEstimator):  # type: ignore[misc]  # no types
    """Classifier for one or several tasks of two or more classes each.

    Takes the parameters of `TableEstimator`. With several tasks a label may be missing (NaN or
    None); the row then counts for the other tasks.

    Attributes:
        classes_: the classes (K,), or a list of such arrays where y was (n_samples, n_tasks).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(60, 3))
        >>> y = np.stack([X[:, 0] > 0, X[:, 1] > X[:, 2]], 1)
        >>> model = MultiTaskClassifier(max_epochs=3, random_state=0).fit(X, y)
        >>> model.predict(X).shape, [p.shape for p in model.predict_proba(X)]
        ((60, 2), [(60, 2), (60, 2)])
    """

    def _start_records(
        self, columns: dict[str, NDArray[Any]], labels: Sequence[str], vector: bool
    ) -> dict[str, TargetColumn]:
        records = {name: self._class_record(name, values) for name, values in columns.items()}
        classes = list(self._classes.values())
        self.classes_ = classes[0] if vector else classes
        return records

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest classes.

        Args:
            X: (n_samples, n_features), columns as at fit.

        Returns:
            (n_samples,) or (n_samples, n_tasks), as y was, with the classes' own type; of objects
            where the tasks' classes differ in type.
        """
        columns = self._predicted(X)
        predicted: NDArray[Any] = assemble(columns, "vector" if self._form == "vector" else "array")
        return predicted

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes in the order of `classes_`.

        Args:
            X: (n_samples, n_features), columns as at fit.

        Returns:
            (n_samples, K), or a list of such arrays where y was (n_samples, n_tasks).
        """
        activated = self._activated(X)
        return self._per_task({name: probabilities(p) for name, p in activated.items()})

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on labelled rows, mean over the tasks that have any.

        Args:
            X: (n_samples, n_features).
            y: labels as at fit.
            sample_weight: weights (n_samples,) of the rows in the score.
        """
        labels = self._labels(y)
        scores = []
        for values, predicted in zip(labels.values(), self._predicted(X).values(), strict=True):
            known = ~pd.isna(values)
            if known.any():
                weight = None if sample_weight is None else np.asarray(sample_weight)[known]
                right = values[known] == predicted[known]
                scores.append(float(np.average(right, weights=weight)))
        return float(np.mean(scores)) if scores else float("nan")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
