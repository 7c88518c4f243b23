import pytest
import torch
from toy_columns import COLUMNS, column_inputs, column_tasks

from mtl_tabular.networks import PLE, STEM

SMALL = {"token_width": 4, "expert": (6, 5), "tower": (3,), "dropout": 0.0}
T, M, S = 3, 2, 4


def small(**options) -> STEM:
    torch.manual_seed(0)
    return STEM(column_tasks(), schema=COLUMNS, **SMALL, **options)


def reached(network: STEM, task: str) -> tuple[list[bool], list[bool]]:
    """Which of the tasks' experts, and of the shared ones, the loss of one task reaches."""
    network.zero_grad()
    network(column_inputs())[task].square().sum().backward()
    level = network.extractor.levels[0]
    gradients = [experts.weights[0].grad for experts in (level.own, level.common)]
    own, shared = (
        [False] * len(experts.weights[0]) if g is None else (g.abs().sum((1, 2)) > 0).tolist()
        for experts, g in zip((level.own, level.common), gradients, strict=True)
    )
    return own, shared


def test_a_loss_reaches_its_own_and_the_shared_experts_only():
    own, shared = reached(small(tower_input="task"), "kind")
    assert own == [False, False, True, True, False, False]
    assert shared == [True] * S


def test_the_references_mistake_can_be_had():
    own, shared = reached(small(tower_input="task", stem_reference_detach=True), "kind")
    assert own == [False, False, True, True, False, False]
    assert shared == [False] * S


@pytest.mark.parametrize("mistake", [False, True])
def test_the_shared_gate_reaches_all_where_towers_read_it(mistake):
    own, shared = reached(small(stem_reference_detach=mistake), "kind")
    assert own == [True] * (T * M)
    assert shared == [True] * S


def test_a_task_mixes_the_experts_of_all_tasks():
    network = small(tower_input="task").eval()
    before = network(column_inputs())["kind"]
    with torch.no_grad():
        network.extractor.levels[0].own.weights[0][0] += 1.0
    assert not torch.allclose(before, network(column_inputs())["kind"])


@pytest.mark.parametrize("task_experts", [0, 2])
def test_equal_to_ple_where_weights_inputs_and_gates_coincide(task_experts):
    """One set of embeddings for all, and gates that leave the experts out that PLE does not see."""
    stem = small(task_experts=task_experts).eval()
    ple = PLE(column_tasks(), schema=COLUMNS, task_experts=task_experts, **SMALL).eval()
    for front in stem.fronts:
        front.load_state_dict(ple.front.state_dict())
    stem.extractor.load_state_dict(ple.extractor.state_dict())
    count = T * task_experts
    with torch.no_grad():
        for i, name in enumerate(stem.tasks):
            mine, theirs = stem.heads[name], ple.heads[name]
            mine.tower.load_state_dict(theirs.tower.state_dict())
            seen = [*range(i * task_experts, (i + 1) * task_experts), *range(count, count + S)]
            mine.gate.linear.weight.zero_()
            mine.gate.linear.bias.fill_(-1e4)
            mine.gate.linear.weight[seen] = theirs.gate.linear.weight
            mine.gate.linear.bias[seen] = theirs.gate.linear.bias
    expected = ple(column_inputs())
    for name, prediction in stem(column_inputs()).items():
        torch.testing.assert_close(prediction, expected[name], rtol=1e-4, atol=1e-5)


def test_detaching_changes_gradients_only():
    one, other = small(), small(stem_reference_detach=True)
    found, expected = one(column_inputs()), other(column_inputs())
    assert all(torch.equal(p, expected[name]) for name, p in found.items())


def test_every_task_has_embeddings_of_its_own():
    network = small(tower_input="task", task_experts=1)
    network(column_inputs())["kind"].sum().backward()
    touched = [f.tokenizer.embedding.grad is not None for f in network.fronts]
    assert touched == [True, True, True, True], "all are read ..."
    sizes = [float(f.tokenizer.embedding.grad.abs().sum()) for f in network.fronts]
    assert sizes[0] == sizes[2] == 0, "... but those of other tasks get no gradient"
    assert min(sizes[1], sizes[3]) > 0
