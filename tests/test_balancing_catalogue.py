"""Every method of the catalogue under everything that Lightning does to a step."""

import copy
import inspect

import lightning as L
import pytest
import torch
from balancing_methods import (
    AFTER_VALIDATION,
    AT_THE_BORDER,
    FOREIGN,
    METHODS,
    NEEDS_TRUNK,
    PER_BATCH,
    SEQUENTIAL,
    catalogue_module,
)
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader
from toys import parameters_of, toy_loader, toy_module, toy_trainer

import mtl_core.balancing as library
from mtl_core.balancing import Balancer, FeatureBalancer, GradientBalancer, JacobianBalancer
from mtl_core.errors import BalancerError

every_method = pytest.mark.parametrize("name", METHODS)


def train(name, *callbacks, module=None, method=None, loader=None, ckpt_path=None, **kwargs):
    """Parameters after two epochs of the toy under a method."""
    module = module or catalogue_module(name)
    trainer = toy_trainer(method or METHODS[name](), *callbacks, **kwargs)
    trainer.fit(module, loader or toy_loader(), toy_loader(count=16, seed=1), ckpt_path=ckpt_path)
    return parameters_of(module)


def test_the_catalogue_is_complete():
    families = {FeatureBalancer, GradientBalancer, JacobianBalancer, Balancer}
    methods = {
        value
        for value in vars(library).values()
        if inspect.isclass(value) and issubclass(value, Balancer) and not inspect.isabstract(value)
    }
    assert methods - families == {type(make()) for make in METHODS.values()} - {None}
    assert set(FOREIGN) | PER_BATCH | SEQUENTIAL <= set(METHODS)


@every_method
def test_says_what_it_is(name):
    method = type(METHODS[name]())
    assert method.source or method.__name__ in ("Equal", "Static")
    assert method.needs
    assert method.walks
    assert inspect.getdoc(method)


@every_method
def test_trains_and_lowers_the_loss(name):
    """Partial labels throughout: every batch of the toy lacks some."""
    module = catalogue_module(name, lr=0.01)

    def total():
        values = []
        for batch in toy_loader():
            out = module.network.run(batch["inputs"])
            values.append(sum(module.compute_losses(batch, out, 0).values.values()))
        return sum(values)

    before = total()
    found = train(name, module=module, max_epochs=3)
    assert found.isfinite().all()
    assert total() < before


@every_method
def test_nothing_enters_the_model(name):
    module = catalogue_module(name)
    keys = module.state_dict().keys()
    train(name, module=module, max_steps=2)
    assert module.state_dict().keys() == keys
    assert "backward" not in vars(module)
    assert not module.wants_cut
    assert not module.wants_replay
    assert module.task_losses is None
    assert all(p.grad is None or p.grad.grad_fn is None for p in module.parameters())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("name", [n for n in METHODS if n not in AFTER_VALIDATION])
def test_stopped_and_resumed_equals_unbroken(name, tmp_path):
    def saver():
        return ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")

    unbroken = train(name, max_steps=9)
    train(name, saver(), max_steps=6, enable_checkpointing=True)
    path = tmp_path / "step=6.ckpt"
    torch.load(path, weights_only=True)
    module = catalogue_module(name)
    torch.nn.init.ones_(next(module.network.parameters()))
    resumed = train(
        name, saver(), module=module, max_steps=9, enable_checkpointing=True, ckpt_path=path
    )
    assert torch.equal(resumed, unbroken)


@pytest.mark.parametrize("name", [n for n in METHODS if n not in SEQUENTIAL])
def test_accumulation(name):
    """A ragged last window, and one step a window; a window of one batch is a step."""
    method = METHODS[name]()
    train(name, method=method, max_epochs=1, accumulate_grad_batches=4)
    assert method.index == 2
    if name in PER_BATCH:
        return
    whole = toy_loader(16, partial=False)
    halves = toy_loader(8, partial=False)
    torch.testing.assert_close(
        train(name, loader=halves, max_epochs=1, accumulate_grad_batches=2),
        train(name, loader=whole, max_epochs=1),
        rtol=1e-4,
        atol=1e-5,
    )


@every_method
def test_clipping(name):
    """The trainer clips what the method left for it, trunk and decoders together."""
    norms = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            found = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
            norms.append(float(torch.cat(found).norm()))

    train(name, Watch(), max_steps=4, gradient_clip_val=1e-3)
    assert max(norms) <= 1e-3 * (1 + 1e-4)


@every_method
def test_bf16_mixed(name):
    found = train(name, precision="bf16-mixed", max_steps=6)
    assert found.isfinite().all()


def scaled(scale: float) -> MixedPrecision:
    class Full(MixedPrecision):
        """The scaler of 16-mixed without its casts, so that only the scale differs."""

        def forward_context(self):
            return torch.autocast("cpu", enabled=False)

    return Full("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


@every_method
def test_the_loss_scale_changes_nothing(name):
    if name in SEQUENTIAL:
        with pytest.raises(BalancerError, match="scaler"):
            train(name, plugins=scaled(1024.0), max_steps=2)
        return
    torch.testing.assert_close(
        train(name, plugins=scaled(1024.0), max_steps=6), train(name, max_steps=6)
    )


@pytest.mark.parametrize("name", [n for n in METHODS if n not in SEQUENTIAL])
def test_a_dropped_step_leaves_parameters_and_state_alone(name):
    method, module = METHODS[name](), catalogue_module(name)
    seen = []

    class Overflow(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append((parameters_of(pl_module), copy.deepcopy(method.state_dict())))

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if len(seen) == 2:
                plugin = trainer.precision_plugin
                plugin.scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = {
                    torch.device("cpu"): torch.tensor(1.0)
                }

    train(name, Overflow(), method=method, module=module, plugins=scaled(1024.0), max_steps=3)
    assert torch.equal(seen[1][0], seen[2][0])
    assert str(seen[1][1]) == str(seen[2][1])
    assert not torch.equal(seen[0][0], seen[1][0])


@pytest.mark.parametrize("name", [n for n in METHODS if n not in SEQUENTIAL])
def test_manual_optimisation(name):
    class Manual(type(toy_module())):
        """A hand-written step around the same losses."""

        def training_step(self, batch, batch_idx):
            total = super().training_step(batch, batch_idx)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(total)
            optimizer.step()

    module = catalogue_module(name)
    module.__class__ = Manual
    module.automatic_optimization = False
    torch.testing.assert_close(train(name, module=module), train(name))


@every_method
def test_one_task(name):
    tasks = {"marks": toy_module().tasks["marks"]}
    if name in FOREIGN:
        pytest.skip(FOREIGN[name])
    assert train(name, module=catalogue_module(name, tasks=tasks), max_steps=4).isfinite().all()


@every_method
def test_a_task_that_never_comes(name):
    """Its decoder stays, its weight is not a number, the others train."""
    module, method = catalogue_module(name), METHODS[name]()
    batches = list(toy_loader())
    for batch in batches:
        batch["targets"].pop("size", None)
        batch.get("labelled", {}).pop("size", None)
    before = parameters_of(module.network.decoders["size"])
    trainer = toy_trainer(method, max_steps=4)
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(module, loader, loader)
    assert method.weights["size"] != method.weights["size"]
    assert parameters_of(module).isfinite().all()
    assert torch.equal(parameters_of(module.network.decoders["size"]), before)


@every_method
def test_networks_without_a_border_train_or_are_refused(name):
    module = catalogue_module(name, border=False)
    if name in AT_THE_BORDER:
        with pytest.raises(BalancerError, match=r"border|features|rotations"):
            train(name, module=module, max_steps=4)
    else:
        assert train(name, module=module, max_steps=4).isfinite().all()


@every_method
def test_a_frozen_trunk_trains_or_is_refused(name):
    module = catalogue_module(name)
    module.network.trunk.requires_grad_(False)
    if name in NEEDS_TRUNK:
        with pytest.raises(BalancerError, match=r"shared|encoder"):
            train(name, module=module, max_steps=2)
    else:
        assert train(name, module=module, max_steps=2).isfinite().all()
