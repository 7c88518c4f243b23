"""One of two processes of `test_table_ddp.py`: trains on a table and saves what it saw."""

import sys
from functools import partial
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from toy_tables import wide_frame, wide_tasks
from toys import parameters_of, toy_trainer

from mtl_core.balancing import Equal
from mtl_core.modules import MultiTaskModule
from mtl_tabular.data import TableDataModule
from mtl_tabular.networks import FTTransformer

ROWS, VALIDATED, PREDICTED, STEP = 51, 21, 23, 16


class WatchRows(L.Callback):
    """Keeps the numbers of the rows of every batch, which are one of the features."""

    def __init__(self, data: TableDataModule) -> None:
        names = [column.name for column in data.schema.numeric]
        self.place = names.index("row")
        self.column = data.schema.numeric[self.place]
        self.rows: dict[str, list[Tensor]] = {"train": [], "val": [], "predict": []}

    def _add(self, split: str, batch) -> None:
        values = batch["inputs"]["numeric"][:, self.place] * self.column.std + self.column.mean
        self.rows[split].append(values.round().long())

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._add("train", batch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self._add("val", batch)

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self._add("predict", batch)


def train(world: int, *, storage: str = "memory", cache_dir: str = "") -> dict[str, object]:
    """Parameters, scores and rows after two epochs; all processes see `STEP` rows a step."""
    table, val, later = (
        wide_frame(rows, missing=True, seed=seed).assign(row=range(rows))
        for seed, rows in enumerate((ROWS, VALIDATED, PREDICTED))
    )
    data = TableDataModule(
        wide_tasks(),
        table=table,
        val=val,
        test_fraction=0.0,
        predict=later,
        storage=storage,
        cache_dir=cache_dir,
        batch_size=STEP // world,
        seed=3,
    )
    data.fit()
    torch.manual_seed(0)
    # No batch norm, whose statistics are those of a process's rows.
    network = partial(FTTransformer, schema=data.schema, ff_dropout=0.0, attention_dropout=0.0)
    optimizer = partial(torch.optim.SGD, lr=0.02)
    module = MultiTaskModule(data.tasks, network, optimizer)
    watch = WatchRows(data)
    distributed = {"strategy": "ddp", "devices": 2} if world > 1 else {}
    # A balancer weights the processes by their labels; without one, DDP averages their means.
    trainer = toy_trainer(watch, Equal(), max_epochs=2, **distributed)
    trainer.fit(module, datamodule=data)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.predict(module, datamodule=data, return_predictions=False)
    return {"parameters": parameters_of(module), "scores": scores, "rows": watch.rows}


def main(out: Path) -> None:
    """Run as one of two processes."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    results = {
        "memory": train(2),
        "disk": train(2, storage="disk", cache_dir=str(out / "cache")),
    }
    torch.save(results, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
