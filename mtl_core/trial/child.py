"""Inside the process of a trial: run its commands and say how they ended."""

import gc
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtl_core.errors import MTLError, NonFiniteLossError
from mtl_core.trial.record import LOG, Status

# What allocators say, in the words of PyTorch (CPU, CUDA), of C++ and of the system.
MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "cannot allocate memory")


def redirect(folder: Path) -> None:
    """Let standard output and error of this process go to ``log.txt``, and read nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    # The streams of Python, and handlers that hold them, keep their numbers.
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def classify(error: BaseException) -> tuple[Status, str]:
    """Status and reason of an exception; no reason for an exit whose message went to the log.

    >>> classify(MemoryError())
    ('out of memory', 'MemoryError')
    >>> classify(ValueError("width must be positive"))
    ('failed', 'ValueError: width must be positive')
    """
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.append(found)
        found = found.__cause__ or found.__context__
    if isinstance(error, SystemExit):
        # The command lines of the suite end with a status once they have shown the mistake.
        chain = [cause for cause in chain if isinstance(cause, MTLError)]
        if not chain:
            return "failed", ""
    reason = " ".join(f"{type(chain[0]).__name__}: {chain[0]}".split()).removesuffix(":")
    if any(isinstance(cause, NonFiniteLossError) for cause in chain):
        return "not finite", reason
    lack = isinstance(chain[0], MemoryError) or type(chain[0]).__name__ == "OutOfMemoryError"
    said = any(text in str(chain[0]).lower() for text in MEMORY)
    return "out of memory" if lack or said else "failed", reason


def last_error(folder: Path) -> str:
    """What a parser wrote behind ``error:`` at the end of the log, else nothing."""
    _, found, text = (folder / LOG).read_text(errors="replace").rpartition("error: ")
    return " ".join(text.split())[:2000] if found else ""


def run_commands(request: dict[str, Any]) -> dict[str, str]:
    """Run the commands of a request in this process.

    Args:
        request: ``program``, ``commands``, ``folder`` and the number of ``threads`` (0: torch's
            own choice).

    Returns:
        ``status`` and ``reason``.
    """
    folder = Path(request["folder"])
    try:
        module = importlib.import_module(request["program"])
        # What tools that start this program anew (spawned workers, DDP) go by.
        sys.modules["__main__"] = module
        if request["threads"] and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(request["threads"])
        for words in request["commands"]:
            sys.argv = [str(module.__file__), *words]
            with warnings.catch_warnings():
                # The words of the shell are these.
                warnings.filterwarnings("ignore", message="LightningCLI's args parameter is int")
                _run(module.main, words)
            gc.collect()
    except BaseException as error:
        status, reason = classify(error)
        if isinstance(error, SystemExit):
            reason = reason or last_error(folder) or f"ended with exit status {error.code}"
        else:
            sys.excepthook(type(error), error, error.__traceback__)
        return {"status": status, "reason": reason}
    return {"status": "finished", "reason": ""}


def _run(main: Any, words: Sequence[str]) -> None:
    try:
        main(list(words))
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
