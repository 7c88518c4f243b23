import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_tabular.data.relatedness import (
    block_correlation,
    correlation_matrix,
    nearest_correlation,
)


@pytest.mark.parametrize(("p", "tasks"), [(-1 / 6, 7), (0.0, 3), (1.0, 5), (-1.0, 2)])
def test_the_whole_valid_range_passes(p, tasks):
    found = correlation_matrix(p, tasks)
    assert np.linalg.eigvalsh(found)[0] > -1e-9
    assert np.all(found[~np.eye(tasks, dtype=bool)] == p)


def test_indefinite_matrices_are_refused_with_their_smallest_eigenvalue():
    smallest = 1 - 0.5 * 6
    with pytest.raises(ArgumentError, match=f"smallest eigenvalue {smallest:g}"):
        correlation_matrix(-0.5, 7)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ([[1.0, 0.2], [0.3, 1.0]], "symmetric"),
        ([[0.9, 0.2], [0.2, 1.0]], "diagonal"),
        ([[1.0, 2.0], [2.0, 1.0]], r"\[-1, 1\]"),
        ([[1.0, 0.2]], "2 rows of 2"),
        (float("nan"), r"\[-1, 1\]"),
    ],
)
def test_refusals(given, rule):
    with pytest.raises(ArgumentError, match=rule):
        correlation_matrix(given, 2)


def test_blocks_signs_and_outliers():
    found = np.array(block_correlation([2, 2, 1], [0.8, 0.5, 1.0], between=0.1))
    assert found[0, 1] == 0.8
    assert found[2, 3] == 0.5
    assert found[0, 2] == found[3, 4] == 0.1
    signed = np.array(block_correlation([3], 0.6, signs=[1, 1, -1]))
    assert signed[0, 1] == 0.6
    assert signed[0, 2] == -0.6
    # Flipping signs changes no eigenvalue.
    plain = np.linalg.eigvalsh(np.array(block_correlation([3], 0.6)))
    np.testing.assert_allclose(np.linalg.eigvalsh(signed), plain, atol=1e-12)
    with pytest.raises(ArgumentError, match="signs"):
        block_correlation([3], 0.6, signs=[1, 1, 2])
    with pytest.raises(ArgumentError, match="within"):
        block_correlation([3], [0.6, 0.1])


def test_nearest_is_a_correlation_matrix_and_no_nearer_one_is_found():
    rng = np.random.default_rng(0)
    start = np.full((4, 4), -0.6)
    np.fill_diagonal(start, 1.0)
    found = correlation_matrix(-0.6, 4, nearest=True)
    assert np.linalg.eigvalsh(found)[0] > -1e-8
    np.testing.assert_allclose(np.diag(found), 1)
    # By symmetry the nearest one has one value for all pairs: the end of the valid range.
    np.testing.assert_allclose(found[~np.eye(4, dtype=bool)], -1 / 3, atol=1e-6)
    distance = np.linalg.norm(found - start)
    for _ in range(200):
        other = rng.standard_normal((4, 4))
        other = other @ other.T
        other /= np.sqrt(np.outer(np.diag(other), np.diag(other)))
        between = 0.9 * found + 0.1 * other  # the set is convex
        assert np.linalg.norm(between - start) >= distance - 1e-6


def test_nearest_leaves_valid_matrices_alone():
    given = np.array(block_correlation([2, 2], 0.5, between=0.2))
    np.testing.assert_allclose(nearest_correlation(given), given, atol=1e-8)
