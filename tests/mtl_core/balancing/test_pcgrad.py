import pytest
import torch

from mtl_core.balancing import PCGrad
from mtl_core.balancing.pcgrad import draw_orders, pcgrad_weights

A = torch.tensor([[1, 0, 0, 0.5], [-0.6, 1, 0, 0.2], [0, -0.3, 0.8, -1]], dtype=torch.float64)
B = torch.tensor([[-4, 1, 1], [6, 1, 1]], dtype=torch.float64)


def in_order(tasks: int) -> torch.Tensor:
    return torch.arange(tasks).expand(tasks, tasks)


def projected(rows: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """Algorithm 1 of the paper on the vectors themselves."""
    total = torch.zeros_like(rows[0])
    for i, row in enumerate(rows):
        vector = row.clone()
        for j in orders[i].tolist():
            if j != i and vector @ rows[j] < 0:
                vector -= (vector @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
        total += vector
    return total


def test_reference_values():
    weights = pcgrad_weights(A @ A.T, in_order(3))
    expected = torch.tensor([1.8, 1.857143, 1.796862], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        pcgrad_weights(B @ B.T, in_order(2)) @ B,
        torch.tensor([0.584795, 3.801170, 3.801170], dtype=torch.float64),
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("seed", range(10))
def test_gramian_form_equals_projecting_vectors(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    orders = torch.stack([torch.randperm(5, generator=generator) for _ in range(5)])
    torch.testing.assert_close(
        pcgrad_weights(rows @ rows.T, orders) @ rows, projected(rows, orders)
    )


@pytest.mark.parametrize("seed", range(10))
def test_two_tasks_never_conflict_with_the_update(seed):
    rows = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert torch.all(rows @ (pcgrad_weights(rows @ rows.T, in_order(2)) @ rows) >= -1e-12)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e5])
def test_degree_one_at_any_scale(scale):
    torch.testing.assert_close(
        pcgrad_weights(A @ A.T * scale**2, in_order(3)), pcgrad_weights(A @ A.T, in_order(3))
    )


def test_agreement_and_one_task_give_the_plain_sum():
    rows = torch.rand(4, 3, dtype=torch.float64)
    assert pcgrad_weights(rows @ rows.T, in_order(4)).tolist() == [1.0] * 4
    assert pcgrad_weights(torch.ones(1, 1), in_order(1)).tolist() == [1.0]


def test_order_is_a_function_of_seed_and_update():
    def weights(seed: int, index: int) -> list[float]:
        balancer = PCGrad(seed=seed)
        balancer.entries, balancer.index = ("a", "b", "c"), index
        step = balancer.step(balancer.entries)
        return balancer.weigh(A @ A.T, torch.ones(3), step).tolist()

    assert weights(0, 3) == weights(0, 3)
    draws = {tuple(weights(seed, index)) for seed in range(4) for index in range(4)}
    assert len(draws) > 3


def test_orders_are_permutations_and_all_occur():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw_orders(3, generator) for _ in range(40)])
    assert drawn.sort(1).values.tolist() == [[0, 1, 2]] * 120
    assert len({tuple(order) for order in drawn.tolist()}) == 6
