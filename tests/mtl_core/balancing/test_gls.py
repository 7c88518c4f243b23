import pytest
import torch
from scalarise import draw_losses, slopes
from torchjd.scalarization import GeometricMean

from mtl_core.balancing import GLS
from mtl_core.balancing.gls import gls_weights
from mtl_core.errors import UnknownNameError


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchjd(seed):
    losses = draw_losses(seed)
    torch.testing.assert_close(gls_weights(losses), slopes(GeometricMean(), losses))


def test_weight_is_the_mean_over_the_loss():
    losses = draw_losses(3)
    mean = losses.prod() ** 0.25
    torch.testing.assert_close(gls_weights(losses), mean / (4 * losses))
    torch.testing.assert_close(gls_weights(losses * 7), gls_weights(losses))


def test_many_small_losses_do_not_underflow():
    """The product of these, of which LibMTL takes the root, is zero in float32."""
    losses = torch.full((60,), 0.1)
    assert losses.prod() == 0
    torch.testing.assert_close(gls_weights(losses), torch.full((60,), 1 / 60))


def test_scale():
    losses = draw_losses(4)
    found = []
    for scale in ("sum", "paper"):
        balancer = GLS(scale=scale)
        balancer.start("abcd")
        found.append(balancer.weigh(losses, balancer.step(balancer.entries)))
    torch.testing.assert_close(found[0], found[1] * 4)
    with pytest.raises(UnknownNameError, match="scale"):
        GLS(scale="mean")
