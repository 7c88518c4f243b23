"""Which row of a table is for training, which for validation, which for the test."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError
from mtl_tabular.data.columns import ColumnError, as_categories

TRAIN, VAL, TEST = 0, 1, 2
"""Codes of an assignment."""


def assign_random(
    columns: "Sequence[pd.Series[Any]]", rows: int, *, val: float, test: float, seed: int
) -> NDArray[np.uint8]:
    """Split rows at random so that every combination of classes is divided in the same proportion.

    Totals are the nearest whole numbers; a combination gets its share of either held-out split to
    within two rows. Combinations of fewer than three rows cannot be divided: they are split as if
    they were one, with one warning for all of them, except that a class which occurs nowhere else
    keeps one row in training.

    Args:
        columns: what to stratify by, each (N,); a missing value is a class of its own. None at all
            gives a plain random split.
        rows: N.
        val: share of validation in [0, 1).
        test: share of the test in [0, 1), with `val` below 1.
        seed: of the choice.

    Returns:
        (N,) codes `TRAIN`, `VAL`, `TEST`.

    Raises:
        ColumnError: a column holds no classes but dates, lists or infinities.
    """
    _check_shares(val, test)
    assigned = np.full(rows, TRAIN, dtype=np.uint8)
    order = np.random.default_rng(seed).permutation(rows)
    strata = np.zeros(rows, dtype=np.int64)
    classes = [_class_codes(values) for values in columns]
    for codes in classes:
        strata = pd.factorize(strata * (codes.max(initial=0) + 1) + codes)[0].astype(np.int64)
    counts = np.bincount(strata)
    rare = counts[strata] < 3
    if val + test and len(counts) > 1 and rare.any():
        warnings.warn(
            f"{int((counts < 3).sum())} of {len(counts)} combinations of classes have fewer than 3 "
            f"rows; their {int(rare.sum())} rows are split at random.",
            stacklevel=2,
        )
        strata[rare] = len(counts)
        kept = np.unique(np.concatenate([_only_among(order, rare, codes) for codes in classes]))
        order = order[~np.isin(order, kept)]
    order = order[np.argsort(strata[order], kind="stable")]
    held = order[_every(rows, val + test)[: len(order)]]
    tested = _every(len(held), test / (val + test) if val + test else 0.0)
    assigned[held] = VAL
    assigned[held[tested]] = TEST
    return assigned


def _class_codes(values: "pd.Series[Any]") -> NDArray[np.int64]:
    positions, texts = as_categories(values)
    merged = pd.factorize(np.array(texts, dtype=object))[0].astype(np.int64) + 1
    codes: NDArray[np.int64] = np.append(merged, 0)[positions]
    return codes


def _only_among(
    order: NDArray[np.int64], rare: NDArray[np.bool_], codes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A row, the first in `order`, of every class that occurs among the rare rows only."""
    candidates = order[rare[order]]
    candidates = candidates[~np.isin(codes[candidates], codes[~rare])]
    _, first = np.unique(codes[candidates], return_index=True)
    chosen: NDArray[np.int64] = candidates[first]
    return chosen


def assign_groups(
    groups: "pd.Series[Any]", *, val: float, test: float, seed: int
) -> NDArray[np.uint8]:
    """Split rows so that no group lies in two splits.

    Groups come in random order; the first ones open the splits, then each goes to the split that
    lacks most rows of its share.

    Args:
        groups: (N,) the group of every row.
        val: share of validation in [0, 1), by rows.
        test: share of the test in [0, 1), with `val` below 1.
        seed: of the order.

    Returns:
        (N,) codes `TRAIN`, `VAL`, `TEST`.

    Raises:
        ColumnError: a row has no group.
        ArgumentError: there are fewer groups than splits.
    """
    _check_shares(val, test)
    codes, uniques = pd.factorize(groups)
    if (codes < 0).any():
        raise ColumnError(
            f"group column {groups.name!r} must have a value in every row, found none in rows "
            f"{groups.index[codes < 0].tolist()[:4]}."
        )
    shares = np.array([1 - val - test, val, test])
    wanted = [split for split in (TRAIN, VAL, TEST) if shares[split] > 0]
    if len(uniques) < len(wanted):
        raise ArgumentError(
            f"group column {groups.name!r}",
            f"have at least {len(wanted)} values, one a split",
            len(uniques),
        )
    sizes = np.bincount(codes, minlength=len(uniques))
    lacking = shares * len(codes)
    lacking[shares <= 0] = -np.inf
    split_of = np.empty(len(uniques), dtype=np.uint8)
    for turn, group in enumerate(np.random.default_rng(seed).permutation(len(uniques))):
        split = wanted[turn] if turn < len(wanted) else int(lacking.argmax())
        split_of[group] = split
        lacking[split] -= sizes[group]
    assigned: NDArray[np.uint8] = split_of[codes]
    return assigned


def _check_shares(val: float, test: float) -> None:
    for name, share in (("val_fraction", val), ("test_fraction", test)):
        if not 0 <= share < 1:
            raise ArgumentError(name, "lie in [0, 1)", share)
    if val + test >= 1:
        raise ArgumentError("val_fraction and test_fraction", "leave rows for training", val + test)


def _every(count: int, share: float) -> NDArray[np.bool_]:
    """Mask (N,) of positions spread evenly over 0..count-1, round(share * count) of them."""
    steps = np.floor(np.arange(count + 1) * share + 0.5)
    mask: NDArray[np.bool_] = np.diff(steps) > 0
    return mask
