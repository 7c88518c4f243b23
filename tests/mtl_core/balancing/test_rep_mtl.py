import pytest
import torch
from toys import (
    ToyNetwork,
    fit,
    parameters_of,
    toy_loader,
    toy_module,
    toy_tasks,
    toy_trainer,
)

from mtl_core.balancing import FAMO, SI, UW, Balanced, Equal, PCGrad, RepMTL, Static
from mtl_core.balancing.saliency import affinity_contrast, saliency_entropy
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.nn import Features

SHORT = {"max_steps": 3, "limit_val_batches": 0}


@pytest.mark.parametrize("inner", [SI, Equal, UW])
def test_without_penalties_it_is_the_inner_method(inner):
    found = fit(RepMTL(inner=inner(), tsr=0, csa=0))
    assert torch.equal(found, fit(inner()))


def by_hand(module, *, log, tsr=0.9, csa=0.9, steps=3):
    """Steps on the whole objective, as the paper writes it."""
    network = module.network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for batch in [*toy_loader()][:steps]:
        optimizer.zero_grad()
        out = network.run(batch["inputs"])
        losses = list(module.compute_losses(batch, out, 0).losses.values())
        losses = [(x + 1e-8).log() for x in losses] if log else losses
        (features,) = out.features.maps
        s = [torch.autograd.grad(x, features, create_graph=True)[0] for x in losses]
        shaped = torch.stack(s)[..., None]
        shaped = shaped / shaped.detach().abs().max()
        total = sum(losses)
        total = total + tsr * saliency_entropy(shaped) + csa * affinity_contrast(shaped)
        total.backward()
        optimizer.step()
    return parameters_of(module)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("network", [{}, {"norm": True}])
def test_a_fit_minimises_the_whole_objective(log, network):
    method = RepMTL() if log else RepMTL(inner=Equal())
    found = fit(method, module=toy_module(**network), **SHORT)
    wanted = by_hand(toy_module(**network), log=log)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, fit(method.inner, module=toy_module(**network), **SHORT))


def test_terms_reach_the_report():
    method = RepMTL()
    fit(method, log_every_n_steps=1, **SHORT)
    assert 0 < method.report["tsr"] < 1.1
    assert "csa" in method.report


def test_one_of_the_penalties():
    runs = {k: fit(RepMTL(inner=Equal(), **k_), **SHORT) for k, k_ in
            {"tsr": {"csa": 0}, "csa": {"tsr": 0}, "both": {}}.items()}  # fmt: skip
    torch.testing.assert_close(runs["tsr"], by_hand(toy_module(), log=False, csa=0))
    torch.testing.assert_close(runs["csa"], by_hand(toy_module(), log=False, tsr=0))
    assert not torch.allclose(runs["tsr"], runs["both"])


def objective(inputs, weights, heads, targets):
    """The whole objective of a small smooth network, in float64."""
    features = torch.tanh(inputs @ weights)
    losses = [
        (torch.tanh(features @ h) - y).square().mean() for h, y in zip(heads, targets, strict=True)
    ]
    s = [torch.autograd.grad(x, features, create_graph=True)[0] for x in losses]
    shaped = torch.stack(s)[..., None]
    return sum(losses) + 0.9 * saliency_entropy(shaped) + 0.9 * affinity_contrast(shaped)


def test_gradient_of_the_total_through_smooth_heads():
    torch.manual_seed(0)
    inputs, targets = torch.randn(4, 3).double(), torch.randn(2, 4).double()
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 3), (3,), (3,))]
    assert torch.autograd.gradcheck(
        lambda w, a, b: objective(inputs, w, [a, b], targets), leaves, atol=1e-5, rtol=1e-4
    )


class Heads(ToyNetwork):
    """Features of a map, a vector or a sequence, and any head."""

    def __init__(self, tasks, head):
        super().__init__(tasks)
        self.extra = torch.nn.ModuleDict({t: head() for t in tasks})

    def decode(self, features, task):
        (tensor,) = features.tensors()
        hidden = self.extra[task](tensor)
        return self.decoders[task](Features([hidden]))

    def decoder_modules(self, task):
        return [self.decoders[task], self.extra[task]]


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(8, 8)

    def forward(self, x):
        x = self.mix(x).view(-1, 1, 4, 2)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x).reshape(-1, 8)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Squared(torch.nn.Module):
    def forward(self, x):
        return Once.apply(x)


class Deep(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), Squared()

    def forward(self, x):
        return self.second(self.first(x))


def with_heads(head):
    module = toy_module()
    torch.manual_seed(0)
    module.network = Heads(module.tasks, head)
    return module


def test_attention_in_decoders_uses_a_kernel_that_can_be_differentiated_twice():
    module = with_heads(Attention)
    assert fit(RepMTL(), module=module, **SHORT).isfinite().all()
    hooks = [m._forward_pre_hooks for m in module.network.modules()]
    assert not any(hooks)
    flags = torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.math_sdp_enabled
    assert [f() for f in flags] == [True, True]


def test_a_module_that_cannot_be_differentiated_twice_is_named():
    with pytest.raises(BalancerError, match=r"extra\.size\.second \(Squared\) does not allow"):
        fit(RepMTL(), module=with_heads(Deep), **SHORT)
    fit(RepMTL(tsr=0, csa=0), module=with_heads(Deep), **SHORT)


def test_other_errors_pass_through(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr("mtl_core.balancing.rep_mtl.saliency_entropy", broken)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        fit(RepMTL(), **SHORT)


def test_compiled_decoders_are_refused():
    with pytest.raises(BalancerError, match="compiled ones do not allow"):
        fit(RepMTL(), module=toy_module(compile="eager"), **SHORT)


def test_absolute_error_behind_piecewise_linear_heads_gives_the_encoder_nothing():
    """The published blind spot, and that the heads' weights still feel the penalties."""
    torch.manual_seed(0)
    trunk = torch.nn.Linear(4, 6)
    heads = [torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))
             for _ in range(2)]  # fmt: skip
    features = trunk(torch.randn(8, 4))
    losses = [(h(features)[:, 0] - torch.randn(8)).abs().mean() for h in heads]
    s = [torch.autograd.grad(x, features, create_graph=True)[0] for x in losses]
    shaped = torch.stack(s)[..., None]
    penalty = saliency_entropy(shaped) + affinity_contrast(shaped)
    found = torch.autograd.grad(
        penalty, [trunk.weight, heads[0][0].weight], allow_unused=True, materialize_grads=True
    )
    assert not found[0].any()
    assert found[1].any()


@pytest.mark.parametrize("shape", ["map", "tokens", "pyramid"])
def test_shapes_of_features(shape):
    class Shaped(ToyNetwork):
        def encode(self, inputs, tags=None):
            flat = self.trunk(inputs)
            if shape == "map":
                return Features([flat.view(-1, 2, 2, 2)], size=(2, 2))
            if shape == "pyramid":
                return Features([flat.view(-1, 2, 2, 2), flat.view(-1, 4, 2, 1)], size=(2, 2))
            return Features([], tokens=flat.view(-1, 4, 2))

        def decode(self, features, task):
            flat = torch.stack([t.flatten(1) for t in features.tensors()]).mean(0)
            return self.decoders[task](Features([flat]))

    module = toy_module()
    torch.manual_seed(0)
    module.network = Shaped(module.tasks)
    method = RepMTL(inner=Equal())
    assert fit(method, module=module, **SHORT).isfinite().all()


def test_saliency_of_other_losses():
    kinds = {k: fit(RepMTL(inner=Equal(), saliency=k), **SHORT) for k in ("log", "weighted", "raw")}
    assert torch.equal(kinds["weighted"], kinds["raw"])  # equal weights
    assert not torch.allclose(kinds["log"], kinds["raw"])
    runs = [fit(RepMTL(inner=Static(weights={"size": 9.0}), saliency=k), **SHORT) for k in
            ("weighted", "raw")]  # fmt: skip
    assert not torch.allclose(*runs)


def test_saliency_of_unit_length_is_invariant_to_the_scale_of_a_task():
    def terms(scale, norm):
        method = RepMTL(inner=Static(weights={"size": scale}), saliency_norm=norm)
        fit(method, log_every_n_steps=1, max_steps=1, limit_val_batches=0)
        return method.report["tsr"]

    assert terms(100.0, "per_task") == pytest.approx(terms(1.0, "per_task"), rel=1e-4)
    assert terms(100.0, "none") < 0.9 * terms(1.0, "none")


def lonely_loader():
    """Every sample has labels of one task."""
    batches = []
    for batch in toy_loader(partial=False):
        names = list(toy_tasks())
        batch["labelled"] = {n: torch.arange(8) % 3 == i for i, n in enumerate(names)}
        batches.append(batch)
    return torch.utils.data.DataLoader(batches, batch_size=None)


@pytest.mark.parametrize("what", ["raise", "paired", "off"])
def test_batches_in_which_tasks_never_meet(what):
    module, loader = toy_module(), lonely_loader()
    trainer = toy_trainer(RepMTL(inner=Equal(), multi_input=what), **SHORT)
    if what == "raise":
        with pytest.raises(BalancerError, match="multi_input"):
            trainer.fit(module, loader, loader)
        return
    trainer.fit(module, loader, loader)
    other = toy_module()
    toy_trainer(Equal(), **SHORT).fit(other, loader, loader)
    same = torch.allclose(parameters_of(module), parameters_of(other))
    assert same == (what == "off")


def test_micro_batches_of_one_sample_warn_once():
    loader = toy_loader(1, partial=False)
    module = toy_module()
    with pytest.warns(UserWarning, match="no negatives") as seen:
        toy_trainer(RepMTL(csa=0.5), **SHORT).fit(module, loader, loader)
    assert len([w for w in seen if "negatives" in str(w.message)]) == 1


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}])
def test_other_settings(options):
    assert fit(RepMTL(), **options).isfinite().all()


def test_the_loss_scale_does_not_matter():
    class Scaled(RepMTL):
        def loss_scale(self):
            return 65536.0

    torch.testing.assert_close(fit(Scaled(), **SHORT), fit(RepMTL(), **SHORT))


def test_one_task_has_no_penalty():
    tasks = {"size": toy_tasks()["size"]}
    found = fit(RepMTL(inner=Equal()), module=toy_module(tasks=tasks))
    assert torch.equal(found, fit(Equal(), module=toy_module(tasks=tasks)))


def test_state_is_that_of_the_inner_method():
    method = RepMTL(inner=UW())
    fit(method)
    other = RepMTL(inner=UW())
    other.start(method.entries)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.inner.scalars.values, method.inner.scalars.values)
    assert method.inner.scalars.values.any()


def test_frozen_encoders_and_networks_without_features():
    module = toy_module()
    module.network.trunk.requires_grad_(False)
    with pytest.raises(BalancerError, match="frozen"):
        fit(RepMTL(), module=module)
    theta = torch.nn.Parameter(torch.ones(3))
    own = {t: [torch.nn.Parameter(torch.ones(1))] for t in "ab"}
    with (
        Balanced(RepMTL(), shared=[theta], own=own) as balanced,
        pytest.raises(BalancerError, match="gradients of the features"),
    ):
        balanced.backward({t: (theta.sum() * own[t][0].sum()).square() for t in "ab"})


@pytest.mark.parametrize("inner", [FAMO, PCGrad, RepMTL])
def test_methods_that_cannot_be_inside(inner):
    with pytest.raises(ArgumentError, match="inner must be a method that only weighs losses"):
        RepMTL(inner=inner())


def test_bad_arguments():
    for name in ("tsr", "csa"):
        with pytest.raises(ArgumentError, match=f"{name} must be finite and not negative"):
            RepMTL(**{name: -1})
    with pytest.raises(ArgumentError, match="temperature must be positive, found 0"):
        RepMTL(temperature=0)
    with pytest.raises(ArgumentError, match="max_anchors"):
        RepMTL(max_anchors=1)
    for name in ("saliency", "csa_reduce", "saliency_norm", "multi_input"):
        with pytest.raises(UnknownNameError, match=name):
            RepMTL(**{name: "other"})
