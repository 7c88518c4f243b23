"""Two gloo processes that run a worker module, for the tests of several processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def run_ranks(module: str, out: Path, *, folder: Path | None = None) -> list[dict[str, Any]]:
    """Run ``python -m module OUT`` as two ranks and load what each saved as ``rank<r>.pt``.

    Args:
        module: with a ``main(out)``.
        out: folder for what it saves.
        folder: that holds the module; default the tests' own.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tests = ROOT / "tests"
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
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, tests, folder or tests))),
        }
        command = [sys.executable, "-m", module, str(out)]
        workers.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    try:
        printed = [worker.communicate(timeout=400)[0].decode() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    for worker, text in zip(workers, printed, strict=True):
        assert worker.returncode == 0, text[-4000:]
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
