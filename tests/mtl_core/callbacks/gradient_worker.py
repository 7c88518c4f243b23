"""One of two processes of `test_gradient_monitor.py`: fits the toy and saves what was seen."""

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, DistributedSampler
from toys import parameters_of, toy_module, toy_samples, toy_trainer

from mtl_core.balancing import PCGrad
from mtl_core.callbacks import GradientMonitor
from mtl_core.data.batch import collate

RUNS = {
    "none": (None, "exact", {}),
    "none accumulated": (None, "exact", {"accumulate_grad_batches": 2}),
    "PCGrad": (PCGrad, "exact", {}),
    "last_layer": (None, "last_layer", {}),
    "feature": (PCGrad, "feature", {}),
}


def train(name: str, world: int, folder: Path) -> dict[str, torch.Tensor]:
    """What a monitor saw; a step sees the same samples whatever the world size."""
    balancer, source, options = RUNS[name]
    # Without a balancer the trainer averages over ranks, not over labels: stay where you are.
    module, samples = toy_module(lr=0.1 if balancer else 0.0), toy_samples(96)
    rank = torch.distributed.get_rank() if world > 1 else 0
    sampler = DistributedSampler(samples, world, rank, shuffle=False)
    loader = DataLoader(samples, 16 // world, sampler=sampler, collate_fn=collate)
    distributed = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    monitor = GradientMonitor(every_n_steps=2, source=source)
    trainer = toy_trainer(
        *([balancer()] if balancer else []),
        monitor,
        default_root_dir=folder,
        limit_val_batches=0,
        **(distributed if world > 1 else {}),
        **options,
    )
    trainer.fit(module, loader, loader)
    state = monitor.state_dict()["history"]["columns"]
    return {
        "steps": state["step"],
        "norms": state["norms"],
        "cosines": state["cosines"],
        "parameters": parameters_of(module),
    }


def main(out: Path) -> None:
    """Run as one of two processes."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    results = {}
    for name in RUNS:
        results[name] = train(name, 2, out / f"{name} {rank}")
        results[name]["files"] = [p.name for p in (out / f"{name} {rank}").glob("*.png")]
    torch.save(results, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
