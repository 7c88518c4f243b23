"""Which tokens may read which."""

import pytest
import torch

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.nn.masks import blocked_pairs

T, d = 3, 4
NAMES = ["none", "FxT", "TxT", "FxT_TxT"]


@pytest.mark.parametrize("name", NAMES)
def test_features_and_self_are_always_read(name):
    blocked = blocked_pairs(name, T, d)
    assert blocked.shape == (T + d, T + d)
    assert not blocked[:, T:].any()
    assert not blocked.diagonal().any()


def test_each_mask_blocks_its_pairs_and_no_others():
    tasks, columns = torch.ones(T, T).triu(1).bool(), blocked_pairs("FxT", T, d)
    assert not blocked_pairs("none", T, d).any()
    assert columns[T:, :T].all()
    assert columns.sum() == T * d
    between = blocked_pairs("TxT", T, d)
    assert torch.equal(between[:T, :T], tasks | tasks.t())
    assert between.sum() == T * (T - 1)
    assert torch.equal(blocked_pairs("FxT_TxT", T, d), between | columns)


def test_one_token_has_no_other_to_be_kept_from():
    assert torch.equal(blocked_pairs("TxT", 1, d), blocked_pairs("none", 1, d))


def test_mistakes_are_named():
    with pytest.raises(UnknownNameError, match="TxT"):
        blocked_pairs("txt", T, d)
    with pytest.raises(ArgumentError, match="at least 1"):
        blocked_pairs("none", 0, d)
