import pytest
import torch
from scalarise import draw_losses, slopes
from torchjd import scalarization

from mtl_core.balancing import PBI
from mtl_core.balancing.pbi import pbi_weights
from mtl_core.errors import ArgumentError, UnknownNameError


def weigh(losses, **kwargs):
    balancer = PBI(**kwargs)
    balancer.start("abcd")
    return balancer.weigh(losses, balancer.step(balancer.entries))


@pytest.mark.parametrize("theta", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchjd(seed, theta):
    losses, preference = draw_losses(seed), draw_losses(seed + 10)
    ideal = torch.tensor([-1.0, 0, 0, 0.02], dtype=torch.float64)
    given = dict(zip("abcd", preference.tolist(), strict=True))
    found = weigh(
        losses, preference=given, theta=theta, ideal={"a": -1.0, "d": 0.02}, scale="paper"
    )
    torch.testing.assert_close(
        found, slopes(scalarization.PBI(theta, preference, ideal), losses), atol=1e-9, rtol=1e-9
    )


def test_on_the_ray_and_off_it():
    """Off the ray the second term has slope θ whatever the distance; on it none."""
    preference = draw_losses(0)
    zero, unit = torch.zeros(4, dtype=torch.float64), preference / preference.norm()
    torch.testing.assert_close(pbi_weights(preference * 3, preference, zero, 5.0), unit)
    torch.testing.assert_close(pbi_weights(zero, preference, zero, 5.0), unit)
    across = torch.tensor([unit[1], -unit[0], 0, 0], dtype=torch.float64)
    across = across / across.norm()
    for distance in (1e-6, 1.0):
        found = pbi_weights(preference + distance * across, preference, zero, 5.0)
        torch.testing.assert_close(found, unit + 5 * across, atol=1e-6, rtol=0)


def test_scale_and_degree():
    losses = draw_losses(1)
    torch.testing.assert_close(weigh(losses), weigh(losses, scale="paper") * 2)
    torch.testing.assert_close(weigh(losses), weigh(losses * 1e-6))


def test_drawn_preferences():
    losses = draw_losses(0)
    assert torch.equal(weigh(losses, concentration=1.0), weigh(losses, concentration=1.0))
    assert not torch.equal(
        weigh(losses, concentration=1.0), weigh(losses, concentration=1.0, seed=1)
    )


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="theta must be finite and not negative"):
        PBI(theta=-1.0)
    with pytest.raises(ArgumentError, match="concentration must be positive"):
        PBI(concentration=0.0)
    with pytest.raises(UnknownNameError, match="scale"):
        PBI(scale="mean")
    with pytest.raises(UnknownNameError, match="ideal"):
        PBI(ideal={"e": 1.0}).start("abcd")
