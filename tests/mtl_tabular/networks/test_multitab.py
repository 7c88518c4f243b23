"""Properties of MultiTab-Net: who depends on whom, what equals what, what it costs."""

from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader
from toys import parameters_of, toy_trainer

from mtl_core.balancing import MGDAUB, UW, Equal, GradDrop, PCGrad
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.modules import MultiTaskModule
from mtl_core.rebuild import build, describe
from mtl_tabular.data import CategoricalColumn, NumericColumn, TableSchema
from mtl_tabular.networks import MultiTabNet
from mtl_tabular.nn.row_attention import RowLayer
from mtl_tabular.nn.support_rows import EmptyMemoryError
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

SCHEMA = TableSchema(
    numeric=(NumericColumn(name="age"), NumericColumn(name="pay", missing=True)),
    categorical=(CategoricalColumn(name="city", levels=("Oslo", "Rome", "Lima")),),
)
TASKS = {
    "sale": BinaryTarget(),
    "kind": MulticlassTarget(classes=("a", "b", "c")),
    "amount": NumericTarget(),
}
ROWS = 12
APART = ["none", "rowwise", "memory"]
MODES = [*APART, "full"]


def rows(count=ROWS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "numeric": torch.randn(count, 2, generator=generator),
        "categorical": torch.randint(0, 5, (count, 1), generator=generator),
    }


def make(mode="rowwise", *, tasks=TASKS, **arguments):
    """A small network whose weights are large enough for differences to show."""
    torch.manual_seed(0)
    arguments = {"width": 8, "heads": 2, "feedforward": 16, "memory_rows": 5, **arguments}
    network = MultiTabNet(tasks, schema=SCHEMA, inter_sample=mode, **arguments)
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter.mul_(2.0).add_(0.1 * torch.randn_like(parameter))
    if mode == "memory":
        network.set_memory(rows(30, seed=7))
    return network.eval()


def stacked(network, inputs):
    return torch.cat(list(network(inputs).values()), 1)


def token_slopes(network, task):
    """Gradient norm of a task's prediction by every task token."""
    tokens = network.encoder.task_tokens
    (slope,) = torch.autograd.grad(network(rows())[task].square().sum(), tokens)
    return slope.norm(dim=1)


@pytest.mark.parametrize("mask", ["none", "FxT", "TxT", "FxT_TxT"])
@pytest.mark.parametrize("depth", [1, 2])
def test_masks_decide_which_tasks_meet(mask, depth):
    """Depth 1 and TxT, or any depth and FxT_TxT, keep tasks apart; rows mixed by column do."""
    slopes = token_slopes(make("none", mask=mask, depth=depth), "kind")
    apart = mask == "FxT_TxT" or (mask == "TxT" and depth == 1)
    assert slopes[1] > 0
    assert bool((slopes[[0, 2]] == 0).all()) == apart


def test_row_layers_let_tasks_meet():
    assert (token_slopes(make("rowwise", mask="FxT_TxT"), "kind") > 0).all()


@pytest.mark.parametrize("depth", [1, 3])
def test_a_task_kept_apart_may_be_removed(depth):
    whole = make("none", mask="FxT_TxT", depth=depth)
    fewer = make("none", mask="FxT_TxT", depth=depth, tasks={k: TASKS[k] for k in ("sale", "kind")})
    state = {k: v for k, v in whole.state_dict().items() if "amount" not in k}
    state["encoder.task_tokens"] = state["encoder.task_tokens"][:2]
    fewer.load_state_dict(state)
    for name, found in fewer(rows()).items():
        torch.testing.assert_close(found, whole(rows())[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize("mode", APART)
@pytest.mark.parametrize("depth", [1, 2])
def test_rows_keep_to_themselves(mode, depth):
    network, inputs = make(mode, depth=depth), rows()
    together = stacked(network, inputs)
    alone = [stacked(network, {k: v[i : i + 1] for k, v in inputs.items()}) for i in range(ROWS)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=2e-5)
    other = {k: torch.cat([v[:1], rows(seed=3)[k][1:]]) for k, v in inputs.items()}
    torch.testing.assert_close(stacked(network, other)[0], together[0], rtol=0, atol=2e-5)


def test_full_depends_on_the_batch_but_not_on_its_order():
    network, inputs = make("full"), rows()
    together = stacked(network, inputs)
    order = torch.randperm(ROWS)
    permuted = stacked(network, {k: v[order] for k, v in inputs.items()})
    torch.testing.assert_close(permuted, together[order], rtol=0, atol=2e-5)
    other = {k: torch.cat([v[:1], rows(seed=3)[k][1:]]) for k, v in inputs.items()}
    assert (stacked(network, other)[0] - together[0]).abs().max() > 1e-3


def test_full_on_one_row_is_rowwise():
    full, one = make("full"), rows(1)
    rowwise = make("rowwise")
    left = rowwise.load_state_dict(full.state_dict(), strict=False)
    assert not left.missing_keys
    assert all("query_key" in key for key in left.unexpected_keys)
    torch.testing.assert_close(stacked(full, one), stacked(rowwise, one), rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_last_layer_may_leave_out_what_nobody_reads(mode):
    """Values and all gradients are those of a network that computes every token."""
    network, inputs = make(mode, depth=2, mask="FxT"), rows()
    encoder = network.encoder
    short = encoder(inputs)
    gradients = torch.autograd.grad(short.square().sum(), encoder.parameters())
    x, support = encoder.embed(inputs), encoder.support()
    for i in range(2):
        x = encoder._block(i, x, support)
    wanted = torch.autograd.grad(
        x[:, :3].square().sum(), encoder.parameters(), materialize_grads=True
    )
    torch.testing.assert_close(short, x[:, :3], rtol=0, atol=2e-5)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(1 + b.abs().max()))


def test_more_rows_than_width_take_the_shorter_product():
    """Multiplying output and value maps first changes nothing."""
    torch.manual_seed(0)
    layer = RowLayer(8, 2, 16)
    x = torch.randn(20, 8)
    pieces = torch.cat([layer(x[:6]), layer(x[6:13]), layer(x[13:])])
    torch.testing.assert_close(layer(x), pieces, rtol=0, atol=1e-5)


def count(schema_numbers, tasks, width, mode, token_mode="multi"):
    schema = TableSchema(numeric=tuple(NumericColumn(name=f"x{k}") for k in range(schema_numbers)))
    network = MultiTabNet(
        {f"y{j}": NumericTarget() for j in range(tasks)},
        schema=schema,
        width=width,
        inter_sample=mode,
        task_tokens=token_mode,
    )
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("columns", "tasks", "width", "token_mode", "published"),
    [
        (32, 7, 16, "multi", 1_901_799),
        (75, 2, 8, "multi", 1_846_287),
        (75, 2, 8, "single", 1_802_934),
    ],
)
def test_parameters_of_the_reference(columns, tasks, width, token_mode, published):
    """One vector instead of a pair for a task token; the last two lack a bias pair of columns."""
    tokens = tasks if token_mode == "multi" else 1
    e, f, D = width, 256, (columns + tokens) * width
    inner = 4 * e * e + 8 * e + 2 * e * f + f + e
    outer = 4 * D * D + 8 * D + 2 * D * f + f + D
    heads = tasks * (64 * e + 64 + 64 + 1)
    formula = 2 * e * columns + e * tokens + inner + outer + heads
    assert count(columns, tasks, width, "full", token_mode) == formula
    rowwise = count(columns, tasks, width, "rowwise", token_mode)
    assert rowwise == formula - 2 * D * D - 2 * D
    assert count(columns, tasks, width, "none", token_mode) == formula - outer
    if columns == 32:
        assert formula + e * tokens == published


def test_parameters_of_the_reference_on_real_tables():
    """Published counts have a pair for a task token; tables of levels have two more levels here."""
    numbers = tuple(NumericColumn(name=f"x{k}") for k in range(17))
    levels = tuple(CategoricalColumn(name=f"c{k}", levels=("a", "b", "c")) for k in range(4))
    higgs = MultiTabNet(
        {"target": BinaryTarget(), **{f"m{j}": NumericTarget() for j in range(7)}},
        schema=TableSchema(numeric=numbers, categorical=levels),
        inter_sample="full",
    )
    assert sum(p.numel() for p in higgs.parameters()) == 1_123_016 - 8 * 16 + 4 * 2 * 16
    # The count of ACS Income leaves the tables out: every column has a weight and a bias.
    acs = MultiTabNet(
        {"income": BinaryTarget(), "marital": MulticlassTarget(classes=tuple("abcde"))},
        schema=TableSchema(numeric=numbers[:10]),
        inter_sample="full",
    )
    assert sum(p.numel() for p in acs.parameters()) == 260_310 - 2 * 16


def test_initial_weights_of_the_reference_nearly_predict_a_constant():
    torch.manual_seed(0)
    network = MultiTabNet(TASKS, schema=SCHEMA, init="reference")
    assert network.encoder.feature_layers[0].output.weight.std().item() == pytest.approx(0.01, 0.2)
    assert stacked(network, rows(200)).std(0).max() < 1e-3
    library = MultiTabNet(TASKS, schema=SCHEMA)
    assert stacked(library, rows(200)).std(0).min() > 1e-2


def test_one_token_makes_the_mask_a_matter_of_columns():
    single = make("none", task_tokens="single", mask="TxT")
    assert torch.equal(
        stacked(single, rows()), stacked(make("none", task_tokens="single", mask="none"), rows())
    )
    assert len(single.encode(rows()).maps) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [False, True])
def test_hostile_rows_give_finite_predictions(mode, training):
    network = make(mode, ff_dropout=0.2, attention_dropout=0.2).train(training)
    inputs = {"numeric": torch.full((1, 2), torch.nan), "categorical": torch.zeros(1, 1).long()}
    out = stacked(network, inputs)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_dropout_acts_in_training_only(mode):
    network = make(mode, ff_dropout=0.3, attention_dropout=0.3)
    assert torch.equal(stacked(network, rows()), stacked(network, rows()))
    network.train()
    assert not torch.equal(stacked(network, rows()), stacked(network, rows()))


def test_attention_for_plots():
    network = make("rowwise", depth=2, mask="TxT")
    weights = network.attention(rows())
    assert weights.shape == (2, 3, len(SCHEMA))
    assert (weights > 0).all()
    assert (weights.sum(-1) < 1).all(), "a token reads itself too"
    assert make("none", task_tokens="single").attention(rows()).shape == (1, 3, 3)


def test_memory_travels_and_is_asked_for():
    network = make("memory")
    twin = build(describe(network)).eval()
    with pytest.raises(EmptyMemoryError, match="MemoryRows"):
        twin(rows())
    twin.load_state_dict(network.state_dict())
    torch.testing.assert_close(stacked(twin, rows()), stacked(network, rows()))
    with pytest.raises(ArgumentError, match="memory"):
        make("none").set_memory(rows())


def test_what_is_kept_of_the_memory_follows_the_weights():
    network, inputs = make("memory", depth=2), rows()
    with torch.no_grad():
        before = stacked(network, inputs)
        assert network.encoder.support() is network.encoder.support()
        kept = network.encoder.support()
    fresh = stacked(network, inputs)
    torch.testing.assert_close(before, fresh.detach())
    for change in (
        lambda: network.encoder.row_layers[0].value.weight.mul_(1.5),
        lambda: network.set_memory(rows(30, seed=9)),
        lambda: network.load_state_dict(make("memory", depth=2).state_dict()),
    ):
        with torch.no_grad():
            change()
            assert network.encoder.support() is not kept
            kept, after = network.encoder.support(), stacked(network, inputs)
        torch.testing.assert_close(after, stacked(network, inputs).detach())
    with torch.inference_mode():
        stacked(network, inputs)
    stacked(network, inputs).sum().backward()


def batches(count=24, size=8, *, partial=True):
    """Rows as the loader of a table gives them; the last task lacks every label of a batch."""
    found = []
    for start in range(0, count, size):
        inputs = rows(size, seed=start)
        targets = {
            "sale": (inputs["numeric"][:, 0] > 0).long(),
            "kind": inputs["categorical"][:, 0].remainder(3),
            "amount": inputs["numeric"].sum(1),
        }
        if start == 0 and partial:
            del targets["amount"]
        found.append({"inputs": inputs, "targets": targets})
    return DataLoader(found, batch_size=None)


@pytest.mark.parametrize("balancer", [Equal, UW, PCGrad, GradDrop, MGDAUB])
@pytest.mark.parametrize(("mode", "task_tokens"), [("rowwise", "multi"), ("memory", "single")])
def test_every_family_of_balancers_trains_it(balancer, mode, task_tokens):
    torch.manual_seed(0)
    tasks = {**TASKS, "sale": BinaryTarget(classes=("0", "1"))}
    module = MultiTaskModule(
        tasks,
        lambda t: make(mode, tasks=t, task_tokens=task_tokens).train(),
        partial(torch.optim.AdamW, lr=1e-2),
    )
    before = parameters_of(module)
    toy_trainer(balancer(), max_epochs=1).fit(module, batches(), batches(8, partial=False))
    after = parameters_of(module)
    assert after.isfinite().all()
    assert not torch.equal(before, after)


def test_a_task_without_labels_moves_nothing_of_its_own():
    network = make("rowwise")
    out = network(rows())
    (out["sale"].sum() + out["kind"].sum()).backward()
    assert all(p.grad is None for p in network.heads["amount"].parameters())
    found = [p.grad.clone() for p in network.shared_parameters()]
    network.zero_grad()
    few = network(rows(), tasks=["sale", "kind"])
    sum(p.sum() for p in few.values()).backward()
    for a, b in zip(found, network.shared_parameters(), strict=True):
        assert torch.equal(a, b.grad)


def test_it_can_learn_by_heart():
    torch.manual_seed(0)
    tasks = {"sale": BinaryTarget(classes=("0", "1")), "amount": NumericTarget()}
    network = MultiTabNet(tasks, schema=SCHEMA, feedforward=32)
    inputs = rows(256)
    wanted = {
        "sale": (inputs["numeric"].prod(1) > 0).float()[:, None],
        "amount": inputs["numeric"].sum(1).sin()[:, None],
    }
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(300):
        out = network(inputs)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(out["sale"], wanted["sale"])
        loss = loss + torch.nn.functional.mse_loss(out["amount"], wanted["amount"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < 0.05 * losses[0]:
            break
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("mode", MODES)
def test_exported_with_any_number_of_rows(mode):
    network = make(mode, depth=2)
    batch = torch.export.Dim("batch", min=1)
    shapes = ({"numeric": {0: batch}, "categorical": {0: batch}},)
    program = torch.export.export(network, (rows(4),), dynamic_shapes=shapes).module()
    for size in (1, 3, 40):
        for name, found in program(rows(size)).items():
            torch.testing.assert_close(found, network(rows(size))[name], rtol=0, atol=1e-4)


def test_mistakes_are_named():
    with pytest.raises(ArgumentError, match="heads"):
        make(heads=3)
    with pytest.raises(UnknownNameError, match="rowwise"):
        make("rowise")
    with pytest.raises(UnknownNameError, match="single"):
        make(task_tokens="singl")
    with pytest.raises(ArgumentError, match="depth"):
        make(depth=0)
    with pytest.raises(ArgumentError, match="dropout"):
        make(ff_dropout=1.0)
