"""Every source of the Gramian, seen through the updates that it leads to."""

import lightning as L
import pytest
import torch
from toys import ToyNetwork, fit, toy_loader, toy_module

from mtl_core.balancing import Balanced, GradientBalancer, PCGrad
from mtl_core.balancing.ghost import Ghost
from mtl_core.balancing.linear_use import linear_use
from mtl_core.balancing.rows import gramian
from mtl_core.balancing.stages import Stages
from mtl_core.balancing.surrogates import last_layer
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError


class Watched(GradientBalancer):
    """Keeps the Gramians that it is given and weighs by them."""

    def reset(self, entries):
        self.seen = []

    def weigh(self, gramian, losses, step):
        self.seen.append(gramian)
        lengths = gramian.diagonal().sqrt()
        return 0.3 * lengths.mean() / lengths


class Flat(GradientBalancer):
    def weigh(self, gramian, losses, step):
        return torch.ones_like(losses)


@pytest.mark.parametrize("gram", ["batched", "ghost"])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3}])
@pytest.mark.parametrize("network", [{}, {"norm": True}])
def test_other_exact_routes_agree(gram, options, network):
    exact, other = Watched(), Watched(stages=Stages(gram=gram))
    wanted = fit(exact, module=toy_module(**network), **options)
    found = fit(other, module=toy_module(**network), **options)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other.seen[0], exact.seen[0])


def test_nothing_heard_between_refreshes_is_kept():
    """Activations would hold the graphs of all steps in between."""
    methods = [Watched(stages=Stages(gram=gram, refresh=3)) for gram in ("exact", "ghost")]
    held = []

    class Calls(L.Callback):
        def on_after_backward(self, trainer, pl_module):
            held.append(len(methods[1]._ghost._calls))

    wanted = fit(methods[0], max_steps=7)
    torch.testing.assert_close(fit(methods[1], Calls(), max_steps=7), wanted)
    assert held == [0] * 7


def auto(trunk, samples, tasks=4, *, cut=True):
    """An update under ``gram: auto``, and the same under ``exact``."""
    heads = {str(i): torch.nn.Linear(24, 1) for i in range(tasks)}
    found = []
    for gram in ("auto", "exact"):
        method = Watched(stages=Stages(gram=gram))
        torch.manual_seed(0)
        inputs, targets = torch.randn(samples, *trunk.shape), torch.randn(samples, 1)
        with Balanced(method, shared=trunk, own=heads) as balanced:
            features = trunk(inputs)
            sides = balanced.cut(features) if cut else dict.fromkeys(heads, features)
            balanced.backward(
                {k: (heads[k](x) - targets).square().mean() for k, x in sides.items()}
            )
        found.append([p.grad.clone() for p in trunk.parameters()])
        trunk.zero_grad()
        for head in heads.values():
            head.zero_grad()
        if gram == "auto":
            chosen = method.state_dict()["family"]["ghost_pays"]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    return chosen


def perceptron():
    layers = (torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 24))
    trunk = torch.nn.Sequential(*layers)
    trunk.shape = (16,)
    return trunk


def convolutions():
    flat = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 24, 3), torch.nn.ReLU(), *flat)
    trunk.shape = (3, 8, 8)
    return trunk


def test_auto_listens_to_few_samples_through_wide_layers_only():
    torch.manual_seed(0)
    assert auto(perceptron(), samples=4)
    assert not auto(perceptron(), samples=128)
    assert not auto(convolutions(), samples=4)
    assert not auto(perceptron(), samples=4, cut=False)


def test_auto_goes_on_as_it_was_resumed(monkeypatch):
    """A smaller last batch of an epoch does not decide anew."""
    method = Watched(stages=Stages(gram="auto"))
    fit(method, max_steps=1)
    state = method.state_dict()
    assert state["family"]["ghost_pays"] is False
    other = Watched(stages=Stages(gram="auto"))
    other.load_state_dict(state)
    monkeypatch.setattr(Ghost, "pays", lambda *a: pytest.fail("decided already"))
    fit(other, max_steps=1)


@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}]
)
@pytest.mark.parametrize("network", [{}, {"norm": True}])
def test_last_layer_by_activations_and_by_rows(monkeypatch, options, network):
    """A linear layer needs no rows where its inputs and signals are at hand."""
    found, seen, used = [], [], []
    for use in (linear_use, lambda *a: None):
        monkeypatch.setattr(
            "mtl_core.balancing.surrogates.linear_use",
            lambda *a, use=use: used.append(use(*a)) or used[-1],
        )
        method = Watched(stages=Stages(gram="last_layer"))
        found.append(fit(method, module=toy_module(**network), **options))
        seen.append(method.seen)
    plain = "precision" not in options
    assert [u is not None for u in used] == [plain] * len(seen[0]) + [False] * len(seen[0])
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-5, atol=1e-6)  # sums of float32
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("samples", [4, 128])
def test_last_layer_of_few_samples_and_of_many(samples):
    """Pairs of samples are cheaper for few, rows formed of all signals at once for many."""
    torch.manual_seed(0)
    trunk, heads = perceptron(), {str(i): torch.nn.Linear(24, 1) for i in range(3)}
    inputs, method = torch.randn(samples, 16), Watched(stages=Stages(gram="last_layer"))
    with Balanced(method, shared=trunk, own=heads) as balanced:
        sides = balanced.cut(trunk(inputs).relu())
        balanced.backward({k: heads[k](x).square().mean() for k, x in sides.items()})
    rows = []
    for head in heads.values():
        loss = head(trunk(inputs).relu()).square().mean()
        rows.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, trunk[2].parameters())])
        )
    torch.testing.assert_close(method.seen[0], gramian(torch.stack(rows)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_ghosts_of_partly_frozen_layers(frozen):
    found = []
    for gram in ("exact", "ghost"):
        module, method = toy_module(), Watched(stages=Stages(gram=gram))
        getattr(module.network.trunk[0], frozen).requires_grad_(False)
        fit(method, module=module, max_steps=1)
        found.append(method.seen[0])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("gram", ["last_layer", "feature", "subsample"])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3}])
def test_equal_weights_from_any_surrogate_are_the_plain_sum(gram, options):
    method = Flat(stages=Stages(gram=gram))
    torch.testing.assert_close(fit(method, **options), fit(**options))


def test_last_layer_gives_the_rows_of_that_layer():
    method = Watched(stages=Stages(gram="last_layer"))
    fit(method, max_steps=1)
    module = toy_module()
    layer = list(module.network.trunk[4].parameters())
    batch = next(iter(toy_loader()))
    step = module.compute_losses(batch, module.network.run(batch["inputs"]), 0)
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(x, layer, retain_graph=True)])
        for x in step.losses.values()
    ]
    torch.testing.assert_close(method.seen[0], gramian(torch.stack(rows)))


def test_the_whole_batch_as_part_is_exact():
    exact, part = Watched(), Watched(stages=Stages(gram="subsample", parts=1))
    torch.testing.assert_close(fit(part), fit(exact))
    torch.testing.assert_close(part.seen[0], exact.seen[0])


def test_parts_take_turns_and_leave_batch_statistics_alone():
    norms = [toy_module(norm=True) for _ in range(2)]
    method = Watched(stages=Stages(gram="subsample", parts=2))
    fit(method, module=norms[0])
    fit(module=norms[1])
    counters = [m.network.trunk[1].num_batches_tracked for m in norms]
    assert int(counters[0]) == int(counters[1])
    assert not torch.equal(method.seen[0], method.seen[1])


@pytest.mark.parametrize("border", [True, False])
def test_weights_are_kept_between_refreshes(border):
    method = Watched(stages=Stages(refresh=3))
    logged = []

    class Weights(L.Callback):
        def on_after_backward(self, trainer, pl_module):
            logged.append(dict(method.weights))

    fit(method, Weights(), module=toy_module(border=border), max_steps=6)
    assert len(method.seen) == 2
    assert logged[0] == logged[1] == logged[2] != logged[3] == logged[5]


@pytest.mark.parametrize("border", [True, False])
def test_equal_weights_refreshed_now_and_then_are_the_plain_sum(border):
    found = fit(Flat(stages=Stages(refresh=3)), module=toy_module(border=border))
    torch.testing.assert_close(found, fit(module=toy_module(border=border)))


@pytest.mark.parametrize("group", ["layer", "matrix"])
def test_weights_by_group(group):
    """Groups of the plain sum are the plain sum; a group's Gramian is that of its columns."""
    torch.testing.assert_close(fit(Flat(stages=Stages(group=group))), fit())
    method = PCGrad(stages=Stages(group=group))
    fit(method, max_steps=2)
    names = {"layer": {"trunk.0", "trunk.4"}, "matrix": {
        "trunk.0.weight", "trunk.0.bias", "trunk.4.weight", "trunk.4.bias"
    }}  # fmt: skip
    assert set(method.state_dict()["family"]["groups"]) == names[group]
    assert not torch.allclose(fit(PCGrad(stages=Stages(group=group))), fit(PCGrad()))


def test_named_layer():
    network = toy_module().network
    split = network.split_parameters()
    assert last_layer(network, split, "")[0] is network.trunk[4].weight
    assert last_layer(network, split, "trunk.0")[0] is network.trunk[0].weight
    with pytest.raises(UnknownNameError, match=r"stages\.layer"):
        last_layer(network, split, "trunk.9")
    with pytest.raises(ArgumentError, match="hold trainable shared parameters"):
        last_layer(network, split, "decoders.size")


@pytest.mark.parametrize("gram", ["ghost", "last_layer", "feature", "subsample"])
def test_networks_without_a_border_are_refused(gram):
    with pytest.raises(BalancerError, match="border between encoder and decoders"):
        fit(Flat(stages=Stages(gram=gram)), module=toy_module(border=False))


def test_a_shared_weight_used_twice_is_walked_exactly():
    class Twice(ToyNetwork):
        """The second layer runs twice."""

        def __init__(self, tasks):
            super().__init__(tasks)
            self.middle = torch.nn.Linear(8, 8)

        def encode(self, inputs, tags=None):
            features = super().encode(inputs)
            hidden = torch.tanh(self.middle(features.maps[0]))
            return features.with_tensors([self.middle(hidden)])

    found = []
    for gram in ("exact", "ghost"):
        module = toy_module()
        torch.manual_seed(1)
        module.network = Twice(module.tasks)
        method = Watched(stages=Stages(gram=gram))
        found.append((fit(method, module=module), method.seen[0]))
    torch.testing.assert_close(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-6)
