import pytest
import torch
from toy_columns import COLUMNS, column_inputs, column_tasks

from mtl_core.errors import UnknownNameError
from mtl_tabular.networks import PLE


def small(**options) -> PLE:
    torch.manual_seed(0)
    defaults = {"token_width": 4, "expert": (6, 5), "tower": (3,), "dropout": 0.0}
    return PLE(column_tasks(), schema=COLUMNS, **{**defaults, **options})


def reached(network: PLE, task: str) -> torch.Tensor:
    """Which experts (T·M,) of the first level the loss of one task reaches."""
    network.zero_grad()
    network(column_inputs())[task].square().sum().backward()
    gradient = network.extractor.levels[0].own.weights[0].grad
    return gradient.abs().sum((1, 2)) > 0


@pytest.mark.parametrize("levels", [1, 2])
def test_without_shared_experts_tasks_meet_only_in_the_shared_path(levels):
    everywhere = reached(small(shared_experts=0, task_experts=1, levels=levels), "kind")
    assert everywhere.tolist() == [True, True, True]
    if levels == 1:
        alone = small(shared_experts=0, task_experts=1, tower_input="task")
        assert reached(alone, "kind").tolist() == [False, True, False]


def test_other_tasks_experts_change_nothing_where_towers_read_their_task():
    network = small(tower_input="task").eval()
    before = network(column_inputs())
    with torch.no_grad():
        network.extractor.levels[0].own.weights[0][:2] += 1.0  # of the first task
    after = network(column_inputs())
    assert not torch.allclose(before["buys"], after["buys"])
    assert torch.equal(before["kind"], after["kind"])
    assert torch.equal(before["spends"], after["spends"])


def test_without_task_experts_all_see_the_same():
    network = small(task_experts=0)
    features = network.encode(column_inputs())
    seen = [network.extractor.select(features, i)[1] for i in range(3)]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert seen[0].shape == (12, 4, 5)


def test_towers_read_one_mixture_or_two():
    assert small().heads["kind"].tower[0].in_features == 10
    assert small(tower_input="task").heads["kind"].tower[0].in_features == 5
    assert len(small(tower_input="task", levels=2).extractor.shared_gates) == 1
    with pytest.raises(UnknownNameError, match="tower_input"):
        small(tower_input="shared")


def test_the_second_level_reads_the_gates_of_the_first():
    """By hand: mixtures of the first level are the inputs of the second."""
    network = small(levels=2)
    features = network.encode(column_inputs())
    extractor = network.extractor
    flat = network.front(column_inputs()).unsqueeze(1)
    outputs = extractor.levels[0](flat)
    own, shared = outputs[:, 2:4], outputs[:, 6:]
    expected = extractor.gates[0][1](flat[:, 0], torch.cat([own, shared], 1))
    stream, _, _ = extractor.select(features, 1)
    torch.testing.assert_close(stream, expected)
