"""Pictures of which patches go to which expert, over the first validation images."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mtl_core.callbacks.curves import save_figure
from mtl_core.callbacks.results import run_folder
from mtl_core.callbacks.router_watch import RouterWatch, short_names
from mtl_core.callbacks.routing_figures import evenly
from mtl_core.data.batch import Batch
from mtl_core.errors import ArgumentError
from mtl_core.moe import Router, RouterOut, SingleRouter
from mtl_core.types import TaskName
from mtl_vision.callbacks.prediction_sheet import due, to_picture
from mtl_vision.callbacks.route_figures import draw_routes, patch_grid
from mtl_vision.visualize import Array, Picture


class RoutingSheet(L.Callback):
    """Draws over images which expert each patch goes to, by task and layer.

    The expert with the largest weight gives a patch its colour. Works with every router
    (`mtl_core.moe.Router`) that decides for tokens of a sequence or positions of a map; routers of
    whole images have nothing to draw here, `mtl_core.callbacks.RoutingMonitor` shows theirs.

    Files, beside the prediction sheets in the folder ``sheets`` of the run:
    ``routing_epoch_XXX.png`` and ``routing_last.png`` after validation, ``routing_test.png`` after
    a test. Only the first process draws, of the samples that it sees. Nothing is drawn in the
    sanity check or under ``fast_dev_run``.

    Args:
        samples: images of a sheet.
        layers: most layers of a sheet, evenly chosen, the last one included.
        every_n_epochs: epochs from one sheet to the next; the last epoch is drawn.
        mean: of the RGB channels, as subtracted from the inputs; default: ImageNet's.
        std: of the RGB channels, as the inputs were divided by.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(
        self,
        samples: int = 2,
        *,
        layers: int = 4,
        every_n_epochs: int = 1,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        for name, value in (
            ("samples", samples),
            ("layers", layers),
            ("every_n_epochs", every_n_epochs),
        ):
            if value < 1:
                raise ArgumentError(name, "be at least 1", value)
        if min(std) <= 0:
            raise ArgumentError("std", "be positive", std)
        self.samples = samples
        self.layers = layers
        self.every_n_epochs = every_n_epochs
        self.mean = mean
        self.std = std
        self._folder = Path()
        self._watch: RouterWatch | None = None
        self._told = False
        self._forget()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the routers and the folder; all processes have to ask for it together."""
        self._folder = run_folder(trainer) / "sheets"
        if stage != "predict":
            self._watch = RouterWatch(pl_module, self._take)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the hooks away."""
        if self._watch is not None:
            self._watch.remove()
        self._watch = None

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start anew."""
        self._forget()

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start anew."""
        self._forget()

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at this batch if images are still wanted."""
        self._look(trainer)

    def on_test_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at this batch if images are still wanted."""
        self._look(trainer)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what was seen."""
        self._collect(batch)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what was seen."""
        self._collect(batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the sheet."""
        self._write(f"epoch_{trainer.current_epoch:03}", "last")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the sheet."""
        self._write("test")

    def _forget(self) -> None:
        self._images: list[Picture] = []
        self._routes: list[dict[str, dict[TaskName, Array]]] = []
        self._seen: dict[str, dict[TaskName, Tensor]] = {}
        self._experts = 0

    def _look(self, trainer: L.Trainer) -> None:
        if self._watch is not None and len(self._images) < self.samples:
            self._watch.on = due(trainer, self.every_n_epochs)

    def _take(self, name: str, router: Router, task: TaskName | Tensor, out: RouterOut) -> None:
        """Keep the first samples' best experts by task."""
        best = out.idx.gather(-1, out.gate.argmax(-1, keepdim=True)).squeeze(-1)
        if best.ndim == 1:
            return
        self._experts = max(self._experts, router.num_experts)
        held = self._seen.setdefault(name, {})
        if isinstance(router, SingleRouter):
            held |= dict.fromkeys(router.tasks, best[: self.samples].cpu())
        elif isinstance(task, str):
            held[task] = best[: self.samples].cpu()
        else:
            for number in task.unique().tolist():
                held[router.tasks[number]] = best[task == number][: self.samples].cpu()

    def _collect(self, batch: Batch) -> None:
        """Add the first images of a batch with their routes."""
        if self._watch is None or not self._watch.on:
            return
        self._watch.on = False
        seen, self._seen = self._seen, {}
        inputs = batch["inputs"]
        if not isinstance(inputs, Tensor) or inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
            return
        names = short_names(list(self._watch.routers))
        size = (inputs.shape[2], inputs.shape[3])
        for i in range(min(self.samples - len(self._images), len(inputs))):
            routes: dict[str, dict[TaskName, Array]] = {}
            for name, by_task in seen.items():
                maps = {task: _as_map(best[i], size) for task, best in by_task.items()}
                routes[names[name]] = {t: m for t, m in maps.items() if m is not None}
            self._images.append(to_picture(inputs[i], self.mean, self.std))
            self._routes.append({name: maps for name, maps in routes.items() if maps})

    def _write(self, *stems: str) -> None:
        """Draw what was kept, if anything."""
        images, routes, experts = self._images, self._routes, self._experts
        self._forget()
        if not images:
            return
        if not any(routes):
            if not self._told:
                rank_zero_info("RoutingSheet: no router decides for patches; nothing is drawn.")
            self._told = True
            return
        chosen = evenly(list(dict.fromkeys(name for r in routes for name in r)), self.layers)
        shown = [{name: r[name] for name in chosen if name in r} for r in routes]
        sheet = draw_routes(images, shown, num_experts=experts)
        for stem in stems:
            save_figure(sheet, self._folder / f"routing_{stem}.png")


def _as_map(best: Tensor, size: tuple[int, int]) -> Array | None:
    """Experts (h, w) of one image, from a map or from a sequence that ends in patches."""
    if best.ndim == 2:
        return best.numpy()
    grid = patch_grid(len(best), *size)
    if grid is None:
        return None
    return best[len(best) - grid[0] * grid[1] :].reshape(grid).numpy()
