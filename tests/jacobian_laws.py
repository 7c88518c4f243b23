"""Laws of methods on whole rows; a test class derives from `JacobianLaws`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from gramian_laws import random_rows
from torch import Tensor

from mtl_core.balancing import JacobianBalancer


def feed(
    balancer: JacobianBalancer, rows: Tensor, present: Sequence[int], losses: Tensor | None = None
) -> Tensor:
    """One update of a run of which only some entries are present."""
    step = balancer.step([balancer.entries[i] for i in present])
    known = torch.ones(len(rows), dtype=torch.float64) if losses is None else losses
    found = balancer.update(rows, known, replace(step, index=balancer.index)).direction
    balancer.index += 1
    return found


class JacobianLaws:
    make: Callable[..., JacobianBalancer]
    degree = 1
    gain: float = 1.0
    """Length of a first step for T equal rows, over that of their plain sum."""
    rtol = 1e-5
    opposite = 3.0
    """Bound of the first update for a row and its opposite, over the row's length."""

    def fresh(self) -> JacobianBalancer:
        return type(self).make()

    def run(self, jacobians: Sequence[Tensor], **options: Any) -> Tensor:
        balancer = self.fresh()
        return [balancer.direction(j, **options) for j in jacobians][-1]

    @pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e8])
    def test_degree_at_any_scale(self, scale: float) -> None:
        cases = [random_rows(4, seed) for seed in range(3)]
        found = self.run([c * scale for c in cases]) / scale**self.degree
        torch.testing.assert_close(found, self.run(cases), rtol=self.rtol, atol=1e-7)

    @pytest.mark.parametrize("tasks", [1, 2, 5])
    def test_equal_rows(self, tasks: int) -> None:
        row = random_rows(1, 1)[0]
        expected = row * tasks * self.gain if self.degree else row.sign() * tasks * self.gain
        found = self.run([row.expand(tasks, -1)])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    def test_permutation(self) -> None:
        order = torch.tensor([2, 0, 3, 1])
        cases = [random_rows(4, seed) for seed in range(3)]
        turned = self.run([c[order] for c in cases])
        torch.testing.assert_close(turned, self.run(cases))

    def test_opposite_rows_are_finite(self) -> None:
        row = random_rows(1, 5)
        found = self.run([torch.cat([row, -row])])
        assert float(found.norm() / row.norm()) < self.opposite

    def test_zeros_are_finite(self) -> None:
        assert not self.run([torch.zeros(3, 5)]).any()
        rows = random_rows(3, 1)
        rows[1] = 0
        for jacobians in ([rows], [rows, random_rows(3, 2)], [random_rows(3, 2), rows]):
            assert bool(torch.isfinite(self.run(jacobians)).all())

    def test_not_finite_moves_no_state(self) -> None:
        balancer = self.fresh()
        balancer.direction(random_rows(3, 0))
        state = str(balancer.state_dict())
        assert bool(balancer.direction(random_rows(3, 1) * torch.nan).isnan().all())
        assert str(balancer.state_dict()) == state

    def test_the_rows_are_not_written_to(self) -> None:
        rows = random_rows(3, 0)
        kept = rows.clone()
        self.run([rows, rows])
        assert torch.equal(rows, kept)

    def test_resumed_run_goes_on_equally(self) -> None:
        first, second = self.fresh(), self.fresh()
        for seed in range(6):
            rows, losses = random_rows(3, seed), torch.rand(3) + 0.5
            if seed == 3:
                second.start(first.entries)
                second.load_state_dict(first.state_dict())
            found = first.direction(rows, losses)
            if seed >= 3:
                assert torch.equal(second.direction(rows, losses), found)

    def test_absent_tasks_keep_their_state(self) -> None:
        balancer = self.fresh()
        balancer.start(["a", "b", "c"])
        feed(balancer, random_rows(3, 0), [0, 1, 2])
        former = balancer.state_dict()["method"]
        feed(balancer, random_rows(2, 1), [0, 2])
        for key, value in balancer.state_dict()["method"].items():
            for old, new in zip(self.by_entry(former[key]), self.by_entry(value), strict=True):
                assert torch.equal(old[1], new[1])
        assert bool(torch.isfinite(feed(balancer, random_rows(3, 2), [0, 1, 2])).all())

    @staticmethod
    def by_entry(value: Any) -> list[Tensor]:
        values = value if isinstance(value, list) else [value]
        return [v for v in values if isinstance(v, Tensor)]
