"""Writing files so that a crash or a full disk never harms what was there before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mtl_core.errors import CheckpointWriteError


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under `path` only once it is complete.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is
    renamed.

    Args:
        path: where the file shall be; its folder is made if needed.

    Yields:
        The temporary file, opened in binary mode.

    Raises:
        CheckpointWriteError: the system refused (full disk, no permission). `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CheckpointWriteError(path, error) from error
    finally:
        with suppress(OSError):  # what went wrong before is what the caller has to know
            temporary.unlink(missing_ok=True)


def append_line_block(path: Path | str, header: str, lines: list[str]) -> None:
    """Append lines to a text table in one write; the table is cut back if the disk fills up midway.

    Processes may append to the same file at once: each block is a single write in append mode.

    Args:
        path: the table, made with `header` as its first line if it does not exist.
        header: first line, without line end.
        lines: lines without line ends.

    Raises:
        CheckpointWriteError: the system refused; the table is as it was.
    """
    path = Path(path)
    created = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            created = size == 0
            block = [header, *lines] if created else lines
            data = "".join(f"{line}\n" for line in block).encode()
            try:
                written = file.write(data)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
            if written != len(data):
                file.truncate(size)
                reason = f"only {written} of {len(data)} bytes fitted on the disk"
                raise CheckpointWriteError(path, reason)
    except OSError as error:
        if created and path.exists() and path.stat().st_size == 0:
            path.unlink()
        if isinstance(error, CheckpointWriteError):
            raise
        raise CheckpointWriteError(path, error) from error
