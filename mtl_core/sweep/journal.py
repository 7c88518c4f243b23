"""The default storage of a sweep: a journal file that no killed process can lock or tear."""

import fcntl
import os
import threading
from pathlib import Path
from typing import BinaryIO

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class KernelLock(JournalFileOpenLock):
    """A lock that the kernel takes away from a process that ends, however it ends.

    Args:
        path: of the journal; the lock is a file beside it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self._threads = threading.Lock()
        self._file: BinaryIO | None = None

    def acquire(self) -> bool:
        """Wait for the lock, then cut what a killed process left of a line."""
        self._threads.acquire()
        try:
            self._file = self.path.with_name(f"{self.path.name}.lock").open("wb")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            cut_torn_line(self.path)
        except BaseException:
            self._threads.release()
            raise
        return True

    def release(self) -> None:
        """Let go of the lock."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._threads.release()


def cut_torn_line(path: Path) -> None:
    """Shorten a file to its last line end."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            start = max(position - 4096, 0)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position < end:
            file.truncate(position)


def journal_backend(path: Path) -> JournalFileBackend:
    """The journal in a file, which is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalFileBackend(str(path), lock_obj=KernelLock(path))
