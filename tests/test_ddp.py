"""Two gloo processes equal one, for every family, with labels spread unevenly over the ranks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ddp_worker import FAMILIES, train

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    """What both processes ended with."""
    out = tmp_path_factory.mktemp("ddp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).parents[1]
    workers = []
    for rank in range(2):
        # The variables that torchrun sets, so that Lightning joins instead of launching.
        env = os.environ | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "TORCHELASTIC_RUN_ID": "test",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
        }
        command = [sys.executable, "-m", "ddp_worker", str(out)]
        workers.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    for worker in workers:
        printed, _ = worker.communicate(timeout=240)
        assert worker.returncode == 0, printed.decode()[-4000:]
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "MGDAUB"])
@pytest.mark.parametrize("windows", [1, 2])
def test_two_processes_equal_one(ranks, name, windows):
    found = ranks[0][name if windows == 1 else f"{name} accumulated"]
    torch.testing.assert_close(found, train(name, 1, accumulate_grad_batches=windows))


def test_feature_methods_agree_too(ranks):
    """Weights are solved from the Gramian over all ranks' features."""
    torch.testing.assert_close(ranks[0]["MGDAUB"], train("MGDAUB", 1))


def test_ranks_end_alike(ranks):
    for key, value in ranks[0].items():
        assert torch.equal(value, ranks[1][key]), key


@pytest.mark.parametrize("name", ["Equal", "PCGrad", "MGDAUB"])
def test_batchnorm_buffers_stay_in_step(ranks, name):
    means = ranks[0][f"{name} buffers"]
    assert not torch.equal(means[0], means[-1])
    assert torch.equal(means, ranks[1][f"{name} buffers"])
