import errno
import os

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from mtl_core.checkpoint import AtomicCheckpointIO
from mtl_core.errors import CheckpointWriteError


def test_round_trip_loads_with_weights_only(tmp_path):
    writer, path = AtomicCheckpointIO(), tmp_path / "deep" / "a.ckpt"
    writer.save_checkpoint({"state_dict": {"w": torch.arange(3.0)}, "epoch": 2}, path)
    held = writer.load_checkpoint(path, weights_only=True)
    assert held["epoch"] == 2
    assert torch.equal(held["state_dict"]["w"], torch.arange(3.0))


class _FillsUp(L.Callback):
    """The disk is full from the second epoch on."""

    def __init__(self, patch) -> None:
        self.patch = patch

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:

            def full(_descriptor):
                raise OSError(errno.ENOSPC, "No space left on device")

            self.patch.setattr(os, "fsync", full)


def test_full_disk_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    trainer = L.Trainer(
        max_epochs=3,
        limit_train_batches=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            ModelCheckpoint(tmp_path, filename="best", save_last=True),
            _FillsUp(monkeypatch),
        ],
    )
    with pytest.raises(CheckpointWriteError, match=r"cannot write .*ckpt: .*No space left"):
        trainer.fit(BoringModel())
    for path in tmp_path.glob("*.ckpt"):
        assert torch.load(path, weights_only=True)["epoch"] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}
