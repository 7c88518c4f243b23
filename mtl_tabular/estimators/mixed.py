"""Classifications and regressions together from one table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.metaestimators import available_if

from mtl_core.balancing import Balancer
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.estimators.base import TableEstimator
from mtl_tabular.estimators.choices import NetworkFactory
from mtl_tabular.estimators.features import Categorical
from mtl_tabular.estimators.targets import assemble, probabilities
from mtl_tabular.metrics.primary import primary_score
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget, TargetColumn

Kind: TypeAlias = Literal["binary", "multiclass", "numeric", "auto"] | TargetColumn

FEW = 20
"""So many different whole numbers still pass for classes where the kind is ``auto``."""


def _has_classes(estimator: Any) -> bool:
    """Whether there is a task to give probabilities of; before the fit there may be."""
    fitted: dict[str, Any] | None = vars(estimator).get("_classes")
    return fitted is None or bool(fitted)


class MultiTaskEstimator(TableEstimator):
    """Estimator for tasks of different kinds: classes here, numbers there.

    Args:
        kinds: of every task, as a mapping by its name in y or a list in the order of y; or one for
            all. ``binary``, ``multiclass``, ``numeric``, a record (`BinaryTarget` with a
            ``pos_weight``, say), or ``auto``: text, booleans and categories are classes, and so are
            whole numbers with at most 20 different values; other numbers are numeric. Tasks that a
            mapping does not name are ``auto``.
        network: this and the others as in `TableEstimator`.
        balancer: likewise.
        max_epochs: likewise.
        batch_size: likewise.
        learning_rate: likewise.
        weight_decay: likewise.
        validation_fraction: likewise.
        early_stopping: likewise.
        patience: likewise.
        random_state: likewise.
        categorical_features: likewise.
        accelerator: likewise.
        verbose: likewise.

    Attributes:
        classes_: the classes (K,) of a single task; for several a list with None for numeric ones.
            Absent for a single numeric task.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = pd.DataFrame({"age": rng.uniform(18, 80, 60), "city": rng.choice(["A", "B"], 60)})
        >>> y = pd.DataFrame({"buys": X.city == "A", "euros": 3.5 * X.age})
        >>> model = MultiTaskEstimator(max_epochs=3, random_state=0).fit(X, y)
        >>> [type(task).__name__ for task in model.tasks_.values()]
        ['BinaryTarget', 'NumericTarget']
        >>> model.predict(X).dtypes.astype(str).to_dict()
        {'buys': 'bool', 'euros': 'float64'}
    """

    def __init__(
        self,
        kinds: Kind | Mapping[str, Kind] | Sequence[Kind] = "auto",
        *,
        network: str | NetworkFactory = "multitab",
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
        super().__init__(
            network,
            balancer=balancer,
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            validation_fraction=validation_fraction,
            early_stopping=early_stopping,
            patience=patience,
            random_state=random_state,
            categorical_features=categorical_features,
            accelerator=accelerator,
            verbose=verbose,
        )
        self.kinds = kinds

    def _start_records(
        self, columns: dict[str, NDArray[Any]], labels: Sequence[str], vector: bool
    ) -> dict[str, TargetColumn]:
        kinds = _resolve(self.kinds, labels)
        records = {}
        for (name, values), kind in zip(columns.items(), kinds, strict=True):
            record = _record(kind, values)
            if not isinstance(record, NumericTarget):
                record = self._class_record(name, values, record)
            records[name] = record
        self.__dict__.pop("classes_", None)  # of an earlier fit
        if self._classes:
            found = [self._classes.get(name) for name in columns]
            self.classes_ = found[0] if vector else found
        return records

    def predict(self, X: Any) -> Any:
        """The likeliest classes, and numbers in their own units.

        Args:
            X: (n_samples, n_features), columns as at fit.

        Returns:
            (n_samples,) or (n_samples, n_tasks) as y was, of objects where the tasks differ in
            type; a pandas frame where y was a frame or a mapping.
        """
        return assemble(self._predicted(X), self._form)

    @available_if(_has_classes)  # type: ignore[untyped-decorator]  # no types
    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes in the order of `classes_`.

        Args:
            X: (n_samples, n_features), columns as at fit.

        Returns:
            (n_samples, K) for one task; for several a list with None for numeric ones.
        """
        activated = self._activated(X)
        return self._per_task({name: probabilities(activated[name]) for name in self._classes})

    def score(self, X: Any, y: Any) -> float:
        """Mean of the tasks' primary metrics: area under the ROC curve, or explained variance.

        Both are at most 1, higher is better. Tasks for which the metric is undefined on these
        labels (one class only, equal numbers) are left out; NaN where it is for all.

        Args:
            X: (n_samples, n_features).
            y: labels as at fit.
        """
        labels, raw, scores = self._labels(y), self._raw(X), []
        for name, task in self.tasks_.items():
            target, labelled = task.encode(name, pd.Series(labels[name]))
            rows = torch.from_numpy(labelled)
            scores.append(primary_score(task, raw[name][rows], torch.from_numpy(target)[rows]))
        known = [score for score in scores if score == score]
        return float(np.mean(known)) if known else float("nan")


def _resolve(
    kinds: Kind | Mapping[str, Kind] | Sequence[Kind], labels: Sequence[str]
) -> list[Kind]:
    """The kind of every task, by the names that tasks have in y."""
    if isinstance(kinds, str | TargetColumn):
        return [kinds] * len(labels)
    if isinstance(kinds, Mapping):
        for name in kinds:
            if name not in labels:
                raise UnknownNameError("kinds", name, labels)
        return [kinds.get(label, "auto") for label in labels]
    if len(kinds) != len(labels):
        raise ArgumentError("kinds", f"hold one entry a task ({len(labels)})", list(kinds))
    return list(kinds)


def _record(kind: Kind, values: NDArray[Any]) -> TargetColumn | None:
    """The record of a kind, without classes; None for classes whose number decides."""
    records = {"binary": BinaryTarget(), "multiclass": MulticlassTarget()}
    if isinstance(kind, TargetColumn):
        return kind
    if kind == "numeric" or (kind == "auto" and not _are_classes(values)):
        return NumericTarget()
    if kind == "auto":
        return None
    if kind not in records:
        raise UnknownNameError("kinds", str(kind), [*records, "numeric", "auto"])
    return records[kind]


def _are_classes(values: NDArray[Any]) -> bool:
    known = values[~pd.isna(values)]
    if known.dtype.kind not in "iuf":
        numbers = pd.api.types.infer_dtype(known) in ("integer", "floating", "mixed-integer-float")
        if not numbers:
            return True
        known = known.astype(np.float64)
    if not np.isfinite(known).all():
        return False
    distinct = np.unique(known)
    return len(distinct) <= FEW and bool((distinct == np.floor(distinct)).all())
