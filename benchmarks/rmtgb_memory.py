"""Peak memory of R-MTGB on a large long table, from memory and from the disk.

    OMP_NUM_THREADS=1 python benchmarks/rmtgb_memory.py                  # 3 million rows; minutes
    OMP_NUM_THREADS=1 python benchmarks/rmtgb_memory.py --rows 200000    # a quick look

Writes a Parquet file of 20 features and 1000 tasks in pieces, then trains the same estimator in a
process of its own for each manner: `fit` on the table as a data frame, and `fit_external`. Peak
memory is the largest resident set of that process (``ru_maxrss``), mapped pages of files included,
and how much of it came after importing the suite. The error is that on rows of their own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = 20


def draw(rows, tasks, seed):
    """Rows of a common function with an own slope a task; a fifth of the tasks turn it round."""
    rng = np.random.default_rng(seed)
    slopes = np.random.default_rng(0).normal(size=tasks).astype(np.float32)
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    task = rng.integers(0, tasks, rows, dtype=np.int32)
    y = np.where(task < tasks // 5, -1, 1) * (2 * x[:, 0] + x[:, 1] * x[:, 2] + np.sin(2 * x[:, 3]))
    y = (y + slopes[task] * x[:, 4] + 0.5 * rng.standard_normal(rows)).astype(np.float32)
    columns = {f"x{i}": x[:, i] for i in range(FEATURES)}
    return pa.table(columns | {"task": task, "y": y})


def write(path, rows, tasks, piece=100_000):
    """The table piece by piece, so that making it takes little memory."""
    writer = None
    for i, first in enumerate(range(0, rows, piece)):
        part = draw(min(piece, rows - first), tasks, 1 + i)
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    writer.close()


def peak():
    """Largest resident set of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def one(args):
    """A single training, in this process."""
    from mtl_tabular.boosting import RMTGBRegressor
    from mtl_tabular.boosting.external import fit_external
    from mtl_tabular.boosting.pieces import TablePieces

    n1, n2, n3 = args.rounds
    model = RMTGBRegressor(
        shared_rounds=n1, group_rounds=n2, task_rounds=n3, patience=max(args.rounds),
        random_state=0,
    )  # fmt: skip
    before, start = peak(), (time.perf_counter(), time.process_time())
    if args.manner == "disk":
        pieces = TablePieces(args.table, target="y", task="task")
        fit_external(model, pieces, cache_dir=args.cache)
    else:
        frame = pd.read_parquet(args.table)
        model.fit(frame.iloc[:, :FEATURES], frame["y"], task=frame["task"])
    spent = time.perf_counter() - start[0], time.process_time() - start[1]
    after = peak()
    test = draw(50_000, args.tasks, 0).to_pandas()
    predicted = model.predict(test.iloc[:, :FEATURES], test["task"])
    error = float(np.sqrt(np.mean((predicted - test["y"]) ** 2)))
    print(json.dumps([before, after, *spent, error]))


def main():
    """Write the table, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, nargs=3, default=[5, 5, 2], help="of the blocks")
    parser.add_argument("--manners", nargs="+", default=["memory", "disk"])
    parser.add_argument("--manner", help=argparse.SUPPRESS)
    parser.add_argument("--table", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.manner:
        one(args)
        return
    print("| features | peak, GB | before training, GB | seconds | of the processor | RMSE |")
    print("|" + "---|" * 6)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.parquet"
        write(table, args.rows, args.tasks)
        for manner in args.manners:
            command = [sys.executable, __file__, "--manner", manner, "--table", str(table)]
            command += ["--cache", folder, "--tasks", str(args.tasks)]
            command += ["--rounds", *map(str, args.rounds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, after, wall, cpu, error = json.loads(done.stdout.splitlines()[-1])
            cells = f"{after:.2f} | {before:.2f} | {wall:.0f} | {cpu:.0f} | {error:.4f}"
            print(f"| {manner} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
