import pytest
import torch
from toys import fit

from mtl_core.balancing import GradDrop
from mtl_core.balancing.graddrop import graddrop
from mtl_core.errors import ArgumentError, UnknownNameError

NO_LEAK = torch.zeros(3)


def test_agreement_is_kept_whole():
    rows = torch.rand(3, 50)
    torch.testing.assert_close(graddrop(rows, torch.rand(50), NO_LEAK), rows.sum(0))
    torch.testing.assert_close(graddrop(-rows, torch.rand(50), NO_LEAK), -rows.sum(0))


def test_mean_over_draws_is_the_stated_expectation():
    torch.manual_seed(0)
    column = torch.tensor([[2.0], [-1.0], [0.5]])
    draws = torch.rand(200_000)
    found = graddrop(column.expand(3, len(draws)), draws, NO_LEAK).mean()
    purity = 0.5 * (1 + 1.5 / 3.5)
    torch.testing.assert_close(found, torch.tensor(purity * 2.5 - (1 - purity)), atol=0.02, rtol=0)


def test_one_sign_per_element_survives():
    torch.manual_seed(0)
    rows, draws = torch.randn(3, 40), torch.rand(40)
    found = graddrop(rows, draws, NO_LEAK)
    positive, negative = rows.clamp_min(0).sum(0), rows.clamp_max(0).sum(0)
    assert torch.all((found - positive).abs().minimum((found - negative).abs()) < 1e-6)


def test_full_leak_is_the_plain_sum_and_zero_columns_stay_zero():
    rows, draws = torch.randn(3, 40), torch.rand(40)
    torch.testing.assert_close(graddrop(rows, draws, torch.ones(3)), rows.sum(0))
    assert graddrop(torch.zeros(3, 4), draws[:4], NO_LEAK).tolist() == [0.0] * 4


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8])
def test_degree_one_at_any_scale(scale):
    torch.manual_seed(0)
    rows, draws = torch.randn(3, 40), torch.rand(40)
    torch.testing.assert_close(
        graddrop(rows * scale, draws, NO_LEAK) / scale, graddrop(rows, draws, NO_LEAK)
    )


def test_bad_leaks():
    with pytest.raises(ArgumentError, match=r"leak\['size'\] must lie in \[0, 1\], found 2"):
        GradDrop(leak={"size": 2})
    with pytest.raises(UnknownNameError, match="Did you mean size"):
        fit(GradDrop(leak={"sise": 0.5}), max_steps=1)
