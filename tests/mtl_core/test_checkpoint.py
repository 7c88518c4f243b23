import errno
import os

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from toys import toy_loader, toy_module, toy_trainer

from mtl_core.checkpoint import (
    STAMP,
    AtomicCheckpointIO,
    CheckpointVersionError,
    check_stamp,
    stamp,
)
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


def test_a_checkpoint_of_a_later_format_is_refused():
    checkpoint = {}
    check_stamp(checkpoint)  # from before there were stamps
    stamp(checkpoint)
    check_stamp(checkpoint)
    for found in (0, 2, "1", None):
        checkpoint[STAMP]["format"] = found
        with pytest.raises(CheckpointVersionError, match=f"must be 1 to 1, found {found!r}"):
            check_stamp(checkpoint)


def test_a_run_writes_the_stamp_and_reads_it(tmp_path):
    trainer, module = toy_trainer(max_steps=1, default_root_dir=tmp_path), toy_module()
    trainer.fit(module, toy_loader(), toy_loader())
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    held = torch.load(path, weights_only=True)
    held[STAMP]["format"] = 2
    torch.save(held, path)
    with pytest.raises(CheckpointVersionError, match="found 2"):
        trainer.validate(module, toy_loader(), ckpt_path=path, verbose=False)
