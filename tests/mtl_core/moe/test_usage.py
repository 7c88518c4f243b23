import pytest
import torch

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe import UsageMeter, choose, overlap

TASKS = ("a", "b")


def routed(*experts, count=4):
    return choose(torch.nn.functional.one_hot(torch.tensor(experts), count).float() * 9, 1, "none")


def test_moving_average_of_shares():
    meter = UsageMeter(TASKS, decay=0.75)
    meter.update("layer", "a", routed(0, 0, 1, 1))
    assert meter.frequencies("layer")[0].tolist() == [0.5, 0.5, 0, 0]
    meter.update("layer", "a", routed(3))
    assert meter.frequencies("layer")[0].tolist() == [0.375, 0.375, 0, 0.25]
    assert meter.frequencies("layer")[1].isnan().all()
    assert meter.layers == ("layer",)


def test_tasks_by_sample():
    by_index, by_name = UsageMeter(TASKS), UsageMeter(TASKS)
    out = routed(0, 1, 2, 2)
    by_index.update("layer", torch.tensor([1, 0, 1, 0]), out)
    by_name.update("layer", "a", out.map(lambda v: v[[1, 3]]))
    by_name.update("layer", "b", out.map(lambda v: v[[0, 2]]))
    assert torch.equal(by_index.frequencies("layer"), by_name.frequencies("layer"))


def test_overlap_and_entropy():
    meter = UsageMeter(TASKS)
    meter.update("layer", "a", routed(0, 1, 2, 3))
    meter.update("layer", "b", routed(3, 3))
    assert meter.overlap("layer").tolist() == [[1.0, 0.25], [0.25, 1.0]]
    torch.testing.assert_close(meter.entropy("layer"), torch.tensor([1.0, 0.0]).double())
    assert overlap(torch.zeros(2, 3)).tolist() == [[1, 1], [1, 1]]


def test_state_goes_on():
    first, second = UsageMeter(TASKS), UsageMeter(TASKS)
    first.update("layer", "a", routed(0, 1))
    second.load_state_dict(first.state_dict())
    for meter in (first, second):
        meter.update("layer", "a", routed(2))
    assert torch.equal(first.frequencies("layer")[0], second.frequencies("layer")[0])


def test_bad_input():
    with pytest.raises(ArgumentError, match="decay"):
        UsageMeter(TASKS, decay=1.0)
    with pytest.raises(UnknownNameError, match="task"):
        UsageMeter(TASKS).update("layer", "c", routed(0))
    with pytest.raises(UnknownNameError, match="layer"):
        UsageMeter(TASKS).frequencies("layer")
