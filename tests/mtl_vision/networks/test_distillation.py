"""mtl_vision.networks.distillation: further predictions from the features of all tasks."""

import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo
from mtl_vision.decoders import FPNDecoder, PUPDecoder
from mtl_vision.networks import TaskDistillation
from mtl_vision.tasks import SemanticSegmentation

INFO = FeatureInfo((8,), (16,))
WIDTH = 4


def tasks(count):
    return {f"t{i}": SemanticSegmentation(num_classes=i + 2) for i in range(count)}


def distillation(count, **arguments):
    torch.manual_seed(0)
    records = tasks(count)
    decoders = {k: PUPDecoder(INFO, t, width=WIDTH, stages=3) for k, t in records.items()}
    return TaskDistillation(decoders, records, **arguments)


def stages(count, size=(3, 5)):
    height, width = size
    return {
        f"t{i}": [torch.randn(2, WIDTH, height * 2**s, width * 2**s) for s in range(3)]
        for i in range(count)
    }


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7])
def test_every_task_gets_a_prediction_a_level_from_the_features_of_all(count):
    module = distillation(count)
    assert module.levels == (1, 2)
    given = {k: [m.requires_grad_() for m in maps] for k, maps in stages(count).items()}
    found = module(given)
    for i, name in enumerate(found):
        assert [tuple(p.shape) for p in found[name]] == [(2, i + 2, 6, 10), (2, i + 2, 12, 20)]
    found["t0"][0].square().sum().backward(retain_graph=True)
    assert all(maps[1].grad is not None for maps in given.values())
    assert all(maps[2].grad is None for maps in given.values())
    sum(p.square().mean() for each in found.values() for p in each).backward()
    assert [k for k, p in module.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("count", "first", "rest"),
    [
        (2, [1], [1]),
        (3, [1], [2] * 2),
        (4, [2] * 2, [2] * 2),
        (5, [2] * 2, [3] * 3),
        (6, [3] * 3, [3] * 3),
        (7, [3] * 3, [4] * 4),
    ],
)
def test_the_balance_is_shared_out_as_published_and_beyond(count, first, rest):
    exchange = distillation(count).exchanges[0]
    balance = torch.rand(1, WIDTH, 2, 2)
    weighed = exchange.weigh([torch.ones(1, WIDTH, 2, 2)] * count, balance)
    expected = [balance / n for n in first] + [(1 - balance) / n for n in rest]
    for found, share in zip(weighed, expected, strict=True):
        torch.testing.assert_close(found, share)
    torch.testing.assert_close(sum(weighed), torch.ones_like(balance))


def test_maps_whose_sides_are_no_multiple_of_four():
    module = distillation(2, levels=(0,))
    found = module(stages(2, size=(5, 7)))
    assert found["t1"][0].shape == (2, 3, 5, 7)


def test_heads_belong_to_one_task_and_nothing_else_does():
    module = distillation(3)
    own = [{id(p) for m in module.heads(n) for p in m.parameters()} for n in module.names]
    assert all(own)
    assert not own[0] & own[1]
    rest = {id(p) for p in module.parameters()} - set().union(*own)
    inside = [
        *module.exchanges[0].balance.parameters(),
        *module.exchanges[0].attention.parameters(),
    ]
    assert {id(p) for p in inside} <= rest


@pytest.mark.parametrize(
    ("levels", "message"),
    [((3,), "name different stages"), ((-1, 2), "name different stages"), ((), "name different")],
)
def test_levels_name_stages(levels, message):
    with pytest.raises(ArgumentError, match=message):
        distillation(2, levels=levels)


def test_decoders_need_stages_alike():
    records = tasks(2)
    pup = PUPDecoder(INFO, records["t0"], width=WIDTH, stages=2)
    for other, message in [
        (FPNDecoder(INFO, records["t1"], width=16), "the decoder of t1 must work in stages"),
        (
            PUPDecoder(INFO, records["t1"], width=8, stages=2),
            "decoders must have stages of the same",
        ),
    ]:
        with pytest.raises(ArgumentError, match=message):
            TaskDistillation({"t0": pup, "t1": other}, records)
    with pytest.raises(ArgumentError, match="two tasks at least"):
        TaskDistillation({"t0": pup}, records)
