"""What a running trial tells the sweep: a line a validation, at the end what the model costs."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.flop_counter import FlopCounterMode

from mtl_core.callbacks.results import run_folder
from mtl_core.data.batch import Batch, take_samples
from mtl_core.modules import MultiTaskModule

FILE = "progress.jsonl"


class Progress(L.Callback):
    """Writes ``progress.jsonl`` into the run folder; reads, and changes nothing of the run.

    Each validation of a fit adds a line with ``validation`` (counted from 1), ``epoch`` (epochs
    done) and every ``val/...`` that was logged. After the fit a last line has ``parameters``
    (trained or not).

    Args:
        macs: whether the last line also has ``macs``, multiply-accumulates of one forward pass of
            one sample for all tasks: half of the floating-point operations that PyTorch counts in
            matrix products and convolutions.
    """

    def __init__(self, *, macs: bool = False) -> None:
        self.macs = macs
        self._count = 0
        self._sample: Batch | None = None
        self._path = Path()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the run folder."""
        self._path = run_folder(trainer) / FILE

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a new file, unless a checkpoint says that the run goes on."""
        if self._count == 0 and trainer.is_global_zero:
            self._path.unlink(missing_ok=True)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep one sample for the count at the end."""
        if self.macs and self._sample is None:
            self._sample = take_samples(batch, slice(0, 1))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add a line."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._count += 1
        logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        line: dict[str, Any] = {"validation": self._count, "epoch": trainer.current_epoch + 1}
        self._add({**line, **logged})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the costs."""
        parameters = sum(p.numel() for p in pl_module.parameters())
        line: dict[str, Any] = {"parameters": parameters}
        if self._sample is not None and isinstance(pl_module, MultiTaskModule):
            line["macs"] = count_macs(pl_module, self._sample)
        self._add(line)

    @rank_zero_only
    def _add(self, line: dict[str, Any]) -> None:
        plain = {k: v if math.isfinite(v) else None for k, v in line.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(plain) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were."""
        return {"count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._count = state_dict["count"]


def count_macs(module: MultiTaskModule, batch: Batch) -> int:
    """Multiply-accumulates of one forward pass, in evaluation mode.

    Args:
        module: with a network for these inputs.
        batch: of one sample, on the module's device.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), counter:
        module.network(batch["inputs"], None, batch.get("tags"))
    for part, mode in modes.items():
        part.training = mode
    return int(counter.get_total_flops()) // 2


def read_progress(folder: Path) -> list[dict[str, Any]]:
    """The complete lines of ``progress.jsonl``, none where there is no such file."""
    path = folder / FILE
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")[:-1]  # behind the last line end one may be in the making
    return [json.loads(line) for line in lines]
