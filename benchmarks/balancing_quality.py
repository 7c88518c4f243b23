"""Balancing methods on two overlapping digits, garments and rendered rooms, five seeds each.

    python benchmarks/balancing_quality.py run                # an hour on two cores; resumable
    python benchmarks/balancing_quality.py run --sets digits --methods Equal MGDA --seeds 2
    python benchmarks/balancing_quality.py report             # Markdown

A seed is one initialisation and one order of the samples, the same for all methods. Every method
trains the network of its set with one optimiser, one learning rate and one number of epochs, and is
scored once, after the last epoch, on the test samples; nothing is tuned for any method. Each task
alone, on the same budget, is the reference of Δm. Runs already in the file are not repeated; a run
that fails is recorded with its reason.
"""

import argparse
import logging
import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lightning as L
import numpy as np
import pandas as pd
import torch
from rich.progress import Progress
from scipy import stats

from mtl_core.atomic import append_line_block
from mtl_core.balancing import (
    DBMTL,
    DWA,
    FAMO,
    GLS,
    IMTL,
    MGDA,
    SAM,
    UW,
    AlignedMTL,
    Balancer,
    CAGrad,
    Equal,
    FairGrad,
    NashMTL,
    PCGrad,
    RepMTL,
    Stages,
    UPGrad,
)
from mtl_core.metrics.delta_m import task_gains
from mtl_core.metrics.logged import logged_scores
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Classification, Task
from mtl_vision.data import MultiDigits, MultiFashion, Rooms
from mtl_vision.decoders import PUPDecoder
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SemanticSegmentation,
    SurfaceNormals,
)

COLUMNS = ("set", "method", "seed", "task", "metric", "value", "higher", "seconds", "error")
ALONE = "each task alone"
METHODS: dict[str, Callable[[], Balancer]] = {
    "Equal": Equal,
    "UW": UW,
    "DWA": DWA,
    "GLS": GLS,
    "FAMO": FAMO,
    "PCGrad": PCGrad,
    "CAGrad": CAGrad,
    "MGDA": MGDA,
    "IMTL": IMTL,
    "NashMTL": lambda: NashMTL(stages=Stages(norm="sum", weight_decoders=True)),
    "FairGrad": lambda: FairGrad(stages=Stages(norm="sum")),
    "AlignedMTL": AlignedMTL,
    "UPGrad": UPGrad,
    "DBMTL": DBMTL,
    "RepMTL": RepMTL,
    "SAM over CAGrad": lambda: SAM(inner=CAGrad()),
}


class Setup(NamedTuple):
    """What one set trains."""

    tasks: dict[str, Task]
    data: Callable[[dict[str, Task]], L.LightningDataModule]
    network: Callable
    epochs: int
    lr: float
    clip: float | None


def pairs(data: Callable, **options: object) -> Callable[[], Setup]:
    """Two overlapping classes, a task each, on a small residual network."""

    def make() -> Setup:
        tasks = {side: Classification(num_classes=10) for side in ("left", "right")}
        network = partial(HardSharing, encoder=partial(TimmEncoder, name="test_resnet"))
        return Setup(tasks, partial(data, **options), network, 5, 3e-3, None)

    return make


def rooms() -> Setup:
    """Four dense tasks of very different losses on a small transformer."""
    tasks = {
        "semseg": SemanticSegmentation(num_classes=13),
        "depth": DepthEstimation(),
        "normals": SurfaceNormals(),
        "boundary": BoundaryDetection(),
    }
    encoder = partial(
        TimmEncoder,
        name="vit_tiny_patch16_224",
        img_size=(64, 64),
        model_args={"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4},
    )
    network = partial(HardSharing, encoder=encoder, decoder=partial(PUPDecoder, width=32, stages=2))
    data = partial(Rooms, size=(64, 64), train_size=256, val_size=16, test_size=96, batch_size=16)
    return Setup(tasks, data, network, 4, 1e-3, 1.0)


SETS: dict[str, Callable[[], Setup]] = {
    "digits": pairs(MultiDigits, train_size=2048, val_size=64, test_size=1024),
    "fashion": pairs(MultiFashion, train_size=4096, val_size=64, test_size=2000),
    "rooms": rooms,
}


def train(setup: Setup, tasks: dict[str, Task], balancer: Balancer | None, seed: int):
    """Scores of the test samples by task."""
    L.seed_everything(seed, verbose=False)
    data = setup.data(tasks, seed=seed)
    module = MultiTaskModule(
        tasks, setup.network, lambda p: torch.optim.AdamW(p, setup.lr, weight_decay=0.01)
    )
    trainer = L.Trainer(
        max_epochs=setup.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        gradient_clip_val=setup.clip,
        callbacks=[] if balancer is None else [balancer],
    )
    trainer.fit(module, data)
    logged = trainer.test(module, data, verbose=False)[0]
    return logged_scores(logged, "test", tasks)


def run(args: argparse.Namespace) -> None:
    """Train every cell that the file does not hold."""
    done = set()
    if args.out.exists():
        frame = pd.read_csv(args.out)
        done = set(zip(frame["set"], frame["method"], frame["seed"], strict=True))
    methods = args.methods or [ALONE, *METHODS]
    cells = [
        (name, method, seed)
        for seed in range(args.seeds)
        for name in args.sets
        for method in methods
        if (name, method, seed) not in done
    ]
    with Progress() as progress:
        bar = progress.add_task("runs", total=len(cells))
        for cell in cells:
            progress.update(bar, description="{}: {} ({})".format(*cell))
            record(args.out, *cell)
            progress.advance(bar)


def record(out: Path, name: str, method: str, seed: int) -> None:
    """Train one cell and append its rows."""
    start, rows = time.process_time(), []
    setup = SETS[name]()
    try:
        if method == ALONE:
            scores = {}
            for task, kind in setup.tasks.items():
                scores |= train(setup, {task: kind}, None, seed)
        else:
            scores = train(setup, setup.tasks, METHODS[method](), seed)
        seconds = time.process_time() - start
        for task, kind in setup.tasks.items():
            key = kind.primary
            higher = kind.higher_is_better()[key]
            rows.append((name, method, seed, task, key, scores[task][key], higher, seconds, ""))
    except Exception as error:  # recorded, and the others go on
        reason = f"{type(error).__name__}: {error}"[:200].replace('"', "'").replace("\n", " ")
        seconds = time.process_time() - start
        rows.append((name, method, seed, "", "", math.nan, True, seconds, f'"{reason}"'))
    lines = [",".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in row) for row in rows]
    append_line_block(out, ",".join(COLUMNS), lines)


def interval(values: object, form: str) -> str:
    """Mean and half width of the 95 % interval of Student's t."""
    known = np.asarray(values, dtype=float)
    if len(known) < 2:
        return f"{known.mean():{form}}" if len(known) else "–"
    half = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return f"{known.mean():{form}} ± {half:{form.lstrip('+')}}"


def gain(mine: pd.DataFrame, alone: pd.DataFrame) -> float:
    """Δm of one run against the tasks alone with the same seed, in percent."""
    values = {r.task: {r.metric: r.value} for r in mine.itertuples()}
    references = {r.task: {r.metric: r.value} for r in alone.itertuples()}
    better = {r.task: {r.metric: bool(r.higher)} for r in mine.itertuples()}
    primary = {r.task: r.metric for r in mine.itertuples()}
    found = task_gains(values, references, better, primary=primary)
    return math.fsum(found.values()) / len(found)


def report(args: argparse.Namespace) -> None:
    """Print a table of every set."""
    frame = pd.read_csv(args.out)
    failed, frame = frame[frame["error"].notna()], frame[frame["error"].isna()]
    for name in [n for n in SETS if n in set(frame["set"])]:
        block = frame[frame["set"] == name]
        alone = dict(iter(block[block["method"] == ALONE].groupby("seed")))
        tasks = block.drop_duplicates("task")[["task", "metric"]].values.tolist()
        print(f"\n### {name}\n")
        print("| method | seeds | " + " | ".join(f"{t} {m}" for t, m in tasks) + " | Δm, % | s |")
        print("|---" * (len(tasks) + 4) + "|")
        for method in [m for m in (ALONE, *METHODS) if m in set(block["method"])]:
            mine = block[block["method"] == method]
            cells = [interval(mine[mine["task"] == t]["value"], ".4f") for t, _ in tasks]
            runs = [gain(b, alone[s]) for s, b in mine.groupby("seed") if s in alone]
            change = "reference" if method == ALONE else interval(runs, "+.2f")
            seeds, seconds = mine["seed"].nunique(), mine["seconds"].median()
            print(f"| {method} | {seeds} | {' | '.join(cells)} | {change} | {seconds:.0f} |")
    for row in failed.itertuples():
        print(f"\nFailed: {row.set}, {row.method}, seed {row.seed}: {row.error}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("verb", choices=["run", "report"])
    parser.add_argument("--out", type=Path, default=Path("runs/balancing_quality.csv"))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=[], choices=[ALONE, *METHODS])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    {"run": run, "report": report}[args.verb](args)


if __name__ == "__main__":
    main()
