"""A program whose ``fit`` takes no time, and sweeps of it."""

import sys

import optuna
import pytest

from mtl_core.trial import Runner

PROGRAM = '''
"""Writes what a run of the suite writes; its score grows towards 1 - (x - 0.3)^2."""
import json, math, os, signal, sys, time
from pathlib import Path


def main(words):
    given = dict(w.removeprefix("--").split("=", 1) for w in words if "=" in w)
    print("running", *words)
    if "--print_config" in words:
        return
    x, folder = float(given.get("x", 0.5)), Path(given["trainer.default_root_dir"])
    mode = given.get("mode", "ok")
    mode = json.loads(mode) if mode.startswith("{") else {"class_path": mode}
    kind, extra = mode["class_path"], mode.get("init_args", {}).get("extra", 0.0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "starts").open("a").write("x")
    score = 1 - (x - 0.3) ** 2 + extra + float(given["seed_everything"]) / 1000
    if kind == "crash" or x > float(given.get("crash_above", "inf")):
        raise ValueError(f"x is {x}")
    if kind == "memory":
        raise MemoryError
    if kind == "nan":
        score = math.nan
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(given.get("sleep", 0)))
    with (folder / "progress.jsonl").open("w") as file:
        for epoch in (1, 2, 3, 4):
            value = score * epoch / 4
            line = {"validation": epoch, "epoch": epoch, "val/a/score": value, "val/b/loss": x}
            line = {k: v if v == v else None for k, v in line.items()}
            file.write(json.dumps(line) + "\\n")
            file.flush()
            time.sleep(float(given.get("pause", 0)))
        file.write(json.dumps({"parameters": int(1000 * x), "macs": 5}) + "\\n")
    (folder / "metrics.json").write_text(json.dumps({"val": {"delta_m": x}}))
'''


@pytest.fixture(autouse=True)
def quiet():
    """Optuna tells of each new study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="package")
def program(tmp_path_factory):
    """Name of the program's module."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "sweep_program.py").write_text(PROGRAM)
    sys.path.insert(0, str(folder))
    yield "sweep_program"
    sys.path.remove(str(folder))


@pytest.fixture(scope="package")
def runner(program):
    with Runner(threads=1) as made:
        yield made
