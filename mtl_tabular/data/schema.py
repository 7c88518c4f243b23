"""What a network has to know of a table: its columns, learned from the training rows only."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.data.column_fits import LevelsFit, NumericFit, start_fits
from mtl_tabular.data.columns import (
    FIRST_LEVEL,
    MISSING,
    UNSEEN,
    CategoricalColumn,
    ColumnError,
    NumericColumn,
    as_categories,
    as_numbers,
)
from mtl_tabular.levels import encode_levels

__all__ = [
    "FIRST_LEVEL",
    "MISSING",
    "NO_COLUMNS",
    "UNSEEN",
    "CategoricalColumn",
    "ColumnError",
    "NumericColumn",
    "TableSchema",
]


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """Columns of a table in the order in which networks get them. Plain data.

    A network's inputs are ``numeric`` (B, d_num) float32, standardised, NaN where a value is
    missing, and ``categorical`` (B, d_cat) int64 codes; either may be absent where it has no
    columns.

    Args:
        numeric: numeric features.
        categorical: categorical features.

    Example:
        >>> frame = pd.DataFrame({"age": [20.0, 40.0], "city": ["Rome", None]})
        >>> schema = TableSchema.fit(frame)
        >>> schema.categorical[0].levels
        ('Rome',)
        >>> rows = pd.DataFrame({"city": ["Oslo", "Rome"], "age": [30.0, None]})
        >>> {name: array.tolist() for name, array in schema.encode(rows).items()}
        {'numeric': [[0.0], [nan]], 'categorical': [[0], [2]]}
    """

    numeric: tuple[NumericColumn, ...] = ()
    categorical: tuple[CategoricalColumn, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all features: categorical first, then numeric, the order of tokens."""
        return (*(c.name for c in self.categorical), *(c.name for c in self.numeric))

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of every categorical column."""
        return tuple(column.cardinality for column in self.categorical)

    def __len__(self) -> int:
        """Number of features."""
        return len(self.numeric) + len(self.categorical)

    @classmethod
    def fit(
        cls,
        rows: "pd.DataFrame | Iterable[pd.DataFrame]",
        *,
        categorical: Sequence[str] = (),
        max_levels: int = 10_000,
        min_frequency: int = 1,
    ) -> Self:
        """Learn the columns from training rows.

        Columns of numbers are numeric, except those named in `categorical`; text, booleans and
        pandas' categories are categorical. Dates are refused: say what of them matters.

        Args:
            rows: the training rows with features only, whole or in chunks of equal columns.
            categorical: numeric columns that hold codes.
            max_levels: at most so many categories a column, the most frequent ones; the rest count
                as unseen.
            min_frequency: categories with fewer training rows count as unseen, which is how the
                place of unseen categories gets trained.

        Raises:
            ArgumentError: `max_levels` or `min_frequency` is below 1.
            ColumnError: there is no column or no row, a name occurs twice, a column holds no value
                at all, infinities, dates, or objects that are neither text nor numbers.
            UnknownNameError: a name in `categorical` is no column.
        """
        for argument, number in (("max_levels", max_levels), ("min_frequency", min_frequency)):
            if number < 1:
                raise ArgumentError(argument, "be at least 1", number)
        fits = None
        for chunk in [rows] if isinstance(rows, pd.DataFrame) else rows:
            fits = start_fits(chunk, categorical) if fits is None else fits
            places = _places(chunk)
            for fit in fits:
                fit.add(chunk.iloc[:, places[fit.name]])
        if not fits or not fits[0].rows:
            raise ColumnError("a table must have at least one feature column and one training row.")
        return cls(
            numeric=tuple(f.finish() for f in fits if isinstance(f, NumericFit)),
            categorical=tuple(
                f.finish(max_levels, min_frequency) for f in fits if isinstance(f, LevelsFit)
            ),
        )

    def check(self, frame: pd.DataFrame) -> None:
        """Refuse a frame that lacks a column of the schema or has one twice.

        Raises:
            ColumnError: names the columns, and the nearest ones that are there.
        """
        known = Counter(str(c) for c in frame.columns)
        for name in self.names:
            if known[name] > 1:
                raise ColumnError(
                    f"column names must be unique, found {name!r} {known[name]} times."
                )
            if not known[name]:
                near = UnknownNameError("column", name, known)
                raise ColumnError(f"the table must have every column of training. {near}")

    def encode(self, frame: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Inputs of a network; further columns of the frame are not looked at.

        Args:
            frame: N rows with the schema's columns, in any order.

        Returns:
            ``numeric`` (N, d_num) float32 with NaN where a value is missing, ``categorical``
            (N, d_cat) int64.

        Raises:
            ColumnError: a column is absent or twice there, a numeric one holds infinities, text or
                dates, a categorical one lists or dates.
        """
        self.check(frame)
        places = _places(frame)
        arrays: dict[str, NDArray[Any]] = {}
        if self.numeric:
            numbers = np.empty((len(frame), len(self.numeric)), dtype=np.float32)
            for i, column in enumerate(self.numeric):
                values = as_numbers(frame.iloc[:, places[column.name]])
                values = (values - column.mean) / column.std
                if np.abs(values).max(initial=0.0, where=~np.isnan(values)) > _LARGEST:
                    raise ColumnError(
                        f"numeric column {column.name!r} must hold values near those of training "
                        f"(mean {column.mean:g}, spread {column.std:g}), found one beyond float32."
                    )
                numbers[:, i] = values
            arrays["numeric"] = numbers
        if self.categorical:
            codes = np.empty((len(frame), len(self.categorical)), dtype=np.int64)
            for i, level in enumerate(self.categorical):
                positions, texts = as_categories(frame.iloc[:, places[level.name]])
                found = encode_levels(np.array(texts, dtype=object), level.levels)
                known = np.where(found < 0, UNSEEN, found + FIRST_LEVEL)
                codes[:, i] = np.append(known, MISSING)[positions]
            arrays["categorical"] = codes
        return arrays

    def operations(self) -> dict[str, Any]:
        """What `encode` does, as JSON, for runtimes without this package.

        Numeric columns are standardised, categorical ones give ``first_level`` plus the position of
        their text among ``levels``.

        Example:
            >>> city = CategoricalColumn(name="city", levels=("Rome",))
            >>> schema = TableSchema(categorical=(city,))
            >>> schema.operations()["categorical"]
            [{'name': 'city', 'levels': ['Rome']}]
            >>> schema.operations()["codes"]
            {'unseen': 0, 'missing': 1, 'first_level': 2}
        """
        numeric = [
            {"name": c.name, "mean": c.mean, "std": c.std, "median": c.median} for c in self.numeric
        ]
        categorical = [{"name": c.name, "levels": list(c.levels)} for c in self.categorical]
        codes = {"unseen": UNSEEN, "missing": MISSING, "first_level": FIRST_LEVEL}
        return {"kind": "table", "numeric": numeric, "categorical": categorical, "codes": codes}


_LARGEST = float(np.finfo(np.float32).max)


def _places(frame: pd.DataFrame) -> dict[str, int]:
    """Position of every column by name."""
    return {str(name): i for i, name in enumerate(frame.columns)}


NO_COLUMNS = TableSchema()
"""A schema before any table was seen; networks refuse it."""
