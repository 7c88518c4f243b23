"""One column of a table: its record, and its values as numbers or as categories."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, MTLError
from mtl_tabular.levels import text_codes

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


def as_numbers(values: "pd.Series[Any]") -> NDArray[np.float64]:
    """A column as numbers (N,), NaN where a value is missing. Text that spells a number counts.

    Raises:
        ColumnError: names the column and the first rows with other text or infinities, or the type
            of a column of dates or complex numbers.
    """
    if values.dtype.kind in "mMc":
        raise ColumnError(
            f"numeric column {values.name!r} must hold real numbers, found {values.dtype}."
        )
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufb":
        numbers = values.to_numpy(dtype=np.float64)
        bad = np.isinf(numbers)
    else:
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        bad = (np.isnan(numbers) & ~values.isna().to_numpy(dtype=bool)) | np.isinf(numbers)
    if bad.any():
        found = [str(v) for v in values[bad].tolist()[:3]]
        raise ColumnError(
            f"numeric column {values.name!r} must hold finite numbers or missing values, found "
            f"{found} in rows {values.index[bad].tolist()[:4]}."
        )
    return numbers


def as_categories(values: "pd.Series[Any]") -> tuple[NDArray[np.int64], list[str]]:
    """A column as positions (N,) in a list of canonical texts, -1 where a value is missing.

    Raises:
        ColumnError: it holds lists, dates or infinities.
    """
    try:
        return text_codes(values)
    except TypeError as error:
        raise ColumnError(
            f"column {values.name!r} must hold numbers, text or booleans, found {error}."
        ) from error
