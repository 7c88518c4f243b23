"""The hand-written loop against the trainer, and against itself."""

import copy

import pytest
import torch
from toys import fit, parameters_of, toy_loader, toy_module

from mtl_core.balancing import (
    LDCMTL,
    MGDAUB,
    UW,
    Balanced,
    Equal,
    GradDrop,
    PCGrad,
    RepMTL,
    Stages,
)
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.nn import Features
from mtl_core.nn.network import Outputs

METHODS = {
    "Equal": Equal,
    "UW": UW,
    "PCGrad": PCGrad,
    "RepMTL": RepMTL,
    "GradDrop": GradDrop,
    "LDCMTL": LDCMTL,
    "MGDAUB": MGDAUB,
    "ghost": lambda: PCGrad(stages=Stages(gram="ghost")),
    "auto": lambda: PCGrad(stages=Stages(gram="auto")),
    "last_layer": lambda: PCGrad(stages=Stages(gram="last_layer", refresh=2)),
}


def by_hand(balancer, *, steps=(0, 12), every=1, cut=True, module=None, optimizer=None, state=None):
    """The toy's training without Lightning."""
    module = module or toy_module()
    network = module.network
    optimizer = optimizer or module.optimizer(network.parameters())
    batches = [b for _ in range(2) for b in toy_loader()]
    balanced = Balanced(balancer, shared=network.trunk, own=dict(network.decoders))
    if state is not None:
        balanced.load_state_dict(state)
    with balanced:
        for i in range(*steps):
            batch = batches[i]
            if i % every == 0:
                optimizer.zero_grad()
            features = network.trunk(batch["inputs"])
            sides = balanced.cut(features) if cut else dict.fromkeys(network.tasks, features)
            out = Outputs({t: network.decoders[t](Features([sides[t]])) for t in network.tasks})
            losses = module.compute_losses(batch, out, i).losses
            balanced.backward(losses, batches=every, last=(i + 1) % every == 0)
            if (i + 1) % every == 0:
                optimizer.step()
        return parameters_of(module), balanced.state_dict(), module, optimizer


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("every", [1, 2])
def test_equals_the_trainer(name, every):
    found = by_hand(METHODS[name](), every=every)[0]
    wanted = fit(METHODS[name](), accumulate_grad_batches=every)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_without_a_cut_it_is_the_same():
    torch.testing.assert_close(by_hand(PCGrad(), cut=False)[0], by_hand(PCGrad())[0])


@pytest.mark.parametrize("name", METHODS)
def test_stopped_and_resumed_equals_unbroken(name):
    unbroken = by_hand(METHODS[name]())[0]
    _, state, module, optimizer = by_hand(METHODS[name](), steps=(0, 5))
    state = copy.deepcopy(state)
    resumed = by_hand(
        METHODS[name](), steps=(5, 12), module=module, optimizer=optimizer, state=state
    )[0]
    assert torch.equal(resumed, unbroken)


def test_a_dropped_step_leaves_the_state_alone():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    trunk, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD([*trunk.parameters(), *head.parameters()], 0.1)
    balancer = PCGrad()
    with Balanced(balancer, shared=trunk, own={"a": head}, scaler=scaler) as balanced:
        for factor in (1.0, float("inf"), 1.0):
            before = parameters_of(trunk)
            optimizer.zero_grad()
            side = balanced.cut(trunk(torch.ones(3, 2)))["a"]
            balanced.backward({"a": (head(side) * factor).sum()})
            scaler.step(optimizer)
            scaler.update()
            assert torch.equal(before, parameters_of(trunk)) is (factor != 1.0)
        assert balanced.state_dict()["index"] == 2


def test_weights_and_figures_are_there_to_read():
    with Balanced(PCGrad(), shared=torch.nn.Linear(2, 2), own={"a": [], "b": []}) as balanced:
        trunk = balanced.network.shared
        out = trunk(torch.randn(4, 2))
        balanced.backward({"a": out.sum(), "b": -out.sum() * 0.5})
        assert balanced.report["cosine_mean"] == pytest.approx(-1.0)
        assert balanced.weights["a"] == pytest.approx(1.5)
        balanced.backward({"a": trunk(torch.randn(4, 2)).sum(), "b": None})
        assert balanced.weights["b"] != balanced.weights["b"]


def test_bad_input():
    trunk = torch.nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match="own must name at least one task"):
        Balanced(Equal(), shared=trunk, own={})
    balanced = Balanced(PCGrad(), shared=trunk, own={"a": [], "b": []})
    loss = trunk(torch.ones(1, 2)).sum()
    with pytest.raises(BalancerError, match="inside of"):
        balanced.backward({"a": loss})
    with balanced, pytest.raises(UnknownNameError, match="losses"):
        balanced.backward({"depth": loss})
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    balanced = Balanced(PCGrad(), shared=frozen, own={"a": trunk})
    with balanced, pytest.raises(BalancerError, match="balances shared parameters"):
        balanced.backward({"a": loss})
    balanced = Balanced(MGDAUB(), shared=trunk, own={"a": []})
    with balanced, pytest.raises(BalancerError, match="border between encoder and decoders"):
        balanced.backward({"a": loss})
