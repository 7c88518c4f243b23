"""Checkpoints that are written whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mtl_core.atomic import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final place and renames it there; the command line's default.

    Lightning's own plugin collects the bytes in the system's temporary folder and then moves them,
    which is a plain copy where that folder is another file system: a full disk leaves a truncated
    checkpoint in place of the good one. Here the previous file stays until the new one is complete
    on the same disk. Paths with a protocol (``s3://``) are left to Lightning.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save `checkpoint` under `path`.

        Raises:
            CheckpointWriteError: the system refused; the file that was there before is untouched.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(path) as file:
            file.write(buffer.getbuffer())
