import pytest
import torch

from mtl_core.balancing.simplex import project_to_simplex, restricted


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize("seed", range(5))
def test_projection_is_optimal(scale, seed):
    generator = torch.Generator().manual_seed(seed)
    point = torch.randn(6, dtype=torch.float64, generator=generator) * scale
    found = project_to_simplex(point)
    assert float(found.min()) >= 0
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)
    # Variational inequality: every vertex lies on the far side.
    gaps = (point - found) @ (torch.eye(6, dtype=torch.float64) - found).T
    assert float(gaps.max()) <= 1e-6 * max(scale, 1)


def test_points_of_the_simplex_stay():
    point = torch.tensor([0.2, 0.0, 0.8], dtype=torch.float64)
    torch.testing.assert_close(project_to_simplex(point), point)


def test_restriction():
    part, mass = restricted(torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([0, 1]))
    torch.testing.assert_close(part, torch.tensor([0.4, 0.6]).double())
    assert float(mass) == pytest.approx(0.5)
    part, mass = restricted(torch.tensor([0.0, 0.0, 1.0]).double(), torch.tensor([0, 1]))
    assert part.tolist() == [0.5, 0.5]
    assert float(mass) == 0
