import logging

import pytest
import torch
from toys import fit, parameters_of, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import Balanced, Calibrated, Static
from mtl_core.balancing.calibrated import inverse_norm_weights
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.tasks import Classification, MultiLabel, Regression


def test_weights_bring_lengths_together():
    norms = torch.tensor([1.0, 2.0, 0.0, 4.0], dtype=torch.float64)
    weights = inverse_norm_weights(norms)
    assert float(weights[2]) == 1
    assert float(weights[[0, 1, 3]].sum()) == pytest.approx(3)
    torch.testing.assert_close((weights * norms)[[1, 3]], (weights * norms)[[0, 0]])
    torch.testing.assert_close(inverse_norm_weights(norms * 1e-200), weights)
    assert inverse_norm_weights(torch.zeros(2)).tolist() == [1, 1]


def test_warm_up_is_an_epoch_or_its_share_of_training():
    for epochs, share, wanted in ((2, 0.05, 6), (4, 0.5, 12)):
        method = Calibrated(share=share)
        fit(method, max_epochs=epochs)
        assert method._length == wanted
    method = Calibrated()
    fit(method, accumulate_grad_batches=3)
    assert method._length == 2


def test_prints_weights_that_static_takes(caplog):
    """After the warm-up the run is that of `Static` with the printed weights, from there on."""
    method, module = Calibrated(), toy_module()
    trainer = toy_trainer(method, max_epochs=1)
    loaders = (toy_loader(), toy_loader(count=16, seed=1))
    with caplog.at_level(logging.INFO):
        trainer.fit(module, *loaders)
    listed = caplog.text.partition("weights: {")[2].partition("}")[0]
    printed = {k: float(v) for k, v in (part.split(": ") for part in listed.split(", "))}
    assert printed == pytest.approx(method.fixed, rel=1e-3)
    assert sum(method.fixed.values()) == pytest.approx(3)
    assert not method.wants_cut

    runs = []
    for callback in (method, Static(weights=method.fixed)):
        other = toy_module()
        other.load_state_dict(module.state_dict())
        if isinstance(callback, Calibrated):
            state = callback.state_dict()
            callback = Calibrated()
            callback.load_state_dict(state)
        toy_trainer(callback, max_epochs=1).fit(other, *loaders)
        runs.append(parameters_of(other))
    assert torch.equal(*runs)


def test_scale_of_a_loss_does_not_matter_afterwards():
    tasks = {"size": Regression(weight=100.0), "kind": Classification(num_classes=3)}
    tasks["marks"] = MultiLabel(num_labels=2)
    scaled = Calibrated(steps=12)
    fit(scaled, module=toy_module(tasks=tasks))
    plain = Calibrated(steps=12)
    fit(plain)
    assert scaled.fixed["kind"] / scaled.fixed["size"] == pytest.approx(
        100 * plain.fixed["kind"] / plain.fixed["size"], rel=0.05
    )


def test_resumed_run_goes_on_equally(tmp_path):
    unbroken = fit(Calibrated(steps=8))
    trainer = toy_trainer(Calibrated(steps=8), max_epochs=1)
    trainer.fit(toy_module(), toy_loader(), toy_loader(count=16, seed=1))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert torch.equal(fit(Calibrated(steps=8), ckpt_path=tmp_path / "one.ckpt"), unbroken)


def test_in_a_loop_by_hand():
    trunk, heads = torch.nn.Linear(2, 2), {t: torch.nn.Linear(2, 1) for t in "ab"}
    method = Calibrated(steps=2)
    with Balanced(method, shared=trunk, own=heads) as balanced:
        for i in range(4):
            sides = balanced.cut(trunk(torch.ones(4, 2)))
            assert (sides["a"].grad_fn is None) == (i < 2)
            balanced.backward({t: heads[t](sides[t]).square().mean() for t in heads})
    assert balanced.weights == pytest.approx(method.fixed)


@pytest.mark.parametrize("options", [{"steps": -1}, {"share": 0.0}, {"share": 1.0}])
def test_arguments_are_checked(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Calibrated(**options)


def test_needs_a_border():
    with pytest.raises(BalancerError, match="border"):
        fit(Calibrated(), module=toy_module(border=False))
