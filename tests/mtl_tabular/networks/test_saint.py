import pytest
import torch
from toy_columns import COLUMNS, column_inputs, column_tasks

from mtl_core.errors import ArgumentError
from mtl_tabular.networks import Saint

ROW = 8 * (1 + len(COLUMNS))


def small(inter_sample: str, **options) -> Saint:
    torch.manual_seed(0)
    return Saint(
        column_tasks(),
        schema=COLUMNS,
        **{"width": 8, "heads": 2, "feedforward": 12, "head_hidden": (6,), **options},
        inter_sample=inter_sample,
    ).eval()


def rows(indices) -> dict[str, torch.Tensor]:
    return {name: values[indices] for name, values in column_inputs().items()}


def without_queries(network: Saint) -> Saint:
    """The same weights where every row attends to itself."""
    other = small("rowwise")
    state = {k: v for k, v in network.state_dict().items() if "query_key" not in k}
    other.load_state_dict(state)
    return other


def test_full_row_attention_reads_the_whole_batch():
    network = small("full", init="library")
    order = torch.randperm(12)
    whole = network(column_inputs())
    for name, prediction in network(rows(order)).items():
        torch.testing.assert_close(prediction, whole[name][order], rtol=1e-4, atol=1e-5)
    fewer = network(rows(torch.arange(6)))["kind"]
    assert (fewer - whole["kind"][:6]).abs().max() > 1e-5


def test_a_row_alone_attends_to_itself():
    """No error at batch 1: `full` then computes what `rowwise` does, with the same weights."""
    network = small("full")
    alone, expected = network(rows([3])), without_queries(network)(rows([3]))
    for name, prediction in alone.items():
        torch.testing.assert_close(prediction, expected[name], rtol=1e-4, atol=1e-5)


def test_rowwise_and_memory_keep_rows_apart():
    for network in (small("rowwise"), small("memory", memory_rows=4)):
        if network.encoder.memory is not None:
            network.set_memory(column_inputs(8, seed=5))
        whole = network(column_inputs())["kind"]
        torch.testing.assert_close(network(rows([3]))["kind"], whole[3:4], rtol=1e-4, atol=1e-5)


def test_heads_must_divide_the_width_of_a_row():
    with pytest.raises(ArgumentError, match="heads must"):
        small("full", heads=5)
    assert ROW % 3 == 0
    with pytest.raises(ArgumentError, match="divide the width 8"):
        small("full", heads=3)
