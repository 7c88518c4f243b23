"""One of two processes of `test_ddp.py`: trains every family and saves what each ended with."""

import sys
from pathlib import Path

import lightning as L
import torch
from balancing_methods import METHODS, PER_BATCH, SEQUENTIAL, catalogue_module
from torch.utils.data import DataLoader, DistributedSampler
from toys import parameters_of, toy_module, toy_samples, toy_trainer

from mtl_core.data.batch import collate

# Methods that split the samples of a rank, and one whose penalty compares samples of a rank.
APART = ("AutoLambda", "FORUM", "MOML", "MoDo", "RepMTL", "SDMGrad")
ACCUMULATED = [n for n in METHODS if n not in PER_BATCH | SEQUENTIAL | set(APART)]


class WatchBuffers(L.Callback):
    """Keeps the running mean as each forward pass finds it, after DDP's broadcast."""

    def __init__(self) -> None:
        self.means: list[torch.Tensor] = []

    def on_fit_start(self, trainer, pl_module):
        norm = pl_module.network.trunk[1]
        norm.register_forward_pre_hook(lambda m, _: self.means.append(m.running_mean.clone()))


def train(balancer: str | None, world: int, **kwargs) -> torch.Tensor:
    """Parameters after an epoch; a step sees the same samples whatever the world size."""
    module = toy_module() if balancer is None else catalogue_module(balancer, lr=0.02)
    samples = toy_samples(64)
    rank = torch.distributed.get_rank() if world > 1 else 0
    sampler = DistributedSampler(samples, world, rank, shuffle=False)
    loader = DataLoader(samples, 16 // world, sampler=sampler, collate_fn=collate)
    distributed = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    trainer = toy_trainer(
        *([METHODS[balancer]()] if balancer else []),
        max_epochs=1,
        **(distributed if world > 1 else {}),
        **kwargs,
    )
    trainer.fit(module, loader, loader)
    return parameters_of(module)


def main(out: Path) -> None:
    """Run as one of two processes."""
    results: dict[str, torch.Tensor] = {}
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for name in METHODS:
        results[name] = train(name, 2)
    for name in ACCUMULATED:
        results[f"{name} accumulated"] = train(name, 2, accumulate_grad_batches=2)
    results["none"] = train(None, 2)
    for name in ("Equal", "PCGrad", "MGDAUB"):
        watch, module = WatchBuffers(), toy_module(norm=True)
        samples = toy_samples(64)
        sampler = DistributedSampler(samples, 2, rank, shuffle=False)
        loader = DataLoader(samples, 8, sampler=sampler, collate_fn=collate)
        trainer = toy_trainer(
            METHODS[name](),
            watch,
            strategy="ddp",
            devices=2,
            use_distributed_sampler=False,
            limit_val_batches=0,
        )
        trainer.fit(module, loader, loader)
        results[f"{name} buffers"] = torch.stack(watch.means)
        results[f"{name} norm"] = parameters_of(module)
    torch.save(results, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
