"""One of two processes of `test_routing_monitor.py`: fits a network of experts, saves its usage."""

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, DistributedSampler
from toy_routed import RoutedToy
from toys import toy_samples, toy_tasks, toy_trainer

from mtl_core.callbacks import RoutingMonitor
from mtl_core.data.batch import collate
from mtl_core.modules import MultiTaskModule


def train(world: int, folder: Path) -> dict:
    """What a monitor saw; a step sees the same samples whatever the world size."""
    torch.manual_seed(0)
    module = MultiTaskModule(
        toy_tasks(), lambda t: RoutedToy(t), lambda p: torch.optim.SGD(p, lr=0.0)
    )
    samples = toy_samples(32, partial=False)
    rank = torch.distributed.get_rank() if world > 1 else 0
    sampler = DistributedSampler(samples, world, rank, shuffle=False)
    loader = DataLoader(samples, 16 // world, sampler=sampler, collate_fn=collate)
    distributed = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    monitor = RoutingMonitor(every_n_steps=1)
    trainer = toy_trainer(
        monitor, default_root_dir=folder, max_epochs=1, **(distributed if world > 1 else {})
    )
    trainer.fit(module, loader, loader)
    return monitor.summary.as_dict()


def main(out: Path) -> None:
    """Run as one of two processes."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    found = train(2, out / f"run {rank}")
    files = [p.name for p in (out / f"run {rank}").rglob("*") if p.is_file()]
    torch.save({"found": found, "files": files}, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
