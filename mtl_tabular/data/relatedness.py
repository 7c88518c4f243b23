"""Correlation matrices between tasks: made, checked, and projected where asked for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError

TOLERANCE = 1e-6
"""Eigenvalues above minus this count as not negative."""

Matrix = Sequence[Sequence[float]]


def block_correlation(
    sizes: Sequence[int],
    within: float | Sequence[float],
    *,
    between: float = 0.0,
    signs: Sequence[int] = (),
) -> list[list[float]]:
    """Correlation of tasks that fall into groups.

    A group of one task with ``between=0`` is an outlier: related to no other task.

    Args:
        sizes: tasks of each group.
        within: correlation inside the groups, one value or one a group.
        between: correlation of tasks of different groups.
        signs: 1 or -1 a task; two tasks of different sign get the negated correlation.

    Returns:
        (T, T) as plain lists, in the order of the groups. It may not be positive semidefinite,
        which is for the generator to say.

    >>> block_correlation([2, 1], 0.5)
    [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    values = [within] * len(sizes) if isinstance(within, int | float) else list(within)
    if len(values) != len(sizes):
        raise ArgumentError("within", f"have one entry a group ({len(sizes)})", values)
    group = np.repeat(np.arange(len(sizes)), sizes)
    same = group[:, None] == group[None, :]
    found = np.where(same, np.asarray(values, dtype=np.float64)[group][:, None], between)
    if signs:
        if len(signs) != len(group) or any(sign not in (1, -1) for sign in signs):
            raise ArgumentError("signs", f"be 1 or -1 for each of {len(group)} tasks", list(signs))
        found = found * np.outer(signs, signs)
    np.fill_diagonal(found, 1.0)
    plain: list[list[float]] = found.tolist()
    return plain


def correlation_matrix(
    correlation: float | Matrix, tasks: int, *, nearest: bool = False
) -> NDArray[np.float64]:
    """A checked correlation matrix (T, T).

    Args:
        correlation: one value for all pairs, or the matrix.
        tasks: T.
        nearest: replace a matrix that is not positive semidefinite by the nearest one that is,
            see `nearest_correlation`.

    Raises:
        ArgumentError: wrong size, not symmetric, a diagonal other than 1, entries outside [-1, 1],
            or not positive semidefinite; the smallest eigenvalue is named.
    """
    if isinstance(correlation, int | float):
        found = np.full((tasks, tasks), float(correlation))
        np.fill_diagonal(found, 1.0)
    else:
        if [len(row) for row in correlation] != [tasks] * tasks:
            shape = [len(row) for row in correlation]
            raise ArgumentError("correlation", f"be {tasks} rows of {tasks} numbers", shape)
        found = np.array(correlation, dtype=np.float64)
    if not np.isfinite(found).all() or np.abs(found).max() > 1 + TOLERANCE:
        raise ArgumentError("correlation", "lie in [-1, 1]", correlation)
    if not np.allclose(found, found.T, atol=TOLERANCE):
        raise ArgumentError("correlation", "be symmetric", correlation)
    if not np.allclose(np.diag(found), 1.0, atol=TOLERANCE):
        raise ArgumentError("correlation", "have ones on the diagonal", correlation)
    smallest = float(np.linalg.eigvalsh(found)[0])
    if smallest >= -TOLERANCE:
        return found
    if nearest:
        return nearest_correlation(found)
    rule = (
        f"be positive semidefinite for {tasks} tasks (smallest eigenvalue {smallest:.6g}; one "
        f"value for all pairs has to lie in [{-1 / max(tasks - 1, 1):.6g}, 1]); "
        "nearest_correlation gives the nearest such matrix"
    )
    raise ArgumentError("correlation", rule, correlation)


def nearest_correlation(
    matrix: NDArray[np.float64], *, steps: int = 1000, tolerance: float = 1e-9
) -> NDArray[np.float64]:
    """The correlation matrix nearest in Frobenius norm.

    Alternating projections with Dykstra's correction (Higham 2002, "Computing the nearest
    correlation matrix", algorithm 3.3).

    Args:
        matrix: (T, T), symmetric.
        steps: most iterations.
        tolerance: largest change of an entry at which it stops.
    """
    found: NDArray[np.float64] = matrix.copy()
    correction = np.zeros_like(matrix)
    for _ in range(steps):
        start = found - correction
        values, vectors = np.linalg.eigh(start)
        positive = (vectors * np.clip(values, 0, None)) @ vectors.T
        correction = positive - start
        before, found = found, positive.copy()
        np.fill_diagonal(found, 1.0)
        if np.abs(found - before).max() < tolerance:
            break
    # The last projection was onto unit diagonals: scale so that both properties hold.
    values, vectors = np.linalg.eigh(found)
    found = (vectors * np.clip(values, 0, None)) @ vectors.T
    scale = 1 / np.sqrt(np.diag(found))
    found = found * np.outer(scale, scale)
    np.fill_diagonal(found, 1.0)
    return found
