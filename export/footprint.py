"""One prediction in a process of its own, for ``bench``: prints its memory as JSON."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from export.runtime import Predictor

Array: TypeAlias = NDArray[Any]

ALL = "all"
"""Stands for every task, run one after the other where each has its own graph."""


def main(words: Sequence[str]) -> int:
    """Predict the first golden sample once.

    Args:
        words: folder, variant, task or ``all``, threads.
    """
    folder, variant, task, threads = words
    predictor = Predictor(folder, variant, None if task == ALL else [task], threads=int(threads))
    predictor.run(samples(folder, predictor.manifest, int(predictor.static or 1)))
    sys.stdout.write(json.dumps({"start_cpu_s": round(time.process_time(), 3), **memory()}))
    return 0


def samples(folder: Path | str, manifest: Mapping[str, Any], batch: int) -> dict[str, Array]:
    """`batch` samples out of the golden ones, repeated as needed."""
    with np.load(Path(folder) / manifest["golden"]["inputs"], allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    return {name: array[np.arange(batch) % len(array)] for name, array in arrays.items()}


def memory() -> dict[str, float]:
    """Resident memory of this process now and at its largest, in MB of 10⁶ bytes.

    Empty where the system has no ``/proc/self/status``.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return {}
    held = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    kibibytes = {key: int(held[key].split()[0]) for key in ("VmRSS", "VmHWM") if key in held}
    return {
        name: round(kibibytes[key] * 1024 / 1e6, 1)
        for name, key in (("resident_mb", "VmRSS"), ("peak_mb", "VmHWM"))
        if key in kibibytes
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
