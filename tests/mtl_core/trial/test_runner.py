"""Trials that finish, fail, run out of memory, die, hang, and are left alone.

`mtl_core.trial.runner` and, behind it, `mtl_core.trial.server`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mtl_core.trial import Outcome, Runner, Trial
from mtl_core.trial.runner import _judge
from mtl_core.trial.server import oom_kills

PROGRAM = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from mtl_core.errors import ArgumentError, NonFiniteLossError

def main(words):
    verb, *rest = words
    print("here", *words, flush=True)
    print("aside", file=sys.stderr)
    if verb == "write":
        Path(rest[0]).mkdir(parents=True, exist_ok=True)
        Path(rest[0], "metrics.json").write_text(rest[1])
    elif verb == "argument":
        raise ArgumentError("width", "be positive", -1)
    elif verb == "exit":
        try:
            raise ArgumentError("width", "be positive", -1)
        except ArgumentError as error:
            sys.exit(2)
    elif verb == "parser":
        sys.stderr.write("usage: ...\\nerror: no such option\\n")
        sys.exit(2)
    elif verb == "nan":
        raise NonFiniteLossError({"depth": float("nan")}, 3, [])
    elif verb == "memory":
        raise MemoryError
    elif verb == "allocator":
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 10 bytes")
    elif verb == "signal":
        os.kill(os.getpid(), int(rest[0]))
    elif verb == "leave":
        os._exit(7)
    elif verb == "sleep":
        child = subprocess.Popen(["sleep", "100"])
        Path(rest[0]).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(100)
    elif verb == "state":
        state = {"argv": sys.argv[1:], "cwd": os.getcwd(),
                 "main": sys.modules["__main__"].__name__,
                 "stdin": sys.stdin.read(),
                 "group": os.getpgid(0) == os.getpid(),
                 "variable": os.environ.get("VARIABLE"),
                 "threads": os.environ.get("OMP_NUM_THREADS")}
        Path(rest[0]).write_text(json.dumps(state))
    elif verb == "large":
        held = bytearray(int(rest[0]) << 20)
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    (folder / "trial_program.py").write_text(PROGRAM)
    sys.path.insert(0, str(folder))
    with Runner() as made:
        yield made
    sys.path.remove(str(folder))


def trial(folder: Path, *commands: tuple[str, ...]) -> Trial:
    return Trial("trial_program", commands, folder)


def alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_commands_run_in_order_and_their_metrics_come_back(runner, tmp_path):
    run = trial(
        tmp_path, ("write", f"{tmp_path}/a", '{"n": 1}'), ("write", f"{tmp_path}/b", '{"n": 2}')
    )
    outcome = runner.run(run)
    assert (outcome.status, outcome.reason, outcome.metrics) == ("finished", "", {"n": 2})
    log = (tmp_path / "log.txt").read_text()
    assert log.count("here write") == 2
    assert "aside" in log
    assert Outcome.load(run) == outcome
    assert outcome.cpu_seconds > 0
    assert 0 < outcome.seconds < 20


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        (("argument",), "failed", "ArgumentError: width must be positive, found -1."),
        (("exit",), "failed", "ArgumentError: width must be positive, found -1."),
        (("parser",), "failed", "no such option"),
        (
            ("nan",),
            "not finite",
            "NonFiniteLossError: every loss must be finite, found depth = nan",
        ),
        (("memory",), "out of memory", "MemoryError"),
        (("allocator",), "out of memory", "RuntimeError: [enforce fail]"),
        (("signal", "9"), "killed", "killed by SIGKILL"),
        (("signal", "11"), "killed", "killed by SIGSEGV"),
        (("leave",), "failed", "ended with exit status 7"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_ways_to_end(runner, tmp_path, command, status, reason):
    outcome = runner.run(trial(tmp_path, command, ("write", str(tmp_path / "later"), "{}")))
    assert outcome.status == status
    assert outcome.reason.startswith(reason)
    assert not (tmp_path / "later").exists()  # nothing runs after a command that failed
    assert json.loads((tmp_path / "outcome.json").read_text())["status"] == status


@pytest.mark.parametrize(("oom", "status"), [(True, "out of memory"), (False, "killed")])
def test_process_that_the_system_kills_for_memory(tmp_path, oom, status):
    """The count of such kills goes up; elsewhere SIGKILL is somebody's wish."""
    used = {"seconds": 1.0, "cpu_seconds": 1.0, "peak_mib": 1.0}
    lines = [{"exit": -signal.SIGKILL, "oom": oom, **used}]
    assert _judge(trial(tmp_path), lines, None, 1.0, 0.0).status == status


def test_kills_for_memory_are_counted(tmp_path):
    (tmp_path / "machine").write_text("nr_free_pages 7\noom_kill 2\noom_kill_other 9\n")
    (tmp_path / "container").write_text("oom 5\noom_kill 1\n")
    assert oom_kills([tmp_path / "machine", tmp_path / "container", tmp_path / "none"]) == 3


def test_scores_that_are_not_finite_are_named(runner, tmp_path):
    content = {"val": {"tasks": {"depth": {"rmse": None, "loss": 2.0}}}}
    outcome = runner.run(trial(tmp_path, ("write", str(tmp_path), json.dumps(content))))
    assert (outcome.status, outcome.reason) == ("not finite", "not finite: val/depth/rmse")


def test_program_that_cannot_be_imported_is_an_outcome(runner, tmp_path):
    outcome = runner.run(Trial("no_such_program", ((),), tmp_path))
    assert outcome.status == "failed"
    assert outcome.reason.startswith("ModuleNotFoundError")


def test_finished_is_not_run_again_unless_its_commands_change(runner, tmp_path):
    run = trial(tmp_path, ("write", str(tmp_path), '{"n": 1}'))
    first = runner.run(run)
    (tmp_path / "metrics.json").unlink()
    assert runner.run(run) == first
    assert not (tmp_path / "metrics.json").exists()
    other = trial(tmp_path, ("write", str(tmp_path), '{"n": 2}'))
    assert Outcome.load(other) is None
    assert runner.run(other).metrics == {"n": 2}


def test_failed_is_run_again(runner, tmp_path):
    run = trial(tmp_path, ("signal", "9"))
    assert runner.run(run).status == "killed"
    before = (tmp_path / "outcome.json").stat().st_mtime_ns
    runner.run(run)
    assert (tmp_path / "outcome.json").stat().st_mtime_ns > before


def test_metrics_of_an_earlier_attempt_do_not_count(runner, tmp_path):
    (tmp_path / "metrics.json").write_text('{"n": 0}')
    os.utime(tmp_path / "metrics.json", (1, 1))
    assert runner.run(trial(tmp_path, ("signal", "9"))).metrics == {}


def test_state_of_a_trial_is_that_of_a_plain_command(runner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VARIABLE", "value")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runner.run(trial(tmp_path / "run", ("state", "state.json")))
    state = json.loads((tmp_path / "state.json").read_text())
    assert state == {
        "argv": ["state", "state.json"],
        "cwd": str(tmp_path),
        "main": "trial_program",
        "stdin": "",
        "group": True,
        "variable": "value",
        "threads": None,
    }


def test_timeout_ends_the_trial_and_what_it_started(runner, tmp_path):
    outcome = runner.run(trial(tmp_path, ("sleep", str(tmp_path / "pids"))), timeout=1)
    assert (outcome.status, outcome.reason) == ("timed out", "took more than 1 seconds")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_watch_ends_the_trial_with_its_reason(runner, tmp_path):
    pids = tmp_path / "pids"
    reason = lambda: "no hope" if pids.exists() else None  # noqa: E731
    outcome = runner.run(trial(tmp_path, ("sleep", str(pids))), watch=reason)
    assert (outcome.status, outcome.reason) == ("killed", "no hope")


def test_several_at_once(runner, tmp_path):
    found = {}

    def one(i: int) -> None:
        words = ("write", str(tmp_path / str(i)), json.dumps({"n": i}))
        found[i] = runner.run(trial(tmp_path / str(i), words)).metrics["n"]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: i for i in range(6)}


def test_peak_memory_counts_what_was_held(runner, tmp_path):
    small = runner.run(trial(tmp_path / "small", ("large", "1")))
    large = runner.run(trial(tmp_path / "large", ("large", "200")))
    assert 150 < large.peak_mib - small.peak_mib < 250


def test_server_that_is_killed_is_replaced(runner, tmp_path):
    runner.run(trial(tmp_path / "a", ("large", "1")))
    os.kill(runner._server.pid, signal.SIGKILL)
    wait_for(lambda: runner._server.poll() is not None)
    assert runner.run(trial(tmp_path / "b", ("large", "1"))).status == "finished"


def test_server_that_is_killed_meanwhile_is_an_outcome(runner, tmp_path):
    pids = tmp_path / "pids"

    def kill() -> None:
        if pids.exists():
            os.kill(runner._server.pid, signal.SIGKILL)

    outcome = runner.run(trial(tmp_path, ("sleep", str(pids))), watch=kill)
    assert (outcome.status, outcome.reason) == ("killed", "the server of the trials was killed")


def test_fresh_interpreters_give_the_same(runner, tmp_path):
    with Runner(fresh=True) as fresh:
        run = trial(tmp_path / "a", ("write", str(tmp_path / "a"), '{"n": 1}'))
        assert fresh.run(run).metrics == {"n": 1}
        outcome = fresh.run(trial(tmp_path / "b", ("exit",)))
    assert outcome.reason == "ArgumentError: width must be positive, found -1."


def test_trials_end_with_a_parent_that_is_killed(runner, tmp_path):
    code = f"""
from pathlib import Path
from mtl_core.trial import Runner, Trial
with Runner() as runner:
    runner.run(Trial("trial_program", (("sleep", "{tmp_path}/pids"),), Path("{tmp_path}/run")))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids))
    assert not (tmp_path / "run" / "outcome.json").exists()


def test_server_has_one_thread_after_importing_the_suite(runner, tmp_path):
    """Forking a process with several threads may leave locks held for ever."""
    with Runner() as made:
        outcome = made.run(Trial("mtl_vision.__main__", (("--help",),), tmp_path))
        threads = Path(f"/proc/{made._server.pid}/task")
        assert outcome.status == "finished"
        assert len(list(threads.iterdir())) == 1
