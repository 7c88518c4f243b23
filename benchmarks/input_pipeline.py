"""How fast samples are made and loaded, and how long training waits for them.

    python benchmarks/input_pipeline.py                    # about two minutes on two cores
    python benchmarks/input_pipeline.py --images 64 --rounds 1 --steps 4

Three tables. *Rendering*: scenes rendered a second of processor time in one process, with all
labels (`render_record`). *Loading*: images a second of wall time through the training loader of
`Rooms`, by number of workers: the first epoch starts them and renders, later ones read what is
kept. *Training*: share of the wall time of training that Lightning waits for the next batch.

Rates depend on what else the machine does. Settings are measured in turn, round by round, and
ratios are medians of the ratios within a round.
"""

import argparse
import logging
import platform
import time
import warnings
from functools import partial
from statistics import median

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from mtl_core.modules import MultiTaskModule
from mtl_vision.data import Rooms
from mtl_vision.data.rooms import render_record
from mtl_vision.decoders import FPNDecoder
from mtl_vision.networks import HardSharing
from mtl_vision.rendering import CLASS_NAMES
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SemanticSegmentation,
    SurfaceNormals,
)

WORKERS = (0, 1, 2)
TASKS = {
    "semseg": SemanticSegmentation(num_classes=len(CLASS_NAMES)),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
}


def rendering_rate(size, images, first):
    """Images a second of this process's processor time."""
    start = time.process_time()
    for index in range(first, first + images):
        render_record((size, size), 0, "train", index)
    return images / (time.process_time() - start)


def loading_rates(size, images, batch_size, workers, epochs):
    """Images a second of wall time, epoch by epoch; the first starts the workers as well."""
    data = Rooms(
        TASKS,
        size=(size, size),
        train_size=images,
        batch_size=batch_size,
        num_workers=workers,
        scene_seed=1,
    )
    data.setup("fit")
    loader = data.train_dataloader()
    rates = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        start = time.perf_counter()
        count = sum(len(batch["inputs"]) for batch in loader)
        rates.append(count / (time.perf_counter() - start))
    return rates


class Waiting(L.Callback):
    """Sums the time from the end of a step to the start of the next, and the time of steps."""

    def __init__(self, skip):
        self.skip, self.waited, self.worked = skip, 0.0, 0.0
        self.mark = 0.0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        """A batch has arrived."""
        now = time.perf_counter()
        if batch_idx >= self.skip:
            self.waited += now - self.mark
        self.mark = now

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """The step is done; the next batch is wanted."""
        now = time.perf_counter()
        if batch_idx >= self.skip:
            self.worked += now - self.mark
        self.mark = now


def waiting_share(size, steps, batch_size, workers, encoder, *, cached):
    """Share of the training time spent waiting for a batch, and images a second trained on."""
    torch.manual_seed(0)
    skip = 2
    data = Rooms(
        TASKS,
        size=(size, size),
        train_size=(steps + skip) * batch_size,
        batch_size=batch_size,
        num_workers=workers,
        scene_seed=2,
    )
    data.setup("fit")
    if cached:
        dataset = data.prepared("train").dataset
        for index in range(len(dataset)):
            dataset[index]
    network = partial(
        HardSharing,
        encoder=encoder,
        img_size=(size, size),
        decoder=partial(FPNDecoder, width=64),
    )
    waiting = Waiting(skip)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[waiting],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(MultiTaskModule(TASKS, network), datamodule=data)
    total = waiting.waited + waiting.worked
    return waiting.waited / total, steps * batch_size / total


def rounds_of(settings, measure, rounds):
    """Measure every setting once a round; returns the results by setting, in order of rounds."""
    results = {setting: [] for setting in settings}
    for number in range(rounds):
        for setting in settings:
            results[setting].append(measure(setting, number))
    return results


def ratio(values, baseline):
    return f"{median(a / b for a, b in zip(values, baseline, strict=True)):.2f}"


def print_rendering(console, options):
    rates = [
        rendering_rate(options.size, options.images, number * options.images)
        for number in range(options.rounds)
    ]
    table = Table(title=f"Rendering at {options.size}×{options.size}, one process")
    for column in ("images", "images / s (median)", "slowest round", "fastest round"):
        table.add_column(column, justify="right")
    row = (median(rates), min(rates), max(rates))
    table.add_row(str(options.images * options.rounds), *(f"{rate:.0f}" for rate in row))
    console.print(table)


def print_loading(console, options):
    def measure(workers, _):
        return loading_rates(options.size, options.images, options.batch_size, workers, epochs=3)

    found = rounds_of(WORKERS, measure, options.rounds)
    table = Table(
        title=f"Loading {options.images} images an epoch, batches of {options.batch_size}"
    )
    table.add_column("workers", justify="right")
    for name in ("first epoch", "later epochs"):
        table.add_column(f"{name}: images / s", justify="right")
        table.add_column("× 0 workers", justify="right")
    first = {w: [epochs[0] for epochs in found[w]] for w in WORKERS}
    later = {w: [median(epochs[1:]) for epochs in found[w]] for w in WORKERS}
    for w in WORKERS:
        cells = []
        for rates in (first, later):
            cells += [f"{median(rates[w]):.0f}", ratio(rates[w], rates[0])]
        table.add_row(str(w), *cells)
    console.print(table)


def print_training(console, options):
    def measure(setting, _):
        workers, cached = setting
        return waiting_share(
            options.size, options.steps, options.batch_size, workers, options.encoder, cached=cached
        )

    settings = [(workers, cached) for cached in (False, True) for workers in WORKERS]
    found = rounds_of(settings, measure, options.rounds)
    table = Table(title=f"Training {options.encoder} with four FPN decoders, {options.steps} steps")
    for column in ("epoch", "workers", "waiting for data", "images / s", "× 0 workers"):
        table.add_column(column, justify="left" if column == "epoch" else "right")
    for workers, cached in settings:
        shares, rates = zip(*found[workers, cached], strict=True)
        baseline = [rate for _, rate in found[0, cached]]
        table.add_row(
            "later" if cached else "first",
            str(workers),
            f"{100 * median(shares):.1f} %",
            f"{median(rates):.1f}",
            ratio(rates, baseline),
        )
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96, help="height and width of the images")
    parser.add_argument("--images", type=int, default=256, help="images an epoch")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="training steps measured")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of every measurement")
    parser.add_argument("--encoder", default="vit_tiny_patch16_224", help="a timm name")
    options = parser.parse_args()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (".*does not have many workers.*", ".*treespec.*"):
        warnings.filterwarnings("ignore", message)
    console = Console()
    console.print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {platform.machine()}"
    )
    print_rendering(console, options)
    print_loading(console, options)
    print_training(console, options)


if __name__ == "__main__":
    main()
