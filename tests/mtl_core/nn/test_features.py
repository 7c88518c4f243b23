import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features


def test_cut_shares_memory_but_no_graph():
    source = torch.randn(2, 3, requires_grad=True)
    features = Features([source * 2, source * 3], tokens=source * 4, aux={"load": source.sum()})
    cut = features.cut()
    for mine, theirs in zip(features.tensors(), cut.tensors(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr()
        assert theirs.is_leaf
        assert theirs.requires_grad
    assert len(cut.maps) == 2
    assert cut.aux == {}
    cut.maps[0].sum().backward()
    assert source.grad is None


def test_replacing_tensors_keeps_their_order():
    features = Features([torch.zeros(1), torch.ones(1)], size=(4, 6), tokens=torch.full((1,), 2.0))
    same = features.with_tensors(features.tensors())
    assert [float(t) for t in same.tensors()] == [0.0, 1.0, 2.0]
    assert same.size == (4, 6)


def test_info_has_one_entry_a_map():
    with pytest.raises(ArgumentError, match="one entry a map"):
        FeatureInfo((8, 16), (4,))
