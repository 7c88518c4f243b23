"""Checkpoints that are written whole or not at all, and say which suite wrote them."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mtl_core import __version__
from mtl_core.atomic import atomic_write
from mtl_core.errors import MTLError

FORMAT = 1
"""Of what the suite's modules store; raised when older suites could no longer read it."""
STAMP = "mtl_suite"


class CheckpointVersionError(MTLError, ValueError):
    """A checkpoint was written by a suite whose format this one does not know."""


def stamp(checkpoint: dict[str, Any]) -> None:
    """Write format and version of the suite into a checkpoint."""
    checkpoint[STAMP] = {"format": FORMAT, "version": __version__}


def check_stamp(checkpoint: Any) -> None:
    """Refuse the checkpoint of a later format; one without a stamp is older and is read.

    Raises:
        CheckpointVersionError: its format is not 1 to `FORMAT`.

    >>> check_stamp({"mtl_suite": {"format": 1, "version": "0.1.0"}})
    """
    held = checkpoint.get(STAMP) if isinstance(checkpoint, dict) else None
    if held is None:
        return
    found = held.get("format")
    if not isinstance(found, int) or not 1 <= found <= FORMAT:
        raise CheckpointVersionError(
            f"the format of a checkpoint must be 1 to {FORMAT}, found {found!r}, written by "
            f"mtl-suite {held.get('version', '?')}; this is {__version__}."
        )


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
