import pytest
import torch
from toys import ToyNetwork, toy_module, toy_samples, toy_tasks

from mtl_core.balancing.losses import TaskLosses
from mtl_core.balancing.rows import RowBuffer, add_rows, combine, gramian
from mtl_core.data.batch import Batch, collate
from mtl_core.nn import Features
from mtl_core.tasks import Regression


def losses_of(module, batch: Batch, *, cut: bool) -> TaskLosses:
    out = module.network.run(batch["inputs"], cut=cut)
    return module.compute_losses(batch, out, 0)


def collected(module, batch: Batch, *, cut: bool, factor: float = 1.0):
    """Rows by the engine and the decoders' gradients, for a trainer that multiplies by `factor`."""
    module.zero_grad()
    step = losses_of(module, batch, cut=cut)
    buffer = RowBuffer(module.network.shared_parameters(), len(step.losses))
    index = {e: i for i, e in enumerate(step.losses)}
    add_rows(
        buffer,
        step,
        step.total * factor,
        module.network.split_parameters(),
        index,
        dict.fromkeys(index, 1.0),
    )
    buffer.complete()
    own = [p.grad for t in module.tasks for p in module.network.task_parameters(t)]
    return buffer.rows, own


def expected(module, batch: Batch):
    shared = module.network.shared_parameters()
    rows, own = [], []
    for name, loss in losses_of(module, batch, cut=False).losses.items():
        heads = module.network.task_parameters(name)
        grads = torch.autograd.grad(loss, [*shared, *heads], retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in grads[: len(shared)]]))
        own.extend(grads[len(shared) :])
    return torch.stack(rows), own


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_rows_equal_each_loss_differentiated_by_itself(cut, norm):
    module = toy_module(norm=norm)
    batch = collate(toy_samples(12))
    rows, own = collected(module, batch, cut=cut, factor=2.5)
    want, want_own = expected(module, batch)
    torch.testing.assert_close(rows, 2.5 * want)
    for found, wanted in zip(own, want_own, strict=True):
        torch.testing.assert_close(found, 2.5 * wanted)


def test_every_decoder_is_walked_back_once_and_the_trunk_once_a_task():
    module = toy_module()
    walks: dict[str, int] = {}

    def count(name):
        def hook(*_):
            walks[name] = walks.get(name, 0) + 1

        return hook

    for name, decoder in module.network.decoders.items():
        decoder.linear.register_full_backward_hook(count(name))
    module.network.trunk[4].register_full_backward_hook(count("trunk"))
    collected(module, collate(toy_samples(12, partial=False)), cut=True)
    assert walks == {"size": 1, "kind": 1, "marks": 1, "trunk": 3}


def test_groups_of_one_task_are_rows_of_their_own():
    tasks = {"size": Regression(groups=("even", "odd")), "plain": Regression()}
    module = toy_module(tasks=tasks)
    samples = toy_samples(12, partial=False)
    batch = collate(
        [
            {
                "inputs": s["inputs"],
                "targets": {"size": s["targets"]["size"], "plain": s["targets"]["size"]},
                "group": {"size": i % 2},
            }
            for i, s in enumerate(samples)
        ]
    )
    assert module.entries == ("size/even", "size/odd", "plain")
    rows, own = collected(module, batch, cut=True)
    direct, own_direct = collected(module, batch, cut=False)
    torch.testing.assert_close(rows, direct)
    torch.testing.assert_close(own, own_direct)
    halves = []
    for half in (0, 1):
        part = {k: v for k, v in batch.items() if k == "inputs"}
        kept = batch["group"]["size"] == half
        part = Batch(
            inputs=batch["inputs"][kept],
            targets={"size": batch["targets"]["size"][kept]},
            group={"size": batch["group"]["size"][kept]},
        )
        step = losses_of(module, part, cut=False)
        loss = step.losses[module.entries[half]]
        grads = torch.autograd.grad(loss, module.network.shared_parameters())
        halves.append(torch.cat([g.flatten() for g in grads]))
    torch.testing.assert_close(rows[:2], torch.stack(halves))


def test_auxiliary_losses_reach_the_update_but_no_row():
    class Routed(ToyNetwork):
        def encode(self, inputs, tags=None):
            features = super().encode(inputs, tags)
            return Features(features.maps, aux={"load": self.trunk[0].weight.square().sum()})

    torch.manual_seed(0)
    module = toy_module()
    plain = collected(module, collate(toy_samples(12)), cut=True)[0]
    routed = toy_module()
    torch.manual_seed(0)
    routed.network = Routed(toy_tasks())
    routed.network.load_state_dict(module.network.state_dict())
    step = losses_of(routed, collate(toy_samples(12)), cut=True)
    buffer = RowBuffer(routed.network.shared_parameters(), 3)
    index = {e: i for i, e in enumerate(step.losses)}
    add_rows(
        buffer,
        step,
        3 * step.total,
        routed.network.split_parameters(),
        index,
        dict.fromkeys(index, 1.0),
    )
    torch.testing.assert_close(buffer.rows, 3 * plain)
    buffer.write(torch.zeros_like(buffer.rows[0]))
    torch.testing.assert_close(
        routed.network.trunk[0].weight.grad, 6 * routed.network.trunk[0].weight.detach()
    )


def test_parameters_a_task_does_not_reach_are_zeros_of_its_row():
    class Half(ToyNetwork):
        def decode(self, features, task):
            maps = [features.maps[0] if task == "size" else torch.zeros_like(features.maps[0])]
            return super().decode(Features(maps), task)

    module = toy_module()
    module.network = Half(toy_tasks())
    rows, _ = collected(module, collate(toy_samples(12)), cut=True)
    assert rows[0].abs().sum() > 0
    assert rows[1:].abs().sum() == 0


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("tasks", [1, 3, 25])
def test_gramian_is_exact_whatever_the_matmul_precision(precision, tasks):
    torch.manual_seed(0)
    rows = torch.randn(tasks, 50_000)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = gramian(rows)
    finally:
        torch.set_float32_matmul_precision(before)
    wanted = rows.double() @ rows.double().T
    assert found.dtype == torch.float64
    assert (found - wanted).abs().max() < 1e-6 * wanted.diagonal().max()
    assert torch.equal(found, found.T)


def test_gramian_of_doubles_is_one_of_doubles():
    rows = torch.randn(14, 70, dtype=torch.float64)
    torch.testing.assert_close(gramian(rows), rows @ rows.T, rtol=1e-12, atol=1e-12)


def test_combine_is_the_weighted_sum():
    rows, weights = torch.randn(3, 7), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(combine(rows, weights), (weights.float()[:, None] * rows).sum(0))
