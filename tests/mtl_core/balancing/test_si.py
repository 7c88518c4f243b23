import pytest
import torch
from scalarise import draw_losses, slopes

from mtl_core.balancing import SI
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError


def weigh(balancer, losses):
    balancer.start("abcd")
    return balancer.weigh(losses, balancer.step(balancer.entries))


@pytest.mark.parametrize("seed", range(3))
def test_derivative_of_the_sum_of_logs(seed):
    losses = draw_losses(seed)
    expected = slopes(lambda x: (x + 1e-8).log().sum(), losses)
    torch.testing.assert_close(weigh(SI(), losses), expected)


def test_factors_of_the_losses_do_not_matter():
    losses, factors = draw_losses(0), draw_losses(1)
    torch.testing.assert_close(
        weigh(SI(eps=0), losses * factors) * factors, weigh(SI(eps=0), losses)
    )


def test_shift_admits_negative_losses():
    losses = torch.tensor([-0.9, 1.0, 1.0, 1.0], dtype=torch.float64)
    weights = weigh(SI(shift={"a": 1.0}), losses)
    torch.testing.assert_close(weights, torch.tensor([10.0, 1, 1, 1], dtype=torch.float64))
    with pytest.raises(BalancerError, match=r"that of a is -0\.4"):
        weigh(SI(shift={"a": 0.5}), losses)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="eps must be finite and not negative"):
        SI(eps=-1.0)
    with pytest.raises(ArgumentError, match=r"shift\['a'\] must be finite"):
        SI(shift={"a": float("inf")})
    with pytest.raises(UnknownNameError, match="shift"):
        SI(shift={"e": 1.0}).start("abcd")
