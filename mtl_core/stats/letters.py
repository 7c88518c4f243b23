"""Compact letters: methods that share none are separated.

Insert and absorb (Piepho 2004, "An algorithm for a letter-based representation of all-pairwise
comparisons"), then a sweep down to the fewest letters. Sets of methods are held as bit masks.
"""

from collections.abc import Sequence
from itertools import combinations
from string import ascii_letters

import numpy as np
import numpy.typing as npt

from mtl_core.errors import ArgumentError
from mtl_core.stats.checks import Array, Bools, vector

READABLE_LETTERS = 8
"""Above so many, a matrix of pairs is easier to read."""

MOST_TRIED = 14
"""Up to so many doubtful columns, the sweep tries every subset; above, it drops one by one."""


def compact_letters(
    names: Sequence[str],
    separated: npt.ArrayLike,
    means: npt.ArrayLike,
    *,
    higher_is_better: bool = True,
) -> dict[str, str]:
    """Letters such that two methods share one exactly where they are not separated.

    Each letter stands for a set of methods of which no two are separated and to which none can
    be added. "a" holds the best method.

    Args:
        names: K different names.
        separated: (K, K) symmetric booleans, False on the diagonal.
        means: (K,) order of the methods.
        higher_is_better: whether the largest mean is best.

    Returns:
        Letters by name, best first. Past "z" come capitals, then numbers in brackets.

    Raises:
        ArgumentError: shapes do not fit, or the matrix is not symmetric.

    >>> compact_letters(
    ...     ["sum", "famo", "cagrad"],
    ...     [[False, False, True], [False, False, False], [True, False, False]],
    ...     [0.70, 0.72, 0.74],
    ... )
    {'cagrad': 'a', 'famo': 'ab', 'sum': 'b'}
    """
    pairs, order = _ordered(names, separated, means, higher_is_better)
    columns = sorted(sweep(insert_absorb(pairs), pairs), key=_members)
    signs = [_sign(i) for i in range(len(columns))]
    return {
        names[method]: "".join(sign for sign, c in zip(signs, columns, strict=True) if c >> i & 1)
        for i, method in enumerate(order)
    }


def insert_absorb(separated: Bools) -> list[int]:
    """All largest sets of methods of which no two are separated, as bit masks.

    >>> insert_absorb(np.array([[False, True], [True, False]]))
    [2, 1]
    """
    columns = [(1 << len(separated)) - 1]
    for i, j in np.argwhere(np.triu(separated)).tolist():
        both = 1 << i | 1 << j
        split = [c for c in columns if c & both == both]
        columns = [c for c in columns if c & both != both]
        for new in [c & ~(1 << i) for c in split] + [c & ~(1 << j) for c in split]:
            if not any(new & c == new for c in columns):
                columns = [c for c in columns if c & new != c] + [new]
    return columns


def sweep(columns: list[int], separated: Bools) -> list[int]:
    """The fewest of `columns` that still hold every method and every pair that is not separated.

    The fewest, where at most `MOST_TRIED` columns are in doubt; else few, found by dropping one
    after another.

    >>> sweep([0b011, 0b110, 0b010], np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], bool))
    [3, 6]
    """
    together = [
        1 << i | 1 << j for i in range(len(separated)) for j in range(i + 1) if not separated[i, j]
    ]
    holders = [[c for c in columns if c & pair == pair] for pair in together]
    needed = {held[0] for held in holders if len(held) == 1}
    doubtful = [c for c in columns if c not in needed]
    open_pairs = [
        pair
        for pair, held in zip(together, holders, strict=True)
        if not any(c in needed for c in held)
    ]
    if len(doubtful) <= MOST_TRIED:
        for size in range(len(doubtful) + 1):
            for chosen in combinations(doubtful, size):
                if _covered(open_pairs, chosen):
                    return [c for c in columns if c in needed or c in chosen]
    kept = doubtful
    for column in sorted(doubtful, key=int.bit_count):
        rest = [c for c in kept if c != column]
        if _covered(open_pairs, rest):
            kept = rest
    return [c for c in columns if c in needed or c in kept]


def _covered(pairs: list[int], columns: Sequence[int]) -> bool:
    return all(any(c & pair == pair for c in columns) for pair in pairs)


def _members(column: int) -> list[int]:
    return [i for i in range(column.bit_length()) if column >> i & 1]


def _sign(index: int) -> str:
    return ascii_letters[index] if index < len(ascii_letters) else f"({index + 1})"


def _ordered(
    names: Sequence[str], separated: npt.ArrayLike, means: npt.ArrayLike, higher: bool
) -> tuple[Bools, list[int]]:
    """The matrix, best method first, and the methods' places in that order."""
    values: Array = vector("means", means)
    if len(names) != len(values) or len(set(names)) != len(names):
        rule = f"be {len(values)} different names, one a mean"
        raise ArgumentError("names", rule, list(names))
    matrix = np.asarray(separated)
    if matrix.shape != (len(values), len(values)):
        raise ArgumentError("separated", f"be {len(values)} by {len(values)}", matrix.shape)
    if not np.isin(matrix, (0, 1)).all():
        raise ArgumentError("separated", "hold booleans", matrix.dtype.name)
    found: Bools = matrix.astype(bool)
    if (found != found.T).any() or found.diagonal().any():
        raise ArgumentError("separated", "be symmetric and False on its diagonal", found.tolist())
    order = np.argsort(-values if higher else values, kind="stable").tolist()
    return found[np.ix_(order, order)], order
