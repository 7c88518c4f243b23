"""Encoded tables on disk: written once, complete or not at all, then mapped into memory."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mtl_core.errors import CheckpointWriteError, MTLError
from mtl_tabular.data.targets import Arrays

FORMAT = 1
"""Number of this layout of files; part of every digest."""

KEPT_SECONDS = 24 * 3600
"""Age from which on temporary folders count as left behind by a process that was killed."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{24}\.\d+\.tmp")


class StoreError(MTLError, RuntimeError):
    """A table changed while it was being encoded."""


def store_folder(cache_dir: Path | str, key: Any) -> Path:
    """Where arrays that are determined by `key` (plain data) lie, below `cache_dir`."""
    text = json.dumps([FORMAT, key], sort_keys=True)
    return Path(cache_dir) / hashlib.sha256(text.encode()).hexdigest()[:24]


def open_store(folder: Path) -> Arrays | None:
    """The arrays of a finished store, mapped from its ``.npy`` files; None where there is none.

    They count as memory of the process as far as the system keeps their pages, which it gives up
    whenever memory is wanted for something else.
    """
    if not folder.is_dir():
        return None
    return {file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))}


def write_store(folder: Path, pieces: Iterable[Arrays], rows: int) -> None:
    """Write arrays piece by piece.

    Everything goes to a temporary folder beside `folder`, which is renamed when all is on the disk:
    a run that is stopped leaves nothing that could be taken for a finished store. Of two processes
    that write the same store, one wins and the other's copy is removed. Temporary folders that
    killed processes left there more than a day ago are removed.

    Args:
        folder: of the store.
        pieces: arrays by name, the same names and types in each, to be joined along the first axis.
        rows: length of all pieces together.

    Raises:
        CheckpointWriteError: the system refused (full disk, no permission, no folder).
        StoreError: the pieces have another number of rows.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    files: dict[str, BinaryIO] = {}
    try:
        _remove_leftovers(folder.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        found = 0
        for piece in pieces:
            for name, array in piece.items():
                if name not in files:
                    files[name] = (temporary / f"{name}.npy").open("wb")
                    header = {
                        "descr": np.lib.format.dtype_to_descr(array.dtype),
                        "fortran_order": False,
                        "shape": (rows, *array.shape[1:]),
                    }
                    np.lib.format.write_array_header_1_0(files[name], header)
                files[name].write(np.ascontiguousarray(array).data)
            found += len(next(iter(piece.values())))
        if found != rows:
            raise StoreError(f"a table must not change while it is read: {found} rows, not {rows}.")
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, folder)
    except OSError as error:
        if isinstance(error, MTLError):
            raise
        reason = f"{error}; cache_dir must be a folder with enough space that can be written to"
        raise CheckpointWriteError(folder, reason) from error
    finally:
        for file in files.values():
            file.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(cache_dir: Path) -> None:
    """Remove temporary folders in which nothing was written for a day."""
    latest = time.time() - KEPT_SECONDS
    for folder in cache_dir.glob(".*.tmp") if cache_dir.is_dir() else ():
        if not _TEMPORARY.fullmatch(folder.name):
            continue
        try:
            written = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        except OSError:  # it is being removed by its own process
            continue
        if written < latest:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
