import copy

import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.moe import ExpertBank


def bank(experts=4):
    torch.manual_seed(0)
    return ExpertBank(experts, dim=3, hidden=5)


X = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))


def outputs(own):
    return torch.stack([expert(X) for expert in own.experts()])


def test_expert_of_vit_small():
    with torch.device("meta"):
        own = ExpertBank(1, dim=384, hidden=384)
    assert sum(p.numel() for p in own.parameters()) == 295_680


def test_one_expert_is_a_view():
    own = bank()
    before = outputs(own)
    with torch.no_grad():
        own.expert(2).b2.add_(1.0)
    after = outputs(own)
    torch.testing.assert_close(after[2], before[2] + 1.0)
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])


def test_growing_keeps_the_old_and_freezing_is_no_obstacle():
    own = bank()
    before = outputs(own)
    own.freeze([1])
    own.grow(2)
    assert own.num_experts == 6
    assert own.frozen == [1]
    assert torch.equal(outputs(own)[:4], before)
    assert not torch.equal(outputs(own)[4], outputs(own)[5])


def test_kept_experts_are_numbered_anew():
    own = bank()
    own.freeze([3])
    before = outputs(own)
    own.keep([3, 0])
    assert torch.equal(outputs(own), before[[3, 0]])
    assert own.frozen == [0]


def test_frozen_experts_survive_any_optimiser():
    own = bank()
    for parameter in own.parameters():
        parameter.grad = torch.ones_like(parameter)
    own.freeze([1, 2])
    before = outputs(own)
    optimizer = torch.optim.AdamW(own.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        outputs(own).square().sum().backward()
        optimizer.step()
    after = outputs(own)
    assert torch.equal(after[[1, 2]], before[[1, 2]])
    assert not torch.allclose(after[[0, 3]], before[[0, 3]])
    own.freeze([])
    assert own.frozen == []
    assert torch.equal(outputs(own), after)


def test_state_dict_remembers_what_is_frozen():
    own = bank()
    own.freeze([0, 2])
    other = bank()
    with torch.no_grad():
        other.w1.add_(1.0)
    other.load_state_dict(own.state_dict())
    assert other.frozen == [0, 2]
    assert torch.equal(outputs(other), outputs(own))
    assert torch.equal(outputs(copy.deepcopy(own)), outputs(own))
    with pytest.raises(RuntimeError, match="size mismatch"):
        bank(5).load_state_dict(own.state_dict())


def test_stacks_are_the_parameters_where_nothing_is_frozen():
    own = bank()
    assert own.stacks()[0] is own.w1
    own.freeze([1])
    torch.testing.assert_close(own.stacks()[0][1], own.expert(1).w1)


def test_bad_input():
    with pytest.raises(ArgumentError, match="hidden must be at least 1"):
        ExpertBank(2, 3, 0)
    with pytest.raises(ArgumentError, match=r"different numbers in 0\.\.3"):
        bank().keep([4])
    with pytest.raises(ArgumentError, match="count"):
        bank().grow(0)
