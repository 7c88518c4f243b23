import pytest
import torch
from torchjd import scalarization
from toys import fit, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import FAMO, Balanced, Equal
from mtl_core.balancing.famo import famo_pull, famo_weights
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError

POSITIVE = torch.tensor([0.3, 2.0, 5.0], dtype=torch.float64)


def started(entries="abc", **kwargs) -> FAMO:
    balancer = FAMO(**kwargs)
    balancer.start(tuple(entries))
    return balancer


def observe(balancer: FAMO, losses) -> None:
    balancer.advance(losses, balancer.step(balancer.entries))


def test_weights():
    """They sum to one, follow the inverse losses, and are invariant to a common scale."""
    weights = famo_weights(torch.zeros(3), POSITIVE)
    torch.testing.assert_close(weights, (1 / POSITIVE) / (1 / POSITIVE).sum())
    logits = torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64)
    for scale in (1e-8, 1e8):
        torch.testing.assert_close(
            famo_weights(logits, POSITIVE * scale), famo_weights(logits, POSITIVE)
        )


def test_pull_is_the_gradient_of_the_softmax():
    logits = torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64, requires_grad=True)
    decrease = torch.tensor([0.2, -0.1, 0.05], dtype=torch.float64)
    wanted = torch.autograd.grad(torch.softmax(logits, 0), logits, decrease)[0]
    torch.testing.assert_close(famo_pull(logits.detach(), decrease), wanted)


def test_equal_relative_decrease_moves_nothing():
    balancer = started(update="next_step", decay=0.0, eps=0.0)
    for factor in (1.0, 0.8, 0.5):
        observe(balancer, POSITIVE * factor)
    torch.testing.assert_close(
        balancer.logits.values, torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_task_that_fell_more_loses_weight():
    balancer = started(update="next_step")
    observe(balancer, POSITIVE)
    observe(balancer, POSITIVE * torch.tensor([0.5, 1.0, 1.0]))
    assert balancer.logits.values[0] < 0 < balancer.logits.values[1]


def test_agrees_with_torchjd():
    balancer = started(update="next_step", scale="paper", eps=1e-8)
    reference = scalarization.FAMO(3).double()
    for i in range(8):
        losses = (POSITIVE * (1 + 0.3 * torch.randn(3, dtype=torch.float64))).abs()
        if i:
            reference.update(losses)
        observe(balancer, losses)
        leaf = losses.clone().requires_grad_()
        reference(leaf).backward()
        found = balancer.weigh(losses, balancer.step(balancer.entries))
        torch.testing.assert_close(found, leaf.grad, rtol=1e-6, atol=1e-8)


def test_a_fit_compares_the_same_batch_before_and_after_the_step():
    """Against a loop by hand, with batch statistics, momentum and TorchJD's update."""
    module = toy_module(norm=True)
    network, reference = module.network, scalarization.FAMO(3).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    loader = toy_loader(partial=False)

    def losses(batch):
        out = network.run(batch["inputs"])
        return torch.stack(list(module.compute_losses(batch, out, 0).losses.values()))

    for batch in loader:
        optimizer.zero_grad()
        found = losses(batch)
        (3 * reference(found.double())).backward()
        optimizer.step()
        buffers = [b.clone() for b in network.buffers()]
        reference.update(losses(batch).detach().double())
        for b, kept in zip(network.buffers(), buffers, strict=True):
            b.copy_(kept)
    method, other = FAMO(), toy_module(norm=True)
    trainer = toy_trainer(method, max_epochs=1, limit_val_batches=0)
    trainer.fit(other, loader, loader)
    torch.testing.assert_close(method.logits.values, reference._w.detach(), rtol=1e-3, atol=1e-5)
    for one, two in zip(other.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    for one, two in zip(other.network.buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_nothing_of_a_step_is_kept_after_it():
    method = FAMO()
    fit(method)
    assert method._last is None
    assert method._moved is None
    assert method.logits.values.abs().sum() > 0


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"norm": True}, {"border": False}])
def test_a_step_of_length_zero_moves_nothing_but_by_decay(options):
    """The further pass draws the masks of the first."""
    method = FAMO(decay=0.0)
    fit(method, module=toy_module(lr=0.0, **options))
    torch.testing.assert_close(
        method.logits.values, torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_windows_and_the_free_variant_run():
    assert fit(FAMO(), accumulate_grad_batches=2).isfinite().all()
    assert fit(FAMO(update="next_step")).isfinite().all()
    assert not torch.equal(fit(FAMO()), fit(Equal()))


def test_clipping_of_shared_gradients():
    lengths = []

    class Watched(FAMO):
        def finish(self, module, losses, step):
            super().finish(module, losses, step)
            shared = module.network.split_parameters().shared
            lengths.append(float(torch.cat([p.grad.flatten() for p in shared]).norm()))

    fit(Watched(max_norm=0.01), max_steps=3)
    assert max(lengths) == pytest.approx(0.01, rel=1e-4)


def test_dropped_steps_move_nothing():
    class Dropping(FAMO):
        scale_now = 4.0

        def has_scaler(self):
            return True

        def loss_scale(self):
            return self.scale_now

        def settle(self):
            self.scale_now = 2.0
            super().settle()
            self.scale_now = 4.0

    method = Dropping()
    fit(method)
    assert not method.logits.values.any()


def test_hand_written_loop():
    torch.manual_seed(0)
    trunk, heads = torch.nn.Linear(4, 3), {t: torch.nn.Linear(3, 1) for t in "ab"}
    modules = torch.nn.ModuleList([trunk, *heads.values()])
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.1)
    inputs, method = torch.randn(8, 4), FAMO()

    def losses():
        return {t: (h(trunk(inputs).tanh()) - 1).square().mean() for t, h in heads.items()}

    with Balanced(method, shared=trunk, own=heads) as balanced:
        optimizer.zero_grad()
        before = losses()
        balanced.backward(before, closure=losses)
        optimizer.step()
        method.settle()
        after = losses()
    old, new = (torch.stack(list(x.values())).detach().double() for x in (before, after))
    pull = famo_pull(torch.zeros(2, dtype=torch.float64), old.log() - new.log())
    assert torch.equal(method.logits.values.sign(), -pull.sign())
    with Balanced(FAMO(), shared=trunk, own=heads) as balanced:
        balanced.backward(losses())
        with pytest.raises(BalancerError, match="FAMO needs a closure"):
            balanced.balancer.settle()


def test_absent_tasks_and_state():
    balancer = started(update="next_step")
    observe(balancer, POSITIVE)
    part = balancer.step(("a", "c"))
    balancer.advance(torch.tensor([0.1, 5.0], dtype=torch.float64), part)
    assert balancer.logits.values[1] == 0
    other = started(update="next_step")
    other.load_state_dict(balancer.state_dict())
    for one in (balancer, other):
        observe(one, POSITIVE * 0.5)
    assert torch.equal(balancer.logits.values, other.logits.values)


def test_one_task():
    balancer = started("a", update="next_step")
    observe(balancer, POSITIVE[:1])
    observe(balancer, POSITIVE[1:2])
    assert balancer.weigh(POSITIVE[:1], balancer.step(("a",))).tolist() == [1.0]


def test_losses_below_the_floor():
    balancer = started(floor={"a": 0.5})
    with pytest.raises(BalancerError, match="that of a is"):
        balancer.weigh(POSITIVE, balancer.step(balancer.entries))


def test_bad_arguments():
    for name in ("lr", "max_norm"):
        with pytest.raises(ArgumentError, match=f"{name} must be positive"):
            FAMO(**{name: 0})
    with pytest.raises(ArgumentError, match="decay"):
        FAMO(decay=-1)
    with pytest.raises(ArgumentError, match="floor"):
        FAMO(floor={"a": float("nan")})
    with pytest.raises(UnknownNameError, match="floor"):
        started(floor={"d": 0.0})
    with pytest.raises(UnknownNameError, match="update"):
        FAMO(update="later")
