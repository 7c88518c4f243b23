"""``bench DIR``: latency and memory of an artefact folder, variants and tasks interleaved."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from export.console import print_table
from export.footprint import ALL, samples
from export.infer import split_names
from export.manifest import read_manifest, rewritten, seal, verify
from export.runtime import Predictor
from mtl_core.errors import ArgumentError, MTLError, UnknownNameError

WARM_UP, LEAST_RUNS = 3, 20
_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_tile", "asimd", "asimddp",
    "i8mm", "sve",
)  # fmt: skip


class BenchError(MTLError, RuntimeError):
    """A process that was to be measured failed."""


@dataclass
class Case:
    """One thing that is timed.

    Args:
        variant: its id.
        task: name, or `ALL`.
        batch: samples a run.
        run: does it once.
        cpu: milliseconds of the processor, a run each.
        wall: milliseconds on the clock.
    """

    variant: str
    task: str
    batch: int
    run: Callable[[], object]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Measured so far."""
        return sum(self.wall) / 1e3

    def row(self) -> dict[str, Any]:
        """What is reported."""
        return {
            "variant": self.variant,
            "task": self.task,
            "batch": self.batch,
            "cpu_ms_min": round(min(self.cpu), 4),
            "cpu_ms_p50": round(statistics.median(self.cpu), 4),
            "wall_ms_p50": round(statistics.median(self.wall), 4),
            "runs": len(self.cpu),
        }


def bench(
    folder: Path | str,
    *,
    variants: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    threads: int = 1,
    batches: Sequence[int] = (1,),
    min_time: float = 3.0,
    memory: bool = True,
) -> dict[str, Any]:
    """Measure a folder.

    All cases take turns, so that whatever else the machine does meets them alike; each is run three
    times unmeasured, then at least 20 times and for `min_time` seconds. Times of the processor are
    those of the calling thread, of the process where there are several threads. Never compare
    numbers of two runs in one table.

    Args:
        folder: written by build.
        variants: ids; None for all.
        tasks: names; None for each task and all together.
        threads: of ONNX Runtime.
        batches: numbers of samples.
        min_time: seconds a case.
        memory: whether to start a process a case to see its memory and how long it takes to start.

    Returns:
        JSON data: ``machine``, ``protocol``, ``rows``.

    Raises:
        ArgumentError: a number is out of range.
        UnknownNameError: there is no such variant or task.
    """
    if min_time < 0 or not batches or min(batches) < 1:
        raise ArgumentError("batches and min_time", "be positive", (list(batches), min_time))
    load = _load()
    manifest = read_manifest(folder)
    cases: list[Case] = []
    for held in _chosen(manifest, variants):
        names = [task["name"] for task in manifest["tasks"]]
        wanted = list(tasks) if tasks else [*names, *([ALL] if len(names) > 1 else [])]
        for batch in batches:
            if held.get("static_batch") not in (None, batch):
                continue
            arrays = samples(folder, manifest, batch)
            for task in wanted:
                chosen = None if task == ALL else [task]
                predictor = Predictor(folder, held["id"], chosen, threads=threads, batch=batch)
                cases.append(Case(held["id"], task, batch, _runner(predictor, arrays)))
    measure(cases, min_time, threads)
    rows = [case.row() for case in cases]
    if memory:
        for row in rows:
            row |= fresh_process(folder, row["variant"], row["task"], threads)
    return {
        "machine": {**machine(), "load_average_before": load},
        "protocol": {
            "threads": threads,
            "warm_up": WARM_UP,
            "min_time_s": min_time,
            "order": "round robin over all rows",
            "cpu": "calling thread" if threads == 1 else "process",
        },
        "rows": rows,
    }


def measure(cases: Sequence[Case], min_time: float, threads: int = 1) -> None:
    """Run all cases in turns until each has its runs and seconds.

    Args:
        cases: their lists of times grow.
        min_time: seconds a case.
        threads: several are measured by the time of the process.
    """
    clock = time.thread_time_ns if threads == 1 else time.process_time_ns
    for case in cases:
        for _ in range(WARM_UP):
            case.run()
    waiting = list(cases)
    while waiting:
        for case in waiting:
            wall, cpu = time.perf_counter_ns(), clock()
            case.run()
            case.cpu.append((clock() - cpu) / 1e6)
            case.wall.append((time.perf_counter_ns() - wall) / 1e6)
        waiting = [c for c in waiting if len(c.cpu) < LEAST_RUNS or c.seconds < min_time]


def fresh_process(folder: Path | str, variant: str, task: str, threads: int = 1) -> dict[str, Any]:
    """Memory of a process that predicts once, and how long it takes from nothing to the result.

    Args:
        folder: written by build.
        variant: its id.
        task: name, or `ALL`.
        threads: of ONNX Runtime.

    Returns:
        ``start_s`` on the clock, ``start_cpu_s`` of the processor, ``resident_mb`` (after the
        prediction) and ``peak_mb``; MB are 10⁶ bytes.

    Raises:
        BenchError: it failed.
    """
    words = [sys.executable, "-m", "export.footprint", str(folder), variant, task, str(threads)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    started = time.perf_counter()
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise BenchError(f"a process with {variant} and {task} failed: {done.stderr[-500:]}")
    return {"start_s": round(seconds, 3), **json.loads(done.stdout)}


def machine() -> dict[str, Any]:
    """Processor, its instruction sets that matter, cores and versions; no name of the host."""
    text = _read("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    words = set(text.split())
    return {
        "device": models[0] if models else platform.machine(),
        "architecture": platform.machine(),
        "flags": [flag for flag in _FLAGS if flag in words],
        "cores": os.cpu_count(),
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
    }


def save(folder: Path | str, found: Mapping[str, Any]) -> None:
    """Write ``report/latency.json``, and the rows into the manifest; all or nothing.

    Raises:
        FolderError: the folder is damaged.
        CheckpointWriteError: the system refused; the folder is as it was.
    """
    verify(folder)
    with rewritten(folder) as work:
        (work / "report").mkdir(exist_ok=True)
        text = json.dumps(found, indent=2) + "\n"
        (work / "report" / "latency.json").write_text(text, encoding="utf-8")
        about = {"device": found["machine"]["device"], "threads": found["protocol"]["threads"]}
        rows = [{**about, **row} for row in found["rows"]]
        seal(work, {**read_manifest(work), "latency": rows})


def main(words: Sequence[str]) -> int:
    """Measure latency and memory, print a table and write ``report/latency.json``.

    Args:
        words: of the command line, behind the verb.
    """
    parser = argparse.ArgumentParser(prog="python -m export bench", description=main.__doc__)
    parser.add_argument("folder", help="written by build")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (1)")
    parser.add_argument("--batches", default="1", help="samples a run: 1,8 (1)")
    parser.add_argument("--min-time", type=float, default=3.0, help="seconds a row (3)")
    parser.add_argument("--variant", action="append", help="only these (all)")
    parser.add_argument("--task", action="append", help="only these (each, and all together)")
    parser.add_argument("--no-memory", action="store_true", help="start no further processes")
    parser.add_argument("--no-save", action="store_true", help="leave the folder as it is")
    given = parser.parse_args(words)
    try:
        batches = [int(number) for number in given.batches.split(",")]
    except ValueError:
        raise ArgumentError("batches", "be whole numbers such as 1,8", given.batches) from None
    found = bench(
        given.folder,
        variants=split_names(given.variant),
        tasks=split_names(given.task),
        threads=given.threads,
        batches=batches,
        min_time=given.min_time,
        memory=not given.no_memory,
    )
    about = found["machine"]
    flags = " ".join(about["flags"])
    sys.stdout.write(f"{about['device']} ({flags}), ONNX Runtime {about['onnxruntime']}\n")
    busy = about["load_average_before"]
    idle = "" if busy is None or busy < 0.5 else ": the machine was busy"
    sys.stdout.write(f"load average before: {busy}{idle}\n")
    columns = list(found["rows"][0])
    rows = [[row[column] for column in columns] for row in found["rows"]]
    print_table(f"Latency in ms, {given.threads} thread(s)", columns, rows)
    if not given.no_save:
        save(given.folder, found)
    return 0


def _chosen(manifest: Mapping[str, Any], variants: Sequence[str] | None) -> list[dict[str, Any]]:
    known = {variant["id"]: variant for variant in manifest["variants"]}
    for name in variants or ():
        if name not in known:
            raise UnknownNameError("variant", name, known)
    return [known[name] for name in variants or known]


def _runner(predictor: Predictor, arrays: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: predictor.run(arrays)


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
