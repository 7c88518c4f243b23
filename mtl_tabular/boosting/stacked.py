"""R-MTGB on the tasks of a table: every label is a row, and its task is the row's task."""

from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.estimator import RMTGBEstimator
from mtl_tabular.boosting.external import fit_external
from mtl_tabular.boosting.matrix import split_columns
from mtl_tabular.boosting.pieces import Piece
from mtl_tabular.boosting.rmtgb import RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.saving import (
    checked_parameters,
    estimator_state,
    records_state,
    restore_estimator,
    restore_records,
)
from mtl_tabular.boosting.targets import check_one_kind
from mtl_tabular.data.readers import CHUNK_ROWS
from mtl_tabular.data.rows import TableRows
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget, TargetColumn

ABSENT = -30.0  # logit of a class that a record names and training rows do not have
UNKNOWN = ""  # no task has this name: the estimator's value for tasks that training did not have


class StackedRMTGB:
    """An R-MTGB estimator with the records and columns that `BoostedTrees` has, too.

    A long table gives its rows as they are. A *wide* table is stacked: a row with labels of three
    tasks becomes three rows, so a table of N rows and T tasks takes the memory of N T rows. Tasks
    must be of one kind: all numeric, or all with the same classes. Every numeric task is
    standardised by its own record, so units may differ; ``reference_mode``, which is about raw
    targets, needs records with ``standardize: false``.

    Weights of tasks and of positive rows become weights of rows.

    Args:
        tasks: fitted records by name.
        schema: feature columns, fitted.
        estimator: `RMTGBRegressor` for numbers, `RMTGBClassifier` for classes. Its categorical
            features are set from the schema.

    Raises:
        ArgumentError: the tasks are not of one kind, or not of the estimator's.
    """

    def __init__(
        self,
        tasks: Mapping[str, TargetColumn],
        *,
        schema: TableSchema,
        estimator: RMTGBEstimator,
    ) -> None:
        kind = type(estimator).__name__
        check_one_kind(tasks, f"for {kind}, whose blocks they share")
        first = next(iter(tasks.values()))
        numeric = isinstance(first, NumericTarget)
        if numeric != isinstance(estimator, RMTGBRegressor):
            suiting = "RMTGBRegressor" if numeric else "RMTGBClassifier"
            raise ArgumentError("model", f"be {suiting} for {type(first).__name__}", kind)
        if isinstance(first, NumericTarget) and first.loss != "mse":
            raise ArgumentError("loss of the tasks", f"be mse for {kind}", first.loss)
        self.tasks = dict(tasks)
        self.schema = schema
        self.estimator = estimator

    def fit(
        self,
        rows: TableRows,
        val: TableRows | None = None,
        *,
        cache_dir: str | Path = "",
        scheduler: str = "",
    ) -> Self:
        """Train.

        Args:
            rows: of `TableDataModule.dataset`.
            val: held out for early stopping and reports; None: a part of `rows`.
            cache_dir: folder for features where they are not to be held in memory, see
                `mtl_tabular.boosting.external.fit_external`; empty holds them.
            scheduler: address of a Dask scheduler on whose workers to train, see
                `mtl_tabular.boosting.dask.fit_dask`; empty trains here.

        Raises:
            ArgumentError: both are given, or an argument of the estimator does not suit.
        """
        if cache_dir and scheduler:
            raise ArgumentError("external", "be false where a scheduler is given", True)
        self.estimator.set_params(categorical_features=list(range(len(self.schema.categorical))))
        if not (cache_dir or scheduler):
            whole = self.piece(rows)
            held: tuple[Any, Any, Any] | None = None
            if val is not None:
                part = self.piece(val)
                held = (part.values, part.targets, part.tasks) if len(part) else None
            self.estimator.fit(
                whole.values, whole.targets, task=whole.tasks, sample_weight=whole.weights,
                validation=held,
            )  # fmt: skip
            return self
        pieces, watched = StackedPieces(self, rows), None
        if val is not None and any(val.counts.values()):
            watched = StackedPieces(self, val)
        if cache_dir:
            fit_external(self.estimator, pieces, cache_dir=cache_dir, validation=watched)
            return self
        try:
            from mtl_tabular.boosting.dask import fit_stacked
        except ModuleNotFoundError as error:
            rule = "be empty without the extra dask (pip install 'mtl-suite[dask]')"
            raise ArgumentError("scheduler", rule, scheduler) from error
        fit_stacked(self.estimator, scheduler, pieces, watched)
        return self

    def piece(self, rows: TableRows) -> Piece:
        """All labels of some rows, with weights of tasks and of positive rows."""
        X, y, ids, _ = self._stack(rows)
        weights = np.array([task.weight for task in self.tasks.values()])[ids]
        factors = [getattr(task, "pos_weight", 1.0) for task in self.tasks.values()]
        weights = np.where(y == 1, np.array(factors)[ids], 1.0) * weights
        return Piece(X, y, self._names[ids], weights)

    def predict_raw(self, rows: TableRows, *, unknown: bool = False) -> dict[str, Tensor]:
        """What the networks' forward gives: (N, C) float32 by task, for every row and task.

        Args:
            rows: N rows.
            unknown: add the predictions for tasks that training did not have, under ``unknown``.
        """
        names = {name: name for name in self.tasks} | ({"unknown": UNKNOWN} if unknown else {})
        found: dict[str, list[Tensor]] = {shown: [] for shown in names}
        for part in parts_of(rows):
            X = split_columns(self.schema, part).values
            for shown, name in names.items():
                found[shown].append(self._raw(X, np.full(len(X), name, dtype=object)))
        return {shown: torch.cat(raw) for shown, raw in found.items()}

    def predict_labelled(self, rows: TableRows) -> dict[str, tuple[Tensor, Tensor]]:
        """Raw predictions (M, C) of every task's labelled rows, and their targets (M,).

        Tasks without a labelled row are absent.
        """
        parts = []
        for part in parts_of(rows):
            X, _, own, encoded = self._stack(part)
            parts.append((self._raw(X, self._names[own]), own, encoded))
        raw = torch.cat([part[0] for part in parts])
        ids, targets = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        order = np.argsort(ids, kind="stable")
        ends = np.cumsum(np.bincount(ids, minlength=len(self.tasks)))
        found = {}
        for name, own in zip(self.tasks, np.split(order, ends[:-1]), strict=True):
            if len(own):
                found[name] = (raw[own], torch.from_numpy(targets[own]))
        return found

    @property
    def seed(self) -> int:
        """Seed that the estimator was given; 0 where it was given none or a generator."""
        state = self.estimator.random_state
        return state if isinstance(state, int) else 0

    @property
    def _names(self) -> NDArray[Any]:
        return np.array(list(self.tasks), dtype=object)

    def _raw(self, X: NDArray[Any], task: NDArray[Any]) -> Tensor:
        if not len(X):
            return torch.zeros(0, next(iter(self.tasks.values())).out_channels)
        if not isinstance(self.estimator, RMTGBClassifier):
            assert isinstance(self.estimator, RMTGBRegressor)
            return torch.from_numpy(self.estimator.predict(X, task)[:, None].astype(np.float32))
        logits = self.estimator.decision_function(X, task)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], 1)
        record = next(iter(self.tasks.values()))
        assert isinstance(record, BinaryTarget | MulticlassTarget)
        whole = np.full((len(X), len(record.classes)), ABSENT, dtype=np.float32)
        whole[:, self.estimator.classes_] = logits
        if isinstance(record, BinaryTarget):
            whole = whole[:, [1]] - whole[:, [0]]
        return torch.from_numpy(whole)

    def _stack(
        self, rows: TableRows
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64], NDArray[Any]]:
        """Features (M, F), targets as the estimator takes them, tasks, and encoded targets (M,)."""
        layout, arrays = rows.layout, dict(rows.arrays)
        assert layout is not None
        if rows.chosen is not None:
            arrays = {name: np.take(array, rows.chosen, axis=0) for name, array in arrays.items()}
        level = arrays.get("level", np.zeros(len(rows), dtype=np.int64))
        order = list(self.tasks)
        places, ids, values = [], [], []
        for i, slot in enumerate(layout.slots):
            task_of = np.full(max(len(layout.levels), 1), -1)
            for k, name in slot.tasks.items():
                task_of[k] = order.index(name)
            found = task_of[level]
            own = found >= 0
            if "labelled" in arrays:
                own &= arrays["labelled"][:, i]
            places.append(np.flatnonzero(own))
            ids.append(found[own])
            numeric = i < layout.reals
            value = arrays["numbers"][:, i] if numeric else arrays["classes"][:, i - layout.reals]
            values.append(value[own])
        place, task, encoded = (np.concatenate(parts) for parts in (places, ids, values))
        X = split_columns(self.schema, rows).values[place]
        first = next(iter(self.tasks.values()))
        if isinstance(first, NumericTarget):
            numbers = [t for t in self.tasks.values() if isinstance(t, NumericTarget)]
            means, stds = np.array([t.mean for t in numbers]), np.array([t.std for t in numbers])
            return X, (encoded - means[task]) / stds[task], task, encoded.astype(np.float32)
        codes = encoded.astype(np.int64)
        binary = isinstance(first, BinaryTarget)
        return X, codes, task, codes.astype(np.float32) if binary else codes

    def state(self) -> dict[str, Any]:
        """Records, columns and everything learned, as plain data."""
        return {
            **records_state(self.tasks, self.schema),
            "estimator": estimator_state(self.estimator),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The model of which `state` was written."""
        saved = state["estimator"]
        kinds = {kind.__name__: kind for kind in (RMTGBRegressor, RMTGBClassifier)}
        kind = kinds[saved["kind"]]
        estimator = kind(**checked_parameters(saved, saved["kind"]))
        restore_estimator(estimator, saved)
        return cls(**restore_records(state["tasks"], state["schema"]), estimator=estimator)


def parts_of(rows: TableRows) -> Iterator[TableRows]:
    """The rows in parts of at most `CHUNK_ROWS`, at least one."""
    chosen = np.arange(len(rows)) if rows.chosen is None else rows.chosen
    for first in range(0, max(len(rows), 1), CHUNK_ROWS):
        part = copy(rows)
        part.chosen = chosen[first : first + CHUNK_ROWS]
        part.size = len(part.chosen)
        yield part


class StackedPieces:
    """A split of a table as pieces of a long one, stacked when they are asked for.

    Args:
        model: that knows tasks and columns.
        rows: the split.
    """

    names: list[str] | None = None

    def __init__(self, model: StackedRMTGB, rows: TableRows) -> None:
        self.model, self.rows = model, rows

    def __iter__(self) -> Iterator[Piece]:
        """Pieces in the order of the split."""
        for part in parts_of(self.rows):
            yield self.model.piece(part)
