from dataclasses import replace

import pytest
import torch
from gramian_laws import random_rows
from toys import fit, toy_module

from mtl_core.balancing import NTKMTL, NTKMTLSR
from mtl_core.balancing.ntkmtl_sr import largest_eigenvalues, part_squares
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError


def merged(rows, samples, shapes=None, **options):
    """Answer for T gradients of `samples` samples, on a border of one tensor or of such shapes."""
    balancer = NTKMTLSR(**options)
    balancer.start([str(i) for i in range(len(rows))])
    balancer._shapes = shapes or [torch.Size([samples, rows.shape[1] // samples])]
    step = replace(balancer.step(balancer.entries), samples=samples)
    return balancer.merge(rows, torch.ones(len(rows)), step)


def test_equals_the_kernel_of_gradients_of_the_parts_losses():
    torch.manual_seed(0)
    features = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    heads = torch.randn(3, 5, dtype=torch.float64)
    by_sample = (features @ heads.T).square()
    largest = []
    for t in range(3):
        rows = [
            torch.autograd.grad(by_sample[j::4, t].mean(), features, retain_graph=True)[0].flatten()
            for j in range(4)
        ]
        kernel = torch.stack(rows) @ torch.stack(rows).T
        largest.append(torch.linalg.eigvalsh(kernel)[-1])
    whole = [
        torch.autograd.grad(loss, features, retain_graph=True)[0] for loss in by_sample.mean(0)
    ]
    found = largest_eigenvalues(*part_squares(torch.stack(whole), 4))
    torch.testing.assert_close(found, torch.stack(largest).detach())


def test_unlabelled_samples_do_not_thin_a_part():
    rows = torch.ones(2, 4, 1)
    rows[1, 1:] = 0  # one label, whose loss is the mean
    squares, counts = part_squares(rows, 4)
    assert largest_eigenvalues(squares, counts).tolist() == [16.0, 1.0]


def test_weighted_rows_have_one_largest_eigenvalue():
    rows = random_rows(4, 0, width=24)
    found = merged(rows, 8)
    largest = largest_eigenvalues(*part_squares(rows.view(4, 8, 3), 4))
    torch.testing.assert_close(found.weights**2 * largest, largest.mean().expand(4))
    torch.testing.assert_close(found.gradient, found.weights @ rows)


def test_a_border_of_several_tensors_is_one_of_their_samples():
    """Maps of several depths lie behind one another; each holds a row a sample."""
    rows = random_rows(3, 4, width=24)
    by_sample = rows.view(3, 4, 6)
    apart = torch.cat([by_sample[..., :2].reshape(3, -1), by_sample[..., 2:].reshape(3, -1)], 1)
    shapes = [torch.Size([4, 2]), torch.Size([4, 2, 2])]
    found = merged(apart, 4, shapes)
    torch.testing.assert_close(found.weights, merged(rows, 4).weights)
    with pytest.raises(BalancerError, match=r"first axis is the batch of 4, found .*\(3, 8\)"):
        merged(rows, 4, [torch.Size([3, 8])])


def test_one_part_is_the_mini_batch_method():
    rows = random_rows(4, 1, width=24)
    torch.testing.assert_close(merged(rows, 8, parts=1).weights, NTKMTL().solve(rows @ rows.T))


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e8])
def test_degree_one_and_no_matter_of_loss_scales(scale):
    rows = random_rows(3, 2, width=24).float()
    torch.testing.assert_close(merged(rows * scale, 8).weights, merged(rows, 8).weights)
    factors = torch.tensor([[1.0], [50.0], [0.1]])
    found, other = merged(rows * factors, 8).gradient, merged(rows, 8).gradient
    assert torch.cosine_similarity(found, other, dim=0) > 1 - 1e-6


def test_agreement_one_task_and_absent_gradients():
    rows = random_rows(1, 3, width=24)
    assert merged(rows, 8).weights.tolist() == [1.0]
    assert merged(rows.expand(3, -1), 8).weights.tolist() == [1.0] * 3
    torch.testing.assert_close(
        merged(rows.expand(4, -1), 8, scale="paper").weights, torch.full((4,), 2.0).double()
    )
    mixed = torch.cat([rows, torch.zeros_like(rows), 2 * rows])
    torch.testing.assert_close(merged(mixed, 8).weights[[0, 2]], merged(mixed[[0, 2]], 8).weights)
    assert not merged(torch.zeros(2, 24), 8).gradient.any()


def test_trains_and_needs_a_border():
    before = toy_module()
    assert bool(torch.isfinite(fit(NTKMTLSR(), module=before)).all())
    with pytest.raises(BalancerError, match="border"):
        fit(NTKMTLSR(), module=toy_module(border=False), max_steps=1)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="parts must be at least 1"):
        NTKMTLSR(parts=0)
    with pytest.raises(UnknownNameError, match="Did you mean paper"):
        NTKMTLSR(scale="papers")
