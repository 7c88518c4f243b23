import pytest
import torch
import torch.nn.functional as F

from mtl_core.balancing.last_layer_posterior import (
    covariance_roots,
    curvature,
    extended,
    precision_shares,
    sampled_moments,
    squared_error_moments,
    weighted_squares,
)


def layer(seed=0, outputs=2, size=3, batch=5):
    """Inputs (B, E), mean (C, E) and root (C, E, E) of some posterior."""
    generator = torch.Generator().manual_seed(seed)
    inputs = extended(torch.randn(batch, size, generator=generator), bias=True)
    precision = weighted_squares(
        torch.randn(20, size + 1, generator=generator), torch.ones(20, outputs)
    )
    return (
        inputs,
        torch.randn(outputs, size + 1, generator=generator),
        covariance_roots(precision, 1.0),
    )


def test_roots_are_those_of_the_inverse():
    precision = weighted_squares(torch.randn(9, 4), torch.rand(9, 2))
    root = covariance_roots(precision, 0.5)
    wanted = torch.linalg.inv(precision + 0.5 * torch.eye(4))
    torch.testing.assert_close(root @ root.mT, wanted, rtol=1e-3, atol=1e-4)


def test_curvature():
    logits = torch.randn(6, 4)
    target = torch.randint(4, (6,))
    known = torch.arange(6) < 4
    found = curvature(
        lambda x: torch.where(known, F.cross_entropy(x, target, reduction="none"), 0.0), logits
    )
    p = logits.softmax(1)
    torch.testing.assert_close(found, torch.where(known[:, None], p * (1 - p), 0.0))
    square = curvature(lambda x: (x - 1).square(), logits)
    torch.testing.assert_close(square, torch.full((6, 4), 2.0))
    assert not curvature(lambda x: x * 3, logits).any()


@pytest.mark.parametrize("seed", range(3))
def test_moments_in_closed_form_are_those_of_samples(seed):
    inputs, mean, root = layer(seed)
    targets, known = torch.randn(5, 2), torch.rand(5, 2) > 0.2
    first, second = squared_error_moments(inputs, targets, known, mean, root, 3)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(200_000, 2, 4, generator=generator)
    weights = mean + torch.einsum("cef,scf->sce", root, drawn)
    errors = torch.einsum("be,sce->sbc", inputs, weights) - targets
    gradient = torch.einsum("sbc,scd->sbd", 2 * errors * known, weights[..., :3])
    size = float(gradient.std())
    torch.testing.assert_close(first, gradient.mean(0), rtol=0.03, atol=0.02 * size)
    torch.testing.assert_close(second, gradient.var(0), rtol=0.05, atol=0.02 * size**2)


def test_sampled_moments_agree_with_the_closed_form():
    inputs, mean, root = layer()
    targets, known = torch.randn(5, 2), torch.ones(5, 2, dtype=torch.bool)
    first, second = squared_error_moments(inputs, targets, known, mean, root, 3)
    found = sampled_moments(
        inputs,
        lambda x: (x - targets.repeat(len(x) // 5, 1)).square(),
        mean,
        root,
        3,
        samples=4000,
        generator=torch.Generator().manual_seed(0),
    )
    size = float(second.mean().sqrt())
    torch.testing.assert_close(found[0], first, rtol=0.1, atol=0.1 * size)
    torch.testing.assert_close(found[1], second, rtol=0.3, atol=0.1 * size**2)


def test_a_sure_posterior_gives_the_gradient_itself():
    inputs, mean, root = layer()
    targets, known = torch.randn(5, 2), torch.ones(5, 2, dtype=torch.bool)
    first, second = squared_error_moments(inputs, targets, known, mean, root * 1e-6, 3)
    wanted = 2 * (inputs @ mean.t() - targets) @ mean[:, :3]
    torch.testing.assert_close(first, wanted)
    assert float(second.max()) < 1e-8


def test_shares():
    variances = torch.tensor([1.0, 3.0, 1.0])[:, None, None].expand(3, 2, 4)
    known = torch.tensor([[True, True], [True, False], [False, False]])
    found = precision_shares(variances, known, 1.0)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([0.75, 0.25, 0.0]))
    torch.testing.assert_close(found[:, 1, 0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(precision_shares(variances * 1e-20, known, 1.0), found)
    torch.testing.assert_close(
        precision_shares(variances, known, 0.0)[:, 0, 0].sum(), torch.tensor(1.0)
    )
    torch.testing.assert_close(
        precision_shares(variances * 0, known, 1.0)[:2, 0, 0], torch.full((2,), 0.5)
    )
    assert not precision_shares(variances, known & False, 1.0).any()
