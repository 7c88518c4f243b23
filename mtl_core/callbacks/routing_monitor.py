"""Which experts serve which task, while a network with routers is trained."""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from mtl_core.atomic import atomic_write
from mtl_core.callbacks.curves import save_figure
from mtl_core.callbacks.results import run_folder
from mtl_core.callbacks.router_watch import RouterWatch, RoutingCounts, short_names
from mtl_core.callbacks.routing_figures import draw_overlaps, draw_shares
from mtl_core.callbacks.routing_summary import RoutingSummary
from mtl_core.errors import ArgumentError
from mtl_core.moe import Router, RouterOut
from mtl_core.types import TaskName


class RoutingMonitor(L.Callback):
    """Logs, writes and draws which experts serve which task, for any `mtl_core.moe.Router`.

    Every `every_n_steps` batches the forward pass is looked at and running averages move (see
    `RoutingSummary`); other batches cost a look at a flag per router. Numbers of several processes
    are added up. Logged under ``routing/``: ``entropy/TASK`` (0 one expert, 1 all alike),
    ``overlap`` between tasks, both as means over layers, and ``largest``, the largest share that
    an expert has anywhere.

    In the folder ``routing`` of the run, brought up to date after every validation: ``usage.csv``
    (share of choices and of weight by layer, task and expert), ``routing.json`` (the same with
    entropies and overlaps by layer), ``history.csv`` (entropies, largest shares and overlaps at
    every validation). At the end also ``usage.png``, ``overlap.png`` and, for gates that take all
    experts, ``gates.png``. A validation or test of its own is looked at as a whole, without
    averages, and written to ``routing/validate`` or ``routing/test``. Under ``fast_dev_run``
    nothing is written. Averages and history are part of the checkpoint.

    Args:
        every_n_steps: batches between two looks.
        decay: of the averages at every look, in [0, 1).
        threshold: a task uses an expert whose share is more than this part of an equal share 1/E.
        draw_every_n_epochs: also draw every so many epochs; 0 draws at the end only.

    Raises:
        ArgumentError: an argument is out of range, or the network has no router.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 50,
        decay: float = 0.9,
        threshold: float = 0.5,
        draw_every_n_epochs: int = 0,
    ) -> None:
        if every_n_steps < 1:
            raise ArgumentError("every_n_steps", "be at least 1", every_n_steps)
        if not 0 <= decay < 1:
            raise ArgumentError("decay", "lie in [0, 1)", decay)
        if not threshold >= 0:
            raise ArgumentError("threshold", "not be negative", threshold)
        if draw_every_n_epochs < 0:
            raise ArgumentError("draw_every_n_epochs", "not be negative", draw_every_n_epochs)
        self.every_n_steps = every_n_steps
        self.decay = decay
        self.threshold = threshold
        self.draw_every_n_epochs = draw_every_n_epochs
        self.index = 0
        self.history: list[list[Any]] = []
        self.summary = RoutingSummary((), (), decay=decay, threshold=threshold)
        self._pending: dict[str, Any] | None = None
        self._watch: RouterWatch | None = None
        self._counts: RoutingCounts | None = None
        self._folder = Path()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the routers and the run folder."""
        if stage == "predict":
            return
        self._watch = RouterWatch(pl_module, self._take)
        routers = self._watch.routers
        if not routers:
            self._watch = None
            raise ArgumentError("the network", "have routers for RoutingMonitor", "none")
        self._folder = run_folder(trainer) / "routing"
        self._begin(0.0 if stage != "fit" else self.decay)
        if self._pending is not None:
            state, self._pending = self._pending, None
            self.load_state_dict(state)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the hooks away."""
        if self._watch is not None:
            self._watch.remove()
        self._watch = self._counts = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look at this batch if it is chosen."""
        self.index += 1
        if self.index % self.every_n_steps == 0:
            self._open(pl_module)

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Look away: a backward pass may route once more to save memory."""
        if self._watch is not None:
            self._watch.on = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take in what was seen, and log it."""
        if self._counts is None:
            return
        self._close(trainer)
        at = trainer.fit_loop.epoch_loop._batches_that_stepped
        logged = {f"routing/{key}": value for key, value in self.summary.numbers().items()}
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=at)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at a validation of its own as a whole."""
        if trainer.state.fn != "fit":
            self._open(pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at a test as a whole."""
        self._open(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring the files up to date."""
        if trainer.state.fn != "fit":
            self._close(trainer)
            self._write(trainer, self._folder / "validate", draw=True)
        elif not trainer.sanity_checking:
            self.history += [[trainer.global_step, *row] for row in self.summary.rows()]
            done = trainer.current_epoch + 1
            due = self.draw_every_n_epochs and done % self.draw_every_n_epochs == 0
            self._write(trainer, self._folder, draw=bool(due))

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what the test showed."""
        self._close(trainer)
        self._write(trainer, self._folder / "test", draw=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and draw."""
        self._write(trainer, self._folder, draw=True)

    def _begin(self, decay: float) -> None:
        """Fresh averages."""
        assert self._watch is not None
        routers = self._watch.routers
        names = short_names(list(routers))
        tasks = tuple(dict.fromkeys(t for r in routers.values() for t in r.tasks))
        dense = {names[n] for n, r in routers.items() if r.top_k == r.num_experts}
        self.index, self.history = 0, []
        self.summary = RoutingSummary(
            tasks, tuple(names.values()), dense=dense, decay=decay, threshold=self.threshold
        )

    def _open(self, module: L.LightningModule) -> None:
        assert self._watch is not None
        self._counts = RoutingCounts(self._watch.routers, module.device)
        self._watch.on = True

    def _take(self, name: str, router: Router, task: TaskName | Tensor, out: RouterOut) -> None:
        if self._counts is not None:
            self._counts.add(name, task, out)

    def _close(self, trainer: L.Trainer) -> None:
        """Add up what all processes saw, and take it in."""
        assert self._watch is not None
        assert self._counts is not None
        counts, self._counts = self._counts, None
        self._watch.on = False
        whole = trainer.strategy.reduce(counts.flat(), reduce_op="sum")
        assert isinstance(whole, Tensor)
        names = short_names(list(self._watch.routers))
        for name, (chosen, weight) in counts.split(whole.cpu()).items():
            self.summary.add(names[name], self._watch.routers[name].tasks, chosen, weight)

    @rank_zero_only
    def _write(self, trainer: L.Trainer, folder: Path, *, draw: bool) -> None:
        if trainer.fast_dev_run or not self.summary.layers:  # type: ignore[attr-defined]
            return
        _save(folder / "usage.csv", self.summary.as_csv())
        _save(folder / "routing.json", json.dumps(self.summary.as_dict(), indent=1))
        if self.history:
            _save(folder / "history.csv", _history(self.history))
        if not draw:
            return
        tasks, layers = self.summary.tasks, self.summary.layers
        sparse = {n: self.summary.shares(n) for n in layers if n not in self.summary.dense}
        dense = {n: self.summary.shares(n) for n in layers if n in self.summary.dense}
        if sparse:
            usage = draw_shares(sparse, tasks, label="share of choices")
            save_figure(usage, folder / "usage.png")
        if dense:
            save_figure(draw_shares(dense, tasks, label="mean weight"), folder / "gates.png")
        if len(tasks) > 1:
            overlaps = {name: self.summary.overlap(name) for name in layers}
            save_figure(draw_overlaps(overlaps, tasks), folder / "overlap.png")

    def state_dict(self) -> dict[str, Any]:
        """Averages and history; loads with ``weights_only=True``."""
        state = self.summary.state_dict()
        return {"index": self.index, "summary": state, "history": list(self.history)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back; before `setup` they are kept until the routers are known."""
        if self._watch is None:
            self._pending = state_dict
            return
        self.index, self.history = state_dict["index"], list(state_dict["history"])
        self.summary.load_state_dict(state_dict["summary"])


def _save(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _history(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "layer", "task", "entropy", "largest", "overlap"])
    writer.writerows(_blank(row) for row in rows)
    return text.getvalue()


def _blank(row: list[Any]) -> Iterator[Any]:
    for value in row:
        yield "" if isinstance(value, float) and math.isnan(value) else value
