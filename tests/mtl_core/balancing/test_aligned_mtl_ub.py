import pytest
import torch

from mtl_core.balancing import AlignedMTL, AlignedMTLUB, Stages
from mtl_core.errors import ArgumentError


@pytest.mark.parametrize("reference", ["min", "median", "rmse"])
def test_same_rule_on_the_features_gramian(reference):
    rows = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method = AlignedMTLUB(reference=reference)
    assert method.stages.gram == "feature"
    found = method.solve(rows @ rows.T)
    torch.testing.assert_close(found, AlignedMTL(reference=reference).solve(rows @ rows.T))


def test_own_stages_are_kept():
    assert AlignedMTLUB(stages=Stages(gram="exact")).stages.gram == "exact"


def test_bad_arguments_are_named():
    with pytest.raises(ArgumentError, match="preference"):
        AlignedMTLUB(preference={"a": 0.0})
