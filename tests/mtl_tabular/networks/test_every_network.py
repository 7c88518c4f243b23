"""What holds for every tabular network, found by its place in `mtl_tabular.networks`."""

import inspect
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader
from toy_columns import COLUMNS, column_batch, column_inputs, column_tasks
from toys import toy_trainer

from mtl_core.balancing import PCGrad
from mtl_core.balancing.pcgrad import pcgrad_weights
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.hub import from_pretrained, save_pretrained
from mtl_core.modules import MultiTaskModule
from mtl_tabular import networks
from mtl_tabular.networks import PerTask, TableNetwork
from mtl_tabular.tasks import NumericTarget

KINDS = [
    kind
    for kind in (getattr(networks, name) for name in networks.__all__)
    if inspect.isclass(kind) and issubclass(kind, TableNetwork) and not inspect.isabstract(kind)
]
# Smaller than the defaults, by the argument's name.
SMALL = {
    "token_width": 8,
    "expert": (12, 8),
    "shared": (12, 8),
    "tower": (6,),
    "width": 8,
    "feedforward": 12,
    "head_hidden": (6,),
    "dropout": 0.0,
    "ff_dropout": 0.0,
    "attention_dropout": 0.0,
    "init": "library",
}


# What each kind needs to keep rows apart.
APART = {networks.Saint: {"inter_sample": "rowwise"}}


def make(kind, tasks=None, *, small=SMALL, seed=0, **options) -> TableNetwork:
    torch.manual_seed(seed)
    known = inspect.signature(kind).parameters
    found = {key: value for key, value in small.items() if key in known}
    return kind(tasks or column_tasks(), schema=COLUMNS, **{**found, **options})


every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
bordered = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.border], ids=lambda kind: kind.__name__
)


@every
def test_predictions_by_task(kind):
    network = make(kind)
    found = network(column_inputs(7))
    assert {name: tuple(p.shape) for name, p in found.items()} == {
        name: (7, task.out_channels) for name, task in network.tasks.items()
    }
    assert list(network.eval()(column_inputs(7), ["kind"])) == ["kind"]
    full = network(column_inputs(7))
    torch.testing.assert_close(network(column_inputs(7), ["kind"])["kind"], full["kind"])


@every
def test_no_schema_no_network(kind):
    with pytest.raises(ArgumentError, match="schema must hold the table's columns"):
        kind(column_tasks())


@every
def test_defaults_run(kind):
    network = make(kind, small={})
    assert all(p.isfinite().all() for p in network(column_inputs(4)).values())


@every
def test_missing_values_and_unseen_categories_are_finite(kind):
    network, inputs = make(kind), column_inputs(20, absent=True)
    assert inputs["numeric"].isnan().any()
    assert (inputs["categorical"] == 0).any()
    assert (inputs["categorical"] == 1).any()
    found = network(inputs)
    sum(p.square().sum() for p in found.values()).backward()
    assert all(p.isfinite().all() for p in found.values())
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@every
def test_a_row_is_predicted_by_itself_in_evaluation(kind):
    network, inputs = make(kind, **APART.get(kind, {})), column_inputs(6, absent=True)
    network(column_inputs(16))  # moves running statistics
    network.eval()
    whole = network(inputs)
    alone = network({name: rows[2:3] for name, rows in inputs.items()})
    changed = network({n: torch.cat([column_inputs(2)[n], r[2:]]) for n, r in inputs.items()})
    for name, prediction in whole.items():
        torch.testing.assert_close(alone[name], prediction[2:3], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(changed[name][2:], prediction[2:], rtol=1e-4, atol=1e-5)


@every
def test_every_parameter_is_trained(kind):
    network = make(kind)
    inputs = column_inputs(40, absent=True)
    sum(p.square().sum() for p in network(inputs).values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@every
def test_a_training_batch_of_one_row(kind):
    network = make(kind)
    found = network(column_inputs(1))
    sum(p.sum() for p in found.values()).backward()
    assert all(p.isfinite().all() for p in found.values())


@every
def test_every_parameter_is_shared_or_one_tasks_own(kind):
    network = make(kind)
    own = [id(p) for name in network.tasks for p in network.task_parameters(name)]
    shared = [id(p) for p in network.shared_parameters()]
    assert sorted([*own, *shared]) == sorted(id(p) for p in network.parameters())
    parts = [id(p) for part in network.compiled_parts() for p in part.parameters()]
    assert sorted(parts) == sorted(own + shared)


@every
def test_a_tasks_own_parameters_serve_no_other_task(kind):
    network = make(kind)
    own = {name: network.task_parameters(name) for name in network.tasks}
    for name, prediction in network(column_inputs()).items():
        wanted = [p for other in own for p in own[other] if other != name]
        found = torch.autograd.grad(
            prediction.square().sum(), wanted, retain_graph=True, allow_unused=True
        )
        assert all(g is None for g in found)


@bordered
def test_the_cut_separates_tasks_from_the_encoder(kind):
    network = make(kind)
    out = network.run(column_inputs(), cut=True)
    whole = network.run(column_inputs())
    for name, prediction in out.predictions.items():
        torch.testing.assert_close(prediction, whole.predictions[name])
        network.zero_grad()
        prediction.square().sum().backward()
        reached = {id(p) for p in network.parameters() if p.grad is not None}
        assert reached == {id(p) for p in network.task_parameters(name)}
        assert any(t.grad is not None for t in out.cut[name].tensors())
    assert network.independent_decoders()


def opposite(kind, seed: int) -> MultiTaskModule:
    """Two tasks whose decoders start equal, for targets of opposite sign: they tend to conflict."""
    tasks = {"up": NumericTarget(), "down": NumericTarget()}
    factory = partial(make, kind, seed=seed)
    module = MultiTaskModule(tasks, factory, partial(torch.optim.SGD, lr=1.0))
    with torch.no_grad():
        pairs = zip(*(module.network.decoder_modules(name) for name in tasks), strict=True)
        for up, down in pairs:
            for a, b in zip(up.parameters(), down.parameters(), strict=True):
                b.copy_(a)
    return module


def separate_gradients(network: TableNetwork, batch: dict) -> dict[str, dict[str, torch.Tensor]]:
    """Gradient of every task's loss on its own, by parameter; no cut, no balancer."""
    parameters = dict(network.named_parameters())
    found = {}
    for task, target in batch["targets"].items():
        loss = (network(batch["inputs"])[task].reshape(-1) - target).square().mean()
        gradients = torch.autograd.grad(
            loss, list(parameters.values()), allow_unused=True, materialize_grads=True
        )
        found[task] = dict(zip(parameters, gradients, strict=True))
    return found


@every
def test_pcgrad_combines_the_gradients_of_separate_tasks(kind):
    target = torch.randn(12, generator=torch.Generator().manual_seed(3)) * 3 + 1
    batch = {"inputs": column_inputs(), "targets": {"up": target, "down": -target}}
    loader = DataLoader([batch], batch_size=None)
    trainer = toy_trainer(PCGrad(), max_epochs=1, limit_val_batches=0)
    if not opposite(kind, 0).network.shared_parameters():
        with pytest.raises(BalancerError, match="has none that are trainable"):
            trainer.fit(opposite(kind, 0), loader, loader)
        return
    for seed in range(20):
        module = opposite(kind, seed)
        owned = {id(p) for task in module.tasks for p in module.network.task_parameters(task)}
        shared = [n for n, p in module.network.named_parameters() if id(p) not in owned]
        gradients = separate_gradients(opposite(kind, seed).network, batch)
        rows = torch.stack(
            [torch.cat([g[n].flatten() for n in shared]) for g in gradients.values()]
        )
        weights = pcgrad_weights(rows @ rows.T, torch.tensor([[0, 1], [0, 1]]))
        if (weights - 1).abs().max() > 0.1:
            break
    else:
        raise AssertionError("two tasks should conflict for one of twenty starts")
    before = {name: p.detach().clone() for name, p in module.network.named_parameters()}
    trainer.fit(module, loader, loader)
    for name, parameter in module.network.named_parameters():
        up, down = (gradients[task][name] for task in module.tasks)
        expected = weights[0] * up + weights[1] * down if name in shared else up + down
        moved = before[name] - parameter.detach()
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-4, msg=name)


@every
def test_missing_labels_leave_a_tower_untouched(kind):
    tasks, batch = column_tasks(), column_batch()
    del batch["targets"]["kind"]
    some = torch.arange(12) < 5
    batch["labelled"] = {"spends": some}
    module = MultiTaskModule(tasks, partial(make, kind), partial(torch.optim.SGD, lr=0.1))
    out = module.network.run(batch["inputs"])
    step = module.compute_losses(batch, out, 0)
    assert set(step.losses) == {"buys", "spends"}
    expected = (out.predictions["spends"].reshape(-1) - batch["targets"]["spends"])[some]
    torch.testing.assert_close(step.losses["spends"], expected.square().mean())
    sum(step.losses.values()).backward()
    assert all(p.grad is None for p in module.network.task_parameters("kind"))
    assert all(p.grad is not None for p in module.network.task_parameters("spends"))


@every
def test_saved_and_loaded_networks_predict_the_same(kind, tmp_path):
    network = make(kind)
    if kind is PerTask:
        small = {"token_width": 8, "shared": (4,), "init": "library"}
        network = make(kind, network=partial(networks.SharedBottom, **small))
    network(column_inputs(16, absent=True))
    network.eval()
    found = from_pretrained(save_pretrained(network, tmp_path / "saved"))
    assert type(found) is kind
    assert found.schema == COLUMNS
    inputs = column_inputs(absent=True)
    with torch.no_grad():
        assert all(torch.equal(p, network(inputs)[name]) for name, p in found(inputs).items())
