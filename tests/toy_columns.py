"""A small mixed table for tests of tabular networks: two categorical, three numeric columns."""

import torch
from torch import Tensor

from mtl_core.tasks import Task
from mtl_tabular.data import CategoricalColumn, NumericColumn, TableSchema
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

COLUMNS = TableSchema(
    numeric=(
        NumericColumn(name="age", mean=40.0, std=10.0, median=38.0),
        NumericColumn(name="income", mean=3.0, std=2.0, median=2.0, missing=True),
        NumericColumn(name="height"),
    ),
    categorical=(
        CategoricalColumn(name="city", levels=("Bern", "Oslo", "Rome")),
        CategoricalColumn(name="car", levels=("no", "yes")),
    ),
)
NUMBERS = TableSchema(numeric=COLUMNS.numeric)


def column_tasks() -> dict[str, Task]:
    """One task of each kind."""
    return {
        "buys": BinaryTarget(classes=("no", "yes")),
        "kind": MulticlassTarget(classes=("a", "b", "c")),
        "spends": NumericTarget(),
    }


def column_inputs(rows: int = 12, *, seed: int = 0, absent: bool = False) -> dict[str, Tensor]:
    """Rows of `COLUMNS`; where `absent`, some values are missing and some categories unseen."""
    generator = torch.Generator().manual_seed(seed)
    numeric = torch.randn(rows, 3, generator=generator)
    codes = [
        torch.randint(0 if absent else 2, size, (rows,), generator=generator)
        for size in COLUMNS.cardinalities
    ]
    if absent:
        numeric[torch.rand(rows, 3, generator=generator) < 0.4] = float("nan")
    return {"numeric": numeric, "categorical": torch.stack(codes, 1)}


def column_batch(rows: int = 12, *, seed: int = 0) -> dict:
    """Inputs and targets of every task of `column_tasks`."""
    generator = torch.Generator().manual_seed(seed + 1)
    return {
        "inputs": column_inputs(rows, seed=seed),
        "targets": {
            "buys": torch.randint(0, 2, (rows,), generator=generator).float(),
            "kind": torch.randint(0, 3, (rows,), generator=generator),
            "spends": torch.randn(rows, generator=generator),
        },
    }
