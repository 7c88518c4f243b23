import pytest
import torch
from toys import toy_module, toy_samples

from mtl_core.callbacks.gradient_rows import GradientRows
from mtl_core.data.batch import collate
from mtl_core.errors import BalancerError


def losses_of(module, *, seed=0, count=16):
    batch = collate(toy_samples(count, seed=seed))
    return module.compute_losses(
        batch, module.network.run(batch["inputs"], cut=module.wants_cut), 0
    )


def gramian_by_hand(module, wanted, *, seed=0):
    """Products of gradients that each come from a forward pass of their own."""
    rows = []
    for entry in module.entries:
        step = losses_of(module, seed=seed)
        found = torch.autograd.grad(step.losses[entry], wanted(module, step), allow_unused=True)
        rows.append(torch.cat([g.flatten() for g in found]).double())
    stacked = torch.stack(rows)
    return stacked @ stacked.t()


SOURCES = {
    "exact": lambda module, step: module.network.split_parameters().shared,
    "last_layer": lambda module, step: list(module.network.trunk[4].parameters()),
    "feature": lambda module, step: step.features.tensors(),
}


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_products_are_those_of_each_loss_by_itself(source, cut):
    module = toy_module()
    wanted = gramian_by_hand(module, SOURCES[source])
    module.wants_cut = cut
    step = losses_of(module)
    rows = GradientRows(module.entries, source)
    rows.add(module, step, step.total)
    torch.testing.assert_close(rows.gramian(), wanted, rtol=1e-5, atol=1e-10)
    assert all(p.grad is None for p in module.parameters())
    step.total.backward()  # the graph is whole


def test_networks_without_a_border_give_exact_rows_only():
    module = toy_module(border=False)
    step, rows = losses_of(module), GradientRows(module.entries)
    rows.add(module, step, step.total)
    wanted = gramian_by_hand(module, SOURCES["exact"])
    torch.testing.assert_close(rows.gramian(), wanted, rtol=1e-5, atol=1e-10)
    for source in ("feature", "last_layer"):
        with pytest.raises(BalancerError, match="Use source: exact"):
            GradientRows(module.entries, source).add(module, step, step.total)


@pytest.mark.parametrize("source", SOURCES)
def test_the_loss_scale_is_taken_off(source):
    module = toy_module()
    step = losses_of(module)
    plain, scaled = GradientRows(module.entries, source), GradientRows(module.entries, source)
    plain.add(module, step, step.total)
    scaled.add(module, step, step.total * 1024)
    torch.testing.assert_close(scaled.gramian(1024.0), plain.gramian())


def test_a_window_is_the_sum_of_its_batches():
    module = toy_module()
    rows, parts = GradientRows(module.entries), []
    for seed in (0, 1):
        step = losses_of(module, seed=seed)
        rows.add(module, step, step.total / 2)
        found = [
            torch.autograd.grad(loss, module.network.split_parameters().shared, retain_graph=True)
            for loss in step.losses.values()
        ]
        parts.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in found]))
    mean = torch.stack(parts).double().mean(0)
    torch.testing.assert_close(rows.gramian(), mean @ mean.t(), rtol=1e-5, atol=1e-10)


def test_features_of_several_batches_are_several_columns():
    module = toy_module()
    rows, total = GradientRows(module.entries, "feature"), torch.zeros(3, 3, dtype=torch.float64)
    for seed in (0, 1):
        step = losses_of(module, seed=seed)
        rows.add(module, step, step.total)
        total += gramian_by_hand(module, SOURCES["feature"], seed=seed)
    torch.testing.assert_close(rows.gramian(), total, rtol=1e-5, atol=1e-10)


def test_a_frozen_trunk_has_no_gradients():
    module = toy_module()
    module.network.trunk.requires_grad_(False)
    step = losses_of(module)
    for source in SOURCES:
        rows = GradientRows(module.entries, source)
        rows.add(module, step, step.total)
        assert rows.gramian() is None
