"""The process from which trials are forked: it imports the program once, and has a single thread.

`Runner` starts ``python -m mtl_core.trial.server FD``. Requests come over the control socket FD, a
byte each that carries a socket of the request's own. On that socket one line of JSON goes in; the
ending, written by the trial itself, and then the exit status with what was used come out. A socket
that its owner closes ends the trial, and the end of the control socket ends them all: whoever kills
a sweep leaves nothing running.
"""

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_core.trial.child import redirect, run_commands

COUNTS = ("/proc/vmstat", "/sys/fs/cgroup/memory.events")


def oom_kills(paths: Iterable[Path | str] = COUNTS) -> int:
    """How many processes the system has killed for want of memory; 0 where it does not say.

    Args:
        paths: tables of the kernel, of the machine and of the container.
    """
    total = 0
    for path in paths:
        with suppress(OSError):
            for line in Path(path).read_text().splitlines():
                if line.startswith("oom_kill "):
                    total += int(line.split()[1])
    return total


def send(connection: socket.socket, content: dict[str, Any]) -> None:
    """Write one line of JSON; nothing where the other side is gone."""
    with suppress(OSError):
        connection.sendall(json.dumps(content).encode() + b"\n")


@dataclass
class Running:
    """A trial that was started."""

    connection: socket.socket
    started: float = field(default_factory=time.monotonic)
    ooms: int = field(default_factory=oom_kills)


class Server:
    """Forks trials, waits for them, and kills those that nobody waits for.

    Args:
        control: socket over which requests come.
    """

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.running: dict[int, Running] = {}
        self.wake_in, self.wake_out = os.pipe()
        os.set_blocking(self.wake_out, False)

    def serve(self) -> tuple[dict[str, Any], socket.socket] | None:
        """Work until the control socket closes.

        Returns:
            None in the server at its end; in a forked trial its request and socket.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_out, warn_on_full_buffer=False)
        while True:
            waiting: list[Any] = [self.wake_in, self.control]
            waiting += [run.connection for run in self.running.values()]
            ready, _, _ = select.select(waiting, [], [])
            if self.wake_in in ready:
                os.read(self.wake_in, 4096)
                self._reap()
            for pid, run in list(self.running.items()):
                # After its line a request says nothing more: this is its end.
                if run.connection in ready and pid in self.running:
                    kill_group(pid)
            if self.control in ready:
                data, fds, _, _ = socket.recv_fds(self.control, 1, 1)
                if not data:
                    for pid in self.running:
                        kill_group(pid)
                    return None
                request = self._start(socket.socket(fileno=fds[0]))
                if request is not None:
                    return request

    def _start(self, connection: socket.socket) -> tuple[dict[str, Any], socket.socket] | None:
        with connection.makefile("r") as lines:
            line = lines.readline()
        if not line.endswith("\n"):
            connection.close()
            return None
        request = json.loads(line)
        sys.path[:] = request["path"]
        if not request["fresh"]:
            try:
                importlib.import_module(request["program"])
            except BaseException:  # the trial tries again, and records the reason
                sys.modules.pop(request["program"], None)
        pid = os.fork()
        if pid:
            self.running[pid] = Running(connection)
            return None
        self._become_trial()
        return request, connection

    def _become_trial(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for run in self.running.values():
            run.connection.close()
        self.control.close()
        os.close(self.wake_in)
        os.close(self.wake_out)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the server
            with suppress(OSError):  # where memory runs out, trials go before server and sweep
                Path("/proc/self/oom_score_adj").write_text("500")

    def _reap(self) -> None:
        while self.running:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            kill_group(ended.si_pid)  # workers that it left behind
            pid, status, used = os.wait4(ended.si_pid, 0)
            run = self.running.pop(pid)
            send(run.connection, self._exit(run, os.waitstatus_to_exitcode(status), used))
            run.connection.close()

    def _exit(self, run: Running, ended: int, used: resource.struct_rusage) -> dict[str, Any]:
        scale = 1024 if sys.platform == "darwin" else 1
        return {
            "exit": ended,
            "oom": oom_kills() > run.ooms,
            "seconds": time.monotonic() - run.started,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_mib": used.ru_maxrss / scale / 1024,
        }


def kill_group(pid: int) -> None:
    """Kill a trial and everything that it started."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def work(request: dict[str, Any], connection: socket.socket) -> None:
    """Be the trial: run it, report its ending, and end as a program does."""
    ending = run_commands(request)
    sys.stdout.flush()
    sys.stderr.flush()
    send(connection, ending)
    connection.close()
    if ending["status"] != "finished":
        sys.exit(1)


def main() -> None:
    """Serve, or be the trial that a fork has made of this process."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    if len(sys.argv) == 3:
        work(json.loads(sys.argv[2]), connection)
        return
    found = Server(connection).serve()
    if found is None:
        return
    request, connection = found
    os.chdir(request["cwd"])
    redirect(Path(request["folder"]))
    environment = request.pop("environment")
    if request["fresh"]:
        connection.set_inheritable(True)
        words = [sys.executable, "-m", "mtl_core.trial.server", str(connection.fileno())]
        # The interpreter finds what the caller finds.
        environment["PYTHONPATH"] = os.pathsep.join(request["path"])
        os.execve(sys.executable, [*words, json.dumps(request)], environment)
    os.environ.clear()
    os.environ.update(environment)
    work(request, connection)


if __name__ == "__main__":
    main()
