"""Properties and reference values of SAM-MTL; the reference problem runs through the engine."""

import pytest
import torch
from quadratics import Reference, Sum
from torch.utils.data import DataLoader
from toys import ToyNetwork, fit, parameters_of, toy_loader, toy_module, toy_tasks, toy_trainer

from mtl_core.balancing import (
    IMTLG,
    MGDA,
    MGDAUB,
    SAM,
    UW,
    Balanced,
    CAGrad,
    Equal,
    FairGrad,
    GradDrop,
    GradientBalancer,
    MoCo,
    NashMTL,
    PCGrad,
    Stages,
)
from mtl_core.balancing.moved_weights import MovedWeights
from mtl_core.balancing.sharpness import ascent_length, climb
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.tasks import Regression

PAPER = Stages(scale="paper")


class InOrder(GradientBalancer):
    """PCGrad's projections in the order of the rows, as the reference values have them."""

    def weigh(self, gramian, losses, step):
        size = len(gramian)
        weights = torch.eye(size, dtype=torch.float64)
        for i in range(size):
            for j in range(size):
                inner = weights[i] @ gramian[:, j]
                if i != j and inner < 0:
                    weights[i, j] -= inner / gramian[j, j]
        return weights.sum(0)


INNER = {
    "sum": Sum,
    "mgda": lambda: MGDA(stages=PAPER),
    "pcgrad": InOrder,
    "cagrad": lambda: CAGrad(c=0.4, rescale=1, stages=PAPER),
    "imtlg": lambda: IMTLG(stages=PAPER),
}


def close(found, wanted, atol=2e-6):
    wanted = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(found.double(), wanted, atol=atol, rtol=2e-6)


SETTINGS = {
    "separate": {"rho": 0.1, "adaptive": False},
    "joint": {"rho": 0.1, "adaptive": False, "norm": "joint"},
    "adaptive": {"rho": 2.0, "adaptive": True},
    "zero": {"rho": 0.0},
}
MOVES = {
    "separate": ([0.098058, -0.019612], [-0.099763, 0.006880], 0.1, -0.1),
    "joint": ([0.063500, -0.012700], [-0.092215, 0.006360], 0.0762, -0.038158),
    "adaptive": ([1.961161, -0.392232], [-1.995261, 0.137604], 1.0, -0.5),
}
HEADS = {
    "separate": (3.317670, -1.943001),
    "joint": (3.228600, -1.692379),
    "adaptive": (7.353394, -4.360026),
    "zero": (3.0, -1.75 + 0.25),
}
DIRECTIONS = {
    ("separate", "sum"): [-0.877149, -0.505733],
    ("separate", "mgda"): [-0.019372, -0.322543],
    ("separate", "pcgrad"): [0.078526, -1.208762],
    ("separate", "cagrad"): [-0.228200, -0.298778],
    ("separate", "imtlg"): [0.004697, -0.321478],
    ("joint", "sum"): [-0.966414, -0.410446],
    ("joint", "mgda"): [-0.026926, -0.267401],
    ("joint", "pcgrad"): [-0.023968, -1.064157],
    ("joint", "cagrad"): [-0.254155, -0.237349],
    ("joint", "imtlg"): [-0.015363, -0.267773],
    ("adaptive", "sum"): [3.582025, -2.864654],
    ("adaptive", "mgda"): [-0.047057, -1.453785],
    ("adaptive", "pcgrad"): [1.808261, -6.377430],
    ("adaptive", "cagrad"): [0.929390, -1.728351],
    ("adaptive", "imtlg"): [0.173838, -1.457702],
    ("zero", "sum"): [-1.125, -0.25],
    ("zero", "mgda"): [-0.023389, -0.191014],
    ("zero", "pcgrad"): [-0.113831, -0.782766],
    ("zero", "cagrad"): [-0.290075, -0.146726],
    ("zero", "imtlg"): [-0.025545, -0.190750],
}
DIRECT = {
    ("separate", "mgda"): [-0.032741, -0.297526],
    ("separate", "cagrad"): [-0.207381, -0.254534],
    ("joint", "mgda"): [-0.030537, -0.258664],
    ("joint", "cagrad"): [-0.239496, -0.214604],
    ("adaptive", "mgda"): [-0.079897, -1.318999],
    ("adaptive", "cagrad"): [0.764059, -1.365492],
}


@pytest.mark.parametrize(("setting", "inner"), DIRECTIONS)
def test_reference_directions(setting, inner):
    found, heads = Reference(SAM(inner=INNER[inner](), **SETTINGS[setting])).run()
    close(found, DIRECTIONS[setting, inner], atol=1e-5)
    close(torch.cat(heads), HEADS[setting])


@pytest.mark.parametrize(("setting", "inner"), DIRECT)
def test_reference_directions_without_the_split(setting, inner):
    found, _ = Reference(SAM(inner=INNER[inner](), split=False, **SETTINGS[setting])).run()
    close(found, DIRECT[setting, inner], atol=1e-5)


@pytest.mark.parametrize("setting", MOVES)
def test_reference_moves(setting):
    """Where the second passes are evaluated, and that the weights come back bit for bit."""
    problem = Reference(SAM(inner=Sum(), **SETTINGS[setting]))
    problem.run()
    first, *moved = problem.seen
    assert len(moved) == 2
    for t, (wanted, own) in enumerate(zip(MOVES[setting][:2], MOVES[setting][2:], strict=True)):
        close(moved[t][0] - first[0], wanted)
        close(moved[t][1 + t] - first[1 + t], [own])
        assert torch.equal(moved[t][2 - t], first[2 - t])  # the other decoder stays
    for parameter, value in zip([problem.theta, *problem.psi], first, strict=True):
        assert torch.equal(parameter, value)


def test_flatness_part_of_a_quadratic():
    r"""f_t = rho H g / |g| for a loss that is quadratic in the shared weights."""
    torch.manual_seed(0)
    factor = torch.randn(2, 4, 4, dtype=torch.float64)
    curvature = factor @ factor.mT
    theta = torch.nn.Parameter(torch.randn(4, dtype=torch.float64))
    own = {t: [torch.nn.Parameter(torch.ones(1, dtype=torch.float64))] for t in "ab"}
    method = SAM(inner=Sum(), rho=0.3, adaptive=False)

    def losses():
        return {t: 0.5 * theta @ curvature[i] @ theta for i, t in enumerate("ab")}

    with Balanced(method, shared=[theta], own=own) as balanced:
        balanced.backward(losses(), closure=losses)
    rows = torch.stack([curvature[i] @ theta.detach() for i in range(2)])
    flat = sum(0.3 * curvature[i] @ rows[i] / rows[i].norm() for i in range(2))
    torch.testing.assert_close(theta.grad, rows.sum(0) + flat, rtol=1e-5, atol=1e-5)


def test_linear_losses_have_no_flatness_part():
    theta = torch.nn.Parameter(torch.ones(3))
    own = {t: [torch.nn.Parameter(torch.ones(1))] for t in "ab"}
    slopes = {"a": torch.tensor([1.0, 2, 3]), "b": torch.tensor([1.0, -1, 0])}

    def losses():
        return {t: slopes[t] @ theta + own[t][0].sum() for t in "ab"}

    method = SAM(inner=NashMTL(), keep_sum_norm=False, rho=0.5, adaptive=False)
    with Balanced(method, shared=[theta], own=own) as balanced:
        balanced.backward(losses(), closure=losses)
    rows = torch.stack(list(slopes.values()))
    torch.testing.assert_close(theta.grad, NashMTL().direction(rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [{}, {"border": False}, {"norm": True}, {"dropout": 0.3}])
@pytest.mark.parametrize("options", [{}, {"split": False}, {"shared_ascent": True}])
def test_radius_zero_is_the_inner_method(network, options):
    """Also with dropout: the second pass sees the masks of the first."""
    short = {"max_steps": 3, "limit_val_batches": 0}
    wanted = fit(PCGrad(), module=toy_module(**network), **short)
    method = SAM(inner=PCGrad(), rho=0.0, **options)
    assert torch.equal(fit(method, module=toy_module(**network), **short), wanted)


@pytest.mark.parametrize("options", [{}, {"shared_ascent": True}, {"norm": "joint"}])
def test_sum_inside_makes_the_split_void(options):
    short = {"max_steps": 4, "limit_val_batches": 0}
    wanted = fit(SAM(inner=Sum(), split=False, rho=0.1, **options), **short)
    torch.testing.assert_close(fit(SAM(inner=Sum(), rho=0.1, **options), **short), wanted)


def losses_of(module, batch):
    return module.compute_losses(batch, module.network.run(batch["inputs"]), 0).losses


def test_agrees_with_a_loop_by_hand():
    """Partial labels, batch statistics and momentum included."""
    rho, module = 0.1, toy_module(norm=True)
    network = module.network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    split = network.split_parameters()
    for batch in [*toy_loader()][:4]:
        before = {k: v.clone() for k, v in network.state_dict().items()}
        losses_of(module, batch)
        after = [b.clone() for b in network.buffers()]
        total = [torch.zeros_like(p) for p in network.parameters()]
        for task in toy_tasks():
            network.load_state_dict(before)
            loss = losses_of(module, batch).get(task)
            if loss is None:
                continue
            groups = [split.shared, split.own[task]]
            ascents = [torch.autograd.grad(loss, g, retain_graph=True) for g in groups]
            with torch.no_grad():
                for group, ascent in zip(groups, ascents, strict=True):
                    length = torch.cat([x.flatten() for x in ascent]).norm()
                    for p, x in zip(group, ascent, strict=True):
                        p += rho * x / length
            network.zero_grad()
            losses_of(module, batch)[task].backward()
            for place, p in zip(total, network.parameters(), strict=True):
                place += 0 if p.grad is None else p.grad
        network.load_state_dict(before)
        for b, x in zip(network.buffers(), after, strict=True):
            b.copy_(x)
        for p, x in zip(network.parameters(), total, strict=True):
            p.grad = x
        optimizer.step()
    other = toy_module(norm=True)
    fit(SAM(inner=Sum(), rho=rho, adaptive=False), module=other, max_steps=4)
    torch.testing.assert_close(parameters_of(other), parameters_of(module), rtol=1e-4, atol=1e-5)
    for b, x in zip(other.network.buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(b, x, rtol=1e-4, atol=1e-5)


def test_adaptive_steps_transform_like_the_weights():
    """Scaling a layer up and the next one down leaves the function, and the moved function."""
    torch.manual_seed(0)
    weights = [torch.randn(5, 3), torch.randn(2, 5)]
    inputs = torch.randn(7, 3)

    def moved(scale):
        w = [(weights[0] * scale).requires_grad_(), (weights[1] / scale).requires_grad_()]
        out = torch.relu(inputs @ w[0].t()) @ w[1].t()
        g = torch.autograd.grad(out.square().sum(), w)
        length = ascent_length(w, g, adaptive=True)
        climb(w, g, radius=0.5, length=length, adaptive=True)
        step = torch.cat(
            [(w[0] / scale - weights[0]).flatten(), (w[1] * scale - weights[1]).flatten()]
        )
        return length, step.detach()

    (one, first), (two, second) = moved(1.0), moved(8.0)
    assert one == pytest.approx(two)
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-6)
    relative = first / torch.cat([w.flatten() for w in weights])
    assert float(relative.norm()) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_length_of_the_step(scale):
    """The radius, whatever the scale of the gradient; zero gradients move nothing."""
    parameter = [torch.zeros(4), torch.zeros(2, 2)]
    gradient = [torch.randn(4) * scale, torch.randn(2, 2) * scale]
    length = ascent_length(parameter, gradient, adaptive=False)
    climb(parameter, gradient, radius=0.05, length=length, adaptive=False)
    total = torch.cat([p.flatten() for p in parameter])
    assert float(total.norm()) == pytest.approx(0.05, rel=1e-5)
    before = total.clone()
    climb(parameter, [g * 0 for g in gradient], radius=0.05, length=0.0, adaptive=False)
    assert torch.equal(torch.cat([p.flatten() for p in parameter]), before)


def test_order_of_tasks_does_not_matter():
    torch.manual_seed(0)
    rows, moved = torch.randn(2, 4, 9).double()
    order = torch.tensor([2, 0, 3, 1])
    one = SAM(inner=MGDA()).direction(rows, perturbed=moved)
    two = SAM(inner=MGDA()).direction(rows[order], perturbed=moved[order])
    torch.testing.assert_close(one, two)


def test_plain_tensors():
    torch.manual_seed(0)
    rows, moved = torch.randn(2, 3, 6).double()
    found = SAM(inner=MGDA()).direction(rows, perturbed=moved)
    torch.testing.assert_close(found, MGDA().direction(rows) + MGDA().direction(moved - rows))
    torch.testing.assert_close(SAM(inner=MGDA()).direction(rows), MGDA().direction(rows))
    assert SAM().direction(rows, perturbed=moved * float("nan")).isnan().all()
    assert SAM().direction(rows * float("nan"), perturbed=moved).isnan().all()


@pytest.mark.parametrize("inner", [NashMTL, FairGrad])
def test_methods_of_other_degree_get_the_length_of_the_sum(inner):
    torch.manual_seed(0)
    rows, moved = torch.randn(2, 3, 6).double()
    moved = rows + 1e-4 * moved
    literal = SAM(inner=inner(), keep_sum_norm=False).direction(rows, perturbed=moved)
    torch.testing.assert_close(literal, inner().direction(rows) + inner().direction(moved - rows))
    found = SAM(inner=inner()).direction(rows, perturbed=moved)
    part = inner().direction(rows)
    part = part * rows.sum(0).norm() / part.norm()
    assert float((found - part).norm()) == pytest.approx(float((moved - rows).sum(0).norm()))


def test_parts_keep_state_and_random_numbers_of_their_own():
    method = SAM(inner=MoCo(), rho=0.1)
    fit(method, max_steps=2, limit_val_batches=0)
    state = method.state_dict()["family"]
    tracked = [torch.stack(list(state[k]["method"]["lambda"])) for k in ("inner", "flat")]
    assert not torch.equal(*tracked)
    assert method.flat.seed != method.inner.seed
    first = [m.step(m.entries).generator.initial_seed() for m in (method.inner, method.flat)]
    assert first[0] != first[1]


@pytest.mark.parametrize("options", [{}, {"every_k": 2}, {"every_k": 2, "split": False}])
def test_resumed_state_continues_identically(options):
    torch.manual_seed(0)
    rows = torch.randn(6, 3, 8)
    make = lambda: SAM(inner=PCGrad(), **options)  # noqa: E731
    whole = make()
    wanted = [whole.direction(r, perturbed=r + 0.1 * r.flip(0)) for r in rows]
    first, second = make(), make()
    for r in rows[:3]:
        first.direction(r, perturbed=r + 0.1 * r.flip(0))
    second.load_state_dict(first.state_dict())
    second.start(first.entries)
    second.load_state_dict(first.state_dict())
    found = [second.direction(r, perturbed=r + 0.1 * r.flip(0)) for r in rows[3:]]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted[3:], strict=True))


def test_every_k_reuses_or_drops_the_flatness_part():
    torch.manual_seed(0)
    rows, moved = torch.randn(2, 3, 6).double()
    plain, flat = MGDA().direction(rows), MGDA().direction(moved - rows)
    for between, extra in (("reuse", flat), ("drop", 0 * flat)):
        method = SAM(inner=MGDA(), every_k=2, between=between)
        found = [method.direction(rows, perturbed=moved) for _ in range(3)]
        torch.testing.assert_close(found[0], plain + flat)
        torch.testing.assert_close(found[1], plain + extra)
        torch.testing.assert_close(found[2], found[0])


def test_every_k_looks_at_moved_weights_so_often():
    counted = []

    class Counted(ToyNetwork):
        def encode(self, inputs, tags=None):
            counted.append(1)
            return super().encode(inputs, tags)

    passes = 4 * 4  # the first and one a task
    for options, wanted in (({}, passes), ({"every_k": 2}, 10), ({"shared_ascent": True}, 8)):
        module = toy_module()
        torch.manual_seed(0)
        module.network = Counted(module.tasks)
        counted.clear()
        fit(SAM(inner=MGDA(), **options), module=module, max_steps=4, limit_val_batches=0)
        assert len(counted) == wanted


@pytest.mark.parametrize("options", [{}, {"shared_ascent": True}])
def test_windows_add_up_rows_that_were_moved_by_micro_batch(options):
    """Equal micro-batches make a window of one."""
    batches = [b for b in toy_loader(partial=False) for _ in range(2)]
    found = []
    for data, every in ((batches[::2], 1), (batches, 2)):
        module = toy_module()
        trainer = toy_trainer(
            SAM(inner=MGDA(), rho=0.1, **options),
            max_epochs=1,
            accumulate_grad_batches=every,
            limit_val_batches=0,
        )
        loader = DataLoader(data, batch_size=None)
        trainer.fit(module, loader, loader)
        found.append(parameters_of(module))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_an_error_in_the_second_pass_leaves_the_weights(monkeypatch):
    module = toy_module()
    before = parameters_of(module)
    method = SAM(inner=MGDA(), rho=0.1)
    monkeypatch.setattr(method, "add_moved", lambda *a: (_ for _ in ()).throw(KeyError("stop")))
    with pytest.raises(KeyError, match="stop"):
        fit(method, module=module)
    assert torch.equal(parameters_of(module), before)


def test_weights_come_back_bit_for_bit():
    parameter = torch.nn.Parameter(torch.randn(1000) * 1e-3)
    before = parameter.detach().clone()
    with MovedWeights([parameter]):
        climb([parameter], [torch.randn(1000)], radius=3.0, length=1.0, adaptive=False)
        assert not torch.equal(parameter, before)
    assert torch.equal(parameter, before)


def test_transformed_losses_reach_the_decoders():
    """The slope of a log is no weight of a decoder, but part of the objective."""
    stages = Stages(transform="log", scale="paper")
    found = fit(SAM(inner=MGDA(stages=stages), rho=0.0), max_steps=3)
    torch.testing.assert_close(found, fit(MGDA(stages=stages), max_steps=3))


def test_low_precision_stays_close():
    short = {"max_steps": 3, "limit_val_batches": 0}
    found = fit(SAM(inner=MGDA(), rho=0.1), precision="bf16-mixed", **short)
    torch.testing.assert_close(
        found, fit(SAM(inner=MGDA(), rho=0.1), **short), rtol=0.05, atol=0.02
    )


@pytest.mark.parametrize("every_k", [1, 2])
def test_the_loss_scale_is_taken_off_for_the_inner_method(every_k):
    """Nash-MTL's update does not scale with the rows, so a wrong scale would show."""
    rows, moved = torch.randn(2, 3, 5)
    one, two = (SAM(inner=NashMTL(), keep_sum_norm=False, every_k=every_k) for _ in range(2))
    for scale in (1024.0, 256.0):
        two.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        found = two.direction(rows * scale, perturbed=moved * scale)
        wanted = one.direction(rows, perturbed=moved)
        torch.testing.assert_close(found / scale, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        lambda: Equal(),
        lambda: UW(),
        lambda: MGDAUB(),
        lambda: MGDA(stages=Stages(gram="feature")),
        lambda: MGDA(stages=Stages(refresh=2)),
        lambda: SAM(),
    ],
)
def test_methods_that_cannot_be_inside(inner):
    with pytest.raises(ArgumentError, match="inner"):
        SAM(inner=inner())


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="rho must be finite and not negative, found -1"):
        SAM(rho=-1)
    with pytest.raises(ArgumentError, match="rho_own"):
        SAM(rho_own=float("nan"))
    with pytest.raises(ArgumentError, match="every_k must be at least 1, found 0"):
        SAM(every_k=0)
    with pytest.raises(UnknownNameError, match="norm"):
        SAM(norm="both")
    with pytest.raises(UnknownNameError, match="between"):
        SAM(between="keep")


@pytest.mark.parametrize("inner", [GradDrop, MoCo, lambda: PCGrad(stages=Stages(group="layer"))])
def test_other_families_inside(inner):
    assert fit(SAM(inner=inner(), rho=0.1), max_steps=3).isfinite().all()


def test_groups_of_a_task_are_moved_by_themselves():
    """Two groups share a decoder; each has perturbations of its own there too."""
    tasks = {**toy_tasks(), "size": Regression(groups=("even", "odd"))}
    batches = list(toy_loader(partial=False))
    for batch in batches:
        batch["group"] = {"size": torch.arange(8) % 2}
    loader = DataLoader(batches, batch_size=None)
    runs = []
    for border in (True, False):
        module = toy_module(tasks=tasks, border=border)
        method = SAM(inner=MGDA(), rho=0.1, adaptive=False)
        toy_trainer(method, max_steps=3, limit_val_batches=0).fit(module, loader, loader)
        runs.append(parameters_of(module))
        assert set(method.weights) == {"size/even", "size/odd", "kind", "marks"}
    torch.testing.assert_close(*runs, rtol=1e-4, atol=1e-6)


def test_auxiliary_losses_are_taken_from_the_first_pass_and_left_unbalanced():
    class Routed(ToyNetwork):
        def encode(self, inputs, tags=None):
            features = super().encode(inputs, tags)
            features.aux["load"] = features.maps[0].square().mean()
            return features

    runs = []
    for method in (PCGrad(), SAM(inner=PCGrad(), rho=0.0)):
        module = toy_module()
        torch.manual_seed(0)
        module.network = Routed(module.tasks)
        runs.append(fit(method, module=module, max_steps=3, limit_val_batches=0))
    torch.testing.assert_close(*runs)


def test_the_baseline_is_ordinary_sharpness_aware_minimisation():
    """One step along the gradient of the summed loss, in all parameters together."""
    rho, module = 0.1, toy_module()
    optimizer = torch.optim.SGD(module.network.parameters(), lr=0.1, momentum=0.9)
    parameters = list(module.network.parameters())
    for batch in [*toy_loader()][:3]:
        optimizer.zero_grad()
        ascent = torch.autograd.grad(sum(losses_of(module, batch).values()), parameters)
        length = torch.cat([g.flatten() for g in ascent]).norm()
        with torch.no_grad():
            kept = [p.clone() for p in parameters]
            for p, g in zip(parameters, ascent, strict=True):
                p += rho * g / length
        sum(losses_of(module, batch).values()).backward()
        with torch.no_grad():
            for p, x in zip(parameters, kept, strict=True):
                p.copy_(x)
        optimizer.step()
    options = {"shared_ascent": True, "split": False, "norm": "joint", "adaptive": False}
    found = fit(SAM(inner=CAGrad(c=0), rho=rho, **options), max_steps=3)
    torch.testing.assert_close(found, parameters_of(module), rtol=1e-4, atol=1e-5)
