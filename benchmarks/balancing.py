"""Step time and memory of balancing routes, as ratios to the plain sum of losses.

Usage: ``python benchmarks/balancing.py time [--models mlp conv] [--tasks 2 8] [--out FILE.csv]``
and ``python benchmarks/balancing.py memory``; ``report --out FILE.csv`` prints Markdown.

A step is zero_grad, forward, losses, backward with aggregation and AdamW. All routes of a set-up
take turns in one process on one thread; a figure is the median over rounds of CPU seconds, divided
by that of the plain sum in the same round. ``floor`` is a plain loop over `torch.autograd.grad` of
the trunk per task without keeping or combining anything: no exact method can be faster than that
and its own combination. TorchJD (a test dependency) is measured by its Jacobian engine at its
default and at chunk size 1, and by its Gramian engine. ``stacked`` restates how LibMTL obtains its
rows: losses in one tensor, so that every walk visits every head, and Python loops over full rows
(PCGrad). Memory is the growth of the resident set at its peak over the same steps.
"""

import argparse
import csv
import gc
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from mtl_core.balancing import MGDA, Balanced, GradientBalancer, PCGrad, Stages

FIELDS = ("model", "tasks", "route", "ratio", "plain_ms", "memory_mib")


class Problem:
    """One shared trunk, T heads, a batch and its targets."""

    def __init__(self, model: str, tasks: int) -> None:
        torch.manual_seed(0)
        self.trunk, self.heads, self.inputs = MODELS[model](tasks)
        self.modules = nn.ModuleList([self.trunk, *self.heads])
        self.optimizer = torch.optim.AdamW(self.modules.parameters(), 1e-4)
        with torch.no_grad():
            features = self.trunk(self.inputs)
            self.targets = [torch.randn_like(head(features)) for head in self.heads]

    def losses(self, sides: list[Tensor]) -> list[Tensor]:
        """Mean squared error of every head on its side of the features."""
        return [
            (head(side) - target).square().mean()
            for head, side, target in zip(self.heads, sides, self.targets, strict=True)
        ]


def mlp(batch: int) -> Callable[[int], tuple[nn.Module, list[nn.Module], Tensor]]:
    """Trunk of 0.99 M parameters on 64 columns."""

    def make(tasks: int) -> tuple[nn.Module, list[nn.Module], Tensor]:
        widths = (64, 640, 640, 640, 192)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        heads = [nn.Linear(192, 1) for _ in range(tasks)]
        return nn.Sequential(*layers), heads, torch.randn(batch, 64)

    return make


def conv(tasks: int) -> tuple[nn.Module, list[nn.Module], Tensor]:
    """Trunk of 0.31 M parameters with BatchNorm on 32 images of 32 by 32."""
    layers: list[nn.Module] = []
    for a, b, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 160, 2)):
        layers += [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return trunk, [nn.Linear(160, 4) for _ in range(tasks)], torch.randn(32, 3, 32, 32)


def dense(tasks: int) -> tuple[nn.Module, list[nn.Module], Tensor]:
    """A light trunk with a convolutional head a task."""
    trunk = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(),
    )  # fmt: skip
    heads: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 2, 1))
        for _ in range(tasks)
    ]
    return trunk, heads, torch.randn(8, 3, 64, 64)


class TinyViT(nn.Module):
    """Patches, four blocks of width 128, mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 128, 8, 8)
        block = nn.TransformerEncoderLayer(128, 4, 512, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 4, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 128)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        out: Tensor = self.blocks(tokens).mean(1)
        return out


def vit(tasks: int) -> tuple[nn.Module, list[nn.Module], Tensor]:
    """Trunk of 0.8 M parameters on 16 images of 64 tokens."""
    return TinyViT(), [nn.Linear(128, 4) for _ in range(tasks)], torch.randn(16, 3, 64, 64)


MODELS = {"mlp": mlp(256), "mlp32": mlp(32), "conv": conv, "dense": dense, "vit": vit}
Step = Callable[[], None]


def plain(problem: Problem) -> Step:
    """One backward of the sum."""

    def step() -> None:
        problem.optimizer.zero_grad()
        features = problem.trunk(problem.inputs)
        torch.stack(problem.losses([features] * len(problem.heads))).sum().backward()
        problem.optimizer.step()

    return step


def floor(problem: Problem) -> Step:
    """Heads once, the trunk once a task, nothing kept; then the optimiser."""
    shared = list(problem.trunk.parameters())

    def step() -> None:
        problem.optimizer.zero_grad()
        features = problem.trunk(problem.inputs)
        sides = [features.detach().requires_grad_() for _ in problem.heads]
        torch.autograd.backward(problem.losses(sides))
        for i, side in enumerate(sides):
            last = i == len(sides) - 1
            found = torch.autograd.grad(features, shared, side.grad, retain_graph=not last)
        for parameter, gradient in zip(shared, found, strict=True):
            parameter.grad = gradient
        problem.optimizer.step()

    return step


def ours(balancer: GradientBalancer) -> Callable[[Problem], Step]:
    """This suite's engine in a hand-written loop."""

    def make(problem: Problem) -> Step:
        own = {str(i): head for i, head in enumerate(problem.heads)}
        balanced = Balanced(balancer, shared=problem.trunk, own=own).__enter__()
        balancer.reporting = False

        def step() -> None:
            problem.optimizer.zero_grad()
            sides = balanced.cut(problem.trunk(problem.inputs))
            balanced.backward(dict(zip(own, problem.losses(list(sides.values())), strict=True)))
            problem.optimizer.step()

        return step

    return make


def jacobian(chunk: int | None) -> Callable[[Problem], Step]:
    """TorchJD's Jacobian route."""

    def make(problem: Problem) -> Step:
        from torchjd import aggregation
        from torchjd.autojac import jac_to_grad, mtl_backward

        shared, aggregator = list(problem.trunk.parameters()), aggregation.MGDA()

        def step() -> None:
            problem.optimizer.zero_grad()
            features = problem.trunk(problem.inputs)
            losses = problem.losses([features] * len(problem.heads))
            mtl_backward(losses, features=features, parallel_chunk_size=chunk)
            jac_to_grad(shared, aggregator)
            problem.optimizer.step()

        return step

    return make


def engine(problem: Problem) -> Step:
    """TorchJD's Gramian route: weights first, then one weighted backward."""
    from torchjd.aggregation import MGDAWeighting
    from torchjd.autogram import Engine

    gramians, weighting = Engine(problem.trunk, batch_dim=None), MGDAWeighting()

    def step() -> None:
        problem.optimizer.zero_grad()
        features = problem.trunk(problem.inputs)
        losses = torch.stack(problem.losses([features] * len(problem.heads)))
        losses.backward(weighting(gramians.compute_gramian(losses)))
        problem.optimizer.step()

    return step


def stacked(problem: Problem) -> Step:
    """Rows from one tensor of losses, projected pair by pair at full length."""
    shared = list(problem.trunk.parameters())
    own = [p for head in problem.heads for p in head.parameters()]

    def step() -> None:
        problem.optimizer.zero_grad()
        features = problem.trunk(problem.inputs)
        losses = torch.stack(problem.losses([features] * len(problem.heads)))
        rows = []
        for loss in losses:
            found = torch.autograd.grad(loss, [*shared, *own], retain_graph=True, allow_unused=True)
            rows.append(torch.cat([g.flatten() for g in found[: len(shared)]]))
            for parameter, gradient in zip(own, found[len(shared) :], strict=True):
                if gradient is not None:
                    parameter.grad = (
                        gradient if parameter.grad is None else parameter.grad + gradient
                    )
        total = torch.zeros_like(rows[0])
        for i, row in enumerate(rows):
            vector = row.clone()
            for j, other in enumerate(rows):
                inner = vector @ other
                if j != i and inner < 0:
                    vector = vector - inner / (other.norm() ** 2) * other
            total += vector
        start = 0
        for parameter in shared:
            parameter.grad = total[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        problem.optimizer.step()

    return step


ROUTES: dict[str, Callable[[Problem], Step]] = {
    "plain": plain,
    "floor": floor,
    "exact MGDA": ours(MGDA()),
    "exact PCGrad": ours(PCGrad()),
    "batched": ours(MGDA(stages=Stages(gram="batched"))),
    "ghost": ours(MGDA(stages=Stages(gram="ghost"))),
    "auto": ours(MGDA(stages=Stages(gram="auto"))),
    "refresh 4": ours(MGDA(stages=Stages(refresh=4))),
    "last_layer": ours(MGDA(stages=Stages(gram="last_layer"))),
    "feature": ours(MGDA(stages=Stages(gram="feature"))),
    "torchjd": jacobian(None),
    "torchjd chunk 1": jacobian(1),
    "torchjd engine": engine,
    "stacked PCGrad": stacked,
}


def rounds(model: str, tasks: int, names: list[str], seconds: float) -> Iterator[dict[str, float]]:
    """CPU seconds of one step by route, all routes in turns."""
    steps = {name: ROUTES[name](Problem(model, tasks)) for name in names}
    for step in steps.values():
        step()
        step()
    end = time.perf_counter() + seconds
    gc.disable()
    while time.perf_counter() < end:
        found: dict[str, float] = {}
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(4):
                step()
            found[name] = (time.process_time() - start) / 4
        yield found
    gc.enable()


def status_kib(field: str) -> int:
    """A field of this process's memory status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)


def peak_mib(model: str, tasks: int, name: str) -> float:
    """Growth of the resident set at its peak over three steps, after one that warms up."""
    problem = Problem(model, tasks)
    plain(problem)()
    step = ROUTES[name](problem)
    gc.collect()
    before = status_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        step()
    return (status_kib("VmHWM") - before) / 1024


def append(path: Path | None, rows: list[dict[str, object]]) -> None:
    """Add a set-up's rows to a CSV, where one is named."""
    if path is None:
        return
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def timed(model: str, tasks: int, names: list[str], seconds: float) -> list[dict[str, object]]:
    """Rows of one set-up: medians of the ratios of each round."""
    found = list(rounds(model, tasks, names, seconds))
    base = {"plain_ms": round(1e3 * statistics.median(f["plain"] for f in found), 2)}
    held = {name: statistics.median(f[name] / f["plain"] for f in found) for name in names}
    return [
        {"model": model, "tasks": tasks, "route": name, "ratio": round(ratio, 3), **base}
        for name, ratio in held.items()
    ]


def weighed(model: str, tasks: int, names: list[str]) -> list[dict[str, object]]:
    """Rows of one set-up: peak memory, a fresh process a route."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {name: pool.apply(peak_mib, (model, tasks, name)) for name in names}
    return [
        {"model": model, "tasks": tasks, "route": name, "memory_mib": round(peak, 1)}
        for name, peak in peaks.items()
    ]


def report(path: Path) -> None:
    """Markdown of a CSV: a table a model, a row a route, a column a number of tasks."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for field, unit in (("ratio", "times the plain step"), ("memory_mib", "peak MiB")):
        held = {(r["model"], int(r["tasks"]), r["route"]): r[field] for r in rows if r[field]}
        for model in dict.fromkeys(m for m, _, _ in held):
            counts = sorted({t for m, t, _ in held if m == model})
            print(f"\n| {model}, {unit} | " + " | ".join(f"T = {t}" for t in counts) + " |")
            print("|---|" + "---|" * len(counts))
            for route in dict.fromkeys(r for m, _, r in held if m == model):
                cells = [held.get((model, t, route), "") for t in counts]
                print(
                    f"| {route} | "
                    + " | ".join(f"{float(c):.2f}" if c else "" for c in cells)
                    + " |"
                )


def main() -> None:
    """Measure and print; append to a CSV where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("time", "memory", "report"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 4, 8, 20])
    parser.add_argument("--routes", nargs="+", default=list(ROUTES), choices=list(ROUTES))
    parser.add_argument("--seconds", type=float, default=20.0, help="a set-up")
    parser.add_argument("--out", type=Path, help="CSV to append to, or to report")
    asked = parser.parse_args()
    if asked.what == "report":
        report(asked.out or Path("docs/results/balancing_speed.csv"))
        return
    torch.set_num_threads(1)
    names = [n for n in ROUTES if n in asked.routes or n == "plain"]
    for model, tasks in itertools.product(asked.models, asked.tasks):
        if asked.what == "time":
            rows = timed(model, tasks, names, asked.seconds)
        else:
            rows = weighed(model, tasks, names)
        for row in rows:
            value = row.get("ratio", row.get("memory_mib"))
            print(f"{model:6} T={tasks:<3} {row['route']:16} {value:8.2f}", flush=True)
        append(asked.out, rows)


if __name__ == "__main__":
    main()
