"""One quiet fit: a table and task records in, a trained network out, nothing else changed."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from mtl_core.balancing import Balancer
from mtl_core.errors import ArgumentError
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Task
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.data.table import TableDataModule
from mtl_tabular.estimators.choices import NetworkFactory
from mtl_tabular.networks import TableNetwork

# What Lightning says about set-ups that are meant to be as they are here.
_EXPECTED = (
    r"The '.*_dataloader' does not have many workers",
    r"The number of training batches .* is smaller than the logging interval",
    r".* available but not used",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Args:
        network: builds the network from the tasks and ``schema=``.
        balancer: of task gradients, None for equal weights.
        max_epochs: at most so many passes over the training rows.
        batch_size: rows a step, at least 2.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        patience: epochs without a better validation score before training stops.
        accelerator: as Lightning's trainer takes it.
        verbose: whether to show a progress bar.
        seed: of weights, dropout, balancer and the order of rows.
    """

    network: NetworkFactory
    balancer: Balancer | None
    max_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    accelerator: str
    verbose: bool
    seed: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("max_epochs", 1), ("batch_size", 2), ("patience", 1)):
            if getattr(self, name) < least:
                raise ArgumentError(name, f"be at least {least}", getattr(self, name))
        if not self.learning_rate > 0:
            raise ArgumentError("learning_rate", "be positive", self.learning_rate)
        if not self.weight_decay >= 0:
            raise ArgumentError("weight_decay", "be at least 0", self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a fit gives.

    Args:
        network: on the CPU, in evaluation mode.
        schema: of the training rows' features.
        history: logged values of every epoch.
    """

    network: TableNetwork
    schema: TableSchema
    history: list[dict[str, float]]


def train(
    table: pd.DataFrame,
    tasks: dict[str, Task],
    recipe: Recipe,
    *,
    features: Sequence[str],
    categorical: Sequence[str] = (),
    val_fraction: float = 0.0,
) -> Trained:
    """Fit a network; the state of every random generator is as before.

    Args:
        table: rows of features and target columns.
        tasks: records by name, each with its column.
        recipe: how.
        features: columns that are features.
        categorical: those of them that are categories although they are numbers.
        val_fraction: share of the rows set aside; with them training stops early and the best
            epoch's weights are kept.

    Raises:
        ArgumentError: no row can be set aside.
    """
    record = _Record(recipe.patience if val_fraction else None)
    with _quiet(), isolate_rng():
        torch.manual_seed(recipe.seed)
        data = TableDataModule(
            tasks,
            table=table,
            features=features,
            categorical=categorical,
            val_fraction=val_fraction,
            test_fraction=0.0,
            split_seed=recipe.seed,
            seed=recipe.seed,
        )
        data.fit()
        rows = len(data.prepared("train"))
        if val_fraction and rows == len(table):
            rule = f"set aside at least one of {rows} rows"
            raise ArgumentError("validation_fraction", rule, val_fraction)
        data.batch_size = min(recipe.batch_size, rows)
        # A last batch of one row has no batch statistics; it is left out, another row each epoch.
        data.drop_last = rows % data.batch_size == 1
        module = MultiTaskModule(
            data.tasks,
            partial(recipe.network, schema=data.schema),
            partial(torch.optim.AdamW, lr=recipe.learning_rate, weight_decay=recipe.weight_decay),
            on_unlabelled="skip",
        )
        trainer = L.Trainer(
            max_epochs=recipe.max_epochs,
            accelerator=recipe.accelerator,
            devices=1,
            callbacks=[record, *([] if recipe.balancer is None else [recipe.balancer])],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=recipe.verbose,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, datamodule=data)
    network = module.network
    if record.best is not None:
        network.load_state_dict(record.best)
    if not isinstance(network, TableNetwork):
        raise ArgumentError("network", "build a TableNetwork", type(network).__name__)
    return Trained(network=network.cpu().eval(), schema=data.schema, history=record.history)


class _Record(L.Callback):
    """Keeps every epoch's values, and where it has a patience the best weights."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None
        self._score = -math.inf
        self._epoch = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take down the epoch; stop where `patience` epochs brought no better score."""
        assert isinstance(pl_module, MultiTaskModule)
        losses = pl_module.scores["train"].compute()
        row = {f"train/{name}": value for name, value in losses.items()}
        logged = trainer.callback_metrics.items()
        row |= {name: float(value) for name, value in logged if name.startswith("val/")}
        self.history.append(row)
        if self.patience is None:
            return
        score = self._validation_score(row, pl_module.tasks)
        epoch = len(self.history)
        if self.best is None or score > self._score:
            self._score, self._epoch = score, epoch
            state = pl_module.network.state_dict()
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        elif epoch - self._epoch >= self.patience:
            trainer.should_stop = True

    def _validation_score(self, row: dict[str, float], tasks: dict[str, Task]) -> float:
        """Mean of the primary metrics; the negative loss where none of them is defined."""
        scores = []
        for name, task in tasks.items():
            value = row.get(f"val/{name}/{task.primary}")
            if value is not None:
                scores.append(value if task.higher_is_better()[task.primary] else -value)
        return sum(scores) / len(scores) if scores else -row.get("val/loss", math.inf)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what Lightning tells and advises about an ordinary fit, and nothing else."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels: list[Any] = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
