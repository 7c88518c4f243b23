"""Every balancer family with every trainer feature: the guard on Lightning's side of a step."""

import copy

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from toys import fit, parameters_of, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import MGDAUB, UW, Equal, GradDrop, PCGrad

FAMILIES = [Equal, UW, PCGrad, GradDrop, MGDAUB]


def large_batch(balancer: L.Callback, batch_size: int, **kwargs) -> torch.Tensor:
    """One epoch over fully labelled samples, so that means over windows are means over samples."""
    module = toy_module()
    trainer = toy_trainer(balancer, max_epochs=1, **kwargs)
    trainer.fit(module, toy_loader(batch_size, partial=False), toy_loader(count=8))
    return parameters_of(module)


@pytest.mark.parametrize("balancer", [Equal, UW, PCGrad, GradDrop])
def test_accumulation_equals_the_large_batch(balancer):
    torch.testing.assert_close(
        large_batch(balancer(), 8, accumulate_grad_batches=2), large_batch(balancer(), 16)
    )


@pytest.mark.parametrize("balancer", FAMILIES)
def test_ragged_last_window(balancer):
    """Six batches in windows of four: the last window has two, as Lightning steps there too."""
    method = balancer()
    large_batch(method, 8, accumulate_grad_batches=4)
    assert method.index == 2


@pytest.mark.parametrize("balancer", FAMILIES)
def test_clipping_equals_a_hand_written_loop(balancer):
    """The trainer clips what the method wrote and the decoders' gradients together."""
    clipped: list[torch.Tensor] = []

    class Spy(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.before = [p.grad.clone() for p in pl_module.parameters()]

        def on_train_batch_end(self, trainer, pl_module, *_):
            clipped.append(torch.cat([p.grad.flatten() for p in pl_module.parameters()]))
            norm = torch.cat([g.flatten() for g in self.before]).norm()
            wanted = torch.cat([g.flatten() for g in self.before]) * (0.05 / norm)
            torch.testing.assert_close(clipped[-1], wanted, rtol=1e-4, atol=1e-7)

    fit(balancer(), Spy(), max_steps=3, gradient_clip_val=0.05)
    assert len(clipped) == 3


@pytest.mark.parametrize("balancer", FAMILIES)
def test_bf16_mixed_stays_near_full_precision(balancer):
    full, mixed = fit(balancer()), fit(balancer(), precision="bf16-mixed")
    assert mixed.isfinite().all()
    if balancer is not GradDrop:  # draws against rounded purities may fall on the other side
        assert (full - mixed).norm() < 0.05 * full.norm()


def scaled(scale: float) -> MixedPrecision:
    class Full(MixedPrecision):
        """The scaler of 16-mixed without its casts, so that only the scale differs."""

        def forward_context(self):
            return torch.autocast("cpu", enabled=False)

    return Full("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


@pytest.mark.parametrize("balancer", FAMILIES)
def test_the_loss_scale_changes_nothing(balancer):
    torch.testing.assert_close(fit(balancer(), plugins=scaled(1024.0)), fit(balancer()))


@pytest.mark.parametrize("balancer", FAMILIES)
def test_16_mixed_runs(balancer):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert fit(balancer(), plugins=plugin, max_steps=4).isfinite().all()


@pytest.mark.parametrize("balancer", FAMILIES)
def test_a_dropped_step_leaves_parameters_and_state_alone(balancer):
    method, module = balancer(), toy_module()
    seen: list[tuple[torch.Tensor, dict]] = []

    class Overflow(L.Callback):
        """Makes one decoder's gradient overflow in the second step."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append((parameters_of(pl_module), copy.deepcopy(method.state_dict())))

        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step == 1 and len(seen) == 2:
                next(pl_module.network.decoders["kind"].parameters()).grad.fill_(float("inf"))

    fit(method, Overflow(), module=module, plugins=scaled(1024.0), max_steps=3)
    assert len(seen) >= 3
    assert torch.equal(seen[1][0], seen[2][0])
    assert str(seen[1][1]) == str(seen[2][1])
    assert not torch.equal(seen[0][0], seen[1][0])


@pytest.mark.parametrize("balancer", FAMILIES)
def test_weight_averaging(balancer):
    """The average is left in the module at the end; training is untouched."""
    plain = fit(balancer(), max_steps=6)
    averaged = fit(balancer(), EMAWeightAveraging(decay=0.5), max_steps=6)
    assert averaged.isfinite().all()
    assert not torch.equal(plain, averaged)
    frozen = fit(balancer(), EMAWeightAveraging(decay=0.0), max_steps=6)
    torch.testing.assert_close(frozen, plain)


@pytest.mark.parametrize("balancer", FAMILIES)
def test_early_stopping_on_a_task_metric(balancer):
    stopper = EarlyStopping("val/kind/accuracy", mode="max", patience=1, min_delta=2.0)
    trainer = toy_trainer(balancer(), stopper, max_epochs=9)
    trainer.fit(toy_module(), toy_loader(), toy_loader(count=8))
    assert trainer.current_epoch == 2


@pytest.mark.parametrize("balancer", FAMILIES)
def test_fast_dev_run(balancer):
    assert fit(balancer(), fast_dev_run=True).isfinite().all()


@pytest.mark.parametrize("balancer", FAMILIES)
def test_deterministic_runs_are_identical(balancer):
    try:
        one, two = (fit(balancer(), deterministic=True) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(one, two)


@pytest.mark.parametrize("balancer", FAMILIES)
def test_compiled_network_trains_alike(balancer):
    """`aot_eager` traces forward and backward as inductor does, without a C++ compiler."""
    compiled = fit(balancer(), module=toy_module(compile="aot_eager"), max_steps=4)
    torch.testing.assert_close(compiled, fit(balancer(), max_steps=4))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("balancer", FAMILIES)
def test_stopped_and_resumed_equals_unbroken(balancer, tmp_path):
    def saver():
        return ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")

    unbroken = fit(balancer(), max_steps=12)
    fit(balancer(), saver(), max_steps=6, enable_checkpointing=True)
    path = tmp_path / "step=6.ckpt"
    torch.load(path, weights_only=True)
    module = toy_module()
    torch.nn.init.ones_(module.network.trunk[0].weight)
    resumed = fit(
        balancer(),
        saver(),
        module=module,
        max_steps=12,
        enable_checkpointing=True,
        ckpt_path=path,
    )
    assert torch.equal(resumed, unbroken)


@pytest.mark.parametrize("balancer", FAMILIES)
def test_manual_optimisation(balancer):
    class Manual(type(toy_module())):
        """A hand-written step around the same losses."""

        def training_step(self, batch, batch_idx):
            total = super().training_step(batch, batch_idx)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(total)
            optimizer.step()

    automatic, module = toy_module(), toy_module()
    module.__class__ = Manual
    module.automatic_optimization = False
    torch.testing.assert_close(fit(balancer(), module=module), fit(balancer(), module=automatic))
