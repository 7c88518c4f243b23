"""Laws of Gramian methods: the spec's property matrix, and its rules on numbers.

A test class derives from `GramianLaws` and states which properties its method has; those that it
does not have must fail somewhere, so that a statement cannot be wrong unnoticed.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mtl_core.balancing import GradientBalancer, Stages

A = torch.tensor([[1, 0, 0, 0.5], [-0.6, 1, 0, 0.2], [0, -0.3, 0.8, -1]], dtype=torch.float64)
B = torch.tensor([[-4, 1, 1], [6, 1, 1]], dtype=torch.float64)
C = torch.tensor([[3, 0], [1, 1]], dtype=torch.float64)
D = torch.tensor([[1, 0], [-0.8, 0.6]], dtype=torch.float64)
PAPER = Stages(scale="paper")


def near(found: Tensor, expected: Sequence[float] | Tensor, atol: float = 2e-6) -> None:
    wanted = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, wanted, atol=atol, rtol=0)


def random_rows(tasks: int, seed: int, width: int = 12) -> Tensor:
    """Independent rows of different lengths, about half of the pairs in conflict."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, width, dtype=torch.float64, generator=generator)
    return rows * torch.randn(tasks, 1, dtype=torch.float64, generator=generator).exp()


def along(found: Tensor, expected: Tensor) -> bool:
    return bool(torch.cosine_similarity(found, expected, dim=0) > 1 - 1e-7)


class GramianLaws:
    make: Callable[..., GradientBalancer]
    """Takes ``stages``."""
    stages: ClassVar[dict[str, Any]] = {}
    """The published defaults beside the scale."""
    gain: float | None = 1.0
    """Sum of the published weights for T equal rows, over T where `per_task`."""
    per_task = False
    permutes = True
    row_invariant = False
    additive = False
    harmless: tuple[int, ...] = ()
    """Numbers of tasks of 2 and 6 for which no task ever gets worse."""
    stationary_zero = False

    def fresh(self, **options: Any) -> GradientBalancer:
        return type(self).make(stages=Stages(**(self.stages | {"scale": "paper"} | options)))

    def direction(self, rows: Tensor) -> Tensor:
        return self.fresh().solve(rows @ rows.T) @ rows

    @pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e3, 1e8])
    def test_degree_one_at_any_scale(self, scale: float) -> None:
        for rows in (A, B, C, D, random_rows(6, 0)):
            torch.testing.assert_close(
                self.direction(rows * scale) / scale, self.direction(rows), rtol=1e-5, atol=1e-7
            )

    @pytest.mark.parametrize("tasks", [1, 2, 5])
    def test_equal_rows(self, tasks: int) -> None:
        rows = random_rows(1, 1).expand(tasks, -1)
        assert self.gain is not None
        gain = self.gain * (tasks if self.per_task else 1)
        torch.testing.assert_close(self.direction(rows), rows[0] * gain, rtol=1e-6, atol=0)
        whole = self.fresh(scale="sum").direction(rows)
        torch.testing.assert_close(whole, rows.sum(0), rtol=1e-6, atol=0)

    def test_permutation(self) -> None:
        order = torch.tensor([2, 0, 3, 1])
        cases = [random_rows(4, seed) for seed in range(5)]
        same = [torch.allclose(self.direction(r), self.direction(r[order])) for r in cases]
        assert all(same) == self.permutes

    def test_scale_of_the_losses(self) -> None:
        factors = torch.tensor([[1.0], [30.0], [0.01]], dtype=torch.float64)
        cases = [random_rows(3, seed) for seed in range(5)]
        same = [along(self.direction(r * factors), self.direction(r)) for r in cases]
        assert all(same) == self.row_invariant

    def test_additive_in_the_scale_of_the_losses(self) -> None:
        one = torch.tensor([[1.0], [3.0], [0.2]], dtype=torch.float64)
        two = torch.tensor([[0.5], [0.1], [4.0]], dtype=torch.float64)
        cases = [random_rows(3, seed) for seed in range(5)]
        same = [
            torch.allclose(
                self.direction(r * (one + two)),
                self.direction(r * one) + self.direction(r * two),
                rtol=1e-5,
                atol=1e-6,
            )
            for r in cases
        ]
        assert all(same) == self.additive

    @pytest.mark.parametrize("tasks", [2, 6])
    def test_which_tasks_get_worse(self, tasks: int) -> None:
        worst = 0.0
        for seed in range(60):
            rows = random_rows(tasks, seed)
            found = self.direction(rows)
            cosines = rows @ found / (rows.norm(dim=1) * found.norm())
            worst = min(worst, float(cosines.min()))
        assert (worst > -1e-6) == (tasks in self.harmless)

    def test_full_stationarity(self) -> None:
        rows = random_rows(4, 3)
        rows[3] = -(rows[0] + 0.5 * rows[1] + 2 * rows[2])
        found = self.direction(rows)
        assert bool(torch.isfinite(found).all())
        assert (float(found.norm() / rows.norm()) < 1e-3) == self.stationary_zero

    def test_zero_rows_change_nothing(self) -> None:
        rows = random_rows(3, 4)
        with_zero = torch.cat([rows, torch.zeros(1, 12, dtype=torch.float64)])
        torch.testing.assert_close(self.direction(with_zero), self.direction(rows))
        assert not self.direction(torch.zeros(3, 4, dtype=torch.float64)).any()

    @pytest.mark.parametrize("length", [1.0, 0.01])
    def test_opposite_rows_are_finite(self, length: float) -> None:
        rows = random_rows(1, 5)
        found = self.direction(torch.cat([rows, -length * rows]))
        assert float(found.norm() / rows.norm()) < 3

    def test_more_tasks_than_parameters_are_finite(self) -> None:
        rows = random_rows(6, 6, width=2)
        assert bool(torch.isfinite(self.direction(rows)).all())

    def test_not_finite_moves_no_state(self) -> None:
        balancer = self.fresh()
        balancer.solve(A @ A.T)
        state = str(balancer.state_dict())
        assert bool(balancer.solve(A @ A.T * torch.nan).isnan().all())
        assert str(balancer.state_dict()) == state

    def test_resumed_run_goes_on_equally(self) -> None:
        first, second = self.fresh(), self.fresh()
        grams = [
            (r @ r.T, torch.rand(3).double() + 0.5)
            for r in (random_rows(3, seed) for seed in range(6))
        ]
        for gram, losses in grams[:3]:
            first.solve(gram, losses)
        second.start(first.entries)
        second.load_state_dict(first.state_dict())
        for gram, losses in grams[3:]:
            assert torch.equal(first.solve(gram, losses), second.solve(gram, losses))
