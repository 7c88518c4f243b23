import torch
from toys import toy_module, toy_samples

from mtl_core.balancing.border import Merged, finite_on_all_ranks, merge_at_border
from mtl_core.data.batch import collate


def test_the_sum_at_the_border_is_the_plain_gradient_and_decoders_take_their_factors():
    module = toy_module()
    batch = collate(toy_samples(12))
    split = module.network.split_parameters()
    plain = module.compute_losses(batch, module.network.run(batch["inputs"]), 0)
    wanted = torch.autograd.grad(plain.total, [*split.shared, *split.all_own()])
    step = module.compute_losses(batch, module.network.run(batch["inputs"], cut=True), 0)
    factors = torch.tensor([1.0, 2.0, 0.5])

    def merge(border):
        assert border.rows.shape == (3, 12 * 8)
        return Merged(border.rows.sum(0), None, factors)

    scale = 8.0
    merge_at_border(
        step, step.total * scale, split, module.entries, dict.fromkeys(module.entries, 1.0),
        scale, merge,
    )  # fmt: skip
    found = [p.grad for p in [*split.shared, *split.all_own()]]
    each = [1.0] * len(split.shared)
    for factor, parameters in zip(factors.tolist(), split.own.values(), strict=True):
        each += [factor] * len(parameters)
    for got, want, factor in zip(found, wanted, each, strict=True):
        torch.testing.assert_close(got, want * scale * factor)


def test_which_rows_are_finite():
    rows = torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [float("inf"), 1.0]])
    assert finite_on_all_ranks(rows).tolist() == [True, False, False]
