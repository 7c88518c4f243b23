import pytest
import torch
from gramian_laws import A, B, C, D, near, random_rows
from jacobian_laws import JacobianLaws
from toys import fit, toy_module

from mtl_core.balancing import DBMTL
from mtl_core.errors import ArgumentError, BalancerError


class TestDBMTL(JacobianLaws):
    make = lambda: DBMTL(log=False)  # noqa: E731
    gain = 0.1


class TestWithoutAverage(JacobianLaws):
    make = lambda: DBMTL(beta=0.0, log=False)  # noqa: E731

    def test_reference_values(self):
        near(self.run([A]), [0.509459, 0.811627, 0.8, -0.189457])
        near(self.run([B]), [0.188135, 2.452966, 2.452966])
        near(self.run([C]), [5.121320, 2.121320])
        assert torch.cosine_similarity(self.run([D]), D.sum(0), dim=0) > 1 - 1e-9

    def test_nothing_of_the_parameters_size_is_kept(self):
        balancer = self.fresh()
        balancer.direction(A)
        assert balancer.state_dict()["method"]["average"] == []

    @pytest.mark.parametrize("seed", range(20))
    def test_two_tasks_never_get_worse(self, seed):
        rows = random_rows(2, seed)
        assert torch.all(rows @ self.run([rows]) > -1e-9)


def test_follows_the_published_recursion():
    balancer = DBMTL(beta=0.5, sigma=0.5)
    average, losses = torch.zeros(3, 12).double(), torch.tensor([0.1, 1.0, 7.0])
    for k in range(1, 6):
        rows, beta = random_rows(3, k), 0.5 / k**0.5
        average = beta * average + (1 - beta) * rows / (losses + 1e-8)[:, None]
        lengths = average.norm(dim=1, keepdim=True)
        expected = (lengths.max() * average / lengths).sum(0)
        torch.testing.assert_close(balancer.direction(rows, losses), expected, rtol=1e-6, atol=1e-7)


def test_scale_of_the_losses_does_not_matter():
    factors = torch.tensor([1.0, 40.0, 0.003]).double()
    torch.manual_seed(0)
    first, second = DBMTL(), DBMTL()
    for seed in range(4):
        rows, losses = random_rows(3, seed), torch.rand(3).double() + 0.5
        found = first.direction(rows, losses)
        torch.testing.assert_close(
            second.direction(rows * factors[:, None], losses * factors), found, rtol=1e-4, atol=1e-5
        )


def test_decoders_get_the_gradient_of_the_log_loss():
    plain, logged = toy_module(lr=1e-3), toy_module(lr=1e-3)
    start = {n: p.detach().clone() for n, p in plain.named_parameters()}
    fit(DBMTL(log=False), module=plain, max_steps=1)
    balancer = DBMTL()
    seen = []
    original = balancer.decoder_factors
    balancer.decoder_factors = lambda losses, step: seen.append(losses) or original(losses, step)
    fit(balancer, module=logged, max_steps=1)
    for task, loss in zip(balancer.entries, seen[0].tolist(), strict=True):
        name = next(n for n in start if f"decoders.{task}" in n and n.endswith("weight"))
        moved = dict(plain.named_parameters())[name] - start[name]
        moved_by_log = dict(logged.named_parameters())[name] - start[name]
        torch.testing.assert_close(moved_by_log * loss, moved, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("log", "weighted"), [(True, True), (True, False), (False, True)])
def test_decoders_may_keep_their_own_gradients(log, weighted):
    balancer = DBMTL(log=log, weight_decoders=weighted)
    balancer.start(["a"])
    step = balancer.step(["a"])
    found = balancer.update(torch.ones(1, 2), torch.tensor([4.0]).double(), step).decoders
    assert found is None if not (log and weighted) else found.tolist() == pytest.approx([0.25])


def test_errors():
    with pytest.raises(BalancerError, match="positive losses, but that of 1 is -1"):
        DBMTL().direction(torch.eye(2), torch.tensor([1.0, -1.0]))
    with pytest.raises(ArgumentError, match=r"beta must lie in \[0, 1\), found 1"):
        DBMTL(beta=1)
    with pytest.raises(ArgumentError, match="sigma"):
        DBMTL(sigma=-1)
