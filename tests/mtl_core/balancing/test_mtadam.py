import pytest
import torch
from gramian_laws import random_rows
from jacobian_laws import JacobianLaws, feed
from toys import fit, toy_module

from mtl_core.balancing import MTAdam
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError


class TestMTAdam(JacobianLaws):
    make = lambda: MTAdam(eps=1e-30)  # noqa: E731  # what is beside roots has a scale
    degree = 0
    rtol = 1e-4
    opposite = 1e-6

    def test_permutation(self):
        """Only of the tasks behind the anchor."""
        order = torch.tensor([0, 2, 3, 1])
        cases = [random_rows(4, seed) for seed in range(3)]
        torch.testing.assert_close(self.run([c[order] for c in cases]), self.run(cases))


def published(jacobians, ranks, betas=(0.9, 0.999, 0.9), eps=1e-8):
    """The authors' update of one tensor, without its learning rate."""
    tasks, width = jacobians[0].shape
    first, second = torch.zeros(2, tasks, width).double()
    norms = torch.zeros(tasks).double()
    for k, rows in enumerate(jacobians, start=1):
        fresh = rows.norm(dim=1)
        norms = fresh if k == 1 else betas[2] * norms + (1 - betas[2]) * fresh
        scaled = ranks[:, None] * norms[0] * rows / norms[:, None]
        first = betas[0] * first + (1 - betas[0]) * scaled
        second = betas[1] * second + (1 - betas[1]) * scaled**2
        roots = (second / (1 - betas[1] ** k)).sqrt() + eps
        step = (first / (1 - betas[0] ** k)).sum(0) / roots.amax(0)
    return step


def test_follows_the_published_recursion():
    jacobians = [random_rows(3, seed) for seed in range(6)]
    balancer = MTAdam(ranks={"1": 3.0, "2": 0.5})
    for rows in jacobians:
        found = balancer.direction(rows)
    torch.testing.assert_close(found, published(jacobians, torch.tensor([1, 3, 0.5]).double()))


def test_scale_of_the_losses_does_not_matter():
    factors = torch.tensor([[1.0], [100.0], [0.01]]).double()
    first, second = MTAdam(), MTAdam()
    for seed in range(4):
        rows = random_rows(3, seed)
        found = first.direction(rows)
        torch.testing.assert_close(second.direction(rows * factors), found, rtol=1e-5, atol=1e-6)


def test_lengths_are_those_of_every_tensor():
    module = toy_module()
    module.optimizer = lambda p: torch.optim.SGD(p, lr=0.01)
    balancer = MTAdam()
    fit(balancer, module=module, max_steps=3)
    shared = len(module.network.shared_parameters())
    assert balancer.state_dict()["method"]["lengths"].shape == (3, shared)


def test_an_absent_anchor_is_represented_by_its_average():
    balancer = MTAdam(eps=1e-30)
    balancer.start(["a", "b"])
    rows = torch.diag(torch.tensor([10.0, 1.0])).double()
    feed(balancer, rows, [0, 1])
    feed(balancer, rows[1:], [1])
    moments = balancer.state_dict()["method"]["moments"][1]
    assert float(moments[1, 1]) == pytest.approx(100 * (1 - 0.999**2), rel=1e-6)


def test_errors():
    with pytest.raises(BalancerError, match="hands the optimiser finished steps"):
        fit(MTAdam())
    with pytest.raises(ArgumentError, match="beta_norm"):
        MTAdam(beta_norm=1)
    with pytest.raises(ArgumentError, match=r"ranks\['size'\] must be positive"):
        MTAdam(ranks={"size": 0})
    with pytest.raises(UnknownNameError, match=r"(?s)ranks.*Did you mean size"):
        fit(MTAdam(ranks={"sise": 2}))
