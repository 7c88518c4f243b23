"""Long tables in pieces, for trainings that never hold a whole table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, EmptySplitError
from mtl_tabular.boosting.objectives import Floats
from mtl_tabular.data.columns import ColumnError
from mtl_tabular.data.readers import CHUNK_ROWS, Table, TableSource


@dataclass(frozen=True)
class Piece:
    """Some rows of a long table.

    Args:
        values: (m, F) numbers; NaN where missing. Kept as float32.
        targets: (m,), none missing.
        tasks: (m,) of any values, none missing.
        weights: (m,) finite and not negative.

    Raises:
        ArgumentError: lengths differ, or an entry breaks a rule above.
        ColumnError: a feature holds an infinity, or a number beyond float32.
    """

    values: NDArray[np.float32]
    targets: NDArray[Any]
    tasks: NDArray[Any]
    weights: Floats

    def __post_init__(self) -> None:
        """Check the rows."""
        with np.errstate(over="ignore"):
            object.__setattr__(self, "values", np.asarray(self.values, dtype=np.float32))
        rows = len(self.values)
        for name in ("targets", "tasks", "weights"):
            array = np.asarray(getattr(self, name))
            object.__setattr__(self, name, array)
            if array.shape != (rows,):
                raise ArgumentError(name, f"have an entry for each of {rows} rows", array.shape)
            missing = pd.isna(array)
            if missing.any():
                found = f"none in {missing.sum()} rows"
                raise ArgumentError(name, "be there for every row", found)
        if self.targets.dtype.kind == "f" and not np.isfinite(self.targets).all():
            raise ArgumentError("targets", "be finite", "an infinity")
        if not (np.isfinite(self.weights) & (self.weights >= 0)).all():
            raise ArgumentError("weights", "be finite and not negative", self.weights.min())
        infinite = np.isinf(self.values).any(0)
        if infinite.any():
            columns = np.flatnonzero(infinite)[:5].tolist()
            raise ColumnError(
                f"features must be finite in float32 or missing, found infinities in columns "
                f"{columns}, counted from 0."
            )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.targets)

    def at(self, rows: NDArray[Any]) -> "Piece":
        """Some of the rows, by mask or position."""
        return Piece(self.values[rows], self.targets[rows], self.tasks[rows], self.weights[rows])

    def counted(self) -> "Piece":
        """The rows of positive weight."""
        kept = self.weights > 0
        return self if kept.all() else self.at(kept)

    @classmethod
    def join(cls, pieces: Sequence["Piece"]) -> "Piece":
        """All rows of several pieces, one after the other."""
        if len(pieces) == 1:
            return pieces[0]
        return cls(*(
            np.concatenate([getattr(piece, name) for piece in pieces])
            for name in ("values", "targets", "tasks", "weights")
        ))  # fmt: skip


class Pieces(Protocol):
    """A long table that can be gone through again and again."""

    @property
    def names(self) -> list[str] | None:
        """Names of the features; None where they have none."""

    def __iter__(self) -> Iterator[Piece]:
        """Pieces in the same order and of the same rows every time."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which columns of a frame are what.

    Args:
        target: name of the column to predict.
        task: of the column that says which task a row belongs to; empty where there is one task.
        weight: of the column with the rows' weights; empty where all weigh the same.
        features: of the others; None means all that are left.
    """

    target: str
    task: str = ""
    weight: str = ""
    features: tuple[str, ...] | None = None

    def of(self, columns: Sequence[str], label: str) -> "Layout":
        """The same with its features named.

        Args:
            columns: of the table.
            label: of the table, for messages.

        Raises:
            ColumnError: a column is absent, has two meanings, or no feature is left.
        """
        taken = [name for name in (self.target, self.task, self.weight) if name]
        chosen = [name for name in columns if name not in taken]
        chosen = chosen if self.features is None else list(self.features)
        source = TableSource(pd.DataFrame(columns=list(columns)))
        source.label = label
        for purpose, names in (
            ("target", [self.target]), ("task", [self.task] if self.task else []),
            ("weight", [self.weight] if self.weight else []), ("feature", chosen),
        ):  # fmt: skip
            source.require(names, purpose)
        every = [*taken, *chosen]
        twice = sorted({name for name in every if every.count(name) > 1})
        if twice:
            raise ColumnError(f"a column must have one meaning, found several for {twice}.")
        if not chosen:
            raise ColumnError(f"a table must have at least one feature column. Table: {label}.")
        return replace(self, features=tuple(chosen))

    def piece(self, frame: pd.DataFrame) -> Piece:
        """The rows of a frame.

        Raises:
            ColumnError: a feature is no number.
        """
        assert self.features is not None  # `of` names them
        values = np.empty((len(frame), len(self.features)), np.float32)
        for i, name in enumerate(self.features):
            column = frame[name]
            if not (pd.api.types.is_numeric_dtype(column.dtype) or column.isna().all()):
                raise ColumnError(
                    f"feature {name!r} must hold numbers, or codes of categories, found "
                    f"{column.dtype}."
                )
            with np.errstate(over="ignore"):
                values[:, i] = column.to_numpy(np.float64, na_value=np.nan)
        weights = np.ones(len(frame))
        if self.weight:
            weights = frame[self.weight].to_numpy(np.float64, na_value=np.nan)
        tasks = np.zeros(len(frame), np.int64)
        if self.task:
            tasks = np.asarray(frame[self.task])
        return Piece(values, np.asarray(frame[self.target]), tasks, weights)


class TablePieces:
    """A table from files, read piece by piece every time it is gone through.

    Args:
        table: a CSV or Parquet file, a folder of either, or a frame.
        target: name of the column to predict.
        task: of the column that says which task a row belongs to; empty where there is one task.
        weight: of the column with the rows' weights; empty where all weigh the same.
        features: names of the feature columns, numbers or codes of categories; None means all that
            are left.
        rows: of a piece.

    Raises:
        ColumnError: a column is absent, or none is left as a feature.
        UnreadableTableError: a file is absent, empty or no table.
        EmptySplitError: the table has no rows.
    """

    def __init__(
        self,
        table: Table,
        *,
        target: str,
        task: str = "",
        weight: str = "",
        features: Sequence[str] | None = None,
        rows: int = CHUNK_ROWS,
    ) -> None:
        if rows < 1:
            raise ArgumentError("rows", "be at least 1", rows)
        self.source, self.rows = TableSource(table), rows
        chosen = None if features is None else tuple(features)
        layout = Layout(target=target, task=task, weight=weight, features=chosen)
        self.layout = layout.of(self.source.columns, self.source.label)
        if not self.source.rows:
            raise EmptySplitError("table", self.source.label)

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        assert self.layout.features is not None
        return list(self.layout.features)

    def __iter__(self) -> Iterator[Piece]:
        """Pieces in the order of the table."""
        layout = self.layout
        read = [name for name in (layout.target, layout.task, layout.weight) if name]
        for frame in self.source.chunks([*read, *self.names], rows=self.rows):
            yield layout.piece(frame)
