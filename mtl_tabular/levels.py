"""Categories and classes as canonical text: the same value gives the same text in every file."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def as_text(values: "pd.Series[Any]") -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Texts (N,) of a column's values, and the mask (N,) of missing ones.

    Whole numbers lose their decimal point, so that 3, 3.0 and "3" are one level: CSV files turn a
    column of integers into floats where a value is missing. Booleans are ``False`` and ``True``.

    >>> as_text(pd.Series([3.0, None, 0.5]))[0].tolist()
    ['3', '', '0.5']
    """
    missing = values.isna().to_numpy(dtype=bool)
    codes, uniques = pd.factorize(values, use_na_sentinel=True)
    texts = np.array([_text(value) for value in uniques] + [""], dtype=object)
    return texts[codes], missing


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating) and np.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def sorted_levels(texts: NDArray[Any]) -> list[str]:
    """Distinct texts in a fixed order: numbers by value, then the others by alphabet."""
    return sorted(set(texts.tolist()), key=_order)


def _order(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def encode_levels(texts: NDArray[Any], levels: tuple[str, ...]) -> NDArray[np.int64]:
    """Position (N,) of every text among `levels`, -1 where it is not among them."""
    return (
        pd.Index(list(levels), dtype=object)
        .get_indexer(pd.Index(texts, dtype=object))
        .astype(np.int64)
    )
