"""X of an estimator, in any form that scikit-learn's users have, as one pandas frame."""

import sys
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, UnknownNameError

Categorical: TypeAlias = Literal["from_dtype"] | Sequence[str] | Sequence[int] | Sequence[bool]
"""Which features are categories: all that are not numbers, and those named, numbered or masked."""


def to_pandas(table: Any) -> Any:
    """A polars frame or series as a pandas one; anything else unchanged."""
    polars = sys.modules.get("polars")  # there, if there is a frame of its
    if polars is not None and isinstance(table, polars.DataFrame | polars.Series):
        return table.to_pandas()
    return table


def feature_frame(X: "pd.DataFrame | NDArray[Any]", names: Sequence[str]) -> pd.DataFrame:
    """Features under their names; arrays of objects become columns of numbers where they can.

    Args:
        X: (N, d), of which scikit-learn has checked shape and column names.
        names: of the d features.
    """
    frame = X.copy(deep=False) if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
    if not isinstance(X, pd.DataFrame) and X.dtype.kind not in "iufb":
        for k in range(frame.shape[1]):
            kind = pd.api.types.infer_dtype(frame[k], skipna=True)
            if kind in ("integer", "floating", "mixed-integer-float", "decimal"):
                frame[k] = frame[k].astype(np.float64)
    frame.columns = pd.Index(list(names), dtype=object)
    return frame


def categorical_names(categorical: Categorical, names: Sequence[str]) -> tuple[str, ...]:
    """Names of the features that are categories although they may hold numbers.

    Args:
        categorical: the parameter ``categorical_features`` of an estimator.
        names: of all features.

    Raises:
        UnknownNameError: a name is no feature.
        ArgumentError: an index is out of range, or a mask has another length than X is wide.
    """
    argument = "categorical_features"
    if isinstance(categorical, str):
        if categorical != "from_dtype":
            raise ArgumentError(argument, "be 'from_dtype' or a list", categorical)
        return ()
    given = list(categorical)
    if given and all(isinstance(entry, bool | np.bool_) for entry in given):
        if len(given) != len(names):
            raise ArgumentError(argument, f"as a mask hold {len(names)} entries", len(given))
        return tuple(name for name, chosen in zip(names, given, strict=True) if chosen)
    chosen: list[str] = []
    for entry in given:
        if isinstance(entry, int | np.integer):
            if not -len(names) <= entry < len(names):
                raise ArgumentError(argument, f"hold indices below {len(names)}", entry)
            chosen.append(names[int(entry)])
        elif entry in names:
            chosen.append(str(entry))
        else:
            raise UnknownNameError(argument, str(entry), names)
    return tuple(chosen)
