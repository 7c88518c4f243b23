"""Trains the runs of a plan, one after another, and records each as it ends."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mtl_core.metrics.logged import logged_scores
from mtl_core.modules import MultiTaskModule
from mtl_core.nn import MultiTaskNetwork
from mtl_core.tasks import Task
from mtl_tabular.bench.plan import Plan, Run
from mtl_tabular.bench.table import Outcome, append, mend, read
from mtl_tabular.data import MultiTabBench
from mtl_tabular.tasks import NumericTarget

Watch = Callable[[int, int, str], None]
"""Told how many runs are done, how many there are, and which one comes next."""


def sweep(plan: Plan, watch: Watch | None = None) -> dict[str, Outcome]:
    """Train every run of a plan that its table does not hold yet.

    The table (``results.csv`` in `Plan.out`) is only ever appended to, a run at a time, so that a
    sweep that was stopped goes on where it was. A run that ends with an error or with a loss that
    is not finite is recorded with its reason, and the next one follows.

    Args:
        plan: what to train.
        watch: told of every run before it starts, and once at the end.

    Returns:
        Outcome by digest of every run of the plan.

    Raises:
        ArgumentError: the table is none of this program's.
        CheckpointWriteError: the table cannot be written.
    """
    path = Path(plan.out) / "results.csv"
    mend(path)
    outcomes = read(path)
    runs = list(plan.runs())
    waiting = [run for run in runs if _to_do(outcomes.get(run.digest), plan.retry_failed)]
    for i, run in enumerate(waiting):
        if watch is not None:
            watch(len(runs) - len(waiting) + i, len(runs), describe(run))
        started = time.perf_counter()
        lines, closing = _attempt(plan, run)
        closing["seconds"] = f"{time.perf_counter() - started:.2f}"
        append(path, run, [*lines, closing])
    if watch is not None:
        watch(len(runs), len(runs), "")
    outcomes = read(path)
    return {run.digest: outcomes[run.digest] for run in runs}


def _to_do(outcome: Outcome | None, retry: bool) -> bool:
    return outcome is None or (retry and bool(outcome.reason))


def describe(run: Run) -> str:
    """A run in a few words."""
    setting = run.setting
    what = f"{run.network} on {run.task}" if run.task else run.network
    return (
        f"{what} · {setting.num_tasks} tasks, p {setting.correlation:g}, {setting.complexity}, "
        f"seed {run.seed}"
    )


def _attempt(plan: Plan, run: Run) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines of the scores, and the closing line."""
    closing: dict[str, Any] = {"epochs": plan.epochs_of(run.contender)}
    try:
        lines, closing["parameters"] = train(plan, run)
    except Exception as error:  # whatever it was: the other runs are worth having
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return [], {**closing, "status": "failed", "reason": reason[:500]}
    broken = [line["task"] for line in lines if line["primary"] and not line["value"]]
    if broken:
        reason = f"the primary metric of {', '.join(broken)} is not finite"
        return lines, {**closing, "status": "failed", "reason": reason}
    return lines, {**closing, "status": "ok"}


def train(plan: Plan, run: Run) -> tuple[list[dict[str, Any]], int]:
    """Train and test one run.

    Args:
        plan: sizes and length.
        run: which one.

    Returns:
        A line of the table per task and metric, and the number of trainable parameters.
    """
    L.seed_everything(run.seed, verbose=False)
    data = data_of(plan, run)
    data.fit()
    contender = run.contender
    network: Callable[..., MultiTaskNetwork] = contender.network
    module = MultiTaskModule(
        data.tasks,
        partial(network, schema=data.schema),
        partial(torch.optim.AdamW, lr=contender.lr, weight_decay=contender.weight_decay),
    )
    with _quiet():
        trainer = L.Trainer(
            max_epochs=plan.epochs_of(contender),
            accelerator=plan.accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=plan.out,
        )
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
    scores = logged_scores(trainer.callback_metrics, "test", data.tasks)
    parameters = sum(p.numel() for p in module.network.parameters() if p.requires_grad)
    return _score_lines(run, data.tasks, scores), parameters


def data_of(plan: Plan, run: Run) -> MultiTabBench:
    """The rows of a run: the same for all networks and tasks of a setting and seed."""
    setting = run.setting
    names = [run.task] if run.task else plan.spec(setting).task_names
    return MultiTabBench(
        {name: NumericTarget(standardize=plan.standardize_labels) for name in names},
        num_tasks=setting.num_tasks,
        num_features=plan.num_features,
        correlation=setting.correlation,
        degrees=setting.degrees,
        noise=plan.noise,
        standardize_labels=plan.standardize_labels,
        train_size=plan.train_size,
        val_size=0,
        test_size=plan.test_size,
        data_seed=run.seed,
        seed=run.seed,
        batch_size=plan.batch_size,
        drop_last=plan.train_size > plan.batch_size,
    )


def _score_lines(
    run: Run, tasks: dict[str, Task], scores: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    lines = []
    for name, task in tasks.items():
        # A metric without a value, such as one of predictions that are not finite, is not logged.
        held = scores.get(name, {})
        higher = task.higher_is_better()
        degree = run.setting.degrees[int(name.removeprefix("task")) - 1]
        for metric in dict.fromkeys([task.primary, *held]):
            if metric not in higher:  # the loss
                continue
            value = held.get(metric, math.nan)
            lines.append(
                {
                    "task": name,
                    "degree": degree,
                    "metric": metric,
                    "value": repr(value) if math.isfinite(value) else "",
                    "higher_is_better": higher[metric],
                    "primary": int(metric == task.primary) or "",
                }
            )
    return lines


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning says the same about every run: what hardware there is, how many loader workers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                r"The '.*_dataloader' does not have many workers",
                r"The number of training batches .* is smaller than the logging interval",
                r"`isinstance\(treespec, LeafSpec\)` is deprecated",
                r"GPU available but not used",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.setLevel(level)
