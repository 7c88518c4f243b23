"""The verb ``boost``: R-MTGB and XGBoost on the tables, tasks, metrics and Δm of the networks."""

import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import yaml
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from mtl_core.atomic import atomic_write
from mtl_core.baselines import plan, plan_hash, protocol_of, record, recorded_path
from mtl_core.cli import unknown_names
from mtl_core.errors import ArgumentError, EmptySplitError, MTLError, UnknownNameError
from mtl_core.tasks import Task
from mtl_tabular.boosting.estimator import RMTGBEstimator
from mtl_tabular.boosting.model_file import Model, build, read_model, single_of, write_model
from mtl_tabular.boosting.outcome import Outcome, package_versions
from mtl_tabular.boosting.progress import ProgressBar
from mtl_tabular.boosting.stacked import StackedRMTGB
from mtl_tabular.boosting.trees import BoostedTrees
from mtl_tabular.callbacks.prediction_writer import prediction_frame
from mtl_tabular.data.long import level_codes
from mtl_tabular.data.readers import TableSource
from mtl_tabular.data.rows import TableRows
from mtl_tabular.data.table import TableDataModule

VERBS = ("fit", "evaluate", "predict")
Split = Literal["train", "val", "test"]
Plain = dict[str, Any]
# Of the data module: what is about batches, about the disk, or known from elsewhere.
_NOT_DATA = {
    "tasks", "schema", "storage", "cache_dir", "shuffle_block", "batch_size", "num_workers",
    "seed", "on_error", "drop_last",
}  # fmt: skip
_NOT_MODEL = {
    "tasks", "schema", "task_column", "categorical_features", "callbacks", "progress", "warm_start",
    "seed", "random_state",
}  # fmt: skip
_TABLES = ("predict", "test", "table")  # the first one there is has the rows to predict
_DIVISION = ("table", "val_fraction", "test_fraction", "stratify", "group", "split_seed")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``boost`` takes beside the blocks ``tasks``, ``data`` and ``model``.

    Args:
        out: folder of the run.
        saved: the model that ``evaluate`` and ``predict`` read; empty: ``model.json`` in `out`.
        split: what ``evaluate`` scores: ``train``, ``val`` or ``test``.
        unknown_tasks: what ``predict`` does where the table's task column names a task that
            training did not have: ``raise``, or ``mean`` to add predictions ``unknown``, those of
            R-MTGB for any new task (mean shares of the groups, no trees of its own).
        references: file with single-task numbers for Δm, see `mtl_core.baselines.References.load`.
            None: those recorded for this config.
        single: train XGBoost on every task alone, with the model's depth, rates, penalties and
            samples and the sum of its rounds, and record it as reference. ``fit`` does so anew,
            ``evaluate`` where nothing is recorded.
        baselines_dir: folder of recorded references.
        results: long table of all runs; empty keeps none.
        progress: whether to draw a progress bar.
        seed: of the model.
        external: train and score R-MTGB with features on the disk, for tables larger than memory.
        cache_dir: folder of these features: of encoded tables, which stay for the next run, and of
            those sorted for training, which do not.
        scheduler: address of a Dask scheduler, such as ``tcp://10.0.0.1:8786``, on whose workers
            to train R-MTGB; tables are read here. Empty trains here.
    """

    out: str = "runs/boost"
    saved: str = ""
    split: Split = "test"
    unknown_tasks: Literal["raise", "mean"] = "raise"
    references: str | None = None
    single: bool = False
    baselines_dir: str = "runs/baselines"
    results: str = "runs/results.csv"
    progress: bool = True
    seed: int = 0
    external: bool = False
    cache_dir: str = "runs/tables"
    scheduler: str = ""


class BoostParser(ArgumentParser):
    """Answers an unknown class with the nearest known ones."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Add the nearest names to the message and leave the rest to jsonargparse."""
        if self.exit_on_error:
            kinds: dict[str, type] = {"tasks": Task, "model": RMTGBEstimator, "trees": BoostedTrees}
            message = "\n".join([message, *unknown_names(message, kinds)])
        super().error(message, ex)


class Run:
    """One call of ``boost``: its options, its data, the model's arguments and what they amount to.

    Args:
        words: ``-c FILE`` and ``--argument value``, later ones prevailing.

    Raises:
        MTLError: a record breaks a rule.
        SystemExit: words that are no arguments; the parser says which.
    """

    def __init__(self, words: Sequence[str]) -> None:
        parser = BoostParser(prog="mtl_tabular boost {fit,evaluate,predict}", description=__doc__)
        parser.add_argument("-c", "--config", action="config", help="YAML file with a run.")
        parser.add_argument(
            "--tasks", type=dict[str, Task] | None, default=None, help="What to predict, by name."
        )
        parser.add_subclass_arguments(
            (RMTGBEstimator, BoostedTrees), "model", skip=_NOT_MODEL, required=False,
            instantiate=False, help="RMTGBRegressor, RMTGBClassifier or BoostedTrees.",
        )  # fmt: skip
        parser.add_class_arguments(TableDataModule, "data", skip=_NOT_DATA, instantiate=False)
        parser.add_class_arguments(Options)
        parsed = parser.parse_args(list(words))
        plain: Plain = yaml.safe_load(parser.dump(parsed, skip_none=False))
        self.config: Plain = {key: value for key, value in plain.items() if key != "config"}
        made = _instantiate(parser, parsed)
        names = Options.__dataclass_fields__
        self.options = Options(**{name: made[name] for name in names})
        self.tasks: dict[str, Any] | None = made.tasks
        self.arguments: Plain = made.data.as_dict()
        self.out = Path(self.options.out)

    def settings(self) -> Plain:
        """Tasks, data and model as plain data.

        Raises:
            ArgumentError: a block is absent.
        """
        for name in ("tasks", "model"):
            if not self.config[name]:
                raise ArgumentError(name, "be in the config of a fit", self.config[name])
        return {name: self.config[name] for name in ("tasks", "data", "model")}

    def data(self, saved: tuple[Model, Plain] | None = None) -> TableDataModule:
        """The tables; records, columns and task column are those of a saved model."""
        stored: Plain = {}
        if self.options.external:
            stored = {"storage": "disk", "cache_dir": self.options.cache_dir}
        if saved is None:
            assert self.tasks is not None  # `settings` comes first
            return TableDataModule(self.tasks, **self.arguments, **stored)
        model, settings = saved
        arguments = self.arguments | stored | {"task_column": settings["data"]["task_column"]}
        return TableDataModule(model.tasks, schema=model.schema, **arguments)

    def digest(self, settings: Plain) -> str:
        """`mtl_core.baselines.plan_hash` of a model's settings on the tables of this call."""
        return plan_hash(self.plan(settings))

    def plan(self, settings: Plain) -> Plain:
        """What `mtl_core.baselines.plan_hash` takes."""
        data = {"class_path": "TableDataModule", "init_args": self.config["data"]}
        return {**settings, "data": data}


def _instantiate(parser: ArgumentParser, parsed: Namespace) -> Namespace:
    """Build the records; a mistake that one refused is raised as it was found."""
    try:
        made: Namespace = parser.instantiate(parsed)
    except ValueError as error:
        # jsonargparse wraps it in a message about types that quotes the whole config.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MTLError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise cause from None
    return made


def fit(run: Run, console: Console) -> None:
    """Train, write the model and its reports, and score the validation rows."""
    started, settings, data = time.perf_counter(), run.settings(), run.data()
    data.fit()
    model = build(settings["model"], data, seed=run.options.seed)
    for name in ("external", "scheduler"):
        if getattr(run.options, name) and isinstance(model, BoostedTrees):
            rule = "be left out but for RMTGBRegressor and RMTGBClassifier"
            raise ArgumentError(name, rule, getattr(run.options, name))
    train, val = data.dataset("train"), _validation(data)
    _train(model, train, val, run.options)
    write_model(run.out / "model.json", model, settings)
    with atomic_write(run.out / "config.yaml") as file:
        file.write(yaml.safe_dump(run.config, sort_keys=False).encode())
    if isinstance(model, StackedRMTGB):
        with atomic_write(run.out / "task_report.csv") as file:
            file.write(model.estimator.task_report_.to_csv().encode())
        with atomic_write(run.out / "task_scores.png") as file:
            figure = model.estimator.plot_task_scores().get_figure(root=True)
            assert figure is not None
            figure.savefig(file, format="png")
    seconds = time.perf_counter() - started
    console.print(f"Model: {run.out / 'model.json'} ({seconds:.1f} s)", markup=False)
    found = Outcome(run.out, model, run.digest(settings), run.options.results, seconds)
    known = _references(run, found, settings, data, anew=True)
    if val is not None:
        found.report(val, known, console)


def evaluate(run: Run, console: Console) -> None:
    """Score a split with a saved model.

    Raises:
        ArgumentError: there is no such model, or the table is divided otherwise than for training.
        EmptySplitError: the split has no rows.
    """
    started = time.perf_counter()
    model, settings = read_model(_saved(run))
    split, own = run.options.split, run.config["data"]
    if split == "train" or not own[split]:
        for name in _DIVISION:
            if own[name] != settings["data"][name]:
                rule = f"be {settings['data'][name]!r}, as in training, to divide the same way"
                raise ArgumentError(f"data.{name}", rule, own[name])
    data = run.data((model, settings))
    rows = data.dataset(split)
    if not len(rows):
        raise EmptySplitError(split, str(own[split] or own["table"]))
    seconds = time.perf_counter() - started
    found = Outcome(run.out, model, run.digest(settings), run.options.results, seconds)
    found.report(rows, _references(run, found, settings, data, anew=False), console)


def predict(run: Run, console: Console) -> None:
    """Write ``predictions.csv``: every task for every row, see `prediction_frame`.

    Raises:
        ArgumentError: `unknown_tasks` is ``mean`` for another model than R-MTGB.
        ColumnError: a feature column is absent, or the task column names an unknown task.
    """
    model, settings = read_model(_saved(run))
    unknown = run.options.unknown_tasks == "mean"
    if unknown and not isinstance(model, StackedRMTGB):
        raise ArgumentError("unknown_tasks", "be raise for other models than R-MTGB", "mean")
    data = run.data((model, settings))
    rows = data.dataset("predict")
    if data.task_column and not unknown:
        _check_levels(data, rows)
    tasks = dict(model.tasks)
    if isinstance(model, StackedRMTGB):
        raw = model.predict_raw(rows, unknown=unknown)
        tasks |= {"unknown": next(iter(tasks.values()))} if unknown else {}
    else:
        raw = model.predict_raw(rows)
    keys = np.arange(len(rows)) if rows.chosen is None else rows.chosen
    activated = {name: tasks[name].activate(values) for name, values in raw.items()}
    frame = prediction_frame([str(key) for key in keys.tolist()], activated, tasks)
    path = run.out / "predictions.csv"
    with atomic_write(path) as file:
        file.write(frame.to_csv(index=False, float_format="%.6g").encode())
    console.print(f"Wrote the predictions of {len(rows)} rows to {path}", markup=False)


def _check_levels(data: TableDataModule, rows: TableRows) -> None:
    """Refuse rows of tasks that training did not have, where the table says which they are of."""
    source = TableSource(next(t for t in map(data.tables.get, _TABLES) if t is not None))
    if data.task_column in source.columns:
        values = source.frame([data.task_column])[data.task_column]
        levels = tuple(dict.fromkeys(task.level for task in data.tasks.values()))
        level_codes(values if rows.chosen is None else values.iloc[rows.chosen], levels)


def _validation(data: TableDataModule) -> TableRows | None:
    """The validation rows, None where there are none."""
    rows = data.dataset("val") if data.validates else None
    return rows if rows is not None and len(rows) else None


def _saved(run: Run) -> Path:
    return Path(run.options.saved) if run.options.saved else run.out / "model.json"


def _train(model: Model, train: TableRows, val: TableRows | None, options: Options) -> None:
    bar = ProgressBar()
    told = [bar] if options.progress and not options.scheduler else []
    try:
        if isinstance(model, StackedRMTGB):
            model.estimator.set_params(callbacks=told)
            cache = options.cache_dir if options.external else ""
            model.fit(train, val, cache_dir=cache, scheduler=options.scheduler)
        else:
            model.callbacks = tuple(told)
            model.fit(train, val)
    finally:
        bar.close()


def _references(
    run: Run, found: Outcome, settings: Plain, data: TableDataModule, *, anew: bool
) -> str | None:
    """File of the references: named, or recorded, or recorded now."""
    options, model = run.options, found.model
    if options.references is not None:
        return options.references
    path = recorded_path(options.baselines_dir, found.digest)
    if options.single and (anew or not path.is_file()):
        if isinstance(model, BoostedTrees) and model.strategy == "single":
            raise ArgumentError("single", "be false where the model is the single strategy", True)
        alone = single_of(model)
        _train(alone, data.dataset("train"), _validation(data), options)
        splits: list[Split] = ["val"] if data.validates else []
        splits += ["test"] if data.tables["test"] is not None or data.test_fraction > 0 else []
        held = {split: alone.evaluate(data.dataset(split)) for split in splits}
        for name in model.tasks:
            record(
                options.baselines_dir, digest=found.digest, task=name,
                protocol=protocol_of(model.tasks), seed=found.seed,
                scores={split: scores.get(name, {}) for split, scores in held.items()},
                facts={"versions": package_versions()}, settings=plan(run.plan(settings)),
            )  # fmt: skip
        for split, scores in held.items():
            found.append(scores, split, {}, method="single")
    return str(path) if path.is_file() else None


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


def main(args: Sequence[str] | None = None) -> None:
    """Run ``boost fit``, ``boost evaluate`` or ``boost predict``.

    A mistake that the suite explains ends with its message and exit status 2, without a traceback;
    ``JSONARGPARSE_DEBUG=1`` in the environment shows it.

    Args:
        args: words after ``boost``; None reads those of the shell.
    """
    words = list(sys.argv[1:] if args is None else args)
    verbs = {"fit": fit, "evaluate": evaluate, "predict": predict}
    # torch renamed what torchmetrics' users call; nothing that a user could change.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    try:
        verb, rest = (words[0], words[1:]) if words else ("--help", [])
        if verb in ("-h", "--help"):
            Run(["--help"])
        if verb not in verbs:
            raise UnknownNameError("verb of boost", verb, VERBS)
        verbs[verb](Run(rest), _console())
    except MTLError as error:
        if os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise SystemExit(2) from error
