import pytest
import torch

from mtl_core.balancing.spectrum import kept_spectrum


def gramian_of(rows):
    wide = rows.double()
    return wide @ wide.T


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_independent_rows_keep_the_whole_spectrum(scale):
    rows = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)) * scale
    gramian = gramian_of(rows)
    values, vectors = kept_spectrum(gramian)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(gramian))
    rebuilt = vectors @ values.diag() @ vectors.T
    torch.testing.assert_close(rebuilt, gramian, rtol=1e-9, atol=1e-9 * scale**2)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_directions_of_rounding_alone_are_dropped(scale):
    rows = torch.randn(2, 50, generator=torch.Generator().manual_seed(1)) * scale
    # The third row depends on the others but for its rounding to float32.
    rows = torch.cat([rows, 0.3 * rows[:1] + 0.7 * rows[1:]])
    values, vectors = kept_spectrum(gramian_of(rows))
    assert values.shape == (2,)
    assert vectors.shape == (3, 2)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(gramian_of(rows))[1:])


def test_a_short_row_is_no_rounding():
    values, _ = kept_spectrum(torch.diag(torch.tensor([1.0, 1e-10], dtype=torch.float64)))
    torch.testing.assert_close(values, torch.tensor([1e-10, 1.0], dtype=torch.float64))


def test_one_task_and_equal_tasks_keep_one_direction():
    values, vectors = kept_spectrum(torch.tensor([[4.0]], dtype=torch.float64))
    assert values.tolist() == [4.0]
    assert vectors.abs().tolist() == [[1.0]]
    values, vectors = kept_spectrum(torch.ones(3, 3, dtype=torch.float64))
    torch.testing.assert_close(values, torch.tensor([3.0], dtype=torch.float64))
    torch.testing.assert_close(vectors.abs(), torch.full((3, 1), 3**-0.5, dtype=torch.float64))
