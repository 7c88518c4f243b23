"""Printing to a reader that leaves early, such as ``head``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_broken_pipe() -> Iterator[None]:
    """End with status 1 and without a traceback where nobody reads standard output any more.

    Raises:
        SystemExit: the reader has left.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer would raise once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
