"""Peak memory of training on a table of a million rows, from disk and from memory.

    python benchmarks/table_memory.py                  # about five minutes on one core
    python benchmarks/table_memory.py --rows 50000     # a quick look

Writes a Parquet file of 32 numeric and 4 categorical features and 3 targets in pieces, then trains
`SharedBottom` for one epoch in a fresh process for each kind of storage. Peak memory is the largest
resident set of that process (``ru_maxrss``), mapped pages of files included, after importing the
suite, after `fit` (which reads everything once), after encoding, and after the epoch.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

NUMERIC, CATEGORICAL, LEVELS = 32, 4, 50
LIMIT = 4.0
"""GiB that training from disk has to stay below."""


def write_table(path, rows, piece=50_000):
    """Write the table piece by piece, so that making it takes little memory."""
    rng = np.random.default_rng(0)
    writer = None
    for first in range(0, rows, piece):
        count = min(piece, rows - first)
        x = rng.normal(size=(count, NUMERIC)).astype(np.float32)
        codes = rng.integers(0, LEVELS, size=(count, CATEGORICAL))
        columns = {f"x{i}": x[:, i] for i in range(NUMERIC)}
        columns |= {f"c{i}": [f"level {c}" for c in codes[:, i]] for i in range(CATEGORICAL)}
        columns["click"] = (x[:, 0] + codes[:, 0] / LEVELS > 0.5).astype(np.int8)
        columns["kind"] = np.digitize(x[:, 1], [-0.5, 0.5])
        columns["price"] = x[:, 2] * 3 + codes[:, 1]
        batch = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, batch.schema)
        writer.write_table(batch)
    writer.close()


def peak():
    """Largest resident set of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def train(path, storage, cache):
    """Train one epoch; peaks in GiB and seconds, by stage."""
    import lightning as L

    from mtl_core.modules import MultiTaskModule
    from mtl_tabular.data import TableDataModule
    from mtl_tabular.networks import SharedBottom
    from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

    stages = {"import": (peak(), 0.0)}
    start = time.perf_counter()

    def passed(stage):
        stages[stage] = (peak(), time.perf_counter() - start)

    tasks = {"click": BinaryTarget(), "kind": MulticlassTarget(), "price": NumericTarget()}
    data = TableDataModule(tasks, table=path, storage=storage, cache_dir=cache)
    data.fit()
    passed("fit")
    data.prepare_data()
    data.setup("fit")
    passed("encode")
    network = partial(SharedBottom, schema=data.schema)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(MultiTaskModule(data.tasks, network), datamodule=data)
    passed("epoch")
    return stages


def measure(path, storage, cache):
    """Stages of a fresh process."""
    command = [sys.executable, __file__, "--train", storage, "--table", path, "--cache", cache]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def main():
    """Write the table, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--train", choices=["disk", "memory"], help=argparse.SUPPRESS)
    parser.add_argument("--table", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        print(json.dumps(train(args.table, args.train, args.cache)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "table.parquet")
        write_table(path, args.rows)
        size = Path(path).stat().st_size / 2**30
        table = Table("storage", "stage", "peak GiB", "seconds")
        for storage in ("disk", "memory"):
            found = measure(path, storage, str(Path(folder) / "cache"))
            for stage, (gib, seconds) in found.items():
                table.add_row(storage, stage, f"{gib:.2f}", f"{seconds:.1f}")
            if storage == "disk" and found["epoch"][0] > LIMIT:
                raise SystemExit(f"disk storage took {found['epoch'][0]:.2f} GiB, not {LIMIT}")
        Console().print(f"{args.rows:,} rows, Parquet file of {size:.2f} GiB", table)


if __name__ == "__main__":
    main()
