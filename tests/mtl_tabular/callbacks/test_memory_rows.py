"""Support rows come from the training split, once, and are the same everywhere."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from toys import toy_loader, toy_module, toy_trainer

from mtl_core.errors import ArgumentError
from mtl_core.modules import MultiTaskModule
from mtl_tabular.callbacks import MemoryRows
from mtl_tabular.data import TableDataModule
from mtl_tabular.networks import MultiTabNet
from mtl_tabular.tasks import NumericTarget


def table(count=40):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=count), "b": rng.choice(["u", "v"], count)})
    return frame.assign(y=frame["a"] * 2)


def fitted(memory_rows=6, *, seed=0, ckpt_path=None, **trainer):
    data = TableDataModule({"y": NumericTarget()}, table=table(), batch_size=8)
    data.fit()
    network = partial(
        MultiTabNet,
        schema=data.schema,
        width=8,
        feedforward=8,
        inter_sample="memory",
        memory_rows=memory_rows,
    )
    torch.manual_seed(0)
    module = MultiTaskModule(data.tasks, network, partial(torch.optim.SGD, lr=0.01))
    fitter = toy_trainer(MemoryRows(seed=seed), **{"max_epochs": 1, **trainer})
    fitter.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return data, module.network.encoder.memory, fitter


def test_rows_are_training_rows():
    data, memory, _ = fitted(num_sanity_val_steps=1)
    rows = data.prepared("train").dataset
    known = {round(float(rows[i]["inputs"]["numeric"][0]), 4) for i in range(len(rows))}
    found = {round(float(value), 4) for value in memory.numeric[:, 0]}
    assert bool(memory.filled)
    assert len(found) == 6
    assert found <= known


def test_the_draw_follows_its_seed_alone():
    first, same, other = (fitted(seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first.numeric, same.numeric)
    assert torch.equal(first.categorical, same.categorical)
    assert not torch.equal(first.numeric, other.numeric)


def test_a_table_of_few_rows_is_repeated():
    data, memory, _ = fitted(memory_rows=70)
    rows = len(data.prepared("train").dataset)
    _, repeats = memory.numeric[:, 0].unique(return_counts=True)
    assert len(repeats) == rows
    assert repeats.max() - repeats.min() <= 1


def test_a_resumed_run_keeps_its_rows(tmp_path):
    _, memory, trainer = fitted()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    _, again, _ = fitted(seed=5, ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert torch.equal(memory.numeric, again.numeric)


def test_other_networks_are_refused():
    with pytest.raises(ArgumentError, match="memory"):
        toy_trainer(MemoryRows()).fit(toy_module(), toy_loader(), toy_loader())
