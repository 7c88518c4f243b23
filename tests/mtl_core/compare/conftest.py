"""A program whose ``fit`` takes no time, and plans of comparisons that run it."""

import sys
from pathlib import Path

import pytest
import yaml

from mtl_core.compare import Comparison, Session
from mtl_core.trial import Runner

PROGRAM = '''
"""Does what a run of the suite does to files; its score depends on the words and the seed."""
import json, os, random, signal, sys, time
from pathlib import Path
import yaml

CONFIG = {
    "seed_everything": 0,
    "trainer": {"default_root_dir": "runs", "callbacks": None, "logger": None},
    "tasks": {"left": {"class_path": "A"}, "right": {"class_path": "B"}},
    "model": {"class_path": "M", "init_args": {"decoders": {"left": 1, "right": 2}}},
    "data": {"class_path": "D"},
    "report": {"results": {"table": None}},
}


def main(words):
    verb, *rest = words
    flags = [w.removeprefix("--") for w in rest if w.startswith("--") and "=" in w]
    given = dict(flag.split("=", 1) for flag in flags)
    if "--print_config" in rest:
        print("a warning of some package")
        print(yaml.safe_dump(CONFIG, sort_keys=False))
        return
    if verb == "profile":
        if given.get("profile") == "broken":
            raise ValueError("no such network")
        macs = 1e6 * float(given.get("width", 1))
        Path(rest[rest.index("--out") + 1]).write_text(json.dumps({"together": {"macs": macs}}))
        return
    seed = int(given["seed_everything"])
    if "starts" in given:
        with open(given["starts"], "a") as file:
            file.write(verb + " " + given.get("who", "single") + " " + str(seed) + "\\n")
    config = CONFIG
    for flag, value in zip(rest, rest[1:]):
        if flag == "-c":
            config = {**config, **yaml.safe_load(Path(value).read_text())}
    tasks = list(config["tasks"])
    if "--trainer.logger=false" not in rest:
        raise ValueError("a logger of its own")
    folder = Path(given["trainer.default_root_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    mode = given.get("mode", "ok") if seed == int(given.get("bad_seed", seed)) else "ok"
    if mode == "crash":
        raise ValueError(f"seed {seed} does not work")
    if mode == "memory":
        raise MemoryError
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        time.sleep(60)
    time.sleep(float(given.get("sleep", 0)))
    drawn = random.Random(f"{seed}/{given.get('data.seed')}").gauss(0, 0.01)
    own = random.Random(f"{seed}/{given.get('who')}/{len(tasks)}").gauss(0, 0.003)
    score = 0.7 + drawn + own + float(given.get("gain", 0))
    if verb == "fit":
        (keep,) = [json.loads(w.split("=", 1)[1]) for w in rest if "callbacks+" in w]
        weights = Path(keep["init_args"]["dirpath"])
        weights.mkdir(parents=True)
        (weights / (keep["init_args"]["filename"] + ".ckpt")).write_text(str(score))
    else:
        score = float(Path(given["ckpt_path"]).read_text())  # the weights decide
    if mode == "nan":
        score = float("nan")
    split = "test" if verb == "test" else "val"
    header = "method,task,metric,value,higher_is_better,seed,split,example,block,plan_hash"
    lines = [header]
    scores = {}
    for task in tasks:
        values = {"accuracy": (score, True), "error": (1 - score, False)}
        for metric, (value, higher) in values.items():
            lines.append(f"Own,{task},{metric},{value!r},{higher},{seed},{split},,,0123")
        lines.append(f"Own,{task},accuracy,{score!r},True,{seed},{split},,night,0123")
        scores[task] = {"accuracy": score if score == score else None}
    Path(given["report.results.table"]).write_text("\\n".join(lines) + "\\n")
    metrics = {"seconds": 2.0, "steps": 100, split: {"tasks": scores}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
'''

METHODS = {"sum": ["--who=sum"], "famo": ["--who=famo", "--gain=0.1"]}


@pytest.fixture(scope="package")
def program(tmp_path_factory):
    """The folder of the program, which is on the path."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "compare_program").mkdir()
    (folder / "compare_program" / "__init__.py").touch()
    (folder / "compare_program" / "__main__.py").write_text(PROGRAM)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="package")
def runner(program):
    with Runner(threads=1) as made:
        yield made


@pytest.fixture
def plan_file(tmp_path, program):
    """Writes a plan and gives its path."""

    def write(**more) -> Path:
        run = {
            "program": "compare_program",
            "words": ["-c", str(tmp_path / "base.yaml"), f"--starts={tmp_path / 'starts'}"],
            "seed_keys": ["data.seed"],
            **more.pop("run", {}),
        }
        content = {
            "name": "toy",
            "methods": METHODS,
            "baseline": "sum",
            "single": True,
            "tasks": {"left": "accuracy", "right": "error"},
            "margins": {"accuracy": 0.005, "error": 0.005},
            "seeds": 2,
            "test": "paired t",
            "run": run,
            **more,
        }
        (tmp_path / "base.yaml").write_text("{}\n")
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def session(plan_file, runner, tmp_path):
    """Makes a session from changes of the plan."""

    def make(*, folder="out", jobs=1, retry=False, keep=False, **more) -> Session:
        comparison = Comparison.load(plan_file(**more))
        return Session(comparison, tmp_path / folder, runner, jobs=jobs, retry=retry, keep=keep)

    return make
