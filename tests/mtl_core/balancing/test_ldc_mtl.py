from dataclasses import replace

import pytest
import torch
from toys import fit, parameters_of, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import LDCMTL
from mtl_core.balancing.ldc_mtl import ldc_objective, pool_features
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.nn import Features

LOSSES = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)


def free(**kwargs):
    balancer = LDCMTL(router="free", **kwargs)
    balancer.start("abc")
    return balancer


def test_objective_of_equal_shares():
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    expected = LOSSES.mean() + 0.1 * (1.5 + 1.0) / 3
    torch.testing.assert_close(ldc_objective(LOSSES, third, 0.1), expected)


@pytest.mark.parametrize("normalise", ["none", "initial", "log"])
def test_weights_are_derivatives_of_the_objective(normalise):
    balancer = free(normalise=normalise, penalty=0.1, scale="paper")
    first = LOSSES * torch.tensor([2.0, 1.0, 4.0])
    balancer.advance(first, balancer.step(balancer.entries))
    shares = torch.softmax(balancer.learned.values, 0)
    leaf = LOSSES.clone().requires_grad_()
    normal = {
        "none": leaf,
        "initial": leaf / (first / first.min()),
        "log": (leaf / first).log(),
    }[normalise]
    (expected,) = torch.autograd.grad(ldc_objective(normal, shares, 0.1), leaf)
    found = balancer.weigh(LOSSES, balancer.step(balancer.entries))
    torch.testing.assert_close(found, expected)


def test_free_scalars_descend_the_objective_by_adam():
    balancer = free(lr=0.05, normalise="none", penalty=0.3)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for i in range(30):
        losses = LOSSES * (1 + 0.1 * i)
        balancer.advance(losses, balancer.step(balancer.entries))
        optimizer.zero_grad()
        ldc_objective(losses, torch.softmax(logits, 0), 0.3).backward()
        optimizer.step()
    torch.testing.assert_close(balancer.learned.values, logits.detach())


def test_a_large_penalty_makes_weighted_losses_alike():
    balancer = free(lr=0.05, normalise="none", penalty=100.0)
    for _ in range(150):
        balancer.advance(LOSSES, balancer.step(balancer.entries))
    weighted = torch.softmax(balancer.learned.values, 0) * LOSSES
    assert float(weighted.max() / weighted.min()) < 1.1
    alone = free(lr=0.05, normalise="none", penalty=0.0)
    for _ in range(150):
        alone.advance(LOSSES, alone.step(alone.entries))
    assert int(torch.softmax(alone.learned.values, 0).argmax()) == int(LOSSES.argmin())


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_fit_is_the_hand_written_joint_descent(hidden):
    """Router and model follow one objective; here both in one graph."""
    module = toy_module()
    optimizer = torch.optim.SGD(module.network.parameters(), lr=0.1, momentum=0.9)
    balancer = LDCMTL(hidden=hidden, penalty=0.1, normalise="none", lr=0.01, seed=3)
    trained = fit(balancer)
    sizes = [(3, 8), (3,)] if not hidden else [(5, 8), (5,), (3, 5), (3,)]
    layers = [torch.zeros(s, dtype=torch.float64, requires_grad=True) for s in sizes]
    if hidden:
        generator = torch.Generator().manual_seed(3)
        start = torch.randn(40, dtype=torch.float64, generator=generator) / 8**0.5
        layers[0].data.copy_(start.view(5, 8))
    adam = torch.optim.Adam(layers, lr=0.01)
    for _ in range(2):
        for batch in toy_loader():
            out = module.network.run(batch["inputs"])
            step = module.compute_losses(batch, out, 0)
            pooled = out.features.maps[0].double().mean(0)
            logits = layers[0] @ pooled + layers[1]
            if hidden:
                logits = layers[2] @ logits.relu() + layers[3]
            assert len(step.losses) == 3
            value = ldc_objective(step.vector.double(), torch.softmax(logits, 0), 0.1)
            optimizer.zero_grad()
            adam.zero_grad()
            # The model's objective is T times the router's; Adam does not see factors.
            (3 * value).backward()
            optimizer.step()
            adam.step()
    torch.testing.assert_close(trained, parameters_of(module), atol=1e-5, rtol=1e-4)
    flat = torch.cat([layer.detach().flatten() for layer in layers])
    torch.testing.assert_close(balancer.learned.values, flat, atol=1e-5, rtol=1e-3)


def test_gradients_through_the_router_can_be_cut():
    through, cut = fit(LDCMTL(lr=0.5)), fit(LDCMTL(lr=0.5, through_features=False))
    assert not torch.allclose(through, cut)


def test_a_window_acts_on_mean_features():
    """Batches of 8 in windows of 2 are batches of 16 to the router where all tasks are labelled."""
    whole, parts = LDCMTL(lr=0.1, normalise="none"), LDCMTL(lr=0.1, normalise="none")
    for balancer, size, every in ((whole, 16, 1), (parts, 8, 2)):
        trained = toy_module()
        trainer = toy_trainer(balancer, accumulate_grad_batches=every, max_epochs=1)
        trainer.fit(trained, toy_loader(size, partial=False, count=16), toy_loader())
    torch.testing.assert_close(whole.learned.values, parts.learned.values, atol=1e-6, rtol=1e-4)


def test_features_are_pooled_over_positions():
    maps = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(pool_features(Features([maps])), maps.mean((2, 3)))
    tokens = torch.randn(2, 6, 3)
    torch.testing.assert_close(pool_features(Features([], tokens=tokens)), tokens.mean(1))
    vectors = torch.randn(2, 3)
    assert pool_features(Features([maps, vectors])) is vectors


def test_resuming_and_other_widths(tmp_path):
    balancer = LDCMTL(hidden=4)
    fit(balancer)
    other = LDCMTL(hidden=4)
    other.start(balancer.entries)
    other.load_state_dict(balancer.state_dict())
    assert torch.equal(other.learned.values, balancer.learned.values)
    assert other.width == 8
    other._pooled = torch.zeros(9, dtype=torch.float64)
    with pytest.raises(BalancerError, match="features of width 8, found 9"):
        other.weigh(LOSSES, other.step(other.entries))


def test_losses_without_features_are_refused():
    balancer = LDCMTL()
    balancer.start("abc")
    with pytest.raises(BalancerError, match="router: free"):
        balancer.weigh(LOSSES, balancer.step(balancer.entries))


def test_absent_tasks_have_no_neighbours():
    balancer = free(penalty=0.1, normalise="none", scale="paper")
    step = replace(balancer.step(("a", "c")))
    found = balancer.weigh(LOSSES[[0, 2]], step)
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    torch.testing.assert_close(found, half + torch.tensor([-0.05, 0.05]))


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="penalty must be finite and not negative"):
        LDCMTL(penalty=-1.0)
    with pytest.raises(ArgumentError, match="hidden must not be negative"):
        LDCMTL(hidden=-1)
    with pytest.raises(ArgumentError, match="hidden must be 0 with router: free"):
        LDCMTL(hidden=2, router="free")
    with pytest.raises(ArgumentError, match="lr must be positive"):
        LDCMTL(lr=0.0)
    for name in ("normalise", "router", "scale"):
        with pytest.raises(UnknownNameError, match=name):
            LDCMTL(**{name: "other"})
