"""MultiTab-Net, the baselines and XGBoost on MultiTab-Bench and real tables, five seeds each.

    python benchmarks/tabular_quality.py run                  # an hour on two cores; resumable
    python benchmarks/tabular_quality.py run --sets wine --methods MMoE --seeds 2
    python benchmarks/tabular_quality.py report               # Markdown

A seed is one random division of the table and one initialisation. All networks train with AdamW at
one learning rate and at most the same number of epochs per table, keep the epoch with the least
validation loss, and are scored once on the test rows; nothing is tuned on any of them. XGBoost
stops early on the same validation rows. Runs already in the file are not repeated; a run that fails
is recorded with its reason.
"""

import argparse
import csv
import logging
import math
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from rich.progress import Progress
from scipy import stats
from tabular_sets import DATA, SETS

from mtl_core.atomic import append_line_block
from mtl_core.metrics.delta_m import task_gains
from mtl_core.metrics.logged import logged_scores
from mtl_core.modules import MultiTaskModule
from mtl_tabular.boosting.trees import BoostedTrees
from mtl_tabular.callbacks import MemoryRows
from mtl_tabular.data import TableDataModule
from mtl_tabular.networks import (
    PLE,
    STEM,
    FTTransformer,
    MMoE,
    MultiTabNet,
    PerTask,
    Saint,
    SharedBottom,
    TabTransformer,
)

COLUMNS = ("set", "method", "seed", "task", "metric", "value", "seconds", "parameters", "error")
REFERENCE = "single-task MLP"
NETWORKS = {
    "MultiTab-Net": MultiTabNet,
    "MultiTab-Net, no mask": partial(MultiTabNet, mask="none"),
    "MultiTab-Net, between features only": partial(MultiTabNet, inter_sample="none"),
    "MultiTab-Net, memory": partial(MultiTabNet, inter_sample="memory"),
    "MultiTab-Net, one token": partial(MultiTabNet, task_tokens="single"),
    "shared bottom": SharedBottom,
    "MMoE": MMoE,
    "PLE": PLE,
    "STEM": STEM,
    "FT-Transformer": FTTransformer,
    "SAINT": Saint,
    "TabTransformer": TabTransformer,
    REFERENCE: partial(PerTask, network=SharedBottom),
}
TREES = {
    "XGBoost, one model a task": "single",
    "XGBoost, pooled": "pooled",
    "XGBoost, task as feature": "feature",
}
MANY_TASKS = ("MultiTab-Net, one token", "shared bottom", "MMoE", REFERENCE, *TREES)


def train_network(factory, example, seed):
    """Scores of one network by task and metric, and its number of parameters."""
    L.seed_everything(seed, verbose=False)
    data = TableDataModule(
        example.tasks,
        table=example.train,
        val=example.val,
        test=example.test,
        task_column=example.task_column,
        batch_size=example.batch_size,
        seed=seed,
        drop_last=True,
    )
    data.fit()
    module = MultiTaskModule(
        data.tasks,
        partial(factory, schema=data.schema),
        partial(torch.optim.AdamW, lr=2e-3, weight_decay=1e-5),
    )
    memory = getattr(getattr(module.network, "encoder", None), "memory", None)
    more = [] if memory is None else [MemoryRows()]
    with tempfile.TemporaryDirectory() as folder:
        keep = ModelCheckpoint(folder, monitor="val/loss", save_weights_only=True)
        trainer = L.Trainer(
            max_epochs=example.epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[
                EarlyStopping("val/loss", patience=max(3, example.epochs // 5)),
                keep,
                *more,
            ],
        )
        trainer.fit(module, data)
        held = torch.load(keep.best_model_path, weights_only=True)["state_dict"]
        module.load_state_dict(held)
        trainer.test(module, data, verbose=False)
        scores = logged_scores(trainer.callback_metrics, "test", data.tasks)
    return scores, data.tasks, sum(p.numel() for p in module.network.parameters())


def train_trees(strategy, example, seed):
    """The same for boosted trees; parameters are the number of nodes."""
    data = TableDataModule(
        example.tasks, table=example.train, val=example.val, task_column=example.task_column
    )
    data.fit()
    trees = BoostedTrees(
        data.tasks,
        schema=data.schema,
        strategy=strategy,
        task_column=example.task_column,
        seed=seed,
    )
    trees.fit(example.train, example.val)
    return trees.evaluate(example.test), data.tasks, trees.nodes


def run(args):
    """Train what is asked for and not yet recorded."""
    done = set()
    if args.out.is_file():
        with args.out.open() as file:
            done = {(r["set"], r["method"], int(r["seed"])) for r in csv.DictReader(file)}
    methods = [m for m in (*NETWORKS, *TREES) if not args.methods or m in args.methods]
    cells = [
        (name, method, seed)
        for seed in range(args.seeds)
        for name in args.sets
        for method in methods
        if (name, method, seed) not in done and applies(method, name)
    ]
    with Progress() as progress:
        bar = progress.add_task("runs", total=len(cells))
        for name, method, seed in cells:
            progress.update(bar, description=f"{name}: {method} ({seed})")
            record(args, name, method, seed)
            progress.advance(bar)


def applies(method, name):
    """Leave out what a table has no place for, or what takes too long on it."""
    if name in ("school", "landmine"):  # long tables of many tasks: a token each is a wide network
        return method in MANY_TASKS
    if method == "TabTransformer":
        return name == "adult"  # the only one with categories
    if method in ("MultiTab-Net, memory", "MultiTab-Net, between features only"):
        return name in ("MultiTab-Bench", "adult")  # the large ones
    return method not in ("MultiTab-Net, one token", "XGBoost, pooled", "XGBoost, task as feature")


def record(args, name, method, seed):
    """Train one cell and append its rows."""
    start, rows = time.perf_counter(), []
    try:
        example = SETS[name](args.data, seed)
        if method in NETWORKS:
            scores, tasks, size = train_network(NETWORKS[method], example, seed)
        else:
            scores, tasks, size = train_trees(TREES[method], example, seed)
        seconds = time.perf_counter() - start
        for task, held in scores.items():
            value = held.get(tasks[task].primary, math.nan)
            rows.append((name, method, seed, task, tasks[task].primary, value, seconds, size, ""))
    except Exception as error:  # recorded, and the others go on
        reason = f"{type(error).__name__}: {error}"[:200]
        rows.append((name, method, seed, "", "", math.nan, time.perf_counter() - start, 0, reason))
    append_line_block(args.out, ",".join(COLUMNS), [csv_line(row) for row in rows])


def csv_line(row):
    """One line, texts quoted where they need it."""
    cells = (f"{v:.6g}" if isinstance(v, float) else str(v) for v in row)
    return ",".join('"' + c.replace('"', "'") + '"' if "," in c or "\n" in c else c for c in cells)


def interval(values):
    """Mean and half width of the 95 % interval of Student's t."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), math.nan
    spread = values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * spread)


def with_interval(mean, half, form):
    """Mean and half width as text; what is not known is left out."""
    if math.isnan(mean):
        return "–"
    return f"{mean:{form}}" if math.isnan(half) else f"{mean:{form}} ± {half:{form.lstrip('+')}}"


def gains(frame):
    """Δm of every method and seed against the reference of the same seed, in percent."""
    rows = []
    for (name, seed), block in frame.groupby(["set", "seed"]):
        scores = {m: b.set_index("task")["value"] for m, b in block.groupby("method")}
        if REFERENCE not in scores:
            continue
        for method, held in scores.items():
            shared = [t for t in held.index if t in scores[REFERENCE].index]
            shared = [t for t in shared if np.isfinite([held[t], scores[REFERENCE][t]]).all()]
            metric = dict.fromkeys(shared, "m")
            values = {t: {"m": held[t]} for t in shared}
            references = {t: {"m": scores[REFERENCE][t]} for t in shared}
            better = {t: {"m": True} for t in shared}
            found = task_gains(values, references, better, primary=metric)
            rows.append((name, method, seed, math.fsum(found.values()) / len(found)))
    return pd.DataFrame(rows, columns=["set", "method", "seed", "gain"])


def report(args):
    """Print a table of every set."""
    frame = pd.read_csv(args.out)
    failed = frame[frame["error"].notna()]
    frame = frame[frame["error"].isna()]
    delta = gains(frame)
    for name in [n for n in SETS if n in set(frame["set"])]:
        block = frame[frame["set"] == name]
        metric = " and ".join(sorted(set(block["metric"].dropna())))
        print(f"\n### {name}\n\n{SETS[name].__doc__.strip().splitlines()[0]}\n")
        print(f"| method | seeds | mean {metric} | Δm, % | parameters | seconds |")
        print("|---|---|---|---|---|---|")
        for method in [m for m in (*NETWORKS, *TREES) if m in set(block["method"])]:
            mine = block[block["method"] == method]
            mean, half = interval(mine.groupby("seed")["value"].mean())
            chosen = (delta["set"] == name) & (delta["method"] == method)
            gain, spread = interval(delta[chosen]["gain"]) if chosen.any() else (math.nan, math.nan)
            change = "reference" if method == REFERENCE else with_interval(gain, spread, "+.2f")
            size, seconds = mine["parameters"].median(), mine["seconds"].median()
            seeds = mine["seed"].nunique()
            cells = (method, str(seeds), with_interval(mean, half, ".4f"), change, f"{size:,.0f}")
            print(f"| {' | '.join(cells)} | {seconds:.0f} |")
    for row in failed.itertuples():
        print(f"\nFailed: {row.set}, {row.method}, seed {row.seed}: {row.error}")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["run", "report"])
    parser.add_argument("--out", type=Path, default=Path("runs/tabular_quality.csv"))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real tables")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    {"run": run, "report": report}[args.verb](args)


if __name__ == "__main__":
    main()
