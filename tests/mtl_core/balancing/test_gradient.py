import torch

from mtl_core.balancing import GradientBalancer


class FirstOnly(GradientBalancer):
    def weigh(self, gramian, losses, step):
        self.seen = gramian
        return torch.nn.functional.one_hot(torch.tensor(0), len(gramian)).double()


def updated(rows):
    balancer = FirstOnly()
    balancer.start(("a", "b", "c"))
    found = balancer.update(rows, torch.ones(len(rows)), balancer.step(balancer.entries))
    return balancer, found.direction, found.weights


def test_weights_combine_the_rows():
    # Small integers: the same products on every machine, in whatever order it sums.
    rows = torch.tensor([[1.0, -2, 3, 0, 4], [2, 2, -1, 5, 0], [-3, 1, 0, 2, -4]])
    balancer, direction, weights = updated(rows)
    torch.testing.assert_close(direction, rows[0])
    torch.testing.assert_close(balancer.seen, rows.double() @ rows.double().T)
    assert weights.tolist() == [1.0, 0.0, 0.0]
    assert -1 <= balancer.report["cosine_min"] <= balancer.report["cosine_mean"] <= 1


def test_tasks_without_gradient_never_reach_the_method():
    rows = torch.randn(3, 5)
    rows[0] = 0
    balancer, direction, _ = updated(rows)
    assert balancer.seen.shape == (2, 2)
    torch.testing.assert_close(direction, rows[1])


def test_no_gradient_at_all_gives_a_zero_update():
    balancer, direction, _ = updated(torch.zeros(3, 5))
    assert direction.tolist() == [0.0] * 5
    assert not hasattr(balancer, "seen")
