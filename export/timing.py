"""CPU time of graphs against each other."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from export.parity import graph_inputs, session

SHORTEST = 0.01
"""Seconds that are timed at once, at least."""


def race(
    graphs: Mapping[str, Path | str],
    inputs: Mapping[str, NDArray[Any]],
    *,
    rounds: int = 20,
    warm_ups: int = 3,
) -> dict[str, float]:
    """Least CPU milliseconds of this thread that each graph needs, in interleaved rounds.

    Args:
        graphs: by name; all take `inputs`, or some of them.
        inputs: by name.
        rounds: that count.
        warm_ups: before, at least 1.
    """
    opened = {name: session(path) for name, path in graphs.items()}
    fed = {name: graph_inputs(held, inputs) for name, held in opened.items()}
    counts = dict.fromkeys(graphs, 1)
    for name, held in opened.items():
        for _ in range(warm_ups):
            start = time.perf_counter()
            held.run(None, fed[name])
            # Clocks of threads are coarse on some systems.
            counts[name] = max(1, round(SHORTEST / (time.perf_counter() - start + 1e-9)))
    best = dict.fromkeys(graphs, float("inf"))
    for _ in range(rounds):
        for name, held in opened.items():
            start = time.thread_time()
            for _ in range(counts[name]):
                held.run(None, fed[name])
            best[name] = min(best[name], (time.thread_time() - start) * 1e3 / counts[name])
    return best
