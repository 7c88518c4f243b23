"""Two gloo processes equal one, for every family, with labels spread unevenly over the ranks."""

import pytest
import torch
from balancing_methods import METHODS
from ddp_worker import ACCUMULATED, APART, train
from processes import run_ranks

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    """What both processes ended with."""
    return run_ranks("ddp_worker", tmp_path_factory.mktemp("ddp"))


@pytest.mark.parametrize("name", [n for n in METHODS if n not in APART])
def test_two_processes_equal_one(ranks, name):
    torch.testing.assert_close(ranks[0][name], train(name, 1), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ACCUMULATED)
def test_two_processes_equal_one_under_accumulation(ranks, name):
    wanted = train(name, 1, accumulate_grad_batches=2)
    torch.testing.assert_close(ranks[0][f"{name} accumulated"], wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", APART)
def test_methods_that_deal_samples_by_rank_train(ranks, name):
    """They split a rank's own samples, so two processes are another draw than one."""
    assert ranks[0][name].isfinite().all()


def test_ranks_end_alike(ranks):
    for key, value in ranks[0].items():
        assert torch.equal(value, ranks[1][key]), key


@pytest.mark.parametrize("name", ["Equal", "PCGrad", "MGDAUB"])
def test_batchnorm_buffers_stay_in_step(ranks, name):
    means = ranks[0][f"{name} buffers"]
    assert not torch.equal(means[0], means[-1])
    assert torch.equal(means, ranks[1][f"{name} buffers"])
