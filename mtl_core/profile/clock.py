"""Times of several functions, measured so that whatever slows the machine meets all alike."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from mtl_core.errors import ArgumentError, UnknownNameError


class Timing(NamedTuple):
    """Median over rounds.

    Args:
        seconds: wall time.
        cpu_seconds: of all threads together; None where another device works.
        ratio: of a round's time (CPU time where known) to that of the reference.
    """

    seconds: float
    cpu_seconds: float | None
    ratio: float


def clock(
    functions: Mapping[str, Callable[[], Any]],
    reference: str,
    *,
    repeats: int,
    warmup: int = 2,
    device: torch.device | None = None,
    seed: int = 0,
) -> dict[str, Timing]:
    """Run every function once in every round, in an order drawn anew.

    Args:
        functions: by name.
        reference: the one that ratios are to.
        repeats: rounds that count.
        warmup: rounds that do not.
        device: that works; None is the CPU.
        seed: of the orders.

    Raises:
        ArgumentError: there is no round.
        UnknownNameError: there is no such reference.
    """
    if repeats < 1:
        raise ArgumentError("repeats", "be at least 1", repeats)
    if reference not in functions:
        raise UnknownNameError("reference", reference, functions)
    device = device or torch.device("cpu")
    draw = random.Random(seed)
    walls: dict[str, list[float]] = {name: [] for name in functions}
    works: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warmup + repeats):
        for name in draw.sample(list(functions), len(functions)):
            wall, work = _once(functions[name], device)
            if number >= warmup:
                walls[name].append(wall)
                works[name].append(work)
    shown = works if device.type == "cpu" else walls
    return {
        name: Timing(
            statistics.median(walls[name]),
            statistics.median(works[name]) if device.type == "cpu" else None,
            statistics.median(
                a / b for a, b in zip(shown[name], shown[reference], strict=True) if b > 0
            ),
        )
        for name in functions
    }


def _once(function: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall, work = time.perf_counter(), time.process_time()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - work
