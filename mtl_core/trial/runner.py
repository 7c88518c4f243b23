"""Running trials from a program that must outlive them."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mtl_core.errors import ArgumentError
from mtl_core.trial.record import Outcome, Status, Trial, read_metrics, unfinite

POLL = 0.2
"""Seconds between two questions whether a trial shall end."""


class Runner:
    """Runs trials, each in a process of its own, and records how they ended.

    A context manager. Trials are forked from a server that has imported the program once, which
    saves the seconds that an interpreter takes to import PyTorch and Lightning. Whatever a trial
    does (exception, NaN, lack of memory, signal), `run` returns an `Outcome`. Several threads may
    call `run` at once. When the process of the runner ends, however it ends, so do its trials.

    For Linux and macOS.

    Args:
        fresh: start a new interpreter for each trial, where a program does not bear forking: one
            that touches CUDA or starts threads while it is imported.
        threads: of PyTorch in each trial; 0 leaves the choice to PyTorch where `fresh` is set, and
            else takes ``OMP_NUM_THREADS``, or one thread a core.
    """

    def __init__(self, *, fresh: bool = False, threads: int = 0) -> None:
        if threads < 0:
            raise ArgumentError("threads", "be 0 or more", threads)
        self.fresh = fresh
        self.threads = threads
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> Self:
        """Get ready; the server starts with the first trial."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server and whatever trial still runs."""
        with self._lock:
            self._stop()

    def run(
        self,
        trial: Trial,
        timeout: float | None = None,
        *,
        watch: Callable[[], str | None] | None = None,
    ) -> Outcome:
        """Run a trial to its end, unless it is finished already.

        Args:
            trial: an ``outcome.json`` in its folder with status ``finished`` and the same commands
                is returned without running anything.
            timeout: seconds after which it is killed.
            watch: asked again and again while the trial runs; a text kills the trial and is the
                reason of its outcome.

        Returns:
            The outcome, which is also in ``outcome.json``; standard output and error are in
            ``log.txt``.

        Raises:
            CheckpointWriteError: the outcome could not be written.
        """
        held = Outcome.load(trial)
        if held is not None and held.status == "finished":
            return held
        trial.folder.mkdir(parents=True, exist_ok=True)
        since = time.time()
        lines, stopped = self._converse(trial, timeout, watch)
        outcome = _judge(trial, lines, stopped, time.time() - since, since)
        outcome.save(trial)
        return outcome

    def _converse(
        self, trial: Trial, timeout: float | None, watch: Callable[[], str | None] | None
    ) -> tuple[list[dict[str, Any]], tuple[Status, str] | None]:
        """What trial and server said, and why the trial was stopped, if it was."""
        connection = self._send(trial)
        deadline = None if timeout is None else time.monotonic() + timeout
        stopped: tuple[Status, str] | None = None
        data = b""
        with connection:
            while True:
                if select.select([connection], [], [], POLL)[0]:
                    try:
                        more = connection.recv(65536)
                    except ConnectionError:
                        more = b""
                    data += more
                    if not more:
                        break
                elif stopped is None:
                    reason = watch() if watch is not None else None
                    if reason is not None:
                        stopped = ("killed", reason)
                    elif deadline is not None and time.monotonic() > deadline:
                        stopped = ("timed out", f"took more than {timeout:g} seconds")
                    if stopped is not None:
                        with suppress(OSError):
                            connection.shutdown(socket.SHUT_WR)
        return [json.loads(line) for line in data.splitlines()], stopped

    def _send(self, trial: Trial) -> socket.socket:
        request = {
            "program": trial.program,
            "commands": trial.commands,
            "folder": str(trial.folder.absolute()),
            "fresh": self.fresh,
            "threads": self._threads(),
            "cwd": str(Path.cwd()),
            "path": sys.path,
            "environment": dict(os.environ),
        }
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            for attempt in (1, 2):
                control = self._start()
                try:
                    socket.send_fds(control, [b"x"], [theirs.fileno()])
                    break
                except OSError:  # the server is gone: somebody killed it
                    self._stop()
                    if attempt == 2:
                        raise
        with suppress(OSError):
            ours.sendall(json.dumps(request).encode() + b"\n")
        return ours

    def _threads(self) -> int:
        if self.threads or self.fresh:
            return self.threads
        asked = os.environ.get("OMP_NUM_THREADS", "")
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        return int(asked) if asked.isdigit() and int(asked) else cores

    def _start(self) -> socket.socket:
        if self._server is not None and self._server.poll() is not None:
            self._stop()
        if self._control is None:
            self._control, theirs = socket.socketpair()
            # One thread while it imports, so that a fork finds no pool of threads to miss.
            single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            single["OPENBLAS_NUM_THREADS"] = "1"
            # Counting devices by NVML leaves CUDA untouched, which no fork would survive.
            single["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
            with theirs:
                self._server = subprocess.Popen(
                    [sys.executable, "-m", "mtl_core.trial.server", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **single, "PYTHONPATH": os.pathsep.join(sys.path)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # a Ctrl-C is for the caller, who then ends the trials
                )
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.wait()
        self._control = self._server = None


def _judge(
    trial: Trial,
    lines: list[dict[str, Any]],
    stopped: tuple[Status, str] | None,
    seconds: float,
    since: float,
) -> Outcome:
    """The outcome from what trial and server said."""
    ending = next((line for line in lines if "status" in line), None)
    end = next((line for line in lines if "exit" in line), None)
    metrics = read_metrics(trial.folder, since)
    if ending is not None:
        status, reason = ending["status"], ending["reason"]
        if status == "finished" and (names := unfinite(metrics)):
            status, reason = "not finite", f"not finite: {', '.join(names)}"
    elif stopped is not None:
        status, reason = stopped
    elif end is None:
        status, reason = "killed", "the server of the trials was killed"
    elif end["exit"] == -signal.SIGKILL and end["oom"]:
        status, reason = "out of memory", "killed by the system for want of memory"
    elif end["exit"] < 0:
        status, reason = "killed", f"killed by {signal.Signals(-end['exit']).name}"
    else:
        status, reason = "failed", f"ended with exit status {end['exit']}"
    used = end or {"seconds": seconds, "cpu_seconds": 0.0, "peak_mib": 0.0}
    numbers = {key: round(used[key], 3) for key in ("seconds", "cpu_seconds", "peak_mib")}
    return Outcome(status, reason, metrics=metrics, **numbers)
