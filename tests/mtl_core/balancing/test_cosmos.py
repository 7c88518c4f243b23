import pytest
import torch
from scalarise import draw_losses, slopes
from torchjd import scalarization

from mtl_core.balancing import COSMOS
from mtl_core.balancing.cosmos import cosmos_weights
from mtl_core.errors import ArgumentError, UnknownNameError


def weigh(losses, index=0, **kwargs):
    balancer = COSMOS(**kwargs)
    balancer.start("abcd")
    balancer.index = index
    return balancer.weigh(losses, balancer.step(balancer.entries))


@pytest.mark.parametrize("penalty", [0.0, 0.01, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchjd(seed, penalty):
    losses, preference = draw_losses(seed), draw_losses(seed + 10)
    peer = scalarization.COSMOS(penalty, preference / preference.sum())
    given = dict(zip("abcd", preference.tolist(), strict=True))
    found = weigh(losses, preference=given, penalty=penalty, scale="paper")
    torch.testing.assert_close(found, slopes(peer, losses))
    torch.testing.assert_close(weigh(losses, preference=given, penalty=penalty), found * 4)


def test_on_the_ray_the_penalty_has_no_slope():
    preference = draw_losses(0)
    torch.testing.assert_close(cosmos_weights(preference * 3, preference, 8.0), preference)
    zero = torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(cosmos_weights(zero, preference, 8.0), preference)


def test_drawn_preferences():
    losses = draw_losses(0)
    found = [weigh(losses, i, concentration=0.5, penalty=0.0) for i in range(3)]
    assert torch.equal(found[1], weigh(losses, 1, concentration=0.5, penalty=0.0))
    assert not torch.equal(found[0], found[1])
    for weights in found:
        assert float(weights.sum()) == pytest.approx(4)
        assert (weights > 0).all()


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="penalty must be finite and not negative"):
        COSMOS(penalty=-1.0)
    with pytest.raises(ArgumentError, match="preference must be empty"):
        COSMOS(preference={"a": 1.0}, concentration=1.0)
    with pytest.raises(UnknownNameError, match="scale"):
        COSMOS(scale="mean")
    with pytest.raises(UnknownNameError, match="preference"):
        COSMOS(preference={"e": 1.0}).start("abcd")
