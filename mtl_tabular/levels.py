"""Categories and classes as canonical text: the same value gives the same text in every file."""

import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def as_text(values: "pd.Series[Any]") -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Texts (N,) of a column's values, and the mask (N,) of missing ones.

    Whole numbers lose their decimal point, so that 3, 3.0 and "3" are one level: CSV files turn a
    column of integers into floats where a value is missing. Booleans are ``False`` and ``True``.
    Other numbers are written with the fewest digits that tell them apart in their own precision.

    Raises:
        TypeError: a value is a date or a container; the message is its type.

    Example:
        >>> as_text(pd.Series([3.0, None, 0.5]))[0].tolist()
        ['3', '', '0.5']
    """
    codes, uniques = _factorize(values)
    texts = np.array([_text(value) for value in uniques] + [""], dtype=object)
    return texts[codes], codes < 0


def text_codes(values: "pd.Series[Any]") -> tuple[NDArray[np.int64], list[str]]:
    """Position (N,) of every value in a list of texts, -1 for missing ones, and the list.

    Texts as in `as_text`. One may stand in the list twice, where 3 and "3" occur in one column.

    Raises:
        TypeError: a value is a date, a container or infinite; the message says which.
    """
    codes, uniques = _factorize(values)
    for value in uniques:
        if isinstance(value, float | np.floating) and not np.isfinite(value):
            raise TypeError("infinity")
    return codes, [_text(value) for value in uniques]


_CONTAINERS = (list, tuple, dict, set, frozenset, np.ndarray)
_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
_NO_CATEGORIES = (*_CONTAINERS, *_DATES, pd.Period, complex, np.complexfloating)


def _factorize(values: "pd.Series[Any]") -> tuple[NDArray[np.int64], NDArray[Any]]:
    if values.dtype == np.object_:
        kind = pd.api.types.infer_dtype(values, skipna=True)
        if kind.startswith("mixed") and kind != "mixed-integer-float":
            # True equals 1 for Python, and lists have no hash.
            values = values.map(_text, na_action="ignore").astype(object)
    codes, found = pd.factorize(values, use_na_sentinel=True)
    uniques = np.asarray(found)
    for value in uniques[:1] if uniques.dtype != np.object_ else uniques:
        _refuse(value)
    return codes.astype(np.int64), uniques


def _refuse(value: Any) -> None:
    if isinstance(value, _NO_CATEGORIES):
        raise TypeError(f"{type(value).__name__} {value!s:.40}")


def _text(value: Any) -> str:
    _refuse(value)
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
