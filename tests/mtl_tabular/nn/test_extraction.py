import pytest
import torch
from toy_columns import column_tasks

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.nn.extraction import Extractor, shared_output

T, M, S = 3, 2, 2


def extractor(**options) -> Extractor:
    torch.manual_seed(0)
    defaults = {"expert": (7, 4), "task_experts": M, "shared_experts": S}
    return Extractor(T, 5, **{**defaults, **options})


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("streams", [1, T + 1])
@pytest.mark.parametrize("sees", ["own", "all"])
@pytest.mark.parametrize("both", [True, False])
def test_shapes(levels, streams, sees, both):
    made = extractor(levels=levels, sees=sees, shared_output=both)
    heads = made.build_heads(column_tasks(), (3,), 0.0)
    features = made(torch.randn(6, streams, 5))
    assert len(features.maps) == 2 + both
    for i, (name, task) in enumerate(column_tasks().items()):
        stream, seen, shared = made.select(features, i)
        assert stream.shape == (6, 5 if levels == 1 else 4)
        assert seen.shape == (6, T * M + S if sees == "all" else M + S, 4)
        assert [tuple(s.shape) for s in shared] == [(6, 4)] * both
        assert heads[name](stream, seen, shared).shape == (6, task.out_channels)


def test_the_same_stream_for_all_equals_one_stream():
    made = extractor(levels=2)
    x = torch.randn(6, 1, 5)
    for one, many in zip(made(x).maps, made(x.expand(-1, T + 1, -1)).maps, strict=True):
        torch.testing.assert_close(one, many, atol=1e-6, rtol=1e-5)


def test_a_task_sees_its_own_and_the_shared_experts():
    made = extractor()
    features = made(torch.randn(6, 1, 5))
    outputs = features.maps[0].unflatten(1, (-1, 4))
    _, seen, _ = made.select(features, 1)
    torch.testing.assert_close(seen, outputs[:, [2, 3, 6, 7]])


@pytest.mark.parametrize("detach_shared", [False, True])
def test_all_are_seen_but_others_get_no_gradient(detach_shared):
    made = extractor(sees="all", detach_shared=detach_shared)
    outputs = torch.randn(6, T * M + S, 4, requires_grad=True)
    seen = made._visible(outputs, 1)
    torch.testing.assert_close(seen, outputs)
    seen.sum().backward()
    reached = outputs.grad.abs().sum((0, 2)) > 0
    assert reached.tolist() == [False, False, True, True, False, False, *[not detach_shared] * S]


def test_every_parameter_is_used():
    """Unused ones would stop distributed training."""
    for sees in ("own", "all"):
        for both in (True, False):
            made = extractor(levels=2, sees=sees, shared_output=both)
            heads = made.build_heads(column_tasks(), (3,), 0.0)
            features = made(torch.randn(6, T + 1, 5))
            loss = sum(h(*made.select(features, i)).sum() for i, h in enumerate(heads.values()))
            loss.backward()
            assert all(p.grad is not None for p in [*made.parameters(), *heads.parameters()])


def test_impossible_options_are_named():
    with pytest.raises(ArgumentError, match="be at least 0, and not both 0"):
        extractor(task_experts=0, shared_experts=0)
    with pytest.raises(ArgumentError, match="levels must be at least 1"):
        extractor(levels=0)
    with pytest.raises(ArgumentError, match="shared_experts must be positive where towers"):
        extractor(shared_experts=0, levels=2, shared_output=False)
    with pytest.raises(UnknownNameError, match="sees must be a known name"):
        extractor(sees="some")
    with pytest.raises(UnknownNameError, match="tower_input"):
        shared_output("shared")
