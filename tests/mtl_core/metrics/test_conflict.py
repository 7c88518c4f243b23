import math

import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.metrics import (
    condition_number,
    conflict_rate,
    cosine_similarity,
    magnitude_similarity,
)
from mtl_core.metrics.conflict import update_summary


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def gramian(rows: torch.Tensor) -> torch.Tensor:
    return rows @ rows.T


def test_cosine_agrees_with_vectors(rows):
    expected = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1)
    torch.testing.assert_close(cosine_similarity(gramian(rows)), expected)


def test_similarities_ignore_what_they_should(rows):
    scaled = rows * torch.tensor([[1e-3], [2.0], [5.0], [1e4]], dtype=rows.dtype)
    torch.testing.assert_close(cosine_similarity(gramian(scaled)), cosine_similarity(gramian(rows)))
    torch.testing.assert_close(condition_number(gramian(scaled)), condition_number(gramian(rows)))
    assert conflict_rate(gramian(scaled)) == conflict_rate(gramian(rows))
    whole = magnitude_similarity(gramian(7 * rows))
    torch.testing.assert_close(whole, magnitude_similarity(gramian(rows)))


def test_permuting_tasks_permutes_matrices(rows):
    order = torch.tensor([2, 0, 3, 1])
    moved = gramian(rows[order])
    for similarity in (cosine_similarity, magnitude_similarity):
        expected = similarity(gramian(rows))[order][:, order]
        torch.testing.assert_close(similarity(moved), expected)


def test_magnitude_similarity_of_known_norms():
    held = magnitude_similarity(torch.diag(torch.tensor([1.0, 9.0])))
    torch.testing.assert_close(held, torch.tensor([[1.0, 0.6], [0.6, 1.0]]))


def test_conflict_rate_counts_pairs():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [1.0, 0.5]])
    assert conflict_rate(gramian(rows)) == pytest.approx(2 / 3)
    assert conflict_rate(torch.ones(1, 1)) == 0


def test_condition_number_of_two_unit_vectors():
    cosine = 0.6  # eigenvalues 1 ± cosine
    matrix = torch.tensor([[1.0, cosine], [cosine, 1.0]])
    assert condition_number(matrix) == pytest.approx(4)
    assert condition_number(torch.diag(torch.tensor([1.0, 100.0]))) == pytest.approx(1)
    assert math.isinf(condition_number(torch.ones(2, 2)))


def test_zero_gradient_has_no_direction():
    matrix = torch.diag(torch.tensor([0.0, 4.0]))
    assert torch.equal(cosine_similarity(matrix), torch.diag(torch.tensor([0.0, 1.0])))
    assert bool(torch.isfinite(magnitude_similarity(torch.zeros(2, 2))).all())


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_only_square_matrices(shape):
    for function in (cosine_similarity, magnitude_similarity, conflict_rate, condition_number):
        with pytest.raises(ArgumentError, match=r"square matrix \(T, T\)"):
            function(torch.ones(shape))


def test_update_summary_of_the_plain_sum_and_of_a_conflict():
    rows = torch.tensor([[3.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    found = update_summary(rows @ rows.T, torch.ones(2, dtype=torch.float64))
    assert found["update_norm"] == pytest.approx(5**0.5)
    assert found["update_ratio"] == pytest.approx(1.0)
    assert found["update_cosine_min"] == pytest.approx(-1 / 10**0.5)
    halved = update_summary(rows @ rows.T, torch.full((2,), 0.5, dtype=torch.float64))
    assert halved["update_ratio"] == pytest.approx(0.5)
    assert halved["update_cosine_min"] == pytest.approx(found["update_cosine_min"])


def test_update_summary_of_rows_that_cancel():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    found = update_summary(rows @ rows.T, torch.ones(2, dtype=torch.float64))
    assert found == {
        "update_norm": 0.0, "update_ratio": float("inf"), "update_cosine_min": 0.0
    }  # fmt: skip
