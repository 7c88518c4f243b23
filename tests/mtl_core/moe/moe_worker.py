"""One step of experts on one of two processes."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mtl_core.moe import ExpertBank, MoEFFN, PerTaskRouter


class Sum(nn.Module):
    """Of the outputs for one task."""

    def __init__(self) -> None:
        super().__init__()
        self.ffn = MoEFFN(PerTaskRouter(("a",), 8, 16, 1), ExpertBank(16, 8, 4))
        self.ffn.bank.freeze([3])

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to a scalar."""
        return self.ffn(x, "a")[0].square().sum()


def main(out: Path) -> None:
    """Save the exchanged gradient."""
    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    torch.manual_seed(0)
    module = DistributedDataParallel(Sum())
    module(torch.randn(2, 1, 3, 8)[rank]).backward()
    torch.save({"w1": module.module.ffn.bank.w1.grad}, out / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
