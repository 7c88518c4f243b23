"""What a column's record learns from training rows that come in chunks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import UnknownNameError
from mtl_tabular.data.columns import (
    CategoricalColumn,
    ColumnError,
    NumericColumn,
    as_categories,
    as_numbers,
)
from mtl_tabular.levels import sorted_levels


def start_fits(frame: pd.DataFrame, categorical: Sequence[str]) -> "list[NumericFit | LevelsFit]":
    """A fit a column, of the kind that the column's type asks for.

    Args:
        frame: the first chunk; it is not learned from.
        categorical: columns of numbers that hold codes.

    Raises:
        ColumnError: a name occurs twice, or a column holds dates or complex numbers.
        UnknownNameError: a name in `categorical` is no column.
    """
    names = [str(c) for c in frame.columns]
    repeated = sorted(set(pd.Series(names)[pd.Series(names).duplicated()]))
    if repeated:
        raise ColumnError(
            f"column names must be unique, found {', '.join(repeated)} more than once."
        )
    for name in categorical:
        if name not in names:
            raise UnknownNameError("categorical", name, names)
    fits: list[NumericFit | LevelsFit] = []
    for i, name in enumerate(names):
        numeric = _is_numeric(name, frame.iloc[:, i]) and name not in categorical
        fits.append(NumericFit(name) if numeric else LevelsFit(name))
    return fits


def _is_numeric(name: str, values: "pd.Series[Any]") -> bool:
    dtype = values.dtype
    if dtype.kind in "mM":
        raise ColumnError(
            f"column {name!r} must hold numbers or categories, found dates ({dtype}): turn it "
            "into what matters about it, such as its year or an age, or leave it out."
        )
    if dtype.kind == "c":
        raise ColumnError(f"column {name!r} must hold real numbers or categories, found {dtype}.")
    if dtype == np.object_:
        kind = pd.api.types.infer_dtype(values, skipna=True)
        return kind in ("integer", "floating", "mixed-integer-float", "decimal")
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)


class NumericFit:
    """Mean and spread over chunks (Chan, Golub and LeVeque 1983), median of a sample of rows.

    Args:
        name: of the column.
    """

    SAMPLE = 1 << 18

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = self.count = 0
        self.mean = self.squares = 0.0
        self.kept: list[NDArray[np.float64]] = []
        self.generator = np.random.default_rng(0)

    def add(self, values: "pd.Series[Any]") -> None:
        """Learn from the column of a chunk.

        Raises:
            ColumnError: see `as_numbers`.
        """
        numbers = as_numbers(values)
        self.rows += len(numbers)
        known = numbers[~np.isnan(numbers)]
        if not len(known):
            return
        total = self.count + len(known)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(known.mean())
            apart = known - mean
            shift = mean - self.mean
            self.squares += float((apart**2).sum())
            self.squares += shift * shift * self.count * len(known) / total
            self.mean += shift * len(known) / total
        self.count = total
        self.kept.append(known)
        if sum(map(len, self.kept)) > 2 * self.SAMPLE:
            held = np.concatenate(self.kept)
            self.kept = [self.generator.choice(held, self.SAMPLE, replace=False)]

    def finish(self) -> NumericColumn:
        """The record.

        Raises:
            ColumnError: there was no value, or the spread of those that were is no finite number.
        """
        if not self.count:
            raise ColumnError(_no_value(self.name))
        std = float(np.sqrt(self.squares / self.count))
        if not np.isfinite(std):
            raise ColumnError(
                f"column {self.name!r} must hold numbers whose squares are finite, found values up "
                f"to {max(float(np.abs(k).max()) for k in self.kept):g}."
            )
        median = float(np.median(np.concatenate(self.kept)))
        constant = not std > 1e-12 * abs(self.mean)
        return NumericColumn(
            name=self.name,
            mean=median if constant else self.mean,  # free of rounding
            std=1.0 if constant else std,
            median=median,
            missing=self.count < self.rows,
        )


class LevelsFit:
    """Frequency of every category over chunks.

    Args:
        name: of the column.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self.counts: dict[str, int] = {}

    def add(self, values: "pd.Series[Any]") -> None:
        """Learn from the column of a chunk.

        Raises:
            ColumnError: see `as_categories`.
        """
        self.rows += len(values)
        codes, texts = as_categories(values)
        for text, count in zip(
            texts, np.bincount(codes[codes >= 0], minlength=len(texts)).tolist(), strict=True
        ):
            if count:
                self.counts[text] = self.counts.get(text, 0) + count

    def finish(self, max_levels: int, min_frequency: int) -> CategoricalColumn:
        """The record, with categories of at least `min_frequency` rows, `max_levels` at most.

        Raises:
            ColumnError: there was no value.
        """
        if not self.counts:
            raise ColumnError(_no_value(self.name))
        frequent = [text for text, count in self.counts.items() if count >= min_frequency]
        frequent.sort(key=lambda text: (-self.counts[text], text))
        levels = sorted_levels(np.array(frequent[:max_levels], dtype=object))
        return CategoricalColumn(name=self.name, levels=tuple(levels))


def _no_value(name: str) -> str:
    return (
        f"column {name!r} must hold at least one value in the training rows, found none: leave "
        "the column out."
    )
