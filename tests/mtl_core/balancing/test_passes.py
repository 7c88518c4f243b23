"""Every walk agrees with autograd on the losses themselves."""

import pytest
import torch
from toys import toy_module, toy_samples, toy_tasks

from mtl_core.balancing.passes import aux_pass, entry_passes, own_parameters, summed_pass
from mtl_core.balancing.rows import RowBuffer
from mtl_core.data.batch import collate
from mtl_core.tasks import Regression

GROUPED = {**toy_tasks(), "size": Regression(groups=("even", "odd"))}


def evaluated(*, border=True, cut=True, tasks=None):
    module = toy_module(border=border, tasks=tasks)
    batch = collate(toy_samples(8, partial=False))
    if tasks is not None:
        batch["group"] = {"size": torch.arange(8) % 2}
    out = module.network.run(batch["inputs"], cut=cut)
    return module.network, module.compute_losses(batch, out, 0)


def plain(step, network, factors, **kwargs):
    """Gradients of all parameters by entry, from an evaluation without a cut."""
    parameters = list(network.parameters())
    found = {}
    for entry, factor in zip(step.losses, factors, strict=True):
        gradients = torch.autograd.grad(
            step.losses[entry] * factor, parameters, retain_graph=True, allow_unused=True
        )
        found[entry] = dict(zip(map(id, parameters), gradients, strict=True))
    return found


def same(found, wanted):
    nothing = [found is None or not found.any(), wanted is None or not wanted.any()]
    if any(nothing):
        assert all(nothing)
    else:
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("tasks", [None, GROUPED])
@pytest.mark.parametrize("kind", ["cut", "batched", "uncut", "no border"])
def test_entry_by_entry(kind, tasks):
    network, step = evaluated(border=kind != "no border", cut=kind != "uncut", tasks=tasks)
    copy, whole = evaluated(border=kind != "no border", cut=False, tasks=tasks)
    factors = torch.arange(1.0, len(step.losses) + 1)
    wanted = plain(whole, copy, factors)
    mirror = dict(zip(map(id, network.parameters()), map(id, copy.parameters()), strict=True))
    split = network.split_parameters()
    seen = []
    for found in entry_passes(step, factors, split, batched=kind == "batched"):
        seen.append(found.entry)
        pairs = [*zip(split.shared, found.shared, strict=True)]
        pairs += zip(found.parameters, found.own, strict=True)
        for p, gradient in pairs:
            same(gradient, wanted[found.entry][mirror[id(p)]])
        border = kind in ("cut", "batched")
        assert found.parameters == own_parameters(split, found.entry, border=border) or all(
            a is b for a, b in zip(found.parameters, split.all_own(), strict=True)
        )
    assert seen == list(step.losses)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("trunk", [True, False])
@pytest.mark.parametrize("kind", ["cut", "uncut"])
def test_all_at_once(kind, trunk):
    network, step = evaluated(cut=kind == "cut", tasks=GROUPED)
    copy, whole = evaluated(cut=False, tasks=GROUPED)
    factors = torch.arange(1.0, 5.0)
    wanted = plain(whole, copy, factors)
    mirror = dict(zip(map(id, network.parameters()), map(id, copy.parameters()), strict=True))
    split = network.split_parameters()
    shared, own = summed_pass(step, factors, split, trunk=trunk)
    pairs = [*zip(split.all_own(), own, strict=True)]
    if trunk:
        pairs += zip(split.shared, shared, strict=True)
    else:
        assert shared == [None] * len(split.shared)
    for p, gradient in pairs:
        parts = [g[mirror[id(p)]] for g in wanted.values()]
        total = sum(x for x in parts if x is not None)
        torch.testing.assert_close(gradient, total)


def test_auxiliary_losses_are_no_rows():
    network, step = evaluated()
    split = network.split_parameters()
    buffer = RowBuffer(split.shared, 3)
    aux_pass(buffer, step, None, split)
    assert not buffer.has_aux
    aux = step.features.maps[0].sum() + split.own["size"][0].sum()
    with_aux = type(step)(**{**vars(step), "aux": aux})
    aux_pass(buffer, with_aux, torch.tensor(2.0), split)
    wanted = torch.autograd.grad(2 * aux, split.shared)
    torch.testing.assert_close(buffer.aux, torch.cat([g.flatten() for g in wanted]))
    torch.testing.assert_close(
        split.own["size"][0].grad, torch.full_like(split.own["size"][0], 2.0)
    )
