"""Fills a network's memory with training rows when training starts."""

import lightning as L

from mtl_core.data import MultiTaskDataModule
from mtl_core.data.batch import collate
from mtl_core.errors import ArgumentError
from mtl_tabular.networks.multitab import MultiTabNet
from mtl_tabular.nn.support_rows import draw_rows


class MemoryRows(L.Callback):
    """Draws the support rows of a `MultiTabNet` with ``inter_sample: memory``.

    At the start of fit, from the training split, with a generator of its own: all processes draw
    the same rows, and nothing else that is random changes. Rows that are there already, because the
    run resumes or starts from a checkpoint, are kept.

    Args:
        seed: of the draw.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, before the first sanity check.

        Raises:
            ArgumentError: the network has no memory, or there is no data module to draw from.
        """
        network = pl_module.network
        if not isinstance(network, MultiTabNet) or network.encoder.memory is None:
            raise ArgumentError(
                "network", "be a MultiTabNet with inter_sample: memory", type(network).__name__
            )
        memory = network.encoder.memory
        if bool(memory.filled):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by fit, not declared
        if not isinstance(data, MultiTaskDataModule):
            raise ArgumentError(
                "datamodule",
                "be given to draw support rows from; with loaders call network.set_memory(inputs)",
                type(data).__name__,
            )
        rows = data.prepared("train").dataset
        chosen = [rows[i] for i in draw_rows(len(rows), memory.rows, self.seed)]
        network.set_memory(
            collate([{"inputs": s["inputs"], "targets": {}} for s in chosen])["inputs"]
        )
