"""Predictions of a table as a table, written while predicting."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Literal

import lightning as L
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mtl_core.atomic import atomic_write
from mtl_core.callbacks.results import run_folder
from mtl_core.errors import UnknownNameError
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, TargetColumn

FORMATS = ("csv", "parquet")


def prediction_frame(
    keys: Sequence[str], predictions: dict[str, Tensor], tasks: dict[str, TargetColumn]
) -> pd.DataFrame:
    """Rows of predictions: a column a task, and one a class with its probability.

    Args:
        keys: what identifies the rows, (B,).
        predictions: activated, (B, C) by task.
        tasks: fitted records by name.

    Returns:
        Columns ``key``, ``TASK`` (the class, or the number in its own unit) and
        ``TASK/CLASS`` (probability).
    """
    columns: dict[str, Any] = {"key": list(keys)}
    for name, activated in predictions.items():
        task = tasks[name]
        columns[name] = task.decode(activated)
        if isinstance(task, BinaryTarget | MulticlassTarget):
            held = activated.float().cpu().numpy()
            if isinstance(task, BinaryTarget):
                held = np.concatenate([1 - held, held], 1)
            for k, label in enumerate(task.classes):
                columns[f"{name}/{label}"] = held[:, k]
    return pd.DataFrame(columns)


class TablePredictionWriter(BasePredictionWriter):
    """Writes what ``predict`` gives into one table, ``predictions.csv`` in the run folder.

    The file appears once it is complete; memory does not grow with the number of rows. Under
    several processes each writes a file of its own, ``predictions_RANK.csv``. Columns are those of
    `prediction_frame`.

    Args:
        folder: where to write; None is the run folder.
        format: ``csv`` or ``parquet``.
    """

    def __init__(
        self, folder: str | None = None, *, format: Literal["csv", "parquet"] = "csv"
    ) -> None:
        if format not in FORMATS:
            raise UnknownNameError("format", format, FORMATS)
        super().__init__("batch")
        self.folder = folder
        self.format = format
        self.path = Path()
        """The file, known from the start of ``predict`` on."""
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._rows = 0

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a new table."""
        run = run_folder(trainer)
        suffix = "" if trainer.world_size == 1 else f"_{trainer.global_rank}"
        folder = Path(self.folder) if self.folder else run
        self.path = folder / f"predictions{suffix}.{self.format}"
        self._stack, self._parquet, self._rows = ExitStack(), None, 0
        self._file = self._stack.enter_context(atomic_write(self.path))

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of a batch."""
        tasks: dict[str, TargetColumn] = pl_module.tasks  # type: ignore[assignment]
        size = len(next(iter(prediction["predictions"].values())))
        keys = prediction["keys"] or [str(self._rows + i) for i in range(size)]
        frame = prediction_frame(keys, prediction["predictions"], tasks)
        assert self._file is not None
        if self.format == "csv":
            text = frame.to_csv(header=self._rows == 0, index=False, float_format="%.6g")
            self._file.write(text.encode())
        else:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if self._parquet is None:
                writer = pq.ParquetWriter(self._file, table.schema)
                self._parquet = self._stack.enter_context(writer)
            self._parquet.write_table(table)
        self._rows += size

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Complete the file.

        Raises:
            CheckpointWriteError: the system refused.
        """
        self._stack.close()
        self._file = None
        rank_zero_info(f"Wrote the predictions of {self._rows} rows to {self.path}")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave no half-written file."""
        if self._file is not None:
            self._file = None
            self._stack.__exit__(type(exception), exception, exception.__traceback__)
