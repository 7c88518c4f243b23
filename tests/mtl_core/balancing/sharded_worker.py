"""One of two processes of `test_sharded.py`, and the single process that they have to equal."""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mtl_core.balancing import DBMTL, MGDA, Balanced, Equal, PCGrad, Stages
from mtl_core.errors import BalancerError

METHODS = {
    "Equal": Equal,
    "PCGrad": PCGrad,
    "MGDA": lambda: MGDA(stages=Stages(weight_decoders=True)),
}


def problem() -> tuple[nn.Module, dict[str, nn.Module], torch.Tensor]:
    """A trunk of layers of odd widths, two heads, and 16 samples."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh())
    return trunk, {"a": nn.Linear(6, 1), "b": nn.Linear(6, 2)}, torch.randn(16, 5)


def train(
    name: str, rank: int, world: int, *, cut: bool = True, heads: bool = False, whole: bool = False
) -> dict[str, torch.Tensor]:
    """Full parameters after five steps of SGD."""
    trunk, own, inputs = problem()
    if world > 1:
        mesh = init_device_mesh("cpu", (world,))
        for layer in trunk:
            if isinstance(layer, nn.Linear) and not (whole and layer is trunk[0]):
                fully_shard(layer, mesh=mesh)
        if not whole:
            fully_shard(trunk, mesh=mesh)
        for head in own.values() if heads else ():
            fully_shard(head, mesh=mesh)
    modules = nn.ModuleDict({"trunk": trunk, **own})
    optimizer = torch.optim.SGD(modules.parameters(), 0.2)
    part = inputs.chunk(world)[rank]
    with Balanced(METHODS[name](), shared=trunk, own=own) as balanced:
        for _ in range(5):
            optimizer.zero_grad()
            features = trunk(part)
            sides = balanced.cut(features) if cut else dict.fromkeys(own, features)
            targets = {"a": part[:, :1] * 3, "b": -part[:, :2]}
            losses = {t: (own[t](sides[t]) - targets[t]).square().mean() for t in own}
            balanced.backward(losses)
            optimizer.step()
    return {
        n: p.full_tensor().detach() if hasattr(p, "full_tensor") else p.detach()
        for n, p in modules.named_parameters()
    }


def main(out: Path) -> None:
    """Run as one of two processes."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    results: dict[str, dict[str, torch.Tensor] | str] = {}
    for name in METHODS:
        if name != "Equal":
            results[f"{name} cut"] = train(name, rank, 2)
            results[f"{name} heads"] = train(name, rank, 2, heads=True)
            results[f"{name} part"] = train(name, rank, 2, whole=True)
        results[f"{name} uncut"] = train(name, rank, 2, cut=False)
    for key, method in {"DBMTL": DBMTL(), "feature": PCGrad(stages=Stages(gram="feature"))}.items():
        trunk, own, inputs = problem()
        fully_shard(trunk, mesh=init_device_mesh("cpu", (2,)))
        with Balanced(method, shared=trunk, own=own) as balanced:
            sides = balanced.cut(trunk(inputs))
            try:
                balanced.backward({t: own[t](sides[t]).sum() for t in own})
            except BalancerError as error:
                results[key] = str(error)
    trunk, own, inputs = problem()
    fully_shard(trunk, mesh=init_device_mesh("cpu", (2,)))
    with Balanced(PCGrad(), shared=trunk, own=own) as balanced:
        sides = balanced.cut(trunk(inputs))
        here = list(own)[: rank + 1]
        try:
            balanced.backward({t: own[t](sides[t]).sum() for t in here})
        except BalancerError as error:
            results["absent"] = str(error)
    torch.save(results, out / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
