import pytest
import torch
from gramian_laws import A
from toys import fit, toy_module

from mtl_core.balancing import MGDA, MGDAUB, Stages


def test_is_mgda_with_stages():
    assert MGDAUB().stages == Stages(gram="feature", weight_decoders=True)
    stages = Stages(gram="feature", weight_decoders=True, row_scale="l2")
    assert torch.equal(fit(MGDAUB(stages=stages)), fit(MGDA(stages=stages)))
    torch.testing.assert_close(MGDAUB().solve(A @ A.T), MGDA().solve(A @ A.T))


def test_differs_from_the_gramian_of_the_parameters():
    assert not torch.allclose(fit(MGDAUB()), fit(MGDA()))


@pytest.mark.parametrize("weight_decoders", [True, False])
def test_weights_lie_on_the_simplex_times_the_tasks_present(weight_decoders):
    balancer = MGDAUB(stages=Stages(gram="feature", weight_decoders=weight_decoders))
    fit(balancer, module=toy_module(), max_steps=1)
    weights = [w for w in balancer.weights.values() if w == w]
    assert sum(weights) == pytest.approx(len(weights))
    assert min(weights) >= 0
