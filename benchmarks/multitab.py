"""MultiTab-Net beside a plain statement of its reference: rows a second, and memory.

    python benchmarks/multitab.py                  # about two minutes on one core
    python benchmarks/multitab.py --rounds 1 --steps 1 --batch-size 256 --load-rows 4096

*Training*: forward, backward and AdamW step at the reference's synthetic configuration (7 tasks, 32
numeric columns, batches of 2048, tokens of width 16, 4 heads, feed-forward 256, one block, no
mask). The reference is stated here from its description: a linear map per token, attention by
`MultiheadAttention` with its weights, and attention between rows either as its configs ship it
(each row reads itself only) or as the paper has it. *Loading*: batches made from a table in memory;
the reference makes a dictionary per row.

One thread; rates are per second of processor time, which on an idle machine is wall time and on a
busy one depends least on what else it does. What is compared is measured in turn, round by round;
ratios are medians of ratios within a round. Peak memory is that of a fresh process which makes
three steps.

*What is reachable* (estimate for "rowwise", one thread of a 2.5 GHz AVX-512 core with 1 MiB of L2,
the shortest times of single operations on pieces in cache, without Python, copies and page faults).
A step needs about 0.7 GFLOP for each of 7 products of the feed-forward part between columns, which
run at 50 to 110 GFLOP/s because their inner size is 16 (55 ms; exact GELU twice and its derivative
once on 20 M numbers, another 55 ms), 0.7 GFLOP of attention with heads of width 4 (70 ms, of which
exponentials are 9 ms), 9 GFLOP of products of width 624 at 95 to 120 GFLOP/s (90 ms), and norms,
tokens, heads and optimiser (25 to 30 ms of bandwidth): about 0.3 s. The reference takes about 1.0
s, so that three times its rate would leave nothing for anything but these kernels.
"""

import argparse
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mtl_tabular.data import NumericColumn, TableDataModule, TableSchema
from mtl_tabular.networks import MultiTabNet
from mtl_tabular.tasks import NumericTarget

TASKS, COLUMNS, WIDTH, HEADS, HIDDEN = 7, 32, 16, 4, 256
TARGETS = {f"task{i + 1}": NumericTarget() for i in range(TASKS)}
FEATURES = [f"x{k}" for k in range(COLUMNS)]
SCHEMA = TableSchema(numeric=tuple(NumericColumn(name=name) for name in FEATURES))


class ReferenceLayer(nn.Module):
    """Pre-norm transformer layer with attention weights written to memory."""

    def __init__(self, width, *, batch_first):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=batch_first)
        self.inner, self.outer = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, width)

    def forward(self, x):
        """(batch, length, width), or with `batch_first` off (length, batch, width)."""
        z = self.norm1(x)
        x = x + self.attention(z, z, z, need_weights=True)[0]
        return x + self.outer(F.gelu(self.inner(self.norm2(x))))


class Reference(nn.Module):
    """A linear map per token; attention between rows `shipped` (each row alone) or as published."""

    def __init__(self, *, shipped):
        super().__init__()
        self.tokens = nn.ModuleList(nn.Linear(1, WIDTH) for _ in range(TASKS + COLUMNS))
        self.columns = ReferenceLayer(WIDTH, batch_first=True)
        self.rows = ReferenceLayer((TASKS + COLUMNS) * WIDTH, batch_first=not shipped)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(TASKS)
        )

    def forward(self, inputs):
        """Predictions by task."""
        x = inputs["numeric"]
        one = x.new_ones(len(x), 1)
        tokens = [self.tokens[i](one) for i in range(TASKS)]
        tokens += [self.tokens[TASKS + k](x[:, k : k + 1]) for k in range(COLUMNS)]
        x = self.columns(torch.stack(tokens, 1))
        x = self.rows(x.reshape(1, len(x), -1)).reshape(x.shape)
        return {name: self.heads[i](x[:, i]) for i, name in enumerate(TARGETS)}


def ours(mode):
    network = MultiTabNet(TARGETS, schema=SCHEMA, mask="none", inter_sample=mode)
    if mode == "memory":
        network.set_memory({"numeric": torch.randn(256, COLUMNS)})
    return network


NETWORKS = {
    "reference as shipped": partial(Reference, shipped=True),
    "rowwise": partial(ours, "rowwise"),
    "reference as published": partial(Reference, shipped=False),
    "full": partial(ours, "full"),
    "memory": partial(ours, "memory"),
    "none": partial(ours, "none"),
}
BASELINE = {"reference as published": "reference as published", "full": "reference as published"}


class Steps:
    """A network with its optimiser and one batch."""

    def __init__(self, name, batch_size):
        torch.manual_seed(0)
        self.network = NETWORKS[name]()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        self.inputs = {"numeric": torch.randn(batch_size, COLUMNS)}
        self.targets = {name: torch.randn(batch_size, 1) for name in TARGETS}

    def __call__(self, steps):
        """Rows a second of processor time, over `steps` training steps."""
        start = time.process_time()
        for _ in range(steps):
            self.optimizer.zero_grad()
            found = self.network(self.inputs)
            sum(F.mse_loss(found[name], y) for name, y in self.targets.items()).backward()
            self.optimizer.step()
        return steps * len(self.inputs["numeric"]) / (time.process_time() - start)


def peak_memory(name, batch_size):
    """MiB that a fresh process takes for three steps, beyond what it takes for its imports."""
    words = [sys.executable, __file__, "--peak", name, "--batch-size", str(batch_size)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def print_peak(name, batch_size):
    before = peak_resident()
    Steps(name, batch_size)(3)
    print((peak_resident() - before) / 1024)


def peak_resident():
    """KiB on Linux; `resource` would report the peak of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


class RowItems(Dataset):
    """A table in memory that gives a dictionary per row, as the reference's data sets do."""

    def __init__(self, frame):
        self.features = torch.tensor(frame[FEATURES].to_numpy(), dtype=torch.float32)
        self.targets = {n: torch.tensor(frame[n].to_numpy(), dtype=torch.float32) for n in TARGETS}

    def __len__(self):
        return len(self.features)

    def __getitem__(self, index):
        return self.features[index], {name: y[index] for name, y in self.targets.items()}


def loading_rate(loader, rows):
    start = time.process_time()
    for _ in loader:
        pass
    return rows / (time.process_time() - start)


def measure(named, rounds, run):
    """Results by name, in order of rounds, everything measured once a round."""
    found = {name: [] for name in named}
    for _ in range(rounds):
        for name, what in named.items():
            found[name].append(run(what))
    return found


def ratio(values, baseline):
    return median(a / b for a, b in zip(values, baseline, strict=True))


def print_training(console, options):
    steps = {name: Steps(name, options.batch_size) for name in NETWORKS}
    for step in steps.values():
        step(1)
    found = measure(steps, options.rounds, lambda step: step(options.steps))
    table = Table(title=f"Training, batches of {options.batch_size}")
    for column in ("network", "rows / CPU s", "× reference", "of", "parameters", "peak MiB"):
        table.add_column(column, justify="left" if column in ("network", "of") else "right")
    for name, rates in found.items():
        baseline = BASELINE.get(name, "reference as shipped")
        table.add_row(
            name,
            f"{median(rates):.0f}",
            f"{ratio(rates, found[baseline]):.2f}",
            baseline.removeprefix("reference "),
            f"{sum(p.numel() for p in steps[name].network.parameters()):,}",
            f"{peak_memory(name, options.batch_size):.0f}",
        )
    console.print(table)


def print_loading(console, options):
    rows, size = options.load_rows, options.batch_size
    columns = {name: torch.randn(rows).numpy() for name in (*FEATURES, *TARGETS)}
    frame = pd.DataFrame(columns)
    data = TableDataModule(
        TARGETS, table=frame, val=frame[:size], test=frame[:size], batch_size=size
    )
    data.fit()
    data.setup("fit")
    loaders = {
        "reference: a dictionary a row": DataLoader(RowItems(frame), size, shuffle=True),
        "TableDataModule": data.train_dataloader(),
    }
    for loader in loaders.values():
        loading_rate(loader, rows)
    found = measure(loaders, options.rounds, lambda loader: loading_rate(loader, rows))
    table = Table(title=f"Loading {rows} rows an epoch, shuffled, batches of {size}")
    for column in ("loader", "rows / CPU s", "× reference"):
        table.add_column(column, justify="left" if column == "loader" else "right")
    baseline = next(iter(found.values()))
    for name, rates in found.items():
        table.add_row(name, f"{median(rates):.0f}", f"{ratio(rates, baseline):.1f}")
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=2, help="steps per measurement")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of every measurement")
    parser.add_argument("--load-rows", type=int, default=40_960, help="rows of the loaded table")
    parser.add_argument("--peak", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print_peak(options.peak, options.batch_size)
        return
    console = Console()
    console.print(f"torch {torch.__version__}, one thread, {platform.machine()}")
    print_training(console, options)
    print_loading(console, options)


if __name__ == "__main__":
    main()
