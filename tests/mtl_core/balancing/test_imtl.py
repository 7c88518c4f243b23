import torch
from gramian_laws import A, along
from toys import fit

from mtl_core.balancing import IMTL, IMTLG, Stages


def test_is_imtlg_with_learned_scales():
    assert IMTL().stages == Stages(transform="exp_scale")
    stages = Stages(transform="exp_scale")
    assert torch.equal(fit(IMTL()), fit(IMTLG(stages=stages)))
    assert not torch.allclose(fit(IMTL()), fit(IMTLG()))


def test_scales_of_fixed_losses_settle_at_their_inverse():
    balancer = IMTL()
    losses = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    for _ in range(400):
        direction = balancer.solve(A @ A.T, losses) @ A
    scales = balancer._pipeline.log_scales.values.exp()
    torch.testing.assert_close(scales, 1 / losses, rtol=1e-2, atol=0)
    assert along(direction, IMTLG().direction(A))  # which no scale changes
