"""A look at the tasks' gradients every so many steps, with any balancer and with none."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from mtl_core.atomic import atomic_write
from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.losses import TaskLosses
from mtl_core.callbacks.curves import save_figure
from mtl_core.callbacks.gradient_figures import draw_conflicts, draw_trajectories
from mtl_core.callbacks.gradient_history import FIGURES, GradientHistory
from mtl_core.callbacks.gradient_rows import GradientRows, Source
from mtl_core.callbacks.results import run_folder
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError

_SOURCES = ("exact", "last_layer", "feature")


class GradientMonitor(L.Callback):
    """Logs and draws how the tasks' gradients of the shared parameters lie to each other.

    Every `every_n_steps` updates the gradients of an accumulation window are read off its graphs
    before the trainer (or the balancer) walks them. Training is not touched: parameters end as
    without the monitor, and the other steps cost nothing. A chosen step costs up to one more
    backward a task (``source: exact``).

    Logged under ``gradients/`` (``gradients/last_layer/``, ``gradients/feature/`` for these
    sources): ``norm/ENTRY``, and over pairs of tasks ``cosine_mean``, ``cosine_min``,
    ``conflict_rate``, ``magnitude_similarity``, ``condition`` and ``stationarity``
    (`mtl_core.metrics.conflict`). Numbers that a balancer logs of the same step under ``balance/``
    are left to it.

    In the run folder: ``gradients.csv`` with all cosines and the balancer's weights,
    ``gradients.png`` with the trajectories of lengths and weights, ``conflicts.png`` with the mean
    cosine of every pair at some stages of training and the share of pairs in conflict. The history
    is part of the checkpoint, so a resumed run goes on with it.

    Entries without a label in a window are left out of it, whatever rank had them; gradients of
    several processes are averaged before they are compared. A window with gradients that are not
    finite (an overflow that the loss scaler drops), or without trainable shared parameters, leaves
    no record.

    Args:
        every_n_steps: updates between two looks.
        source: whose gradients. ``exact``: all shared parameters. Cheaper, and something else:
            ``last_layer`` (parameters of one module), ``feature`` (the features of the batch).
        layer: name of the module for ``last_layer``; empty takes the last shared one that has a
            matrix of weights.
        draw_every_n_epochs: also draw every so many epochs; 0 draws at the end only.
        keep: most records to hold; where there are more, every second one is let go, and from then
            on every second one is taken.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 50,
        source: Source = "exact",
        layer: str = "",
        draw_every_n_epochs: int = 0,
        keep: int = 2000,
    ) -> None:
        if every_n_steps < 1:
            raise ArgumentError("every_n_steps", "be at least 1", every_n_steps)
        if source not in _SOURCES:
            raise UnknownNameError("source", source, _SOURCES)
        if layer and source != "last_layer":
            raise ArgumentError("layer", "go with source: last_layer", layer)
        if draw_every_n_epochs < 0:
            raise ArgumentError("draw_every_n_epochs", "not be negative", draw_every_n_epochs)
        if keep < 2:
            raise ArgumentError("keep", "be at least 2", keep)
        self.every_n_steps = every_n_steps
        self.source: Source = source
        self.layer = layer
        self.draw_every_n_epochs = draw_every_n_epochs
        self.keep = keep
        self.history = GradientHistory((), keep)
        self.index = 0
        self._pending: dict[str, Any] | None = None
        self._folder = Path()
        self._balancer: Balancer | None = None
        self._boundary = True
        self._rows: GradientRows | None = None
        self._seen: TaskLosses | None = None
        self._found: tuple[list[str], Tensor] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the module; find the run folder and the balancer."""
        if stage != "fit":
            return
        if not isinstance(pl_module, Balanceable):
            raise BalancerError(
                "GradientMonitor needs a module that registers separate task losses "
                f"(MultiTaskModule does), found {type(pl_module).__name__}."
            )
        if self.source != "exact" and not pl_module.network.independent_decoders():
            raise BalancerError(
                f"source: {self.source} works at the border between encoder and decoders, which "
                f"{type(pl_module.network).__name__} does not have. Use source: exact."
            )
        modules = dict(pl_module.network.named_modules())
        if self.layer and self.layer not in modules:
            raise UnknownNameError("layer", self.layer, modules)
        self._folder = run_folder(trainer)
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set elsewhere
        self._balancer = next((c for c in callbacks if isinstance(c, Balancer)), None)
        self.history, self.index = GradientHistory(pl_module.entries, self.keep), 0
        self._rows = self._found = None
        if self._pending is not None:
            state, self._pending = self._pending, None
            self.load_state_dict(state)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Find out whether this batch ends an accumulation window."""
        self._boundary = (
            not pl_module.automatic_optimization
            or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
            or trainer.is_last_batch
            or batch_idx + 1 >= trainer.num_training_batches
        )

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Read the gradients off the graph if this window was chosen."""
        assert isinstance(pl_module, Balanceable)
        step = pl_module.task_losses
        if step is None or step is self._seen:  # a further backward of a hand-written step
            return
        self._seen = step
        chosen = (self.index + 1) % self.every_n_steps == 0
        if chosen:
            if self._rows is None:
                self._rows = GradientRows(pl_module.entries, self.source, self.layer)
            self._rows.add(pl_module, step, loss)
        if not self._boundary:
            return
        self.index += 1
        rows, self._rows = self._rows, None
        if rows is not None:
            inner = rows.gramian(_loss_scale(trainer))
            if inner is not None and bool(torch.isfinite(inner).all()):
                present = [e for e in pl_module.entries if e in rows.present]
                self._found = (present, inner)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep and log what was found, now that the balancer's weights are known."""
        self._seen = None
        if self._found is None:
            return
        (present, inner), self._found = self._found, None
        weights = {} if self._balancer is None else self._balancer.weights
        record = self.history.add(self.index - 1, present, inner, weights)
        values = {f"norm/{e}": x for e, x in zip(self.history.entries, record.norms, strict=True)}
        values |= dict(zip(FIGURES, record.figures, strict=True))
        told = {}
        if self._balancer is not None and self._balancer.reporting:
            told = self._balancer.report
        prefix = "" if self.source == "exact" else f"{self.source}/"
        logged = {
            f"gradients/{prefix}{key}": float(value)
            for key, value in values.items()
            if value == value and f"{prefix}{key}" not in told
        }
        # As Lightning's own monitors do: `log` would drop steps between two intervals of the log.
        at = trainer.fit_loop.epoch_loop._batches_that_stepped
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=at)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw if this epoch is one to be drawn."""
        if self.draw_every_n_epochs and (trainer.current_epoch + 1) % self.draw_every_n_epochs == 0:
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table and draw."""
        self._write(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write what there is before the run dies."""
        if trainer.state.fn == "fit" and not isinstance(exception, OSError):
            self._write(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let go of the run's objects."""
        self._balancer, self._seen, self._rows, self._found = None, None, None, None

    @rank_zero_only
    def _write(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run or not self.history.records:  # type: ignore[attr-defined]
            return
        with atomic_write(self._folder / "gradients.csv") as file:
            file.write(self.history.as_csv().encode())
        save_figure(draw_trajectories(self.history), self._folder / "gradients.png")
        if len(self.history.entries) > 1:
            save_figure(draw_conflicts(self.history), self._folder / "conflicts.png")

    def state_dict(self) -> dict[str, Any]:
        """All records so far; loads with ``weights_only=True``."""
        return {"index": self.index, "history": self.history.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back; before `setup` they are kept until the entries are known."""
        if not self.history.entries:
            self._pending = state_dict
            return
        self.index = state_dict["index"]
        self.history.load(state_dict["history"])


def _loss_scale(trainer: L.Trainer) -> float:
    plugin = trainer.precision_plugin
    scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
    return 1.0 if scaler is None else float(scaler.get_scale())
