import pytest
import torch
from toys import fit, parameters_of, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import Balanced, BayesAgg
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.tasks import Classification, MultiLabel, Regression

LOGITS = {"kind": Classification(num_classes=3, label_smoothing=0.1, weight=2.0)}
LOGITS["marks"] = MultiLabel(num_labels=2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_plain_means_of_sure_gradients_are_the_plain_sum(accumulate):
    """With an overwhelming prior around the current weights and equal shares."""
    options = {"max_epochs": 1, "accumulate_grad_batches": accumulate}
    module = toy_module(tasks=LOGITS)
    found = fit(BayesAgg(power=0.0, prior=1e14, samples=2), module=module, **options)
    wanted = fit(module=toy_module(tasks=LOGITS), **options)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_paper_scale_is_the_mean():
    first = {"limit_train_batches": 1, "max_epochs": 1}
    start = toy_module(tasks=LOGITS)
    before = parameters_of(start.network.trunk)
    moved = []
    for scale in ("sum", "paper"):
        module = toy_module(tasks={"marks": LOGITS["marks"], "kind": LOGITS["kind"]})
        module.network.load_state_dict(start.network.state_dict())
        method = BayesAgg(scale=scale)
        toy_trainer(method, **first).fit(
            module, toy_loader(partial=False), toy_loader(partial=False)
        )
        moved.append(parameters_of(module.network.trunk) - before)
    torch.testing.assert_close(moved[0], 2 * moved[1], rtol=1e-4, atol=1e-7)


def test_posterior_of_a_regression_finds_the_least_squares_solution():
    """Once the trunk stands still, sums over batches are the normal equations."""
    method = BayesAgg(memory=10**9, prior=1e-6)
    module = toy_module(tasks={"size": Regression(), "marks": MultiLabel(num_labels=2)}, lr=0.0)
    fit(method, module=module, max_epochs=1)
    batches = list(toy_loader())
    with torch.no_grad():
        hidden = torch.cat([module.network.trunk(b["inputs"]) for b in batches])
    hidden = torch.cat([hidden, torch.ones(len(hidden), 1)], 1)
    known = torch.cat([b["labelled"]["size"] for b in batches])
    target = torch.cat([b["targets"]["size"] for b in batches])
    precision, pull = method._sums["size"]
    wanted = hidden[known].t() @ hidden[known]
    torch.testing.assert_close(precision[0], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pull[0], target[known] @ hidden[known], rtol=1e-4, atol=1e-4)


def test_resumed_run_goes_on_equally(tmp_path):
    unbroken = fit(BayesAgg())
    trainer = toy_trainer(BayesAgg(), max_epochs=1)
    trainer.fit(toy_module(), toy_loader(), toy_loader(count=16, seed=1))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert torch.equal(fit(BayesAgg(), ckpt_path=tmp_path / "one.ckpt"), unbroken)


def test_training_lowers_the_losses():
    module = toy_module(dropout=0.1, lr=0.05)
    trainer = toy_trainer(BayesAgg(), max_epochs=8)
    trainer.fit(module, toy_loader(), toy_loader())
    first = toy_trainer().validate(toy_module(), toy_loader(), verbose=False)[0]["val/loss"]
    last = toy_trainer().validate(module, toy_loader(), verbose=False)[0]["val/loss"]
    assert last < 0.8 * first


def test_decoders_that_are_more_than_a_layer():
    module = toy_module()
    module.network.decoders["kind"].linear = torch.nn.Sequential(
        torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    )
    with pytest.raises(BalancerError, match="that of kind holds Linear, Linear"):
        fit(BayesAgg(), module=module)


def test_a_layer_whose_output_is_changed_is_noticed():
    module = toy_module()
    decoder = module.network.decoders["kind"]
    decoder.register_forward_hook(lambda _, __, out: out * 3 + 1 * out.square())
    with pytest.raises(BalancerError, match="gives the prediction; that of kind"):
        fit(BayesAgg(), module=module)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Regression(loss="mae"), "curvature; that of size"),
        (Regression(groups=("a", "b")), "without groups; size"),
    ],
)
def test_tasks_that_do_not_fit(task, message):
    with pytest.raises(BalancerError, match=message):
        fit(BayesAgg(), module=toy_module(tasks={"size": task}))


def test_without_a_trainer_there_are_no_labels():
    trunk, heads = torch.nn.Linear(2, 2), {t: torch.nn.Linear(2, 1) for t in "ab"}
    with Balanced(BayesAgg(), shared=trunk, own=heads) as balanced:
        sides = balanced.cut(trunk(torch.ones(4, 2)))
        losses = {t: heads[t](sides[t]).square().mean() for t in heads}
        with pytest.raises(BalancerError, match="labels"):
            balanced.backward(losses)


@pytest.mark.parametrize(
    "options", [{"memory": 0}, {"samples": 1}, {"prior": 0.0}, {"power": -1.0}]
)
def test_arguments_are_checked(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        BayesAgg(**options)


def test_unknown_scale():
    with pytest.raises(UnknownNameError, match="scale"):
        BayesAgg(scale="mean")
