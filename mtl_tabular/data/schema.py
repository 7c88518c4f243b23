"""What a network has to know of a table: its columns, learned from the training rows only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, MTLError, UnknownNameError
from mtl_tabular.levels import as_text, encode_levels, sorted_levels

UNSEEN = 0
"""Code of a category that training did not have, or had too rarely."""
MISSING = 1
"""Code of a missing category."""
FIRST_LEVEL = 2
"""Code of the first known category."""


class ColumnError(MTLError, ValueError):
    """A column of a table is absent, repeated, or holds what it must not hold."""


@dataclass(frozen=True, kw_only=True)
class NumericColumn:
    """A numeric feature, standardised by the training rows.

    Args:
        name: of the column.
        mean: of the training rows that have a value, in the column's unit.
        std: their standard deviation; 1 for a constant column.
        median: in the column's unit; what a missing value counts as.
        missing: whether training rows lacked values. Networks then learn what a missing value
            means; otherwise it only counts as the median.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    median: float = 0.0
    missing: bool = False

    def __post_init__(self) -> None:
        """Check the spread."""
        if not self.std > 0:
            raise ArgumentError(f"std of column {self.name!r}", "be positive", self.std)


@dataclass(frozen=True, kw_only=True)
class CategoricalColumn:
    """A categorical feature.

    Args:
        name: of the column.
        levels: known categories as canonical text (`mtl_tabular.levels.as_text`); the first
            has code 2. Code 0 is any other category, code 1 a missing one.
    """

    name: str
    levels: tuple[str, ...]

    @property
    def cardinality(self) -> int:
        """Number of codes, the two special ones included."""
        return len(self.levels) + FIRST_LEVEL


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
            ColumnError: there is no column or no row, a name occurs twice, a column holds no value
                at all, infinities, or objects that are neither text nor numbers.
            UnknownNameError: a name in `categorical` is no column.
        """
        fits = None
        for chunk in [rows] if isinstance(rows, pd.DataFrame) else rows:
            fits = _start(chunk, categorical) if fits is None else fits
            for fit in fits:
                fit.add(_column(chunk, fit.name))
        if not fits or not fits[0].rows:
            raise ColumnError("a table must have at least one feature column and one training row.")
        return cls(
            numeric=tuple(f.finish() for f in fits if isinstance(f, _NumericFit)),
            categorical=tuple(
                f.finish(max_levels, min_frequency) for f in fits if isinstance(f, _LevelsFit)
            ),
        )

    def check(self, frame: pd.DataFrame) -> None:
        """Refuse a frame that lacks a column of the schema or has one twice.

        Raises:
            ColumnError: names the columns, and the nearest ones that are there.
        """
        known = [str(c) for c in frame.columns]
        for name in self.names:
            if known.count(name) > 1:
                raise ColumnError(
                    f"column names must be unique, found {name!r} {known.count(name)} times."
                )
            if name not in known:
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
            ColumnError: a column is absent, a numeric one holds infinities or text.
        """
        self.check(frame)
        arrays: dict[str, NDArray[Any]] = {}
        if self.numeric:
            numbers = np.empty((len(frame), len(self.numeric)), dtype=np.float32)
            for i, column in enumerate(self.numeric):
                values = as_numbers(_column(frame, column.name))
                numbers[:, i] = (values - column.mean) / column.std
            arrays["numeric"] = numbers
        if self.categorical:
            codes = np.empty((len(frame), len(self.categorical)), dtype=np.int64)
            for i, level in enumerate(self.categorical):
                texts, missing = as_text(_column(frame, level.name))
                found = encode_levels(texts, level.levels)
                codes[:, i] = np.where(found < 0, UNSEEN, found + FIRST_LEVEL)
                codes[missing, i] = MISSING
            arrays["categorical"] = codes
        return arrays


NO_COLUMNS = TableSchema()
"""A schema before any table was seen; networks refuse it."""


def as_numbers(values: "pd.Series[Any]") -> NDArray[np.float64]:
    """A column as numbers (N,), NaN where a value is missing.

    Raises:
        ColumnError: names the column and the first rows with text or infinities.
    """
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = (np.isnan(numbers) & ~values.isna().to_numpy(dtype=bool)) | np.isinf(numbers)
    if bad.any():
        found = [str(v) for v in values[bad].tolist()[:3]]
        raise ColumnError(
            f"numeric column {values.name!r} must hold finite numbers or missing values, found "
            f"{found} in rows {values.index[bad].tolist()[:4]}."
        )
    return numbers


def _column(frame: pd.DataFrame, name: str) -> "pd.Series[Any]":
    position = [str(c) for c in frame.columns].index(name)
    return frame.iloc[:, position]


def _start(frame: pd.DataFrame, categorical: Sequence[str]) -> "list[_NumericFit | _LevelsFit]":
    """A fit a column, of the kind that the column's type asks for."""
    names = [str(c) for c in frame.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ColumnError(
            f"column names must be unique, found {', '.join(repeated)} more than once."
        )
    for name in categorical:
        if name not in names:
            raise UnknownNameError("categorical", name, names)
    fits: list[_NumericFit | _LevelsFit] = []
    for name in names:
        dtype = frame.dtypes.iloc[names.index(name)]
        if pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
            raise ColumnError(
                f"column {name!r} must hold numbers or categories, found dates ({dtype}): turn it "
                "into what matters about it, such as its year or an age, or leave it out."
            )
        number = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)
        fits.append(_LevelsFit(name) if name in categorical or not number else _NumericFit(name))
    return fits


class _NumericFit:
    """Mean and spread over chunks (Chan, Golub and LeVeque 1983), median of a sample of rows."""

    SAMPLE = 1 << 18

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = self.count = 0
        self.mean = self.squares = 0.0
        self.kept: list[NDArray[np.float64]] = []
        self.generator = np.random.default_rng(0)

    def add(self, values: "pd.Series[Any]") -> None:
        numbers = as_numbers(values)
        self.rows += len(numbers)
        known = numbers[~np.isnan(numbers)]
        if not len(known):
            return
        total = self.count + len(known)
        mean = float(known.mean())
        shift = mean - self.mean
        self.squares += (
            float(((known - mean) ** 2).sum()) + shift**2 * self.count * len(known) / total
        )
        self.mean += shift * len(known) / total
        self.count = total
        self.kept.append(known)
        if sum(map(len, self.kept)) > 2 * self.SAMPLE:
            held = np.concatenate(self.kept)
            self.kept = [self.generator.choice(held, self.SAMPLE, replace=False)]

    def finish(self) -> NumericColumn:
        if not self.count:
            raise ColumnError(
                f"column {self.name!r} must hold at least one value in the training rows, found "
                "none: leave the column out."
            )
        std = float(np.sqrt(self.squares / self.count))
        constant = not std > 1e-12 * max(1.0, abs(self.mean))
        return NumericColumn(
            name=self.name,
            mean=self.mean,
            std=1.0 if constant else std,
            median=float(np.median(np.concatenate(self.kept))),
            missing=self.count < self.rows,
        )


class _LevelsFit:
    """Frequency of every category over chunks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self.counts: dict[str, int] = {}

    def add(self, values: "pd.Series[Any]") -> None:
        self.rows += len(values)
        if values.map(lambda v: isinstance(v, list | dict | set | np.ndarray)).any():
            raise ColumnError(
                f"column {self.name!r} must hold numbers, text or booleans, found lists."
            )
        texts, missing = as_text(values)
        for text, count in zip(
            *np.unique(texts[~missing].astype(str), return_counts=True), strict=True
        ):
            self.counts[str(text)] = self.counts.get(str(text), 0) + int(count)

    def finish(self, max_levels: int, min_frequency: int) -> CategoricalColumn:
        if not self.counts:
            raise ColumnError(
                f"column {self.name!r} must hold at least one value in the training rows, found "
                "none: leave the column out."
            )
        frequent = [text for text, count in self.counts.items() if count >= min_frequency]
        frequent.sort(key=lambda text: (-self.counts[text], text))
        levels = sorted_levels(np.array(frequent[:max_levels], dtype=object))
        return CategoricalColumn(name=self.name, levels=tuple(levels))
