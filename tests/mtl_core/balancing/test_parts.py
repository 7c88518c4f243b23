"""How rows of parts of a batch come about, seen through a method that only sums them."""

import pytest
import torch
from toys import ToyNetwork, fit, parameters_of, toy_loader, toy_module, toy_samples, toy_trainer

from mtl_core.balancing.parts import PartsBalancer, cross_gramian
from mtl_core.data.batch import collate, take_samples
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError

SHORT = {"max_steps": 3, "limit_val_batches": 0}


class Flat(PartsBalancer):
    """Equal weights; keeps what it was given."""

    def __init__(self, parts=2, scale="sum"):
        super().__init__(parts=parts, scale=scale)
        self.seen = []

    def weigh(self, cross, losses, step):
        self.seen.append((cross, step.entries))
        return torch.full_like(losses, 1 / len(losses))


def test_cross_gramian():
    first, second = torch.randn(2, 3, 50)
    found = cross_gramian(first, second)
    torch.testing.assert_close(found, first.double() @ second.double().t())
    torch.testing.assert_close(cross_gramian(second, first), found.t())


def rows_of(module, batch):
    step = module.compute_losses(batch, module.network.run(batch["inputs"]), 0)
    shared = module.network.split_parameters().shared
    return torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(x, shared, retain_graph=True)])
            for x in step.losses.values()
        ]
    )


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("border", [True, False])
def test_rows_are_those_of_the_parts(parts, border):
    method, module = Flat(parts), toy_module(border=border)
    batch = next(iter(toy_loader(9, partial=False)))
    by_part = [rows_of(module, take_samples(batch, slice(i, None, parts))) for i in range(parts)]
    whole = module.compute_losses(batch, module.network.run(batch["inputs"]), 0)
    own = module.network.split_parameters().all_own()
    decoders = torch.autograd.grad(whole.total, own)
    gradients = {}

    class Watched(Flat):
        def finish(self, module, losses, step):
            super().finish(module, losses, step)
            gradients.update({id(p): p.grad.clone() for p in module.network.parameters()})

    method = Watched(parts)
    loader = toy_loader(9, partial=False)

    toy_trainer(method, max_steps=1, limit_val_batches=0).fit(module, loader, loader)
    torch.testing.assert_close(
        method.seen[0][0], cross_gramian(by_part[0], by_part[1]), rtol=1e-5, atol=1e-7
    )
    target = by_part[2] if parts == 3 else (by_part[0] + by_part[1]) / 2
    shared = module.network.split_parameters().shared
    found = torch.cat([gradients[id(p)].flatten() for p in shared])
    torch.testing.assert_close(found, target.sum(0), rtol=1e-4, atol=1e-6)
    for p, wanted in zip(own, decoders, strict=True):
        torch.testing.assert_close(gradients[id(p)], wanted, rtol=1e-4, atol=1e-6)


def test_two_full_parts_make_the_plain_sum():
    """With as many labels in either part, the mean over parts is the mean over the batch."""
    loader = toy_loader(partial=False)

    runs = []
    for callbacks in ([Flat()], []):
        module = toy_module()
        toy_trainer(*callbacks, limit_val_batches=0).fit(module, loader, loader)
        runs.append(parameters_of(module))
    torch.testing.assert_close(*runs)


def test_a_task_missing_from_a_part_gets_the_others_rows():
    samples = toy_samples(8, partial=False)
    for i, sample in enumerate(samples):
        if i % 2:
            del sample["targets"]["size"]
    batch = collate(samples)
    loader = torch.utils.data.DataLoader([batch] * 2, batch_size=None)

    method, module = Flat(), toy_module()
    first = rows_of(module, take_samples(batch, slice(0, None, 2)))
    toy_trainer(method, max_steps=1, limit_val_batches=0).fit(module, loader, loader)
    cross, entries = method.seen[0]
    assert entries == ("size", "kind", "marks")
    assert float(cross[0, 0]) == pytest.approx(float(first[0] @ first[0]), rel=1e-4)


def test_absent_tasks_and_small_batches():
    method = Flat(3)
    assert fit(method, **SHORT).isfinite().all()
    for size in (1, 2, 3, 5):
        module = toy_module(norm=size > 1)
        loader = torch.utils.data.DataLoader(
            toy_samples(size * 2, partial=size % 2 == 1), size, collate_fn=collate
        )

        method = Flat(3)
        toy_trainer(method, **SHORT).fit(module, loader, loader)
        assert parameters_of(module).isfinite().all()
        if size < 4:  # one part serves for all
            cross = method.seen[0][0]
            torch.testing.assert_close(cross, cross.t())


def test_windows_add_up_parts():
    """Equal micro-batches make a window of one."""

    batches = [b for b in toy_loader(partial=False) for _ in range(2)]
    found = []
    for data, every in ((batches[::2], 1), (batches, 2)):
        module, loader = toy_module(), torch.utils.data.DataLoader(data, batch_size=None)
        trainer = toy_trainer(
            Flat(), max_epochs=1, accumulate_grad_batches=every, limit_val_batches=0
        )
        trainer.fit(module, loader, loader)
        found.append(parameters_of(module))
    torch.testing.assert_close(*found)


def test_batch_statistics_are_those_of_the_whole_batch():
    norms = [toy_module(norm=True) for _ in range(2)]
    fit(Flat(), module=norms[0], **SHORT)
    fit(module=norms[1], **SHORT)
    counts = [int(m.network.trunk[1].num_batches_tracked) for m in norms]
    assert counts[0] == counts[1]


def test_forwards_are_as_many_as_documented():
    sizes = []

    class Counted(ToyNetwork):
        def encode(self, inputs, tags=None):
            sizes.append(len(inputs))
            return super().encode(inputs, tags)

    module = toy_module()
    torch.manual_seed(0)
    module.network = Counted(module.tasks)
    fit(Flat(3), module=module, max_steps=1, limit_val_batches=0)
    assert sizes == [8, 3, 3, 2]


def test_plain_tensors():
    method = Flat(3)
    jacobians = torch.randn(3, 4, 7).double()
    found = method.direction_of_parts(list(jacobians))
    torch.testing.assert_close(found, jacobians[2].sum(0))
    torch.testing.assert_close(method.direction(jacobians[0]), jacobians[0].sum(0))
    two = Flat(2, "paper").direction_of_parts(list(jacobians[:2]))
    torch.testing.assert_close(two, jacobians[:2].mean(0).mean(0))
    assert method.direction(jacobians[0] * float("inf")).isnan().all()
    with pytest.raises(ArgumentError, match="jacobians must be 3 of them, found 2"):
        method.direction_of_parts(list(jacobians[:2]))


def test_the_loss_scale_is_taken_off():
    class Scaled(Flat):
        def loss_scale(self):
            return 8.0

    rows = torch.randn(2, 3, 5)
    one, two = Flat(), Scaled()
    wanted = one.direction_of_parts(list(rows))
    found = two.direction_of_parts(list(rows * 8))
    torch.testing.assert_close(found / 8, wanted)
    torch.testing.assert_close(two.seen[0][0], one.seen[0][0])


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="parts must be 2 or 3, found 4"):
        Flat(4)
    with pytest.raises(UnknownNameError, match="scale"):
        Flat(2, "mean")
    module = toy_module()
    step = module.compute_losses(b := collate(toy_samples(4)), module.network.run(b["inputs"]), 0)
    method = Flat()
    method.start(module.entries)
    with pytest.raises(BalancerError, match="evaluate parts of a batch"):
        method.collect(module, step, step.total, step.values, dict.fromkeys(step.values, 1.0))
