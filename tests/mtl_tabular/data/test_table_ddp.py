"""Two gloo processes see the rows that one sees, and end with the same network."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from table_worker import PREDICTED, ROWS, STEP, VALIDATED, train

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def one() -> dict:
    """What one process ends with."""
    return train(1)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    """What both processes ended with."""
    out = tmp_path_factory.mktemp("ddp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).parents[3]
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
        command = [sys.executable, "-m", "table_worker", str(out)]
        workers.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    for worker in workers:
        printed, _ = worker.communicate(timeout=240)
        assert worker.returncode == 0, printed.decode()[-4000:]
    assert len(list((out / "cache").iterdir())) == 3
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


STORAGES = pytest.mark.parametrize("storage", ["memory", "disk"])


@STORAGES
def test_steps_hold_the_same_rows(both, one, storage):
    shares = zip(*(rank[storage]["rows"]["train"] for rank in both), strict=True)
    steps = [torch.cat(step).sort().values.tolist() for step in shares]
    assert steps == [step.sort().values.tolist() for step in one["rows"]["train"]]
    assert [len(step) for step in steps] == [STEP, STEP, STEP, ROWS - 3 * STEP] * 2
    assert sorted(row for step in steps[:4] for row in step) == list(range(ROWS))
    assert [len(r[storage]["rows"]["train"][-1]) for r in both] == [2, 1]


@STORAGES
@pytest.mark.parametrize(("split", "rows"), [("val", VALIDATED), ("predict", PREDICTED)])
def test_every_row_is_evaluated_once_an_epoch(both, storage, split, rows):
    seen = torch.cat([torch.cat(rank[storage]["rows"][split]) for rank in both])
    epochs = 1 if split == "predict" else 2
    assert sorted(seen.tolist()) == sorted(list(range(rows)) * epochs)


@STORAGES
def test_networks_end_alike(both, one, storage):
    first, second = (rank[storage]["parameters"] for rank in both)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one["parameters"], rtol=1e-4, atol=1e-6)


@STORAGES
def test_scores_are_those_of_one_process(both, one, storage):
    expected = {name: value for name, value in one["scores"].items() if name.startswith("val/")}
    assert len(expected) > 6
    for rank in both:
        found = {name: rank[storage]["scores"][name] for name in expected}
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True)
