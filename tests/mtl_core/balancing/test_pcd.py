import pytest
import torch
from gramian_laws import PAPER, GramianLaws, near, random_rows
from torchjd import aggregation as peers
from toys import fit

from mtl_core.balancing import PCD
from mtl_core.balancing.pcd import pcd_weights
from mtl_core.errors import ArgumentError, UnknownNameError


class TestPCD(GramianLaws):
    make = PCD
    permutes = False
    row_invariant = True  # with averages of the same scale, as in a first step
    additive = True
    harmless = (2, 6)


@pytest.mark.parametrize("tau", [0.02, 0.3])
@pytest.mark.parametrize("seed", range(6))
def test_is_the_closest_direction_with_the_progress_asked_for(tau, seed):
    rows = random_rows(4, seed)
    scales = 1 / rows.norm(dim=1)
    weights = pcd_weights(rows @ rows.T, scales, torch.full((4,), tau).double(), 0)
    found = weights @ rows
    torch.testing.assert_close(found.norm(), rows[0].norm())
    units = rows * scales[:, None]
    # Undo the rescaling: the multiplier of the primary row is one before it.
    before = found / (weights[0] / scales[0])
    gains = units[1:] @ before
    assert torch.all(gains > tau - 1e-7)
    multipliers = weights[1:] / scales[1:] / (weights[0] / scales[0])
    assert torch.all(multipliers >= 0)
    near(multipliers * (gains - tau), [0, 0, 0], atol=1e-7)


def test_agrees_with_torchjd_over_steps():
    ours, peer = PCD(tau=0.1, beta=0.9, stages=PAPER), peers.PCD(tau=0.1, beta=0.9, eps=0.0)
    for seed in range(8):
        rows = random_rows(3, seed)
        expected = peer(rows)
        if float(expected @ rows[0]) >= 0:  # below, TorchJD climbs the primary loss
            torch.testing.assert_close(ours.direction(rows), expected, rtol=1e-6, atol=1e-7)
        else:
            near(ours.direction(rows), rows[0], atol=1e-9)


def test_never_climbs_the_primary_loss():
    rows = torch.tensor([[1.0, 2], [-1, -2]], dtype=torch.float64)
    near(peers.PCD()(rows), -rows[0], atol=1e-4)
    near(PCD(stages=PAPER).direction(rows), rows[0], atol=1e-12)
    for seed in range(40):
        rows = random_rows(5, seed, width=6)
        assert float(PCD(tau=0.5).direction(rows) @ rows[0]) > -1e-9


def test_contradictory_constraints_leave_the_primary_task_alone():
    rows = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=torch.float64)
    near(PCD(stages=PAPER).direction(rows), rows[0], atol=1e-9)


def test_without_primary_gradient_nothing_moves():
    rows = random_rows(3, 0)
    rows[1] = 0
    assert not PCD(primary="1").direction(rows).any()


def test_primary_and_fractions_by_name():
    rows = random_rows(3, 2)
    turned = PCD(primary="2", stages=PAPER).direction(rows)
    torch.testing.assert_close(turned, PCD(stages=PAPER).direction(rows[[2, 0, 1]]))
    free = PCD(tau={"1": 0.0, "2": 0.0}, stages=PAPER).direction(rows.abs())
    torch.testing.assert_close(free, rows[0].abs())


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"tau\['kind'\] must lie in \[0, 1\], found 2"):
        PCD(tau={"kind": 2})
    with pytest.raises(ArgumentError, match="beta"):
        PCD(beta=1)
    with pytest.raises(UnknownNameError, match=r"(?s)primary.*Did you mean size"):
        fit(PCD(primary="sise"), max_steps=1)
