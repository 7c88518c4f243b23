import pytest
import torch
from quadratics import Reference, Sum
from toys import ToyNetwork, fit, parameters_of, toy_module

from mtl_core.balancing import MGDA, SAM, SAMO, PCGrad, Stages
from mtl_core.errors import ArgumentError, UnknownNameError

SHORT = {"max_steps": 3, "limit_val_batches": 0}


@pytest.mark.parametrize("network", [{}, {"border": False}, {"norm": True, "dropout": 0.3}])
def test_radius_zero_is_the_inner_method(network):
    wanted = fit(PCGrad(), module=toy_module(**network), **SHORT)
    found = fit(SAMO(inner=PCGrad(), rho=0.0), module=toy_module(**network), **SHORT)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("network", [{}, {"border": False}])
@pytest.mark.parametrize("adaptive", [False, True])
def test_mean_loss_alone_is_one_common_ascent(network, adaptive):
    inner = {"rho": 0.1, "adaptive": adaptive}
    common = SAM(inner=MGDA(), split=False, shared_ascent=True, **inner)
    wanted = fit(common, module=toy_module(**network), **SHORT)
    found = fit(SAMO(inner=MGDA(), alpha=1.0, **inner), module=toy_module(**network), **SHORT)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("rescale", ["layer", "none"])
def test_where_the_second_passes_are_evaluated(alpha, rescale):
    """On the reference problem of SAM-MTL, whose losses are quadratic: differences are exact."""
    method = SAMO(inner=Sum(), alpha=alpha, rho=0.2, rho_own=0.1, rescale=rescale, mu=0.01)
    problem = Reference(method)
    problem.run()
    first, *moved = problem.seen
    assert len(moved) == 6
    rows = torch.tensor([[2.5, -0.5], [-3.625, 0.25]], dtype=torch.float64)
    heads = torch.tensor([3.0, -1.5])
    for t in range(2):
        plus, minus = (moved[3 * t + k][0] - first[0] for k in range(2))
        torch.testing.assert_close(plus, -minus)
        direction = plus / 0.01
        local = (rows[t] @ direction) * direction
        if rescale == "layer":
            local = local * (rows.mean(0).norm() / local.norm())
        wanted = alpha * rows.mean(0) + (1 - alpha) * local
        ascent = moved[3 * t + 2][0] - first[0]
        torch.testing.assert_close(ascent, 0.2 * wanted / wanted.norm(), rtol=1e-3, atol=1e-4)
        own = moved[3 * t + 2][1 + t] - first[1 + t]
        assert float(own) == pytest.approx(0.1 * float(heads[t].sign()))
    assert torch.equal(problem.theta.detach(), first[0])


def test_forwards_are_as_many_as_documented():
    counted = []

    class Counted(ToyNetwork):
        def encode(self, inputs, tags=None):
            counted.append(1)
            return super().encode(inputs, tags)

    module = toy_module()
    torch.manual_seed(0)
    module.network = Counted(module.tasks)
    fit(SAMO(), module=module, max_steps=2, limit_val_batches=0)
    assert len(counted) == 2 * (1 + 3 * 3)


def test_directions_are_drawn_from_the_seed():
    runs = [fit(SAMO(rho=0.1, seed=s), **SHORT) for s in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_an_error_in_a_further_pass_leaves_the_weights(monkeypatch):
    module = toy_module()
    before = parameters_of(module)
    method = SAMO()
    monkeypatch.setattr(method, "_mixture", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(method, module=module)
    assert torch.equal(parameters_of(module), before)


def test_plain_tensors_go_to_the_inner_method():
    rows = torch.randn(3, 5).double()
    torch.testing.assert_close(SAMO(inner=MGDA()).direction(rows), MGDA().direction(rows))


def test_windows():
    found = fit(SAMO(inner=MGDA(), rho=0.05), accumulate_grad_batches=3, max_steps=2)
    assert found.isfinite().all()


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"alpha must lie in \[0, 1\], found 2"):
        SAMO(alpha=2)
    with pytest.raises(ArgumentError, match="mu must be finite and positive, found 0"):
        SAMO(mu=0)
    with pytest.raises(UnknownNameError, match="rescale"):
        SAMO(rescale="all")
    with pytest.raises(ArgumentError, match="inner"):
        SAMO(inner=MGDA(stages=Stages(gram="last_layer")))
