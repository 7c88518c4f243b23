"""The ordinary training regime: separate losses under automatic optimisation."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from mtl_core.balancing.losses import TaskLosses
from mtl_core.balancing.rows import kept_graphs
from mtl_core.checkpoint import check_stamp, stamp
from mtl_core.data.batch import Batch, batch_size, take_samples
from mtl_core.errors import ArgumentError, MissingTaskError, NoLabelsError, NonFiniteLossError
from mtl_core.modules.compiling import compile_parts
from mtl_core.modules.objective import check_groups, entry_losses, list_entries, to_host
from mtl_core.modules.replay import RandomState, kept_buffers
from mtl_core.modules.scores import Scores
from mtl_core.nn.network import MultiTaskNetwork, Outputs
from mtl_core.tasks.base import Task, check_tasks
from mtl_core.types import Predictions, TaskName

NetworkFactory = Callable[[Mapping[TaskName, Task]], MultiTaskNetwork]


class MultiTaskModule(L.LightningModule):
    """Trains any `MultiTaskNetwork` on any tasks.

    ``training_step`` returns the plain sum of the task losses, an ordinary scalar; the separate
    losses wait in `task_losses` for a balancer (`mtl_core.balancing`). Without one, weights are
    equal.

    Logged: ``train/loss``, ``STAGE/TASK/loss``, ``STAGE/TASK/METRIC`` and
    ``STAGE/TASK/GROUP/METRIC`` for the stages train (losses only), val and test.

    Args:
        tasks: records by name; their order is the order of everything.
        network: builds the network from the tasks. In YAML a network's ``class_path`` and
            ``init_args``.
        optimizer: builds the optimiser from the network's parameters. In YAML likewise.
        scheduler: builds a learning-rate scheduler from the optimiser; None keeps the rate.
        scheduler_interval: whether the scheduler steps every ``epoch`` or every ``step``.
        monitor: logged key that schedulers such as ReduceLROnPlateau follow.
        compile: back end of `torch.compile` for the encoder and every decoder; empty leaves them
            eager.
        on_unlabelled: what a training batch without any label does: ``raise``, or ``skip`` it.
    """

    def __init__(
        self,
        tasks: dict[str, Task],
        network: NetworkFactory,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        *,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        monitor: str = "val/loss",
        compile: str = "",
        on_unlabelled: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        check_tasks(tasks)
        # Under LightningCLI this stores the plain config that rebuilds the module; elsewhere the
        # factories are live objects, which a checkpoint must not hold.
        self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:
            self.remove_ignored_hparams(["tasks", "network", "optimizer", "scheduler"])
        self.tasks = dict(tasks)
        self.network = network(self.tasks)
        if not isinstance(self.network, MultiTaskNetwork):
            raise ArgumentError("network", "build a MultiTaskNetwork", type(self.network).__name__)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.monitor = monitor
        self.on_unlabelled = on_unlabelled
        self._entries = list_entries(self.tasks)
        self.entries = tuple(entry.name for entry in self._entries)
        self.wants_cut = False
        self.wants_replay = False
        self.task_losses: TaskLosses | None = None
        self.scores = {
            stage: Scores(self.tasks, self._entries, metrics=stage != "train")
            for stage in ("train", "val", "test")
        }
        self.compiled = bool(compile)
        if compile:
            compile_parts(self.network.compiled_parts(), backend=compile)

    def forward(self, inputs: Any, tasks: list[TaskName] | None = None) -> Predictions:
        """Raw predictions by task name, see `MultiTaskNetwork.forward`."""
        predictions: Predictions = self.network(inputs, tasks)
        return predictions

    def on_fit_start(self) -> None:
        """Bring the training losses to the device; they are no part of the module's state."""
        self._open("train")

    def on_validation_start(self) -> None:
        """Likewise for validation."""
        self._open("val")

    def on_test_start(self) -> None:
        """Likewise for the test."""
        self._open("test")

    def _open(self, stage: str) -> None:
        # States made in inference mode could not be updated outside of it, so they are made anew.
        self.scores[stage].reset()
        self.scores[stage].to(self.device)

    def compute_losses(self, batch: Batch, out: Outputs, index: int) -> TaskLosses:
        """Separate losses of a batch; entries without a label in it are absent.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite; names the task and the samples.
        """
        losses, values, numbers = self._checked_losses(batch, out, index)
        active = [name for name in losses if numbers[name] > 0]
        aux = sum(out.aux.values()) if out.aux else None
        owner = {entry.name: entry.task for entry in self._entries}
        if active:
            vector = torch.stack([losses[name] for name in active])
        else:
            vector = next(iter(out.predictions.values())).new_zeros(0, dtype=torch.float32)
            vector = vector.requires_grad_()
        return TaskLosses(
            losses={name: losses[name] for name in active},
            owner={name: owner[name] for name in active},
            values={name: values[name] for name in active},
            counts={name: numbers[name] for name in active},
            vector=vector,
            aux=aux if isinstance(aux, Tensor) else None,
            idle=self._idle(out, {owner[name] for name in active}),
            features=out.features,
            cut=out.cut,
            size=batch_size(batch),
        )

    def _checked_losses(
        self, batch: Batch, out: Outputs, index: int
    ) -> tuple[dict[str, Tensor], dict[str, float], dict[str, float]]:
        """Losses by entry, and with one transfer their values and label counts on the host."""
        losses, counts = entry_losses(self._entries, self.tasks, out, batch)
        host = to_host([*losses.values(), *counts.values()])
        values = dict(zip(losses, host[: len(losses)], strict=True))
        numbers = dict(zip(losses, host[len(losses) :], strict=True))
        broken = {n: v for n, v in values.items() if numbers[n] and not abs(v) < float("inf")}
        if broken:
            raise NonFiniteLossError(broken, index, batch.get("keys", []))
        return losses, values, numbers

    def _idle(self, out: Outputs, active: set[TaskName]) -> Tensor | None:
        if self._trainer is None or self.trainer.world_size == 1:
            return None
        parts = [p.float().sum() * 0.0 for name, p in out.predictions.items() if name not in active]
        return torch.stack(parts).sum() if parts else None

    def _check_batch(self, batch: Batch) -> None:
        known = batch["targets"]
        if known and not any(name in self.tasks for name in known):
            raise MissingTaskError(next(iter(self.tasks)), known)
        check_groups(self.tasks, batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Sum of the task losses, with the separate ones registered for the balancer."""
        self._check_batch(batch)
        step = self._evaluate_losses(batch, batch_idx)
        if not step.losses:
            if self.on_unlabelled == "raise":
                raise NoLabelsError(batch_idx, batch.get("keys", []))
            if self.trainer.world_size == 1:
                return None
        self.task_losses = step
        total = step.total
        self.scores["train"].add_losses(step.values, step.counts)
        self.log("loss", total.detach(), prog_bar=True, logger=False, batch_size=batch_size(batch))
        return total

    def _evaluate_losses(self, batch: Batch, index: int) -> TaskLosses:
        state = RandomState.capture(self.device) if self.wants_replay else None
        step = self._forward_losses(batch, index)
        return replace(step, recompute=partial(self._reevaluate_losses, batch, index, state))

    def _forward_losses(
        self, batch: Batch, index: int, tasks: Sequence[TaskName] | None = None
    ) -> TaskLosses:
        with kept_graphs() if self.compiled else nullcontext():
            out = self.network.run(
                batch["inputs"], tasks=tasks, tags=batch.get("tags"), cut=self.wants_cut
            )
        return self.compute_losses(batch, out, index)

    def _reevaluate_losses(
        self,
        batch: Batch,
        index: int,
        state: RandomState | None,
        *,
        tasks: Sequence[TaskName] | None = None,
        part: slice | None = None,
    ) -> TaskLosses:
        if part is not None:
            batch = take_samples(batch, part)
        # Called from within backward, outside of the trainer's autocast.
        with (
            kept_buffers(self.network),
            nullcontext() if state is None else state.replayed(),
            self.trainer.precision_plugin.train_step_context(),
            torch.enable_grad(),
        ):
            return self._forward_losses(batch, index, tasks)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which suite wrote it."""
        stamp(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what a later suite wrote in another format."""
        check_stamp(checkpoint)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let go of the step's graph where no balancer took it."""
        self.task_losses = None

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean losses."""
        self._finish("train")

    def _evaluate(self, stage: str, batch: Batch, index: int) -> dict[str, Predictions]:
        self._check_batch(batch)
        out = self.network.run(batch["inputs"], tags=batch.get("tags"))
        _, values, numbers = self._checked_losses(batch, out, index)
        scores = self.scores[stage]
        scores.add_losses(values, numbers)
        scores.add_predictions(out.predictions, batch)
        return {"predictions": out.predictions}

    def validation_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Predictions]:
        """Raw predictions, for callbacks that draw them."""
        return self._evaluate("val", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log losses and metrics of validation."""
        self._finish("val")

    def test_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Predictions]:
        """Raw predictions, for callbacks that draw them."""
        return self._evaluate("test", batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log losses and metrics of the test."""
        self._finish("test")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Activated predictions at the input's size, with the samples' keys."""
        raw: Predictions = self.network(batch["inputs"], None, batch.get("tags"))
        predictions = {n: self.tasks[n].activate(p.float()) for n, p in raw.items()}
        return {"keys": batch.get("keys", []), "predictions": predictions}

    def _finish(self, stage: str) -> None:
        scores = self.scores[stage]
        values = scores.compute()
        scores.reset()
        losses = [v for key, v in values.items() if key.endswith("/loss")]
        logged = {f"{stage}/{key}": value for key, value in values.items()}
        if losses:
            logged[f"{stage}/loss"] = sum(losses)
        # Already averaged over ranks by the metrics themselves.
        self.log_dict(logged, sync_dist=False, rank_zero_only=False)

    def configure_optimizers(self) -> Any:
        """The configured optimiser over trainable parameters, and the scheduler.

        Parameters of `MultiTaskNetwork.learning_rates` are groups of their own.

        Raises:
            ArgumentError: the scheduler does not keep the groups' rates apart.
        """
        apart = self.network.learning_rates()
        taken = {id(p) for _, parameters in apart for p in parameters}
        rest = (p for p in self.network.parameters() if p.requires_grad and id(p) not in taken)
        if apart:
            groups = [list(rest), *(parameters for _, parameters in apart)]
            optimizer = self.optimizer([{"params": parameters} for parameters in groups])
            for group, (factor, _) in zip(optimizer.param_groups[1:], apart, strict=True):
                group["lr"] = group["lr"] * factor
        else:
            optimizer = self.optimizer(rest)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        for i, (factor, _) in enumerate(apart, 1):
            base, found = (optimizer.param_groups[at]["lr"] for at in (0, i))
            if not math.isclose(found, base * factor, rel_tol=1e-6):
                rule = (
                    f"keep the {factor:g} times higher learning rate of some parameters of "
                    f"{type(self.network).__name__}; OneCycleLR and CyclicLR set rates themselves"
                )
                raise ArgumentError("scheduler", rule, type(scheduler).__name__)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": self.scheduler_interval,
                "monitor": self.monitor,
            },
        }
