"""Time of expert dispatch, as ratios to a dense MLP of equal arithmetic.

Usage: ``python benchmarks/moe.py [--seconds 10] [--out FILE.csv]``.

One layer of experts against one MLP whose width is K times that of an expert: the same
multiply-accumulates, router apart. All back ends of a set-up take turns in one process on one
thread; a figure is the median over rounds of CPU seconds over those of the dense MLP in the same
round, once for the forward pass alone and once with the backward pass, whose gradients start
afresh each time, as in training. ``floor`` computes each expert's share of the tokens without
routing, gathering or weighing anything: E products of equal size. It keeps what autograd keeps.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_core.moe import ExpertBank, MoEFFN, PerTaskRouter


class Setup(NamedTuple):
    """One layer: tokens, widths, experts."""

    tokens: int
    dim: int
    hidden: int
    experts: int
    top_k: int


SETUPS = {
    "ViT-S, 512²": Setup(1025, 384, 384, 16, 4),
    "ViT-S, 512², batch 4": Setup(4100, 384, 384, 16, 4),
    "Edge-MoE": Setup(129, 192, 384, 16, 2),
}
Call = Callable[[Tensor], Tensor]


def calls(setup: Setup) -> tuple[dict[str, Call], nn.ModuleList]:
    """The dense MLP, and the experts by every exact back end; the modules that they consist of."""
    torch.manual_seed(0)
    width = setup.top_k * setup.hidden
    dense = nn.Sequential(nn.Linear(setup.dim, width), nn.GELU(), nn.Linear(width, setup.dim))
    router = PerTaskRouter(("a",), setup.dim, setup.experts, setup.top_k)
    bank = ExpertBank(setup.experts, setup.dim, setup.hidden)
    found: dict[str, Call] = {"dense MLP": dense, "floor": floor(bank, setup)}
    for backend in ("sorted", "loop", "dense", "capacity"):
        layer = MoEFFN(router, bank, backend=backend)
        found[backend] = lambda x, layer=layer: layer(x.unsqueeze(0), "a")[0]
    return found, nn.ModuleList([dense, router, bank])


def floor(bank: ExpertBank, setup: Setup) -> Call:
    """Every expert on its share of the tokens, side by side."""

    def call(x: Tensor) -> Tensor:
        rows = x.repeat(setup.top_k, 1)
        parts = rows.tensor_split(setup.experts)
        return torch.cat([e(part) for e, part in zip(bank.experts(), parts, strict=True)])

    return call


def measure(setup: Setup, backward: bool, seconds: float) -> tuple[float, dict[str, float]]:
    """Milliseconds of the dense MLP, and the ratio to it by name."""
    x = torch.randn(setup.tokens, setup.dim, requires_grad=backward)
    held, modules = calls(setup)
    rounds: list[dict[str, float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rounds) < 3:
        found = {}
        for name, call in held.items():
            for number in range(4):
                if number == 1:  # the first call finds the memory as the one before left it
                    start = time.process_time()
                with torch.set_grad_enabled(backward):
                    y = call(x)
                if backward:
                    y.sum().backward()
                    modules.zero_grad()
                    x.grad = None
            found[name] = (time.process_time() - start) / 3
        rounds.append(found)
    base = statistics.median(r["dense MLP"] for r in rounds)
    ratios = {n: statistics.median(r[n] / r["dense MLP"] for r in rounds) for n in held}
    return 1e3 * base, ratios


def main() -> None:
    """Measure and print a Markdown table; write a CSV where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0, help="a set-up")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for name, setup in SETUPS.items():
        for backward in (False, True):
            base, ratios = measure(setup, backward, asked.seconds)
            what = "forward and backward" if backward else "forward"
            rows.append(
                {"set-up": name, "pass": what, "dense MLP, ms": round(base, 2)}
                | {k: round(v, 3) for k, v in ratios.items() if k != "dense MLP"}
            )
    names = list(rows[0])
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(row[n]) for n in names) + " |")
    if asked.out is not None:
        with asked.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
