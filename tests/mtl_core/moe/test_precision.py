import pytest
import torch

from mtl_core.moe.precision import as_autocast, full_precision


def test_full_precision_inside_of_autocast():
    x, weight = torch.randn(3, 4), torch.randn(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ weight).dtype == torch.bfloat16
        with full_precision(x):
            assert torch.equal(x @ weight, torch.mm(x, weight))
            assert (x @ weight).dtype == torch.float32
        assert (x @ weight).dtype == torch.bfloat16


def test_meta_knows_no_autocast():
    x = torch.randn(3, device="meta")
    with full_precision(x):
        assert as_autocast(x) is x


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_type_of_autocast(kind):
    x = torch.randn(3)
    assert as_autocast(x) is x
    with torch.autocast("cpu", kind):
        assert as_autocast(x).dtype == kind
        with full_precision(x):
            assert as_autocast(x) is x
