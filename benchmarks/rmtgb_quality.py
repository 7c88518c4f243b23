"""R-MTGB beside XGBoost per task, pooled, and with the task as a feature, all tuned alike.

    python benchmarks/rmtgb_quality.py run --out runs/rmtgb.csv --jobs 2     # resumable
    python benchmarks/rmtgb_quality.py run --sets landmine --methods "R-MTGB, auto" --splits 2
    python benchmarks/rmtgb_quality.py report --out runs/rmtgb.csv           # Markdown

Every candidate learns from the same three quarters of the training rows, stops early on the same
last quarter (patience 20), and the one of least loss there learns once more from all training rows
with the rounds that were found. Test rows are scored once. The learning rate is 0.1, of tables with
15,000 training rows and more 0.3. Nobody has more candidates than XGBoost:

- XGBoost, six: depth 2, 4, 6 times λ 1, 10; at most 1,000 rounds, per task 400 (the same number for
  all tasks, by the sum of their losses).
- R-MTGB sequential, four: depth 2, 4 with and without a shared block; at most 200, 400, 100 rounds.
- R-MTGB interleaved, two: depth 2, 4; at most 300 rounds.
- R-MTGB auto, six: the estimator's own schedules and ablations, at depth 4 and its default rounds.

Seconds are of the processor, which a busy machine distorts less than those of the clock.

Runs already in the file are not repeated; a run that fails is recorded with its reason.
"""

import argparse
import csv
import math
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost as xgb
from rich.progress import Progress
from rmtgb_sets import DATA, SETS
from scipy import stats
from sklearn.metrics import roc_auc_score

from mtl_core.atomic import append_line_block
from mtl_tabular.boosting import RMTGBClassifier, RMTGBRegressor

COLUMNS = ("set", "method", "split", "scope", "metric", "value", "seconds", "setting", "error")
PATIENCE = 20
DEPTHS = (2, 4, 6)
LAMBDAS = (1.0, 10.0)
ROUNDS = {"pooled": 1000, "feature": 1000, "single": 400}
OBJECTIVES = {
    "regression": ("reg:squarederror", "rmse"),
    "binary": ("binary:logistic", "logloss"),
    "multiclass": ("multi:softprob", "mlogloss"),
}
HIGHER = ("auroc", "accuracy", "split as known")
SHOWN = {
    "regression": ("rmse", "mae"),
    "binary": ("logloss", "auroc", "accuracy"),
    "multiclass": ("logloss", "accuracy"),
}


def rate(example):
    """Learning rate of all methods on a table."""
    return 0.3 if len(example.train) >= 15_000 else 0.1


class Boosters:
    """XGBoost on a long table: one model for all rows, or one a task with a common length.

    Args:
        strategy: ``pooled``, ``feature`` (with the task as a categorical feature) or ``single``.
        example: whose kind and number of classes count.
        depth: of trees.
        penalty: λ.
    """

    def __init__(self, strategy, example, depth, penalty):
        objective, metric = OBJECTIVES[example.kind]
        self.strategy, self.kind, self.rounds = strategy, example.kind, ROUNDS[strategy]
        self.parameters = {
            "objective": objective, "eval_metric": metric, "max_depth": depth, "nthread": 1,
            "reg_lambda": penalty, "learning_rate": rate(example), "tree_method": "hist", "seed": 0,
        }  # fmt: skip
        if example.kind == "multiclass":
            self.parameters["num_class"] = example.classes

    def _parts(self, rows):
        """Matrices by task; of one model by None."""
        if self.strategy == "single":
            tasks = np.unique(rows.task)
            return {r: xgb.DMatrix(p.x, p.y) for r in tasks if len(p := rows.at(rows.task == r))}
        x, kinds = rows.x, ["q"] * rows.x.shape[1]
        if self.strategy == "feature":
            task = np.where(np.isin(rows.task, self.tasks), rows.task, np.nan)
            x, kinds = np.column_stack([x, task]).astype(np.float32), [*kinds, "c"]
        return {None: xgb.DMatrix(x, rows.y, feature_types=kinds, enable_categorical=True)}

    def fit(self, rows, held=None):
        """Learn; with held-out rows stop early, and remember the rounds and their loss."""
        self.tasks = np.unique(rows.task)
        parts, watched = self._parts(rows), self._parts(held) if held else {}
        self.models = {
            r: xgb.Booster(self.parameters, [part, *([watched[r]] if r in watched else [])])
            for r, part in parts.items()
        }
        best, length = math.inf, 0
        for k in range(self.rounds):
            for r, part in parts.items():
                self.models[r].update(part, k)
            if not held:
                continue
            loss = sum(self._loss(r, part, k) for r, part in watched.items()) / len(held)
            if loss < best:
                best, length = loss, k + 1
            elif k + 1 - length >= PATIENCE:
                break
        if held:
            self.rounds, self.loss = length, best
        return self

    def _loss(self, r, part, k):
        """Sum over held-out rows."""
        value = float(self.models[r].eval(part, "held", k).rsplit(":", 1)[1])
        return part.num_row() * (value**2 if self.kind == "regression" else value)

    def predict(self, rows):
        """Numbers or probabilities; rows of unknown tasks get the mean over all models."""
        parts = self._parts(rows)
        if self.strategy != "single":
            return self.models[None].predict(parts[None])
        found = np.zeros((len(rows), self.parameters.get("num_class", 1)))
        for r, part in parts.items():
            models = [self.models[r]] if r in self.models else list(self.models.values())
            values = np.mean([model.predict(part) for model in models], axis=0)
            found[rows.task == r] = values.reshape(part.num_row(), -1)
        return found[:, 0] if found.shape[1] == 1 else found

    def setting(self):
        """Depth, penalty and rounds, in words."""
        return f"depth {self.parameters['max_depth']} λ {self.parameters['reg_lambda']:g}" + (
            f" rounds {self.rounds}"
        )


class Robust:
    """R-MTGB on a long table.

    Args:
        example: whose kind counts.
        options: of the estimator.
    """

    def __init__(self, example, **options):
        self.kind = example.kind
        self.estimator = RMTGBRegressor if example.kind == "regression" else RMTGBClassifier
        self.options = {
            "shared_rounds": 200, "group_rounds": 400, "task_rounds": 100,
            "learning_rate": rate(example), "patience": PATIENCE, "n_jobs": 1, "random_state": 0,
            **options,
        }  # fmt: skip

    def fit(self, rows, held=None):
        """Learn; with held-out rows stop early, and remember the schedule and its rounds."""
        model = self.estimator(**self.options)
        watched = (held.x, held.y, held.task) if held else None
        self.model = model.fit(rows.x, rows.y, task=rows.task, validation=watched)
        if held:
            found = metrics(self.kind, held.y, self.predict(held))
            self.loss = next(iter(found.values()))
            shared, groups, own = model.model_.rounds
            self.options |= {
                "shared_rounds": shared if any((shared, groups, own)) else 1,
                "group_rounds": groups,
                "task_rounds": own,
                "early_stopping": False,
                "schedule": "interleaved" if model.plan_.interleaved else "sequential",
            }
            self.chosen = model.chosen_
        return self

    def predict(self, rows):
        """Numbers or probabilities."""
        if self.estimator is RMTGBRegressor:
            return self.model.predict(rows.x, task=rows.task)
        found = self.model.predict_proba(rows.x, task=rows.task)
        return found[:, 1] if found.shape[1] == 2 else found

    def setting(self):
        """Schedule, depth, penalty and rounds, in words."""
        names = ("shared_rounds", "group_rounds", "task_rounds")
        return f"{self.chosen} depth {self.options['max_depth']} rounds " + (
            "/".join(str(self.options[name]) for name in names)
        )


def boosters(strategy):
    """Candidates of XGBoost."""
    return lambda example: [
        Boosters(strategy, example, depth, penalty) for depth in DEPTHS for penalty in LAMBDAS
    ]


METHODS = {
    "XGBoost, one model a task": boosters("single"),
    "XGBoost, pooled": boosters("pooled"),
    "XGBoost, task as feature": boosters("feature"),
    "R-MTGB, sequential": lambda example: [
        Robust(example, max_depth=depth, shared_rounds=n) for depth in (2, 4) for n in (0, 200)
    ],
    "R-MTGB, interleaved": lambda example: [
        Robust(
            example,
            schedule="interleaved",
            max_depth=depth,
            **dict.fromkeys(("shared_rounds", "group_rounds", "task_rounds"), 300),
        )
        for depth in (2, 4)
    ],
    "R-MTGB, auto": lambda example: [Robust(example, schedule="auto", max_depth=4)],
}  # fmt: skip
OURS = "R-MTGB, auto"


def score(example, predicted):
    """Metrics (scope, metric, value): over all rows, mean and worst over tasks."""
    rows = example.test
    found = [("overall", *pair) for pair in metrics(example.kind, rows.y, predicted).items()]
    by_task = pd.DataFrame(
        [
            metrics(example.kind, rows.y[rows.task == r], predicted[rows.task == r])
            for r in np.unique(rows.task)
        ]
    )
    for name, column in by_task.items():
        known = column.dropna()  # AUROC needs both classes
        worst = known.min() if name in HIGHER else known.max()
        found += [("mean of tasks", name, known.mean()), ("worst task", name, worst)]
    return found


def metrics(kind, y, predicted):
    """Values by name."""
    if kind == "regression":
        error = predicted - y
        return {"rmse": math.sqrt(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}
    if kind == "multiclass":
        likelihood = np.clip(predicted[np.arange(len(y)), y], 1e-7, 1)
        accuracy = float(np.mean(predicted.argmax(1) == y))
        return {"logloss": float(-np.log(likelihood).mean()), "accuracy": accuracy}
    p = np.clip(predicted.astype(np.float64), 1e-7, 1 - 1e-7)
    both = 0 < y.sum() < len(y)
    return {
        "logloss": float(-np.mean(np.where(y == 1, np.log(p), np.log(1 - p)))),
        "auroc": float(roc_auc_score(y, p)) if both else math.nan,
        "accuracy": float(np.mean((p > 0.5) == y)),
    }


def separation(example, model):
    """How well the scores tell known outliers apart: tasks on their side of 0.5, either way up."""
    scores = model.model.outlier_score_
    out = np.isin(scores.index, example.outliers)
    right = int(((scores > 0.5) == out).sum())
    apart = scores[out].min() > scores[~out].max() or scores[out].max() < scores[~out].min()
    return [
        ("tasks", "split as known", max(right, len(out) - right)),
        ("tasks", "ranked apart", float(apart)),
    ]


def cell(name, method, split, folder):
    """Rows of one set, method and split."""
    warnings.filterwarnings("ignore")
    start = time.process_time()
    try:
        example = SETS[name](folder, split)
        fit, held = example.train.at(example.fit), example.train.at(example.held)
        tried = [candidate.fit(fit, held) for candidate in METHODS[method](example)]
        best = min(tried, key=lambda candidate: candidate.loss)
        best.fit(example.train)
        found = score(example, best.predict(example.test))
        if example.outliers and isinstance(best, Robust):
            found += separation(example, best)
        seconds, setting = time.process_time() - start, best.setting()
        return [(name, method, split, *one, seconds, setting, "") for one in found]
    except Exception as error:  # recorded, and the others go on
        reason = f"{type(error).__name__}: {error}"[:200]
        return [(name, method, split, "", "", math.nan, time.process_time() - start, "", reason)]


def run(args):
    """Train what is asked for and not yet recorded."""
    done = set()
    if args.out.is_file():
        with args.out.open() as file:
            done = {(r["set"], r["method"], int(r["split"])) for r in csv.DictReader(file)}
    cells = [
        (name, method, split)
        for split in range(args.splits)
        for name in args.sets
        for method in args.methods
        if (name, method, split) not in done
    ]
    with (
        Progress() as progress,
        ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool,
    ):
        bar = progress.add_task("runs", total=len(cells))
        waiting = {pool.submit(cell, *one, args.data): one for one in cells}
        for finished in as_completed(waiting):
            lines = [csv_line(row) for row in finished.result()]
            append_line_block(args.out, ",".join(COLUMNS), lines)
            name, method, split = waiting[finished]
            progress.update(bar, advance=1, description=f"{name}: {method} ({split})")


def csv_line(row):
    """One line, texts quoted where they need it."""
    cells = (f"{v:.6g}" if isinstance(v, float) else str(v) for v in row)
    return ",".join('"' + c.replace('"', "'") + '"' if "," in c or "\n" in c else c for c in cells)


def interval(values):
    """Mean and half width of the 95 % interval of Student's t, as text."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return f"{values.mean():.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():.4f} ± {half:.4f}"


def report(args):
    """Print a table of every set."""
    frame = pd.read_csv(args.out)
    failed = frame[frame["error"].notna()]
    frame = frame[frame["error"].isna()]
    print(
        "Mean over splits and half width of the 95 % Student-t interval. Splits of one real table"
    )
    print("share rows, so their intervals are narrower than those of new tables would be.")
    for name in [n for n in SETS if n in set(frame["set"])]:
        block = frame[frame["set"] == name]
        present = set(block["metric"])
        kind = next(k for k, shown in SHOWN.items() if set(shown) <= present and (
            k != "multiclass" or "auroc" not in present))  # fmt: skip
        first = SHOWN[kind][0]
        columns = [("overall", metric) for metric in SHOWN[kind]]
        columns += [("mean of tasks", first), ("worst task", first)]
        columns += [("tasks", m) for m in ("split as known", "ranked apart") if m in present]
        wide = block.pivot_table(
            index=["method", "split"], columns=["scope", "metric"], values="value"
        )
        titles = [m if scope in ("overall", "tasks") else f"{m}, {scope}" for scope, m in columns]
        print(f"\n### {name}\n")
        print(f"| method | splits | {' | '.join(titles)} | {first} − {OURS} | seconds |")
        print("|" + "---|" * (len(titles) + 4))
        ours = wide.loc[OURS] if OURS in wide.index else None
        for method in [m for m in METHODS if m in set(block["method"])]:
            mine = wide.loc[method]
            cells = [
                interval(mine[c].dropna()) if c in mine and mine[c].notna().any() else ""
                for c in columns
            ]
            apart = ""
            if ours is not None and method != OURS:
                pairs = (mine["overall", first] - ours["overall", first]).dropna()
                apart = interval(pairs) if len(pairs) else ""
            seconds = block[block["method"] == method].groupby("split")["seconds"].first().median()
            print(f"| {method} | {len(mine)} | {' | '.join(cells)} | {apart} | {seconds:.0f} |")
        chosen = block.drop_duplicates(["method", "split"])
        chosen = chosen[chosen["method"].str.startswith("R-MTGB")].sort_values(["method", "split"])
        for method, settings in chosen.groupby("method")["setting"]:
            print(f"\n{method}: {'; '.join(settings)}.")
    for row in failed.itertuples():
        print(f"\nFailed: {row.set}, {row.method}, split {row.split}: {row.error}")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["run", "report"])
    parser.add_argument("--out", type=Path, default=Path("runs/rmtgb_quality.csv"))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real tables")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    args = parser.parse_args()
    {"run": run, "report": report}[args.verb](args)


if __name__ == "__main__":
    main()
