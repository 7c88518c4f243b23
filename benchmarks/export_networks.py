"""What exported models weigh, cost and score: networks on images and tables, and trees, in one run.

Networks are trained for a short time first (`--steps` of 8 pictures of 48 pixels on rendered rooms;
MultiTab-Net on its synthetic benchmark; R-MTGB on landmine), so scores say what a format loses, not
what a network can do. Latencies are those of a sample, all models and variants in turns, thread-CPU
milliseconds of one thread (least and median); compare them within one table only.

    python benchmarks/export_networks.py --out runs/export --csv docs/results/export.csv
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rmtgb_sets import DATA, read
from sklearn.metrics import log_loss

from export.bench import Case, _runner, measure
from export.build import build
from export.footprint import ALL, samples
from export.manifest import read_manifest
from export.quantize import quantize
from export.runtime import Predictor
from export.settings import BuildSettings
from export.source import load_source
from export.trees_build import build_trees
from mtl_core.compare import Comparison
from mtl_tabular.__main__ import main as tabular
from mtl_tabular.boosting import RMTGBClassifier
from mtl_vision.__main__ import main as vision

COLUMNS = (
    "model", "variant", "tasks", "megabytes", "largest error", "ms least", "ms median", "scores",
)  # fmt: skip
PLAN = Path(__file__).parents[1] / "configs" / "compare" / "rooms_networks.yaml"
NETWORKS = {"hard sharing": "HardSharing", "M³ViT": "M3ViT", "TaskExpert": "TaskExpert"}


def rooms(out, name, steps):
    """Train a network of the plan of comparisons on rooms; its run folder."""
    comparison = Comparison.load(PLAN)
    words = [w for w in comparison.words if "max_epochs" not in w and "check_val" not in w]
    words += comparison.methods[name]
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(out), "name": "run"}}
    vision([
        "fit", *words, f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1",
        "--data.val_size=96", f"--data.train_size={8 * steps}",
        f"--model.scheduler.total_steps={steps}",
        f"--trainer.logger={json.dumps(logger)}", "--trainer.enable_checkpointing=true",
        '--trainer.callbacks=[{"class_path": "ModelCheckpoint", "init_args": {"save_last": true}}]',
    ])  # fmt: skip
    return next((out / "run").glob("version_*/checkpoints/last.ckpt"))


def multitab(out):
    """Train MultiTab-Net for an epoch; its run folder."""
    config = Path(__file__).parents[1] / "configs" / "tabular" / "multitab.yaml"
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(out), "name": "run"}}
    tabular([
        "fit", "-c", str(config), "--trainer.max_epochs=2", "--data.train_size=20480",
        "--data.val_size=2048", "--model.network.inter_sample=none",
        f"--trainer.logger={json.dumps(logger)}", "--trainer.enable_checkpointing=true",
    ])  # fmt: skip
    return next((out / "run").glob("version_*"))


def landmine(out, data):
    """Train R-MTGB on landmine; the exported folder, its log loss and that of the model."""
    long = read(data, "landmine")
    rng = np.random.default_rng(0)
    held = rng.random(len(long)) < 0.2
    train, test = long.at(~held), long.at(held)
    model = RMTGBClassifier(random_state=0)
    model.fit(train.x, train.y, task=train.task)
    model.save(out / "model.json")
    build_trees(out / "model.json", out / "model")
    place = {task: r for r, task in enumerate(model.tasks_)}
    ids = np.array([place[task] for task in test.task])
    predictor = Predictor(out / "model")
    arrays = {"features": test.x.astype(np.float32), "task": ids}
    graph = predictor.run_own(arrays)["prediction"][:, 0]
    native = model.predict_proba(test.x, test.task)[:, 1]
    return {"graph": float(log_loss(test.y, graph)), "model": float(log_loss(test.y, native))}


def cases(folder):
    """What is timed of a folder: all tasks, and the first one alone, in every variant."""
    manifest = read_manifest(folder)
    names = [task["name"] for task in manifest["tasks"]]
    arrays = samples(folder, manifest, 1)
    found = []
    for variant in manifest["variants"]:
        own = "task" in arrays
        for task in [names[0]] if own else [ALL, names[0]]:
            chosen = None if task == ALL else [task]
            predictor = Predictor(folder, variant["id"], chosen, batch=1)
            run = (
                (lambda p=predictor, a=arrays: p.run_own(a)) if own else _runner(predictor, arrays)
            )
            found.append(Case(variant["id"], "its own" if own else task, 1, run))
    return found


def rows_of(name, folder, timed, scores):
    """Lines of the table."""
    manifest = read_manifest(folder)
    variants = {v["id"]: v for v in manifest["variants"]}
    for case in timed:
        variant, row = variants[case.variant], case.row()
        held = scores or {
            t["name"]: (variant["metrics"] or {}).get(t["name"], {}).get(t["primary"])
            for t in manifest["tasks"]
        }
        errors = [p["max_abs"] for p in (variant["parity"] or {}).values() if "max_abs" in p]
        yield {
            "model": name,
            "variant": case.variant,
            "tasks": case.task,
            "megabytes": round(sum(f["bytes"] for f in variant["files"]) / 1e6, 2),
            "largest error": f"{max(errors):.1e}" if errors else "",
            "ms least": row["cpu_ms_min"],
            "ms median": row["cpu_ms_p50"],
            "scores": " ".join(f"{k} {v:.4g}" for k, v in held.items() if v is not None),
        }


def main():
    """Train, export, quantise, time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/export"), help="new folder")
    parser.add_argument("--csv", type=Path, help="table of the figures")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of landmine_*.csv.gz")
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a case is timed at least")
    given = parser.parse_args()
    folders, scores = {}, {}
    for label, name in NETWORKS.items():
        out = given.out.absolute() / name
        source = load_source(rooms(out, name, given.steps))
        build(source, out / "model", BuildSettings())
        quantize(out / "model", source, mode="int8-dynamic", max_drop=1.0)
        folders[label] = out / "model"
    out = given.out.absolute() / "multitab"
    source = load_source(multitab(out))
    build(source, out / "model", BuildSettings())
    quantize(out / "model", source, mode="int8-dynamic", max_drop=1.0)
    folders["MultiTab-Net"] = out / "model"
    out = given.out.absolute() / "rmtgb"
    out.mkdir(parents=True)
    scores["R-MTGB"] = landmine(out, given.data)
    folders["R-MTGB"] = out / "model"
    timed = {name: cases(folder) for name, folder in folders.items()}
    measure([case for held in timed.values() for case in held], given.seconds)
    rows = [r for n, f in folders.items() for r in rows_of(n, f, timed[n], scores.get(n))]
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(str(row[c]) for c in COLUMNS))
    Console(width=200).print(table)
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
